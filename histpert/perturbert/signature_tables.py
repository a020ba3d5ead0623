"""Signatures from tidy tables: a row per perturbation and gene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from histpert.errors import InputError
from histpert.name_tables import read_tidy_table
from histpert.perturbert.corpus import Signatures, SignatureSource
from histpert.wording import some

__all__ = ["table_signatures"]


def table_signatures(path: Path, cell_line: str) -> SignatureSource:
    """Signatures of a table with columns `perturbation`, `gene` and `z_score`, and maybe `cell_line`.

    A table may list some genes of a signature only, such as those of a significant change: the others that it lists
    anywhere in the same cell line count as unchanged, z = 0. In the place of `z_score` there may be `rank`, 1 for the
    most up-regulated gene: with n genes listed in the cell line it becomes the normal quantile of 1 - (rank - 1/2) / n,
    and what is not ranked counts as unchanged.

    Args:
        path: A .parquet, .csv or .tsv file.
        cell_line: Of a table without that column.

    Raises:
        InputError: A column is missing, a value is no number, or a gene stands twice in a signature.
    """
    table = read_tidy_table(path, "--signatures", "signatures")
    value = next((name for name in ("z_score", "rank") if name in table.columns), "z_score")
    lacking = [name for name in ("perturbation", "gene", value) if name not in table.columns]
    if lacking:
        raise InputError(
            f"{path} has no column {', '.join(lacking)}; it has {some(table.columns)}: signatures need perturbation, "
            "gene and z_score (or rank), a row for each gene"
        )
    if "cell_line" not in table.columns:
        table = table.assign(cell_line=cell_line)
    table = table[["cell_line", "perturbation", "gene", value]].astype({"cell_line": object, "perturbation": object})
    names = table[["cell_line", "perturbation", "gene"]]
    named = (names.notna() & (names != "")).all(axis=1)
    notes = [] if named.all() else [f"{path.name}: {(~named).sum():,} rows name no perturbation, gene or cell line"]
    table = table[named].astype({"cell_line": str, "perturbation": str, "gene": str})
    numbers = pd.to_numeric(table[value], errors="coerce")
    if numbers.isna().any() or not len(table):
        row = table[numbers.isna()].iloc[0] if len(table) else None
        what = "no row" if row is None else f"{row[value]!r} for {row['perturbation']}, gene {row['gene']}"
        raise InputError(f"{path}: column {value} has {what}: it needs a number in each row")
    table[value] = numbers
    twice = table.duplicated(["cell_line", "perturbation", "gene"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{path}: gene {row['gene']} stands twice for {row['perturbation']} in {row['cell_line']}: one row each"
        )
    genes = tuple(sorted(table["gene"].unique()))
    return SignatureSource(path.name.split(".")[0], genes, lambda: _parts(path, table, value, genes), tuple(notes))


def _parts(path: Path, table: pd.DataFrame, value: str, genes: tuple[str, ...]) -> Iterator[Signatures]:
    """The signatures of a cell line at a time."""
    for cell_line, rows in table.groupby("cell_line", sort=True):
        measured = np.isin(genes, rows["gene"].unique())
        names, signature = np.unique(rows["perturbation"].to_numpy(str), return_inverse=True)
        z = np.full((len(names), len(genes)), np.nan, np.float32)
        z[:, measured] = 0
        scores = rows[value].to_numpy(float)
        if value == "rank":
            scores = _of_ranks(path, scores, int(measured.sum()))
        z[signature, np.searchsorted(genes, rows["gene"].to_numpy(str))] = scores
        yield Signatures(names.tolist(), [str(cell_line)] * len(names), z)


def _of_ranks(path: Path, ranks: np.ndarray, n_genes: int) -> np.ndarray:
    if ranks.min() < 1 or ranks.max() > n_genes:
        raise InputError(
            f"{path}: ranks run from {ranks.min():g} to {ranks.max():g}: of {n_genes:,} genes, 1 is "
            "the most up-regulated"
        )
    return norm.isf((ranks - 0.5) / n_genes)
