"""Reading a Perturb-seq screen: which cell is what, which cells and genes count, on which scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.screens.cell_filter import filtered_cells
from histpert.screens.files import open_screen_file
from histpert.screens.labels import read_labels
from histpert.screens.opened import OpenScreen
from histpert.screens.screen import Screen, group_rows
from histpert.screens.working_space import WorkingSpace
from histpert.threads import Progress, silent
from histpert.wording import every

__all__ = ["LIBRARY_SIZE", "ReadOptions", "open_screen", "read_screen"]

LIBRARY_SIZE = "library_size"
"""Column of `obs` that is taken for each cell's total count where none is named and it can be that."""


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
    combinations: bool = False
    """Keep cells with several perturbed genes, `A+B`, too; `B+A` is the same."""
    min_control_detection: float = 0.0
    """Keep genes seen in more than this fraction of control cells."""

    def __post_init__(self):
        for name in ("guide_table", "cell_table"):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, absolute(path, f"--{name.replace('_', '-')}"))


def read_screen(path: str | Path, options: ReadOptions | None = None, space: WorkingSpace | None = None) -> Screen:
    """Read the control cells and the cells with a single perturbation, or with combinations too.

    Raw counts become `log1p(count / library size * 10,000)`; values that are log-normalized already are kept. Cells
    that are not wanted, and those without a label, are counted in the notes and left out.

    Args:
        path: `.h5ad`, `.zarr`, a 10x `.h5`, or a folder of a 10x `matrix.mtx`.
        options: Columns, labels and filters; what is not given is guessed.
        space: Where values lie; by default in memory, however many.

    Raises:
        InputError: The file, a column or a label is missing, the filter is invalid or leaves no cells or genes, or the
            values are neither counts nor log-normalized.
    """
    with open_screen(path, options, space) as opened:
        return opened.read()


@contextmanager
def open_screen(
    path: str | Path,
    options: ReadOptions | None = None,
    space: WorkingSpace | None = None,
    progress: Progress = silent,
) -> Iterator[OpenScreen]:
    """A screen of which it is known what each cell is, and whose values are yet to be read; as `read_screen`."""
    options, path = options or ReadOptions(), Path(path)
    if not 0 <= options.min_control_detection < 1:
        raise InputError(f"--min-control-detection {options.min_control_detection}: give a fraction from 0 up to 1")
    with open_screen_file(path, options.layer, options.gene_column, options.cell_table) as file:
        kept = filtered_cells(file.obs, options.cell_filter, path)
        names = options.perturbation_column, options.control_label, options.guide_table
        labels = read_labels(file.obs, kept, *names, path, options.combinations)
        groups = group_rows(labels.targets, str(path))
        notes = [*file.notes, *labels.notes]
        if len(kept) < len(file.obs):
            notes.append(f"cell filter keeps {len(kept):,} of {len(file.obs):,} cells")
        yield OpenScreen(
            name=path.stem,
            matrix=file.matrix,
            all_genes=file.genes,
            groups=groups._replace(rows=kept[groups.rows]),
            library_size=_library_size(file.obs, kept, options.library_size_column, path),
            library_size_guessed=options.library_size_column is None,
            min_control_detection=options.min_control_detection,
            obs=file.obs,
            labels=labels,
            notes=tuple(notes),
            space=space or WorkingSpace(),
            progress=progress,
        )


def _library_size(
    obs: pd.DataFrame, kept: Int[np.ndarray, "kept"], column: str | None, path: Path
) -> Float[np.ndarray, "cell"] | None:
    """Total counts: of the named column, or of one that may be it; whether a guess can be is seen beside the counts."""
    guessed, column = column is None, column or LIBRARY_SIZE
    if guessed and column not in obs:
        return None
    if column not in obs:
        raise InputError(f"{path} has no column {column!r} in obs (--library-size-column); columns there: {every(obs)}")
    sizes = pd.to_numeric(obs[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    odd = ~((sizes > 0) & np.isfinite(sizes))[kept]
    if not guessed and odd.any():
        raise InputError(
            f"{path}: column {column!r} is not a positive number for {odd.sum():,} cells; "
            "filter them or name another column"
        )
    return sizes
