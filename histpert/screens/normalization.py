"""Telling raw counts from log-normalized values, and bringing both to one scale."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from histpert.errors import InputError

__all__ = ["TARGET_SUM", "log_normalize"]

TARGET_SUM = 10_000.0
"""Counts per cell after scaling, before the logarithm."""

MAX_LOG_VALUE = 20.0
"""No log-normalized value is larger: log1p of all of a cell's counts scaled to a hundred million is 18.4."""


def log_normalize(
    values: sp.csr_matrix, library_size: Float[np.ndarray, "cell"] | None, source: str, *, guessed: bool = False
) -> tuple[sp.csr_matrix, str]:
    """`log1p(count / library size * 10,000)` of raw counts; log-normalized values as they are.

    Whole numbers only are taken for raw counts.

    Args:
        values: Cells x genes.
        library_size: Total count of each cell; None takes the sum over the genes at hand.
        source: What to call the matrix in an error.
        guessed: The library size is a guess, of no use for values that are log-normalized already.

    Returns:
        Float32 expression without stored zeros, and a note on what was found.

    Raises:
        InputError: NaN, infinite or negative values; values that are neither counts nor log-normalized; a library size
            for values that are log-normalized already.
    """
    data = values.data.astype(np.float64)
    if not np.isfinite(data).all():
        raise InputError(f"{source}: {np.sum(~np.isfinite(data)):,} expression values are NaN or infinite")
    if data.size and data.min() < 0:
        raise InputError(
            f"{source}: expression has negative values (least {data.min():.3g}): "
            "give counts or log-normalized values, not scaled ones"
        )
    is_counts = bool(np.all(data == np.rint(data)))
    if not is_counts:
        if data.max() > MAX_LOG_VALUE:
            raise InputError(
                f"{source}: values up to {data.max():.4g} are neither whole counts nor log-normalized: "
                "give one of these in X"
            )
        if library_size is not None and not guessed:
            raise InputError(
                f"{source}: values are log-normalized already, so --library-size-column has no use: leave it out"
            )
        note = f"values are log-normalized already (largest {data.max():.2f})"
    else:
        note = (
            f"raw counts, normalized by {'their sum per cell' if library_size is None else 'the library size column'}"
        )
        if library_size is None:
            library_size = np.asarray(values.sum(axis=1), dtype=np.float64).ravel()
        data = np.log1p(data * np.repeat(TARGET_SUM / np.maximum(library_size, 1e-12), np.diff(values.indptr)))
    expression = sp.csr_matrix((data.astype(np.float32), values.indices, values.indptr), shape=values.shape)
    expression.eliminate_zeros()
    return expression, note
