"""Telling raw counts from log-normalized values, and bringing both to one scale.

Values are passed over twice, on all cores: once to look at them, once to bring the rows into order and onto the scale.
Most counts are small, and all of a cell share their library size: their logarithms come from a table.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from histpert.errors import InputError

__all__ = ["TARGET_SUM", "log_normalize"]

TARGET_SUM = 10_000.0
"""Counts per cell after scaling, before the logarithm."""

MAX_LOG_VALUE = 20.0
"""No log-normalized value is larger: log1p of all of a cell's counts scaled to a hundred million is 18.4."""

ODD_SHARE = 0.05
"""Share of cells whose library size may be less than the sum of their counts, where the column is a guess."""

TABULATED = 16
"""Counts below this have their logarithm looked up."""


def log_normalize(
    values: sp.csr_matrix,
    library_size: Float[np.ndarray, "cell"] | None,
    source: str,
    *,
    rows: Int[np.ndarray, "cell"] | None = None,
    guessed: bool = False,
) -> tuple[sp.csr_matrix, str]:
    """`log1p(count / library size * 10,000)` of raw counts; log-normalized values as they are.

    Whole numbers only are taken for raw counts.

    Args:
        values: Cells x genes.
        library_size: Total count of each cell that is taken, in the order of `rows`; None takes the sum over the genes.
        source: What to call the matrix in an error.
        rows: Rows of `values` to take, in this order; default: all.
        guessed: The library size is a guess, of no use for values that are log-normalized already, and not taken where
            it is less than the sum over the genes.

    Returns:
        Float32 expression without stored zeros, and a note on what was found.

    Raises:
        InputError: NaN, infinite or negative values; values that are neither counts nor log-normalized; a library size
            for values that are log-normalized already.
    """
    rows = np.arange(len(values.indptr) - 1) if rows is None else rows
    if values.data.dtype.kind == "b" or values.data.dtype.itemsize < 4:
        values = sp.csr_matrix(values, dtype=np.float32)  # kinds of numbers that compiled code does not know
    n_genes = int(values.shape[1])  # pyright: ignore[reportOptionalSubscript]
    n_odd, least, most, n_fractions, n_zeros, n_unordered = _look(values.data, values.indices, values.indptr, rows)
    if n_odd:
        raise InputError(f"{source}: {n_odd:,} expression values are NaN or infinite")
    if n_unordered:
        values = values.copy()
        values.sum_duplicates()
        return log_normalize(values, library_size, source, rows=rows, guessed=guessed)
    if least < 0:
        raise InputError(
            f"{source}: expression has negative values (least {least:.3g}): "
            "give counts or log-normalized values, not scaled ones"
        )
    if n_fractions:
        if most > MAX_LOG_VALUE:
            raise InputError(
                f"{source}: values up to {most:.4g} are neither whole counts nor log-normalized: give one of these in X"
            )
        if library_size is not None and not guessed:
            raise InputError(
                f"{source}: values are log-normalized already, so --library-size-column has no use: leave it out"
            )
        note, scale = f"values are log-normalized already (largest {most:.2f})", np.zeros(len(rows))
    else:
        totals = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()[rows]
        note = (
            f"raw counts, normalized by {'their sum per cell' if library_size is None else 'the library size column'}"
        )
        if library_size is not None and guessed and not _may_be_totals(library_size, totals):
            note, library_size = "raw counts, normalized by their sum per cell: library sizes cannot be that", None
        scale = TARGET_SUM / np.maximum(totals if library_size is None else library_size, 1e-12)
    bounds = np.concatenate([[0], np.cumsum(np.diff(values.indptr)[rows], dtype=np.int64)])
    kind = np.int32 if bounds[-1] < np.iinfo(np.int32).max else np.int64
    data, indices = np.empty(bounds[-1], dtype=np.float32), np.empty(bounds[-1], dtype=kind)
    _take(values.data, values.indices, values.indptr, rows, scale, bounds, data, indices)
    expression = sp.csr_matrix((data, indices, bounds.astype(kind)), shape=(len(rows), n_genes))
    if n_zeros:
        expression.eliminate_zeros()
    expression.has_canonical_format = True
    return expression, note


def _may_be_totals(library_size: Float[np.ndarray, "cell"], totals: Float[np.ndarray, "cell"]) -> bool:
    """A cell has as many counts as the genes at hand, or more; a few odd cells do not speak against it."""
    usable = (library_size > 0) | (totals == 0)
    return bool(usable.all() and (library_size >= totals).mean() > 1 - ODD_SHARE)


@numba.njit(parallel=True, cache=True)
@no_type_check
def _look(data, indices, indptr, rows):
    """Values that are not finite, extremes, fractions, stored zeros, and entries out of order or stored twice."""
    n_odd, n_fractions, n_zeros, n_unordered = 0, 0, 0, 0
    least, most = 0.0, 0.0
    for number in numba.prange(len(rows)):
        row_least, row_most, odd, fractions, zeros, unordered = 0.0, 0.0, 0, 0, 0, 0
        before = -1
        for entry in range(indptr[rows[number]], indptr[rows[number] + 1]):
            value = np.float64(data[entry])
            odd += not np.isfinite(value)
            fractions += value != np.rint(value)
            zeros += value == 0
            unordered += indices[entry] <= before
            before = indices[entry]
            row_least = min(row_least, value)
            row_most = max(row_most, value)
        least = min(least, row_least)
        most = max(most, row_most)
        n_odd += odd
        n_fractions += fractions
        n_zeros += zeros
        n_unordered += unordered
    return n_odd, least, most, n_fractions, n_zeros, n_unordered


@numba.njit(parallel=True, cache=True)
@no_type_check
def _take(data, indices, indptr, rows, scale, bounds, to_data, to_indices):
    """Copy rows in the given order, onto the scale of logarithms where the row's scale is not 0."""
    for number in numba.prange(len(rows)):
        start, end, place = indptr[rows[number]], indptr[rows[number] + 1], bounds[number]
        factor = scale[number]
        table = np.empty(TABULATED, dtype=np.float32)
        for count in range(TABULATED):
            table[count] = np.log1p(count * factor)
        for entry in range(start, end):
            value = data[entry]
            to_indices[place + entry - start] = indices[entry]
            if factor == 0:
                to_data[place + entry - start] = value
            elif value < TABULATED:
                to_data[place + entry - start] = table[np.int64(value)]
            else:
                to_data[place + entry - start] = np.log1p(np.float64(value) * factor)
