"""Signatures of a Perturb-seq screen: how many standard errors a perturbation moves each gene's mean.

A z-score over all cells of a perturbation grows with the root of their number, and its bins would tell how large a
group is. Here every signature is of equally many cells: a perturbation with many gives several signatures, of cells
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from histpert.errors import InputError
from histpert.perturbert.corpus import Signatures, SignatureSource
from histpert.screens import ReadOptions, Screen, read_screen
from histpert.screens.files import open_screen_file
from histpert.wording import every, some

__all__ = ["ScreenSignatureOptions", "read_screen_signatures", "screen_signatures"]


@dataclass(frozen=True)
class ScreenSignatureOptions:
    """How the cells of a screen become signatures."""

    cells_per_signature: int = 50
    """Cells of each signature, in each replicate where there are replicates; perturbations with fewer are left out."""
    replicate_column: str | None = None
    """Column of `obs` that names replicates: a signature is then the mean over replicates of the shift from control of
    the same replicate, over its standard error. Default: Student's t over cells."""

    def __post_init__(self):
        if self.cells_per_signature < 2:
            raise InputError(f"--cells-per-signature {self.cells_per_signature}: must be 2 or more")


def read_screen_signatures(
    path: Path, cell_line: str, read: ReadOptions, options: ScreenSignatureOptions, seed: int
) -> SignatureSource:
    """Signatures of a screen's file.

    Raises:
        InputError: As `read_screen` and `screen_signatures`; a column of replicates that is missing or has one value.
    """
    if options.replicate_column is None:
        return screen_signatures([read_screen(path, read)], cell_line, options, seed)
    values = _replicates(path, read, options.replicate_column)
    if len(values) < 2:
        raise InputError(f"{path}: column {options.replicate_column!r} has one value, {values[0]}: no replicates there")
    filters = [f"`{options.replicate_column}` == {value!r}" for value in values]
    if read.cell_filter:
        filters = [f"({read.cell_filter}) and {one}" for one in filters]
    screens = [read_screen(path, replace(read, cell_filter=one)) for one in filters]
    return screen_signatures(screens, cell_line, options, seed)


def _replicates(path: Path, read: ReadOptions, column: str) -> list[str | int]:
    with open_screen_file(path, read.layer, read.gene_column, read.cell_table) as file:
        if column not in file.obs:
            raise InputError(f"{path} has no column {column!r} (--replicate-column); columns of obs: {every(file.obs)}")
        return file.obs[column].dropna().drop_duplicates().sort_values().tolist()


class _Moments(NamedTuple):
    """Of the signatures' cells, gene by gene."""

    mean: Float[np.ndarray, "signature gene"]
    variance: Float[np.ndarray, "signature gene"]


def screen_signatures(
    screens: Sequence[Screen], cell_line: str, options: ScreenSignatureOptions, seed: int
) -> SignatureSource:
    """Signatures of the perturbations of a screen, each of as many cells as the next.

    With one screen: `(m_p - m_c) / sqrt(s^2 (1 / n + 1 / n_c))` gene by gene, of means of log-normalized expression
    over n drawn cells and over all control cells, s^2 being the variance of both, pooled (Student). A variance of the
    drawn cells' own, as in Welch's test, would be none where a rare gene is seen in none of them: over 50 control cells
    of Papalexi 2021 against the others, one value in sixty is below -5 so, and the deviation is 1.6, not 1.0.

    With one screen per replicate: the mean of the replicates' shifts from their own control, over
    `s / sqrt(replicates)`, where s^2 is the variance between replicates of a perturbation, averaged over all
    perturbations, which a few replicates could not tell one by one. A gene that varies nowhere has z = 0.

    Args:
        screens: The screen, or its replicates.
        cell_line: Name for all of them.
        options: Number of cells.
        seed: Which cells are drawn.

    Raises:
        InputError: No perturbation has enough cells, or replicates have unlike genes.
    """
    first, n_cells = screens[0], options.cells_per_signature
    if any(screen.genes != first.genes for screen in screens):
        raise InputError(f"{first.name}: its replicates have unlike genes: leave out --min-control-detection")
    sizes = [dict(zip(screen.perturbations, screen.n_cells[1:].tolist(), strict=True)) for screen in screens]
    names = sorted({name for size in sizes for name in size})
    n_signatures = {name: min(size.get(name, 0) // n_cells for size in sizes) for name in names}
    few = [name for name in names if not n_signatures[name]]
    usable = [name for name in names if n_signatures[name]]
    if not usable:
        largest = max(min(size.get(name, 0) for size in sizes) for name in names)
        raise InputError(
            f"{first.name}: no perturbation has {n_cells} cells{_in_each(screens)}, the largest has {largest}: lower "
            "--cells-per-signature"
        )
    labels = [name for name in usable for _ in range(n_signatures[name])]
    shifts, errors = zip(*(_shifts(screen, n_signatures, n_cells, seed) for screen in screens), strict=True)
    z = _over(shifts[0], errors[0]) if len(screens) == 1 else _over_replicates(np.stack(shifts))
    notes = (
        *first.notes,
        f"{len(labels)} signatures of {n_cells} cells each{_in_each(screens)}, of {len(usable)} perturbations",
        *([f"{len(few)} perturbations have fewer cells and no signature: {some(few)}"] if few else []),
    )
    part = Signatures(labels, [cell_line] * len(labels), z)
    return SignatureSource(first.name, first.genes, lambda: iter([part]), notes)


def _in_each(screens: Sequence[Screen]) -> str:
    return f" in each of {len(screens)} replicates" if len(screens) > 1 else ""


def _shifts(
    screen: Screen, n_signatures: dict[str, int], n_cells: int, seed: int
) -> tuple[Float[np.ndarray, "signature gene"], Float[np.ndarray, "signature gene"]]:
    """Shifts of means from control, and their standard errors."""
    drawn = _drawn(screen, n_signatures, n_cells, seed)
    perturbed, control = (
        _moments(screen.expression, drawn),
        _moments(screen.control, np.arange(screen.n_cells[0])[None]),
    )
    n_control = int(screen.n_cells[0])
    pooled = (n_cells - 1) * perturbed.variance + (n_control - 1) * control.variance
    variance = pooled / (n_cells + n_control - 2) * (1 / n_cells + 1 / n_control)
    return perturbed.mean - control.mean, np.sqrt(variance)


def _drawn(screen: Screen, n_signatures: dict[str, int], n_cells: int, seed: int) -> Int[np.ndarray, "signature cell"]:
    """Rows of the cells of each signature; none is in two."""
    rows = []
    for group, name in enumerate(screen.perturbations, start=1):
        if n_signatures[name]:
            cells = np.random.default_rng([seed, group]).permutation(screen.n_cells[group]) + screen.group_start[group]
            rows.append(cells[: n_signatures[name] * n_cells].reshape(-1, n_cells))
    return np.concatenate(rows)


def _moments(expression: sp.csr_matrix, rows: Int[np.ndarray, "signature cell"]) -> _Moments:
    """Means and unbiased variances over the cells of each row."""
    n_cells = rows.shape[1]
    places = np.repeat(np.arange(len(rows)), n_cells)
    shape = (len(rows), expression.shape[0])  # pyright: ignore[reportOptionalSubscript]
    chosen: Any = sp.csr_matrix((np.ones(rows.size), (places, rows.reshape(-1))), shape)
    values: Any = expression.astype(np.float64)
    total, squares = (chosen @ values).toarray(), (chosen @ values.multiply(values)).toarray()
    mean = total / n_cells
    # Rounding may leave a gene that does not vary some variance.
    variance = (squares - n_cells * mean**2) / (n_cells - 1)
    return _Moments(mean, np.where(variance > 1e-12 * squares / n_cells, variance, 0.0))


def _over(shift: Float[np.ndarray, "*any"], error: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return np.divide(shift, error, out=np.zeros_like(shift), where=error > 0).astype(np.float32)


def _over_replicates(shifts: Float[np.ndarray, "replicate signature gene"]) -> Float[np.ndarray, "signature gene"]:
    between = shifts.var(axis=0, ddof=1).mean(axis=0)
    mean = shifts.mean(axis=0)
    return _over(mean, np.broadcast_to(np.sqrt(between / len(shifts)), mean.shape))
