"""Telling raw counts from log-normalized values, and bringing both to one scale.

A matrix is read once, in blocks; each is looked at, taken logarithms of, and put in its place while it is in the cache.
What only the whole can tell, such as that whole numbers are log-normalized values all the same, is rare, and has the
matrix read again.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numba
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from histpert.errors import InputError
from histpert.screens.matrices import CellMatrix
from histpert.threads import for_each

__all__ = ["TARGET_SUM", "log_normalize"]

TARGET_SUM = 10_000.0
"""Counts per cell after scaling, before the logarithm."""

MAX_LOG_VALUE = 20.0
"""No log-normalized value is larger: log1p of all of a cell's counts scaled to a hundred million is 18.4."""

ODD_SHARE = 0.05
"""Share of cells whose library size may be less than the sum of their counts, where the column is a guess."""

TABULATED = 16
"""Counts below this have their logarithm looked up."""

FRACTIONS, NEGATIVE, ZEROS, UNORDERED, OUTSIDE = range(5)
"""What is counted among the entries of a cell: values that are not whole, negative or 0; columns out of order or twice,
and of no gene."""


def log_normalize(
    matrix: CellMatrix,
    library_size: Float[np.ndarray, "cell"] | None,
    *,
    rows: Int[np.ndarray, "cell"] | None = None,
    guessed: bool = False,
) -> tuple[sp.csr_matrix, str]:
    """`log1p(count / library size * 10,000)` of raw counts; log-normalized values as they are.

    Whole numbers only are taken for raw counts.

    Args:
        matrix: Cells x genes.
        library_size: Total count of each cell that is taken, in the order of `rows`; None takes the sum over the genes.
        rows: Cells to take, in this order, each once; default: all.
        guessed: The library size is a guess, of no use for values that are log-normalized already, and not taken where
            it is less than the sum over the genes.

    Returns:
        Float32 expression without stored zeros, and a note on what was found.

    Raises:
        InputError: NaN, infinite or negative values; values that are neither counts nor log-normalized; a library size
            for values that are log-normalized already; a damaged matrix.
    """
    rows = np.arange(matrix.n_cells) if rows is None else rows
    cells = _gather(matrix, rows, library_size)
    found = np.any(cells.found, axis=0).tolist()
    if found[OUTSIDE]:
        raise InputError(f"{matrix.source} is damaged: it has values of more than its {matrix.n_genes:,} genes")
    _check_finite(cells, rows, matrix.source)
    if found[NEGATIVE]:
        raise InputError(
            f"{matrix.source} has negative values (least {cells.expression.data.min():.3g}): "
            "give counts or log-normalized values, not scaled ones"
        )
    if found[UNORDERED]:
        plain = _gather(matrix, rows, None, as_they_are=True).expression
        plain.sum_duplicates()
        return log_normalize(CellMatrix.of(plain, matrix.source), library_size, guessed=guessed)
    if found[FRACTIONS]:
        if (cells.found[np.diff(cells.expression.indptr) > 0, FRACTIONS] == 0).any():
            cells = _gather(matrix, rows, None, as_they_are=True)
        note = _check_log_normalized(cells.expression, matrix.source, not_used=library_size is not None and not guessed)
    else:
        note = "raw counts, normalized by " + (
            "their sum per cell" if library_size is None else "the library size column"
        )
        if library_size is not None and guessed and not _may_be_totals(library_size, cells.totals):
            note = "raw counts, normalized by their sum per cell: the column of library sizes cannot be that"
            cells = _gather(matrix, rows, None)
    if found[ZEROS]:
        cells.expression.eliminate_zeros()
    return cells.expression, note


def _check_finite(cells: _Gathered, rows: Int[np.ndarray, "cell"], source: str) -> None:
    odd = np.flatnonzero(~np.isfinite(cells.totals))
    if len(odd):
        raise InputError(
            f"{source} has NaN or infinite values in {len(odd):,} cells, first in row {rows[odd].min():,} "
            "(counted from 0); leave them out with --cell-filter, or put in what was measured"
        )


def _check_log_normalized(expression: sp.csr_matrix, source: str, not_used: bool) -> str:
    most = expression.data.max()
    if most > MAX_LOG_VALUE:
        raise InputError(
            f"{source} has values up to {most:.4g}, which are neither whole counts nor log-normalized: "
            "give one of these, or name a layer that has them with --layer"
        )
    if not_used:
        raise InputError(f"{source} is log-normalized already, so --library-size-column has no use: leave it out")
    return f"values are log-normalized already (largest {most:.2f})"


def _may_be_totals(library_size: Float[np.ndarray, "cell"], totals: Float[np.ndarray, "cell"]) -> bool:
    """A cell has as many counts as the genes at hand, or more; a few odd cells do not speak against it."""
    usable = (library_size > 0) | (totals == 0)
    return bool(usable.all() and np.isfinite(library_size).all() and (library_size >= totals).mean() > 1 - ODD_SHARE)


class _Gathered(NamedTuple):
    """Cells in the order asked for."""

    expression: sp.csr_matrix
    totals: Float[np.ndarray, "cell"]
    """Sum of a cell's values, as they are in the matrix."""
    found: Int[np.ndarray, "cell 5"]


def _gather(
    matrix: CellMatrix,
    rows: Int[np.ndarray, "cell"],
    library_size: Float[np.ndarray, "cell"] | None,
    as_they_are: bool = False,
) -> _Gathered:
    """Put cells in order; take logarithms where a cell has whole numbers only, unless values are wanted as they are."""
    place = np.full(matrix.n_cells, -1)
    place[rows] = np.arange(len(rows))
    matrix = matrix if matrix.row_sizes is not None else matrix.loaded(place >= 0)
    sizes = np.asarray(matrix.row_sizes)
    bounds = np.concatenate([[0], np.cumsum(sizes[rows])])
    kind = np.int32 if bounds[-1] < np.iinfo(np.int32).max else np.int64
    data, indices = np.empty(bounds[-1], dtype=np.float32), np.empty(bounds[-1], dtype=kind)
    given = np.zeros(len(rows)) if library_size is None else library_size
    totals, found = np.zeros(len(rows)), np.zeros((len(rows), 5), dtype=np.int32)

    def put(cells: slice) -> None:
        block = matrix.read(cells)
        _put(*block, place[cells], bounds, matrix.n_genes, given, as_they_are, data, indices, totals, found)

    for_each(put, matrix.spans)
    expression = sp.csr_matrix((data, indices, bounds.astype(kind)), shape=(len(rows), matrix.n_genes))
    expression.has_canonical_format = not found[:, UNORDERED].any()
    return _Gathered(expression, totals, found)


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
