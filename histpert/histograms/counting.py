"""Counting: cells per perturbation, gene and bin, and the moments of each perturbation's cells.

Both read the stored nonzeros of CSR rows once and add the zeros by arithmetic: a gene's zeros in a group are its cells
less its nonzeros. Shards are row ranges of one screen; counts of shards add up, whatever the sharding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import no_type_check

import numba
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from histpert.histograms.edges import BinEdges

__all__ = ["Counts", "GroupMoments", "count_groups", "count_shard", "group_moments", "merge"]


@dataclass(frozen=True)
class Counts:
    """Cells per bin.

    Attributes:
        in_bin: Cells of each group in each gene's bins; a cell outside the range is in the nearest edge bin.
        outside: Cells outside the range.
    """

    in_bin: Int[np.ndarray, "group gene bin"]
    outside: Int[np.ndarray, "group gene"]


@dataclass(frozen=True)
class GroupMoments:
    """Sums over the cells of each group, float64, zeros included.

    Attributes:
        n_cells: Cells per group.
        power_sums: Sums of x, x^2, x^3, x^4.
        minimum: Smallest value; 0 where any cell has none stored. Infinite in an empty group.
        maximum: Largest value. Minus infinity in an empty group.
        n_detected: Cells with a value other than 0.
    """

    n_cells: Int[np.ndarray, "group"]
    power_sums: Float[np.ndarray, "4 group gene"]
    minimum: Float[np.ndarray, "group gene"]
    maximum: Float[np.ndarray, "group gene"]
    n_detected: Int[np.ndarray, "group gene"]


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
def _count_rows(data, indices, indptr, group_start, slot, lower, width, in_bin, outside):
    """Fill `in_bin` and `outside` for the groups whose rows are given; `slot` is a gene's place in them, or -1."""
    n_bins = in_bin.shape[2]
    for group in range(group_start.size - 1):
        first, last = group_start[group], group_start[group + 1]
        for place in range(indptr[first], indptr[last]):
            gene = slot[indices[place]]
            value = np.float64(data[place])
            if gene < 0 or value == 0.0:
                continue
            number = _bin_of(value, lower[gene], width[gene], n_bins)
            if number < 0 or number == n_bins:
                outside[group, gene] += 1
                number = min(max(number, 0), n_bins - 1)
            in_bin[group, gene, number] += 1
        for gene in range(in_bin.shape[1]):
            zeros = last - first
            for number in range(n_bins):
                zeros -= in_bin[group, gene, number]
            number = _bin_of(0.0, lower[gene], width[gene], n_bins)
            if number < 0 or number == n_bins:
                outside[group, gene] += zeros
                number = min(max(number, 0), n_bins - 1)
            in_bin[group, gene, number] += zeros


@numba.njit(nogil=True, cache=True)
@no_type_check
def _sum_rows(data, indices, indptr, group_start, sums, minimum, maximum, detected):
    for group in range(group_start.size - 1):
        first, last = group_start[group], group_start[group + 1]
        for place in range(indptr[first], indptr[last]):
            value = np.float64(data[place])
            if value == 0.0:
                continue
            gene = indices[place]
            detected[group, gene] += 1
            power = 1.0
            for k in range(4):
                power *= value
                sums[k, group, gene] += power
            minimum[group, gene] = min(minimum[group, gene], value)
            maximum[group, gene] = max(maximum[group, gene], value)
        for gene in range(detected.shape[1]):
            if detected[group, gene] < last - first:
                minimum[group, gene] = min(minimum[group, gene], 0.0)
                maximum[group, gene] = max(maximum[group, gene], 0.0)


def count_shard(
    expression: sp.csr_matrix,
    group_start: Int[np.ndarray, "bound"],
    edges: BinEdges,
    genes: Int[np.ndarray, "gene"] | None = None,
) -> Counts:
    """Count the cells of one shard.

    Args:
        expression: Cells x genes, CSR without duplicate entries; stored zeros are allowed.
        group_start: First row of each group and the row after the last; a group may be empty, and rows before the first
            group and after the last are passed over.
        edges: Edges of the genes to count.
        genes: Columns to count, as many as `edges` has; all of them by default.

    Returns:
        Counts per group, gene of `edges`, and bin, int32.
    """
    n_genes = _n_genes(expression)
    columns = np.arange(n_genes) if genes is None else genes
    slot = np.full(n_genes, -1, dtype=np.int64)
    slot[columns] = np.arange(len(columns))
    shape = (len(group_start) - 1, len(columns))
    counts = Counts(np.zeros((*shape, edges.n_bins), dtype=np.int32), np.zeros(shape, dtype=np.int32))
    _count_rows(
        expression.data,
        expression.indices,
        expression.indptr.astype(np.int64),
        np.asarray(group_start, dtype=np.int64),
        slot,
        edges.lower,
        edges.width,
        counts.in_bin,
        counts.outside,
    )
    return counts


def merge(shards: Iterable[Counts]) -> Counts:
    """Counts of all shards together: the sum, whatever way the cells were shared out."""
    return reduce(lambda left, right: Counts(left.in_bin + right.in_bin, left.outside + right.outside), shards)


def count_groups(
    expression: sp.csr_matrix,
    group_start: Int[np.ndarray, "bound"],
    edges: BinEdges,
    genes: Int[np.ndarray, "gene"] | None = None,
) -> Counts:
    """Like `count_shard`, on all cores: whole groups are shared out, so that the parts are laid side by side."""
    parts = _in_threads(
        lambda groups: count_shard(expression, group_start[groups.start : groups.stop + 1], edges, genes), group_start
    )
    return Counts(np.concatenate([part.in_bin for part in parts]), np.concatenate([part.outside for part in parts]))


def group_moments(expression: sp.csr_matrix, group_start: Int[np.ndarray, "bound"]) -> GroupMoments:
    """Power sums, extremes and detections of each group's cells.

    Args:
        expression: Cells x genes, CSR without duplicate entries.
        group_start: First row of each group and the number of rows at the end.
    """
    n_groups, n_genes = len(group_start) - 1, _n_genes(expression)
    moments = GroupMoments(
        n_cells=np.diff(group_start),
        power_sums=np.zeros((4, n_groups, n_genes)),
        minimum=np.full((n_groups, n_genes), np.inf),
        maximum=np.full((n_groups, n_genes), -np.inf),
        n_detected=np.zeros((n_groups, n_genes), dtype=np.int64),
    )
    indptr = expression.indptr.astype(np.int64)

    def add(groups: slice) -> None:
        starts = np.asarray(group_start[groups.start : groups.stop + 1], dtype=np.int64)
        targets = (
            moments.power_sums[:, groups],
            moments.minimum[groups],
            moments.maximum[groups],
            moments.n_detected[groups],
        )
        _sum_rows(expression.data, expression.indices, indptr, starts, *targets)

    _in_threads(add, group_start)
    return moments


def _n_genes(expression: sp.csr_matrix) -> int:
    return expression.shape[1]  # pyright: ignore[reportOptionalSubscript]


def _in_threads(work, group_start: Int[np.ndarray, "bound"]) -> list:
    """Call `work` with ranges of groups of about equal numbers of cells; the results in order."""
    n_parts = 4 * (os.cpu_count() or 1)
    bounds = np.searchsorted(group_start, np.linspace(0, group_start[-1], n_parts + 1))
    bounds[0], bounds[-1] = 0, len(group_start) - 1
    pieces: Sequence[slice] = [slice(int(a), int(b)) for a, b in pairwise(bounds) if b > a]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, pieces))
