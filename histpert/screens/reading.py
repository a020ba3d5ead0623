"""Reading a Perturb-seq screen from `.h5ad`: which cell is what, which cells and genes count, on which scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from histpert.errors import InputError
from histpert.screens.normalization import log_normalize
from histpert.screens.screen import Screen, group_cells

__all__ = ["LIBRARY_SIZE", "ReadOptions", "read_screen"]

CONVENTIONS = (("perturbation", ("control", "ctrl")), ("condition", ("ctrl", "control")))
"""Columns of `obs` that hold the perturbation, and what control cells are called there, in the order tried."""

LIBRARY_SIZE = "library_size"
"""Column of `obs` that is taken for each cell's total count where none is named."""

COMBINATION = "+"
"""Stands for the label of a cell with several perturbed genes."""


@dataclass(frozen=True)
class ReadOptions:
    """How a screen's file is read. What is not given is guessed, and the guess is noted."""

    perturbation_column: str | None = None
    """Column of `obs` with the perturbed gene; guessed: `perturbation` or `condition`."""
    control_label: str | None = None
    """What control cells are called in that column; guessed: `control` or `ctrl`."""
    library_size_column: str | None = None
    """Column of `obs` with each cell's total count; default: `library_size`, or else the sum of the counts in the
    file."""
    cell_filter: str | None = None
    """Cells to keep, as an expression on columns of `obs`: "guide_frac > 0.8 and guide_umi_max >= 5"."""
    min_control_detection: float = 0.0
    """Keep genes seen in more than this fraction of control cells."""


def read_screen(path: str | Path, options: ReadOptions | None = None) -> Screen:
    """Read the control cells and the cells with a single perturbation.

    Raw counts become `log1p(count / library size * 10,000)`; values that are log-normalized already are kept. Cells
    with several perturbed genes (`A+B`) or no label are counted in the notes and left out.

    Args:
        path: An `.h5ad` file.
        options: Columns, labels and filters; what is not given is guessed.

    Raises:
        InputError: The file, a column or a label is missing, the filter is invalid or leaves no cells or genes, or the
            values are neither counts nor log-normalized.
    """
    options = options or ReadOptions()
    path = Path(path)
    data = _open(path)
    all_cells = cast("pd.DataFrame", data.obs)
    kept = _filtered_cells(all_cells, options.cell_filter, path)
    obs = all_cells.iloc[kept]
    column, control = _perturbation_column(all_cells, options, path)
    given = zip(obs[column].astype(str), obs[column].notna(), strict=True)
    labels = [_single_gene(label, control) if known else None for label, known in given]
    notes = [
        f"perturbation column {column!r}, control label {control!r}",
        *_left_out(len(all_cells), kept, obs[column], labels),
    ]
    values = sp.csr_matrix(cast("sp.csr_matrix", data.X)[kept])
    values.sum_duplicates()
    size_column = options.library_size_column or (LIBRARY_SIZE if LIBRARY_SIZE in obs else None)
    library_size = _library_size(obs, size_column, path)
    guessed = options.library_size_column is None
    expression, scale = log_normalize(values, library_size, str(path), guessed=guessed)
    screen = group_cells(
        expression,
        [None if label == COMBINATION else label for label in labels],
        [str(gene) for gene in data.var_names],
        path.stem,
        (*notes, scale),
    )
    return _detected_genes(screen, options.min_control_detection)


def _open(path: Path) -> anndata.AnnData:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}: a screen is read from an .h5ad file")
    try:
        data = anndata.read_h5ad(path)
    except Exception as error:  # anndata and h5py raise many kinds for a file that is not what it should be
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as .h5ad: {reason}") from error
    if data.X is None:
        raise InputError(f"{path} has no expression matrix in X")
    twice = data.var_names[data.var_names.duplicated()]
    if len(twice):
        raise InputError(f"{path}: gene {twice[0]!r} stands more than once in var_names; make them unique")
    return data


def _filtered_cells(obs: pd.DataFrame, expression: str | None, path: Path) -> np.ndarray:
    """Row numbers of the cells that the filter keeps."""
    if expression is None:
        return np.arange(len(obs))
    try:
        passes = obs.eval(expression)
    except Exception as error:  # pandas passes on whatever the expression raises
        raise InputError(f"--cell-filter {expression!r}: {error}; columns of obs in {path}: {_listed(obs)}") from error
    if not (isinstance(passes, pd.Series) and pd.api.types.is_bool_dtype(passes)):
        raise InputError(
            f"--cell-filter {expression!r} is not true or false per cell: write a comparison, as in 'n_umi > 500'"
        )
    kept = np.flatnonzero(passes.fillna(False))
    if not len(kept):
        raise InputError(f"--cell-filter {expression!r} keeps none of the {len(obs):,} cells of {path}")
    return kept


def _perturbation_column(obs: pd.DataFrame, options: ReadOptions, path: Path) -> tuple[str, str]:
    """The column that holds the perturbation, and its label for control cells."""
    column, control = options.perturbation_column, options.control_label
    conventions = CONVENTIONS if column is None else ((column, (control,) if control else ("control", "ctrl")),)
    for name, controls in conventions:
        if name not in obs:
            continue
        present = set(obs[name].dropna().astype(str))
        for label in (control,) if control else controls:
            if label in present:
                return name, label
    if column is not None and column not in obs:
        raise InputError(f"{path} has no column {column!r} in obs; columns there: {_listed(obs)}")
    found = next((name for name, _ in conventions if name in obs), None)
    if found is None:
        raise InputError(
            f"{path}: no perturbation column was recognized; name it with --perturbation-column; "
            f"columns of obs: {_listed(obs)}"
        )
    wanted = repr(control) if control else "'control' or 'ctrl'"
    common = ", ".join(obs[found].value_counts().index[:5].astype(str))
    raise InputError(
        f"{path}: column {found!r} has no control cells labelled {wanted}; name the label with --control-label; "
        f"most common: {common}"
    )


def _single_gene(label: str, control: str) -> str | None:
    """The perturbed gene, "" for control, None without a label; `A+ctrl` is `A`."""
    if not label.strip():
        return None
    if label == control:
        return ""
    genes = _genes(label) - {control, ""}
    if len(genes) > 1:
        return COMBINATION
    return next(iter(genes), "")


def _genes(label: object) -> frozenset[str]:
    return frozenset(part.strip() for part in str(label).split("+"))


def _left_out(n_cells: int, kept: np.ndarray, column: pd.Series, labels: list[str | None]) -> list[str]:
    """A note for each kind of cell that is not used."""
    notes = []
    if len(kept) < n_cells:
        notes.append(f"cell filter keeps {len(kept):,} of {n_cells:,} cells")
    combined = np.array([label == COMBINATION for label in labels])
    if combined.any():
        n_combinations = column[combined].map(_genes).nunique()
        notes.append(f"left out {n_combinations:,} combinations of perturbations ({combined.sum():,} cells)")
    if unlabelled := labels.count(None):
        notes.append(f"left out {unlabelled:,} cells without a label")
    return notes


def _library_size(obs: pd.DataFrame, column: str | None, path: Path) -> np.ndarray | None:
    if column is None:
        return None
    if column not in obs:
        raise InputError(
            f"{path} has no column {column!r} in obs (--library-size-column); columns there: {_listed(obs)}"
        )
    sizes = pd.to_numeric(obs[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if not (sizes > 0).all():
        raise InputError(
            f"{path}: column {column!r} is not a positive number for {np.sum(~(sizes > 0)):,} cells; "
            "filter them or name another column"
        )
    return sizes


def _detected_genes(screen: Screen, min_control_detection: float) -> Screen:
    """Genes seen in more than this fraction of control cells: chosen on control alone, so that no fold leaks."""
    if not 0 <= min_control_detection < 1:
        raise InputError(f"--min-control-detection {min_control_detection}: give a fraction from 0 up to 1")
    if min_control_detection == 0:
        return screen
    kept = screen.control.getnnz(axis=0) > min_control_detection * screen.n_cells[0]
    if not kept.any():
        raise InputError(f"--min-control-detection {min_control_detection}: no gene is seen in that many control cells")
    return screen.with_genes(kept).with_notes(
        f"{kept.sum():,} of {len(kept):,} genes are seen in more than {min_control_detection:.3g} of the control cells"
    )


def _listed(obs: pd.DataFrame) -> str:
    return ", ".join(map(str, obs.columns)) or "none"
