"""Signatures of the L1000 assay: level 5 of the Connectivity Map, a `.gctx` file and the tables beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from histpert.errors import InputError
from histpert.name_tables import read_name_table
from histpert.perturbert.corpus import Signatures, SignatureSource
from histpert.wording import reason, some

__all__ = ["gctx_signatures"]

_MATRIX, _GENES, _COLUMNS = "0/DATA/0/matrix", "0/META/ROW", "0/META/COL"
_SYMBOL = ("pr_gene_symbol", "gene_symbol")
_GENE_ID = ("pr_gene_id", "gene_id")
_PERTURBATION = ("pert_iname", "cmap_name")
_CELL_LINE = ("cell_id", "cell_iname")
ROWS_AT_ONCE = 4096


class _Labels(NamedTuple):
    genes: list[str]
    perturbations: list[str]
    cell_lines: list[str]


def gctx_signatures(
    path: Path, signature_info: Path | None = None, gene_info: Path | None = None, genes: frozenset[str] | None = None
) -> SignatureSource:
    """Signatures of a `.gctx` file, read some thousand at a time.

    Names of genes, perturbations and cell lines stand in the file itself, or in the tables that are published with it
    (`..._sig_info.txt`, `siginfo_beta.txt`; `..._gene_info.txt`, `geneinfo_beta.txt`).

    Args:
        path: The file.
        signature_info: Table with `sig_id`, `pert_iname` or `cmap_name`, and `cell_id` or `cell_iname`.
        gene_info: Table with `pr_gene_id` or `gene_id`, and `pr_gene_symbol` or `gene_symbol`.
        genes: Those to read; all by default, imputed ones too.

    Raises:
        InputError: The file lacks a field, or no table names what it lacks.
    """
    labels = _labels(path, signature_info, gene_info)
    columns = np.flatnonzero([gene != "" and (genes is None or gene in genes) for gene in labels.genes])
    if not len(columns):
        raise InputError(f"{path} has none of the genes asked for; it has {some(labels.genes, 3)}")
    kept = tuple(labels.genes[column] for column in columns)
    if len(set(kept)) < len(kept):
        twice = next(gene for number, gene in enumerate(kept) if gene in kept[:number])
        raise InputError(f"{path}: gene {twice} stands there more than once: name the genes to read with --vocabulary")
    usable = np.array([bool(name and line) for name, line in zip(*labels[1:], strict=True)])
    notes = () if usable.all() else (f"{path.name}: {(~usable).sum():,} signatures name no perturbation or cell line",)

    def parts() -> Iterator[Signatures]:
        import h5py  # noqa: PLC0415 (slow to load, and only these files need it)

        with h5py.File(path, "r") as file:
            matrix: Any = file[_MATRIX]
            for first in range(0, len(usable), ROWS_AT_ONCE):
                rows = np.flatnonzero(usable[first : first + ROWS_AT_ONCE])
                z = np.asarray(matrix[first : first + ROWS_AT_ONCE], np.float32)[rows][:, columns]
                z[np.abs(z) > 1e5] = np.nan  # -666 and the like stand for missing elsewhere in these files
                names, lines = ([each[first + row] for row in rows] for each in labels[1:])
                yield Signatures(names, lines, z)

    return SignatureSource(path.name.split(".")[0], kept, parts, notes)


def _labels(path: Path, signature_info: Path | None, gene_info: Path | None) -> _Labels:
    import h5py  # noqa: PLC0415

    try:
        with h5py.File(path, "r") as file:
            for field in (_MATRIX, f"{_GENES}/id", f"{_COLUMNS}/id"):
                if field not in file:
                    raise InputError(f"{path} has no field {field}: a .gctx file of level 5 has it; this one is none")
            shape = file[_MATRIX].shape  # pyright: ignore[reportAttributeAccessIssue]
            ids = {where: _text(file[where]["id"]) for where in (_GENES, _COLUMNS)}  # pyright: ignore
            if shape != (len(ids[_COLUMNS]), len(ids[_GENES])):
                raise InputError(
                    f"{path}: the matrix is {shape[0]:,} x {shape[1]:,}, for {len(ids[_COLUMNS]):,} signatures of "
                    f"{len(ids[_GENES]):,} genes"
                )
            inside = {
                wanted: next((_text(file[where][name]) for name in wanted if name in file[where]), None)  # pyright: ignore
                for where, wanted in ((_GENES, _SYMBOL), (_COLUMNS, _PERTURBATION), (_COLUMNS, _CELL_LINE))
            }
    except OSError as error:
        raise InputError(f"{path} cannot be read as .gctx: {reason(error)}") from error
    symbols = inside[_SYMBOL] or _looked_up(path, ids[_GENES], gene_info, "--gene-info", _GENE_ID, _SYMBOL)
    about = "--signature-info", ("sig_id",)
    perturbations, cell_lines = (
        inside[wanted] or _looked_up(path, ids[_COLUMNS], signature_info, *about, wanted)
        for wanted in (_PERTURBATION, _CELL_LINE)
    )
    return _Labels(symbols, perturbations, cell_lines)


def _text(data: Any) -> list[str]:
    values = data[...]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]


def _looked_up(
    path: Path, ids: list[str], table: Path | None, flag: str, key: tuple[str, ...], wanted: tuple[str, ...]
) -> list[str]:
    """Names by id from a table, empty for an id that is not there."""
    if table is None:
        raise InputError(
            f"{path} has no field {' or '.join(wanted)}: name the table that is published beside it with {flag}"
        )
    rows = read_name_table(table, flag)
    columns = [next((name for name in names if name in rows.columns), None) for names in (key, wanted)]
    if None in columns:
        raise InputError(
            f"{flag} {table} needs the columns {' or '.join(key)} and {' or '.join(wanted)}; it has "
            f"{some(rows.columns)}"
        )
    of_id = dict(zip(*(rows[name] for name in columns), strict=True))
    found = [of_id.get(one, "") for one in ids]
    if not any(found):
        raise InputError(f"{flag} {table} names none of the ids of {path}: it has {some(of_id, 3)}, not {some(ids, 3)}")
    return ["" if name == "-666" else name for name in found]
