"""Putting cells of a matrix in the order of their groups, and on one scale on the way.

A matrix is read once, in blocks; each is looked at, taken logarithms of, and put in its place while it is in the cache.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, no_type_check

import numba
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from histpert.screens.matrices import CellMatrix, csr_of
from histpert.screens.working_space import WorkingSpace
from histpert.threads import Progress, for_each, silent

__all__ = ["FRACTIONS", "NEGATIVE", "OUTSIDE", "TARGET_SUM", "UNORDERED", "ZEROS", "Gathered", "compacted", "gather"]

TARGET_SUM = 10_000.0
"""Counts per cell after scaling, before the logarithm."""

TABULATED = 16
"""Counts below this have their logarithm looked up."""

FRACTIONS, NEGATIVE, ZEROS, UNORDERED, OUTSIDE = range(5)
"""What is counted among the entries of a cell: values that are not whole, negative or 0; columns out of order or twice,
and of no gene."""


class Gathered(NamedTuple):
    """Cells in the order asked for."""

    expression: sp.csr_matrix
    totals: Float[np.ndarray, "cell"]
    """Sum of a cell's values, as they are in the matrix."""
    found: Int[np.ndarray, "cell 5"]


def gather(
    matrix: CellMatrix,
    rows: Int[np.ndarray, "cell"],
    library_size: Float[np.ndarray, "cell"] | None,
    space: WorkingSpace,
    as_they_are: bool = False,
    into: Gathered | None = None,
    progress: Progress = silent,
) -> Gathered:
    """Put cells in order; take logarithms where a cell has whole numbers only, unless values are wanted as they are.

    Args:
        matrix: Cells x genes.
        rows: Cells to take, in this order, each once.
        library_size: Of each of these cells; None, or 0 for a cell: the sum of its values.
        space: Where the result lies.
        as_they_are: Take no logarithms.
        into: The same cells as they were put in order before, to be overwritten.
        progress: Told how many blocks are through.
    """
    place = np.full(matrix.n_cells, -1)
    place[rows] = np.arange(len(rows))
    if matrix.row_sizes is None:
        most = len(rows) * matrix.n_genes * 2 * (np.dtype(np.float32).itemsize + np.dtype(np.int64).itemsize)
        matrix = matrix.loaded(place >= 0) if space.holds(most) else matrix.sized()
    bounds = np.concatenate([[0], np.cumsum(np.asarray(matrix.row_sizes)[rows])])
    kind = np.dtype(np.int32 if bounds[-1] < np.iinfo(np.int32).max else np.int64)
    if into is None:
        data, indices = space.arrays(int(bounds[-1]), np.dtype(np.float32), kind)
    else:
        data, indices = into.expression.data, into.expression.indices
    given = np.zeros(len(rows)) if library_size is None else library_size
    totals, found = np.zeros(len(rows)), np.zeros((len(rows), 5), dtype=np.int32)

    def put(cells: slice) -> None:
        block = matrix.read(cells)
        _put(*block, place[cells], bounds, matrix.n_genes, given, as_they_are, data, indices, totals, found)

    needed = (cells for cells in matrix.spans if (place[cells] >= 0).any())
    for_each(put, needed, partial(progress, "cells"))
    expression = csr_of(data, indices, bounds.astype(kind), (len(rows), matrix.n_genes))
    expression.has_canonical_format = not found[:, UNORDERED].any()
    return Gathered(expression, totals, found)


def compacted(expression: sp.csr_matrix, genes: Bool[np.ndarray, "gene"] | None = None) -> sp.csr_matrix:
    """The same without stored zeros, and of the marked genes only; made in place, for it may be larger than memory."""
    n_cells, n_genes = expression.shape  # pyright: ignore[reportGeneralTypeIssues]
    kept = np.ones(n_genes, dtype=bool) if genes is None else genes
    column = np.where(kept, np.cumsum(kept) - 1, -1)
    canonical = expression.has_canonical_format  # which SciPy looks up when it is first asked
    bounds = _compact(expression.data, expression.indices, expression.indptr, column)
    end = int(bounds[-1])
    small = csr_of(expression.data[:end], expression.indices[:end], bounds, (n_cells, int(kept.sum())))
    small.has_canonical_format = canonical
    return small


@numba.njit(nogil=True, cache=True)
@no_type_check  # numba compiles it: it cannot be wrapped
def _compact(data, indices, indptr, new_column):
    bounds = np.zeros_like(indptr)
    to = 0
    for row in range(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            column = new_column[indices[entry]]
            if column >= 0 and data[entry] != 0:
                data[to] = data[entry]
                indices[to] = column
                to += 1
        bounds[row + 1] = to
    return bounds


@numba.njit(nogil=True, cache=True)
@no_type_check
def _put(data, indices, indptr, place, bounds, n_genes, given, as_they_are, to_data, to_indices, totals, found):
    """Copy the rows of a block to where `place` says, unless it is negative, and say what was found in them."""
    logarithms = np.empty(TABULATED, dtype=np.float32)
    for row in range(len(place)):
        to = place[row]
        if to < 0 or indptr[row] == indptr[row + 1]:
            continue
        values, columns = data[indptr[row] : indptr[row + 1]], indices[indptr[row] : indptr[row + 1]]
        to_values, to_columns = to_data[bounds[to] : bounds[to + 1]], to_indices[bounds[to] : bounds[to + 1]]
        _look(values, found[to])
        for entry in range(len(columns)):
            to_columns[entry] = columns[entry]
        _look_at_columns(columns, n_genes, found[to])
        totals[to] = _total(values)
        if as_they_are or found[to, FRACTIONS] or found[to, NEGATIVE]:
            for entry in range(len(values)):
                to_values[entry] = values[entry]
            continue
        factor = TARGET_SUM / max(given[to] if given[to] > 0 else totals[to], 1e-12)
        for count in range(TABULATED):
            logarithms[count] = np.log1p(count * factor)
        for entry in range(len(values)):
            value = values[entry]
            if value < TABULATED:
                to_values[entry] = logarithms[np.uint8(value)]
            else:
                to_values[entry] = np.log1p(np.float64(value) * factor)


@numba.njit(nogil=True)
@no_type_check
def _look(values, found):
    fractions, negative, zeros = np.int32(0), np.int32(0), np.int32(0)
    for entry in range(len(values)):
        value = values[entry]
        fractions += value != np.rint(value)
        negative += value < 0
        zeros += value == 0
    found[FRACTIONS], found[NEGATIVE], found[ZEROS] = fractions, negative, zeros


@numba.njit(nogil=True)
@no_type_check
def _look_at_columns(columns, n_genes, found):
    unordered, outside = np.int32(0), np.int32(0)
    for entry in range(len(columns)):
        outside += (columns[entry] < 0) | (columns[entry] >= n_genes)
    for entry in range(len(columns) - 1):
        unordered += columns[entry + 1] <= columns[entry]
    found[UNORDERED], found[OUTSIDE] = unordered, outside


@numba.njit(nogil=True, fastmath={"reassoc"})  # sums of counts are exact in any order
@no_type_check
def _total(values):
    total = 0.0
    for entry in range(len(values)):
        total += values[entry]
    return total
