"""Counting: cells per perturbation, gene and bin, and the moments of each perturbation's cells.

Both read the stored nonzeros of CSR rows once and add the zeros by arithmetic: a gene's zeros in a group are its cells
less its nonzeros. Shards are row ranges of one screen; counts of shards add up, whatever the sharding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TypeVar, no_type_check

import numba
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from histpert.histograms.edges import BinEdges

__all__ = ["Counting", "Counts", "GroupMoments", "count_shard", "group_moments", "merge"]


@dataclass(frozen=True)
class Counts:
    """Cells per bin.

    Attributes:
        in_bin: Cells of each group in each range's bins; a cell outside the range is in the nearest edge bin.
        outside: Cells outside the range.
    """

    in_bin: Int[np.ndarray, "group range bin"]
    outside: Int[np.ndarray, "group range"]

    def __add__(self, other: Counts) -> Counts:
        """Of other cells of the same groups."""
        return Counts(self.in_bin + other.in_bin, self.outside + other.outside)


@dataclass(frozen=True)
class GroupMoments:
    """Sums over the cells of each group, float64, zeros included.

    Attributes:
        n_cells: Cells per group.
        power_sums: Sums of x, of x^2, x^3 and x^4.
        minimum: Smallest value; 0 where any cell has none stored. Infinite in an empty group.
        maximum: Largest value. Minus infinity in an empty group.
        n_detected: Cells with a value other than 0.
    """

    n_cells: Int[np.ndarray, "group"]
    power_sums: tuple[Float[np.ndarray, "group gene"], ...]
    minimum: Float[np.ndarray, "group gene"]
    maximum: Float[np.ndarray, "group gene"]
    n_detected: Int[np.ndarray, "group gene"]

    def of(self, groups: Int[np.ndarray, "chosen"]) -> GroupMoments:
        """Of these groups alone, copied out of a mapped file."""
        return GroupMoments(
            n_cells=self.n_cells[groups],
            power_sums=tuple(sums[groups] for sums in self.power_sums),
            minimum=self.minimum[groups],
            maximum=self.maximum[groups],
            n_detected=self.n_detected[groups],
        )

    def __add__(self, other: GroupMoments) -> GroupMoments:
        """Of other cells of the same groups."""
        return GroupMoments(
            n_cells=self.n_cells + other.n_cells,
            power_sums=tuple(map(add, self.power_sums, other.power_sums)),
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            n_detected=self.n_detected + other.n_detected,
        )


Sums = TypeVar("Sums", Counts, GroupMoments)


@numba.njit(nogil=True, cache=True)
@no_type_check  # numba compiles it: it cannot be wrapped
def _bin_of(value, lower, width, n_bins):
    """Bin of a value, -1 below the range and `n_bins` above it; values on an edge as in `numpy.histogram`.

    The quotient can round across an edge, so it is held against the edges `lower + width * number` themselves.
    """
    if value < lower:
        return -1
    if value >= lower + width * n_bins:
        return n_bins if value > lower + width * n_bins else n_bins - 1
    number = min(np.int64((value - lower) / width), n_bins - 1)
    if value < lower + width * number:
        return number - 1
    if number + 1 < n_bins and value >= lower + width * (number + 1):
        return number + 1
    return number


@numba.njit(nogil=True, cache=True)
@no_type_check
def _count_rows(data, indices, indptr, group_start, first_range, next_range, scale, near, edges, in_bin, outside):
    """Fill `in_bin` and `outside` for the groups whose rows are given.

    A gene's ranges are `first_range[gene]`, then `next_range` of it, until -1. `scale` has a range's lower edge and the
    inverse of its width, `edges` lower edge and width; a quotient `near` to a whole number is held against the edges.
    """
    n_bins = in_bin.shape[2]
    for group in range(group_start.size - 1):
        first, last = group_start[group], group_start[group + 1]
        table, beyond = in_bin[group], outside[group]
        for place in range(indptr[first], indptr[last]):
            value = np.float64(data[place])
            which = first_range[indices[place]]
            while which >= 0:
                quotient = (value - scale[which, 0]) * scale[which, 1]
                number = np.int64(quotient)
                if abs(quotient - number - 0.5) > 0.5 - near or number >= n_bins:
                    number = _bin_of(value, edges[which, 0], edges[which, 1], n_bins)
                    if number < 0 or number == n_bins:
                        beyond[which] += 1
                        number = min(max(number, 0), n_bins - 1)
                table[which, number] += 1
                which = next_range[which]
        for which in range(table.shape[0]):
            zeros = last - first
            for number in range(n_bins):
                zeros -= table[which, number]
            if zeros > 0:
                number = _bin_of(0.0, edges[which, 0], edges[which, 1], n_bins)
                if number < 0 or number == n_bins:
                    beyond[which] += zeros
                    number = min(max(number, 0), n_bins - 1)
                table[which, number] += zeros


@numba.njit(nogil=True, cache=True)
@no_type_check
def _sum_rows(data, indices, indptr, table):
    """Add cells of one group to `table`, whose row for a gene is one line of the cache.

    It holds the sums of x, x^2, x^3 and x^4 and the number of values other than 0, their minimum and their maximum.
    """
    for place in range(indptr[0], indptr[-1]):
        value = np.float64(data[place])
        if value == 0.0:
            continue
        of_gene = table[indices[place]]
        square = value * value
        of_gene[0] += value
        of_gene[1] += square
        of_gene[2] += square * value
        of_gene[3] += square * square
        of_gene[4] += 1
        of_gene[5] = min(of_gene[5], value)
        of_gene[6] = max(of_gene[6], value)


class Counting:
    """Counts cells on ranges; what is the same for all cells is worked out once, and can be sent elsewhere.

    Args:
        n_genes: Genes of the cells.
        edges: Edges of each range that is counted on.
        genes: The gene of each range, which may have several; by default each gene has one.
        dtype: Type of the counts.
    """

    def __init__(
        self,
        n_genes: int,
        edges: BinEdges,
        genes: Int[np.ndarray, "range"] | None = None,
        dtype: type[np.signedinteger] = np.int32,
    ):
        self._shape, self._dtype = (len(edges.lower), edges.n_bins), dtype
        first, following = np.full(n_genes, -1, dtype=np.int32), np.full(len(edges.lower), -1, dtype=np.int32)
        for which, gene in reversed(list(enumerate(range(n_genes) if genes is None else genes.tolist()))):
            first[gene], following[which] = which, first[gene]
        near = 1e-9 + 1e-15 * np.max(np.abs(edges.lower) / edges.width + edges.n_bins, initial=0).item()  # of rounding
        scale = np.stack([edges.lower, 1 / edges.width], axis=1)
        self._ranges = first, following, scale, near, np.stack([edges.lower, edges.width], axis=1)

    def __call__(self, expression: sp.csr_matrix, group_start: Int[np.ndarray, "bound"]) -> Counts:
        """As `count_shard`."""
        counts = self.none(len(group_start) - 1)
        rows = expression.data, expression.indices, expression.indptr.astype(np.int64)
        _count_rows(*rows, np.asarray(group_start, dtype=np.int64), *self._ranges, counts.in_bin, counts.outside)
        return counts

    def none(self, n_groups: int) -> Counts:
        """Counts of 0."""
        in_bin = np.zeros((n_groups, *self._shape), dtype=self._dtype)
        return Counts(in_bin, np.zeros((n_groups, self._shape[0]), dtype=np.int32))


def count_shard(
    expression: sp.csr_matrix,
    group_start: Int[np.ndarray, "bound"],
    edges: BinEdges,
    genes: Int[np.ndarray, "range"] | None = None,
) -> Counts:
    """Count the cells of one shard.

    Args:
        expression: Cells x genes, CSR without duplicate entries; stored zeros are allowed.
        group_start: First row of each group and the row after the last; a group may be empty, and rows before the first
            group and after the last are passed over.
        edges: Edges of each range that is counted on.
        genes: The gene of each range, which may have several; by default each gene has one.

    Returns:
        Counts per group, range of `edges`, and bin.
    """
    return Counting(_n_genes(expression), edges, genes)(expression, group_start)


def merge(shards: Iterable[Sums]) -> Sums:
    """Counts, or moments, of all shards together, each with a row per group, whatever way the cells were shared out."""
    return reduce(lambda left, right: left + right, shards)


def group_moments(expression: sp.csr_matrix, group_start: Int[np.ndarray, "bound"]) -> GroupMoments:
    """Power sums, extremes and detections of each group's cells.

    Args:
        expression: Cells x genes, CSR without duplicate entries.
        group_start: First row of each group and the number of rows at the end.
    """
    tables = np.zeros((len(group_start) - 1, _n_genes(expression), 8))
    tables[..., 5], tables[..., 6] = np.inf, -np.inf
    n_cells, indptr = np.diff(group_start), expression.indptr.astype(np.int64)
    for group, table in enumerate(tables):
        bounds = indptr[group_start[group] : group_start[group + 1] + 1]
        _sum_rows(expression.data, expression.indices, bounds, table)
    n_detected = tables[..., 4].astype(np.int64)
    zeros = n_detected < n_cells[:, None]
    return GroupMoments(
        n_cells=n_cells,
        power_sums=tuple(np.ascontiguousarray(tables[..., k]) for k in range(4)),
        minimum=np.where(zeros, np.minimum(tables[..., 5], 0.0), tables[..., 5]),
        maximum=np.where(zeros, np.maximum(tables[..., 6], 0.0), tables[..., 6]),
        n_detected=n_detected,
    )


def _n_genes(expression: sp.csr_matrix) -> int:
    return expression.shape[1]  # pyright: ignore[reportOptionalSubscript]
