"""Reading a Perturb-seq screen: which cell is what, which cells and genes count, on which scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.screens.cell_filter import filtered_cells
from histpert.screens.files import open_screen_file
from histpert.screens.labels import read_labels
from histpert.screens.normalization import log_normalize
from histpert.screens.screen import Screen, group_rows
from histpert.wording import every, some

__all__ = ["LIBRARY_SIZE", "ReadOptions", "read_screen"]

LIBRARY_SIZE = "library_size"
"""Column of `obs` that is taken for each cell's total count where none is named and it can be that."""
FEW_CELLS = 10
"""Perturbations with fewer cells are named in a note."""


@dataclass(frozen=True)
class ReadOptions:
    """How a screen's file is read. What is not given is guessed, and the guess is noted."""

    perturbation_column: str | None = None
    """Column of `obs` with the perturbed gene; guessed: `perturbation`, `condition`, `target_gene`, `target` or
    `gene`."""
    control_label: str | None = None
    """What control cells are called in that column; guessed: `control`, `ctrl`, `non-targeting`."""
    guide_table: Path | None = None
    """Table (.csv, .tsv) of guides and their target genes, where cells are labelled by guides."""
    cell_table: Path | None = None
    """Table (.csv, .tsv) of cells, named in the first column, whose other columns are added to those of the file."""
    layer: str | None = None
    """Layer of the file to read, or `raw`; default: `X`."""
    gene_column: str | None = None
    """Column of `var` with gene names; guessed where genes are named by Ensembl ids."""
    library_size_column: str | None = None
    """Column of `obs` with each cell's total count; default: `library_size`, or else the sum of the counts in the
    file."""
    cell_filter: str | None = None
    """Cells to keep, as an expression on columns of `obs`: "guide_frac > 0.8 and guide_umi_max >= 5"."""
    min_control_detection: float = 0.0
    """Keep genes seen in more than this fraction of control cells."""

    def __post_init__(self):
        for name in ("guide_table", "cell_table"):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, absolute(path, f"--{name.replace('_', '-')}"))


def read_screen(path: str | Path, options: ReadOptions | None = None) -> Screen:
    """Read the control cells and the cells with a single perturbation.

    Raw counts become `log1p(count / library size * 10,000)`; values that are log-normalized already are kept. Cells
    with several perturbed genes (`A+B`) or no label are counted in the notes and left out.

    Args:
        path: `.h5ad`, `.zarr`, a 10x `.h5`, or a folder of a 10x `matrix.mtx`.
        options: Columns, labels and filters; what is not given is guessed.

    Raises:
        InputError: The file, a column or a label is missing, the filter is invalid or leaves no cells or genes, or the
            values are neither counts nor log-normalized.
    """
    options = options or ReadOptions()
    path = Path(path)
    with open_screen_file(path, options.layer, options.gene_column, options.cell_table) as file:
        kept = filtered_cells(file.obs, options.cell_filter, path)
        labels = read_labels(
            file.obs, kept, options.perturbation_column, options.control_label, options.guide_table, path
        )
        library_size = _library_size(file.obs.iloc[kept], options.library_size_column, path)
        groups = group_rows(labels.targets, str(path))
        expression, scale = log_normalize(
            file.matrix,
            None if library_size is None else library_size[groups.rows],
            rows=kept[groups.rows],
            guessed=options.library_size_column is None,
        )
        if not expression.nnz:
            raise InputError(
                f"{file.matrix.source}: all values are 0 in the cells that are used; name a layer with --layer"
            )
    notes = [*file.notes, *labels.notes]
    if len(kept) < len(file.obs):
        notes.append(f"cell filter keeps {len(kept):,} of {len(file.obs):,} cells")
    screen = Screen(path.stem, expression, file.genes, groups.perturbations, groups.start, (*notes, scale))
    return _detected_genes(screen.with_notes(*_oddities(screen)), options.min_control_detection)


def _oddities(screen: Screen) -> list[str]:
    """Notes on what is allowed, and yet is often a mistake."""
    notes = []
    few = [name for name, n_cells in zip(screen.perturbations, screen.n_cells[1:], strict=True) if n_cells < FEW_CELLS]
    if few:
        notes.append(f"{len(few):,} perturbations have fewer than {FEW_CELLS} cells: {some(few)}")
    unmeasured = sorted(set(screen.perturbations) - set(screen.genes))
    if unmeasured:
        notes.append(
            f"{len(unmeasured):,} of {len(screen.perturbations):,} perturbed genes are not among the genes measured: "
            f"{some(unmeasured)}"
        )
    return notes


def _library_size(obs: pd.DataFrame, column: str | None, path: Path) -> np.ndarray | None:
    """Total counts: of the named column, or of one that may be it; whether a guess can be is seen beside the counts."""
    guessed, column = column is None, column or LIBRARY_SIZE
    if guessed and column not in obs:
        return None
    if column not in obs:
        raise InputError(f"{path} has no column {column!r} in obs (--library-size-column); columns there: {every(obs)}")
    sizes = pd.to_numeric(obs[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    odd = ~((sizes > 0) & np.isfinite(sizes))
    if not guessed and odd.any():
        raise InputError(
            f"{path}: column {column!r} is not a positive number for {odd.sum():,} cells; "
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
