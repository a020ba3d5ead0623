"""Matrices of cells and genes, in memory or in a file, passed over in blocks of cells of bounded size."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, no_type_check

import h5py
import numba
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int

from histpert.errors import InputError
from histpert.threads import in_order
from histpert.wording import reason

__all__ = ["BLOCK_VALUES", "Block", "CellMatrix", "csr_of"]

BLOCK_VALUES = 2**19
"""Values of a block: small enough for a core's cache, large enough for a read."""

NUMBERS = tuple(map(np.dtype, ("float32", "float64", "int32", "int64")))
"""Types of numbers that compiled code knows; another order of bytes is another type."""


class Block(NamedTuple):
    """Some cells, one after the other, in CSR layout of their own."""

    data: np.ndarray
    indices: np.ndarray
    """Genes, as the file has them, right or not."""
    indptr: Int[np.ndarray, "bound"]


@dataclass(frozen=True)
class CellMatrix:
    """Cells x genes.

    Attributes:
        source: File and place in it, for errors.
        n_cells: Rows.
        n_genes: Columns.
        row_sizes: Stored values per cell, where they are known before all blocks are read: not of a dense array.
        spans: Cells of each block, in order.
        read: Reads the block of a span, from any thread.
    """

    source: str
    n_cells: int
    n_genes: int
    row_sizes: Int[np.ndarray, "cell"] | None
    spans: Sequence[slice]
    read: Callable[[slice], Block]

    def loaded(self, kept: Bool[np.ndarray, "cell"]) -> CellMatrix:
        """The same in memory, without the values of cells that are not kept; each block can be read once."""

        def read(cells: slice) -> Block:
            block = self.read(cells)
            if kept[cells].all():
                return block
            sizes = np.diff(block.indptr)
            values = np.repeat(kept[cells], sizes)
            bounds = np.concatenate([[0], np.cumsum(np.where(kept[cells], sizes, 0))])
            return Block(block.data[values], block.indices[values], bounds)

        blocks = dict(zip((cells.start for cells in self.spans), in_order(read, self.spans), strict=True))
        sizes = [np.zeros(0, dtype=np.int64), *(np.diff(block.indptr) for block in blocks.values())]
        return replace(self, row_sizes=np.concatenate(sizes), read=lambda cells: blocks.pop(cells.start))

    def sized(self) -> CellMatrix:
        """The same with the number of stored values of each cell known, for which all blocks are read."""
        sizes = [np.zeros(0, dtype=np.int64), *in_order(lambda cells: np.diff(self.read(cells).indptr), self.spans)]
        return replace(self, row_sizes=np.concatenate(sizes))

    def tidied(self) -> CellMatrix:
        """The same with the columns of each cell in order, and those that are stored twice added up."""

        def read(cells: slice) -> Block:
            data, indices, indptr = self.read(cells)
            rows = csr_of(data.copy(), indices.copy(), indptr.copy(), (len(indptr) - 1, self.n_genes))
            rows.sum_duplicates()
            return Block(rows.data, rows.indices, rows.indptr)

        return replace(self, row_sizes=None, read=read)

    @staticmethod
    def of(values: Any, source: str = "the matrix") -> CellMatrix:
        """A SciPy sparse matrix in memory, or a dense array in memory or in a file (HDF5, zarr)."""
        if sp.issparse(values):
            matrix = _as_csr(values, source)
            return CellMatrix.of_csr(matrix.data, matrix.indices, matrix.indptr, matrix.shape, source)
        n_cells, n_genes = values.shape
        chunk = _chunk(values)
        step = max(1, 4 * BLOCK_VALUES // max(1, n_genes) // chunk) * chunk
        spans = [slice(first, min(first + step, n_cells)) for first in range(0, n_cells, step)]
        spare = threading.local()

        def read(cells: slice) -> Block:
            if isinstance(values, h5py.Dataset) and values.dtype in NUMBERS:
                if not hasattr(spare, "rows"):
                    spare.rows = np.empty((step, n_genes), dtype=values.dtype)
                rows = _read(values, cells, source, into=spare.rows[: cells.stop - cells.start])
            else:
                rows = np.ascontiguousarray(_read_numbers(values, cells, source))
            return Block(*_nonzeros(rows))

        return CellMatrix(source, n_cells, n_genes, None, spans, read)

    @staticmethod
    def of_csr(data: Any, indices: Any, indptr: np.ndarray, shape: Any, source: str) -> CellMatrix:
        """Arrays in CSR layout; values and columns are in memory or in a file (HDF5, zarr).

        Raises:
            InputError: The arrays do not belong together.
        """
        n_cells, n_genes = map(int, shape)
        bounds = np.asarray(indptr, dtype=np.int64)
        sizes = np.diff(bounds)
        if len(data.shape) != 1 or len(indices.shape) != 1 or indices.dtype.kind not in "iu":
            raise InputError(f"{source} is damaged: its columns are not whole numbers, one per value; copy it again")
        n_stored = min(data.shape[0], indices.shape[0])
        if len(sizes) != n_cells or bounds[0] != 0 or (sizes < 0).any() or bounds[-1] > n_stored:
            raise InputError(
                f"{source} is damaged: the bounds of its {n_cells:,} rows do not fit its values; copy it again"
            )
        step = max(BLOCK_VALUES, 4 * _chunk(data), 4 * _chunk(indices))
        edges = np.unique([0, *np.searchsorted(bounds, np.arange(step, bounds[-1], step)), n_cells])
        spans = [slice(int(first), int(end)) for first, end in pairwise(edges)]

        def read(cells: slice) -> Block:
            taken = slice(int(bounds[cells.start]), int(bounds[cells.stop]))
            columns = _read(indices, taken, source)
            columns = columns if columns.dtype in NUMBERS[2:] else columns.astype(np.int64)
            values = _read_numbers(data, taken, source)
            return Block(values, columns, bounds[cells.start : cells.stop + 1] - taken.start)

        return CellMatrix(source, n_cells, n_genes, sizes, spans, read)


def csr_of(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    """A matrix of these very arrays: SciPy's constructor copies what is a small part of another."""
    matrix = sp.csr_matrix(shape, dtype=data.dtype)
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr.astype(indices.dtype, copy=False)
    return matrix


def _as_csr(values: Any, source: str) -> sp.csr_matrix:
    if values.format == "csc":
        try:
            with warnings.catch_warnings():  # SciPy makes signed numbers of unsigned ones, which are as good
                warnings.filterwarnings("ignore", r"ind\w+ array has non-integer dtype \(uint", UserWarning)
                values.check_format(full_check=True)  # SciPy would write anywhere when it makes CSR of a damaged one
        except ValueError as error:
            raise InputError(f"{source} is damaged: {reason(error)}; copy it again") from error
    return sp.csr_matrix(values)


def _chunk(values: Any) -> int:
    """Rows or values that a file compresses together."""
    return (getattr(values, "chunks", None) or (1,))[0]


def _read(values: Any, rows: slice, source: str, into: np.ndarray | None = None) -> np.ndarray:
    try:
        if into is None:
            return np.asarray(values[rows])
        values.read_direct(into, rows)
    except Exception as error:  # HDF5, its filters and zarr raise many kinds for a damaged file
        raise InputError(f"{source} cannot be read: {reason(error)}; the file may be damaged or cut short") from error
    return into


def _read_numbers(values: Any, rows: slice, source: str) -> np.ndarray:
    """Values in a type of number that compiled code knows."""
    read = _read(values, rows, source)
    if read.dtype in NUMBERS:
        return read
    return read.astype(np.float32 if read.dtype.itemsize < 4 else np.float64)


@numba.njit(nogil=True, cache=True)
@no_type_check
def _nonzeros(values):
    """A dense block in CSR layout: values, columns, bounds of rows."""
    n_rows, n_columns = values.shape
    n_entries = 0
    for row in range(n_rows):
        n_entries += _n_nonzero(values[row])
    # One more, so that zeros can be written too: a branch would be missed half of the time.
    data = np.empty(n_entries + 1, dtype=values.dtype)
    indices = np.empty(n_entries + 1, dtype=np.int32)
    indptr = np.zeros(n_rows + 1, dtype=np.int64)
    entry = 0
    for row in range(n_rows):
        for column in range(n_columns):
            value = values[row, column]
            data[entry] = value
            indices[entry] = column
            entry += value != 0
        indptr[row + 1] = entry
    return data[:n_entries], indices[:n_entries], indptr


@numba.njit(nogil=True)
@no_type_check
def _n_nonzero(values):
    n_nonzero = np.int32(0)
    for entry in range(len(values)):
        n_nonzero += values[entry] != 0
    return n_nonzero
