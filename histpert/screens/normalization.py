"""Telling raw counts from log-normalized values, and bringing both to one scale.

Cells are put in order with logarithms taken on the way, as counts mostly need. What only all cells together can tell,
such as that whole numbers are log-normalized values all the same, is rare, and has the matrix read again. Where cells
are shared out, facts of all shares are joined, so that the scale is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from histpert.errors import InputError
from histpert.screens.gathering import FRACTIONS, NEGATIVE, OUTSIDE, UNORDERED, ZEROS, compacted, gather
from histpert.screens.matrices import BLOCK_VALUES, CellMatrix
from histpert.screens.working_space import WorkingSpace
from histpert.threads import Progress, silent

__all__ = ["CellValues", "Facts", "Scale", "log_normalize", "note_on", "scale_of"]

MAX_LOG_VALUE = 20.0
"""No log-normalized value is larger: log1p of all of a cell's counts scaled to a hundred million is 18.4."""

ODD_SHARE = 0.05
"""Share of cells whose library size may be less than the sum of their counts, where the column is a guess."""


class Scale(Enum):
    """What values are, and what becomes of them."""

    LOGARITHMS = "values are log-normalized already"
    BY_SUM = "raw counts, normalized by their sum per cell"
    BY_COLUMN = "raw counts, normalized by the library size column"
    NOT_BY_COLUMN = "raw counts, normalized by their sum per cell: the column of library sizes cannot be that"

    @property
    def is_of_counts(self) -> bool:
        """Whether values are raw counts."""
        return self is not Scale.LOGARITHMS


@dataclass(frozen=True)
class Facts:
    """What some cells say about the scale of all.

    Attributes:
        n_cells: Cells.
        n_values: Values other than 0.
        fractions: Some value is not whole.
        least: The smallest value where any is negative, else 0.
        n_odd: Cells with NaN or infinite values.
        first_odd: Row of the first of them.
        outside: Some column is of no gene.
        n_less: Cells whose library size is less than the sum of their values.
        impossible: Some library size cannot be one.
    """

    n_cells: int
    n_values: int
    fractions: bool
    least: float
    n_odd: int
    first_odd: int
    outside: bool
    n_less: int
    impossible: bool

    @staticmethod
    def joined(facts: Iterable[Facts]) -> Facts:
        """The facts of all shares of the cells."""
        return reduce(
            lambda one, other: Facts(
                n_cells=one.n_cells + other.n_cells,
                n_values=one.n_values + other.n_values,
                fractions=one.fractions or other.fractions,
                least=min(one.least, other.least),
                n_odd=one.n_odd + other.n_odd,
                first_odd=min(one.first_odd, other.first_odd),
                outside=one.outside or other.outside,
                n_less=one.n_less + other.n_less,
                impossible=one.impossible or other.impossible,
            ),
            facts,
        )


class CellValues:
    """Values of some cells of a matrix, read in an order; the scale is taken for what it mostly is, until it is known.

    Args:
        matrix: Cells x genes.
        library_size: Total count of each cell that is taken, in the order of `rows`; None takes the sum over the genes.
        rows: Cells to take, in this order, each once; default: all.
        guessed: The library size is a guess, of no use for values that are log-normalized already, and not taken where
            it is less than the sum over the genes.
        space: Where values lie.
        progress: Told how much is read.

    Attributes:
        facts: What they say about the scale.
        totals: Sum of the values of each cell, as the matrix has them.
    """

    def __init__(
        self,
        matrix: CellMatrix,
        library_size: Float[np.ndarray, "cell"] | None,
        *,
        rows: Int[np.ndarray, "cell"] | None = None,
        guessed: bool = False,
        space: WorkingSpace | None = None,
        progress: Progress = silent,
    ):
        self._matrix, self._library_size, self._guessed = matrix, library_size, guessed
        self._space = space or WorkingSpace()
        self._rows = rows = np.arange(matrix.n_cells) if rows is None else rows
        self._gathered = gather(matrix, rows, library_size, self._space, progress=progress)
        found = np.any(self._gathered.found, axis=0).tolist()
        if found[UNORDERED] and not found[OUTSIDE]:
            del self._gathered
            self._matrix = matrix.tidied()
            self._gathered = gather(self._matrix, rows, library_size, self._space, progress=progress)
        self.facts = self._facts()
        self.totals = self._gathered.totals

    def n_detected(self, n_cells: int) -> Int[np.ndarray, "gene"]:
        """Of the first `n_cells` cells, those in which each gene is seen; none where the matrix is damaged."""
        expression, n_genes = self._gathered.expression, self._matrix.n_genes
        end = 0 if self.facts.outside else int(expression.indptr[n_cells])
        seen = np.zeros(n_genes, dtype=np.int64)
        for first in range(0, end, BLOCK_VALUES):  # all of it may not fit into memory
            part = slice(first, min(first + BLOCK_VALUES, end))
            seen += np.bincount(expression.indices[part][expression.data[part] != 0], minlength=n_genes)
        return seen

    def _facts(self) -> Facts:
        totals, sizes = self._gathered.totals, self._library_size
        found = np.any(self._gathered.found, axis=0).tolist()
        odd = self._rows[~np.isfinite(totals)]
        sizes = totals if sizes is None else sizes
        return Facts(
            n_cells=len(self._rows),
            n_values=self._gathered.expression.nnz - self._gathered.found[:, ZEROS].sum(dtype=np.int64).item(),
            fractions=found[FRACTIONS],
            least=self._gathered.expression.data.min().item() if found[NEGATIVE] else 0.0,
            n_odd=len(odd),
            first_odd=odd.min(initial=self._matrix.n_cells).item(),
            outside=found[OUTSIDE],
            n_less=int(np.count_nonzero(~(sizes >= totals))),
            impossible=bool((~np.isfinite(sizes) | ((sizes <= 0) & (totals != 0))).any()),
        )

    def on(self, scale: Scale, genes: Bool[np.ndarray, "gene"] | None = None) -> tuple[sp.csr_matrix, float]:
        """The values on a scale, float32, without stored zeros, of the marked genes only; and the largest of all."""
        if scale is Scale.LOGARITHMS:
            filled = np.diff(self._gathered.expression.indptr) > 0
            if (self._gathered.found[filled, FRACTIONS] == 0).any():  # logarithms were taken of what are some
                self._again(as_they_are=True)
        elif scale is Scale.NOT_BY_COLUMN:
            self._again()
        expression = self._gathered.expression
        largest = expression.data.max(initial=0).item()
        if self._gathered.found[:, ZEROS].any() or genes is not None:
            expression = compacted(expression, genes)
        return expression, largest

    def _again(self, as_they_are: bool = False) -> None:
        self._gathered = gather(self._matrix, self._rows, None, self._space, as_they_are, into=self._gathered)


def scale_of(facts: Facts, matrix: CellMatrix, library_size_named: bool | None) -> Scale:
    """The scale of all cells, by what all say.

    Args:
        facts: Of all cells.
        matrix: Their matrix.
        library_size_named: Whether the user named the column of library sizes, or it is a guess; None: there is none.

    Raises:
        InputError: NaN, infinite or negative values; a damaged matrix.
    """
    source = matrix.source
    if facts.outside:
        raise InputError(f"{source} is damaged: it has values of more than its {matrix.n_genes:,} genes; copy it again")
    if facts.n_odd:
        raise InputError(
            f"{source} has NaN or infinite values in {facts.n_odd:,} cells, first in row {facts.first_odd:,} "
            "(counted from 0); leave them out with --cell-filter, or put in what was measured"
        )
    if facts.least < 0:
        raise InputError(
            f"{source} has negative values (least {facts.least:.3g}): "
            "give counts or log-normalized values, not scaled ones"
        )
    if facts.fractions:
        return Scale.LOGARITHMS
    if library_size_named is None:
        return Scale.BY_SUM
    # A cell has as many counts as the genes at hand, or more; a few odd cells do not speak against it.
    if not library_size_named and (facts.impossible or facts.n_less >= ODD_SHARE * facts.n_cells):
        return Scale.NOT_BY_COLUMN
    return Scale.BY_COLUMN


def note_on(scale: Scale, largest: float, source: str, library_size_named: bool | None) -> str:
    """What to tell the user of the scale, given the largest value on it.

    Raises:
        InputError: Values that are neither counts nor log-normalized; a library size for values that are
            log-normalized already.
    """
    if scale is not Scale.LOGARITHMS:
        return scale.value
    if largest > MAX_LOG_VALUE:
        raise InputError(
            f"{source} has values up to {largest:.4g}, which are neither whole counts nor log-normalized: "
            "give one of these, or name a layer that has them with --layer"
        )
    if library_size_named:
        raise InputError(f"{source} is log-normalized already, so --library-size-column has no use: leave it out")
    return f"{scale.value} (largest {largest:.2f})"


def log_normalize(
    matrix: CellMatrix, library_size: Float[np.ndarray, "cell"] | None, **how: Any
) -> tuple[sp.csr_matrix, str]:
    """`log1p(count / library size * 10,000)` of raw counts; log-normalized values as they are.

    Whole numbers only are taken for raw counts.

    Args:
        matrix: Cells x genes.
        library_size: As for `CellValues`.
        how: As for `CellValues`.

    Returns:
        Float32 expression without stored zeros, and a note on what was found.

    Raises:
        InputError: As `CellValues` does.
    """
    values = CellValues(matrix, library_size, **how)
    named = None if library_size is None else not how.get("guessed")
    scale = scale_of(values.facts, matrix, named)
    expression, largest = values.on(scale)
    return expression, note_on(scale, largest, matrix.source, named)
