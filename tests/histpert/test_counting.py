"""Counts against `numpy.histogram` and moments against dense NumPy, on random and on awkward cells."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from histpert.histograms import bin_edges, count_shard, group_moments, merge


def awkward_csr(dense, random, dtype=np.float32):
    """The same cells with columns in any order within a row, and about half of the zeros stored."""
    stored = (dense != 0) | (random.random(dense.shape) < 0.5)
    indptr = np.concatenate([[0], np.cumsum(stored.sum(axis=1))])
    indices = np.concatenate([random.permutation(np.flatnonzero(row)) for row in stored])
    rows = np.repeat(np.arange(len(dense)), stored.sum(axis=1))
    return sp.csr_matrix((dense[rows, indices].astype(dtype), indices, indptr), shape=dense.shape)


def by_numpy(dense, group_start, edges, genes):
    """Cells in each bin, those beyond the range moved to its ends, and the number of those."""
    lines = edges.edges
    shape = len(group_start) - 1, len(genes)
    in_bin, beyond = np.zeros((*shape, edges.n_bins), dtype=int), np.zeros(shape, dtype=int)
    for group, place in np.ndindex(*shape):
        cells = dense[group_start[group] : group_start[group + 1], genes[place]].astype(np.float64)
        low, high = lines[place, 0], lines[place, -1]
        in_bin[group, place] = np.histogram(np.clip(cells, low, high), lines[place])[0]
        beyond[group, place] = np.sum((cells < low) | (cells > high))
    return in_bin, beyond


def assert_counted_as_numpy_does(dense, matrix, group_start, edges, genes=None):
    every = np.arange(dense.shape[1]) if genes is None else genes
    in_bin, beyond = by_numpy(dense, group_start, edges, every)
    counts = count_shard(matrix, group_start, edges, genes)
    np.testing.assert_array_equal(counts.in_bin, in_bin)
    np.testing.assert_array_equal(counts.outside, beyond)


@st.composite
def cells_in_groups(draw):
    """Quarters from 0 to 4 in up to 25 cells; the column after the first is constant, the last one never 0."""
    n_cells, n_genes = draw(st.integers(1, 25)), draw(st.integers(3, 6))
    values = arrays(np.float32, (n_cells, n_genes), elements=st.integers(0, 16).map(lambda k: k / 4), fill=st.just(0))
    dense = draw(values)
    dense[:, 1] = draw(st.sampled_from([0, 0.25, 3]))
    dense[:, -1] += 1
    cuts = sorted(draw(st.lists(st.integers(0, n_cells), min_size=0, max_size=5)))
    return dense, np.array([0, *cuts, n_cells]), np.random.default_rng(draw(st.integers(0, 1000)))


@given(cells_in_groups(), st.sampled_from([2, 3, 5, 9, 17]), st.data())
def test_counts_are_those_of_numpy_with_values_on_edges_empty_groups_and_stored_zeros(cells, n_bins, data):
    dense, group_start, random = cells
    training = dense[: data.draw(st.integers(1, len(dense)))].astype(np.float64)
    edges = bin_edges(training.min(axis=0), training.max(axis=0), n_bins)
    assert_counted_as_numpy_does(dense, awkward_csr(dense, random), group_start, edges)


@pytest.mark.parametrize("n_bins", [2, 10, 15, 35])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_are_those_of_numpy_on_log_normalized_cells(n_bins, dtype):
    random = np.random.default_rng(n_bins)
    counts = random.poisson(random.gamma(1, 1, 40), (500, 40))
    dense = np.log1p(counts / random.uniform(0.5, 2, (500, 1))).astype(dtype)
    dense[:, 3], dense[:, 4], dense[:, 5] = 0, 1.7, dense[:, 5] + 0.3
    group_start = np.array([0, 150, 150, 151, 400, 500])
    training = dense[:400].astype(np.float64)
    edges = bin_edges(training.min(axis=0), training.max(axis=0), n_bins)
    matrix = awkward_csr(dense, random, dtype)
    assert_counted_as_numpy_does(dense, matrix, group_start, edges)
    assert count_shard(matrix, group_start, edges).outside.sum() > 0
    genes = random.permutation(40)[:7]
    edges = bin_edges(training[:, genes].min(axis=0), training[:, genes].max(axis=0), n_bins)
    assert_counted_as_numpy_does(dense, matrix, group_start, edges, genes)


@pytest.mark.parametrize("n_bins", [2, 3, 12, 15, 23, 34, 35])
def test_values_on_an_edge_go_where_numpy_puts_them(n_bins):
    # A gene per range, each with all quarters in it; at many bin counts some lie on an edge, up to rounding.
    largest = np.arange(1, 41)
    dense = np.minimum(np.arange(41)[:, None], largest) / 4.0
    edges = bin_edges(dense.min(axis=0), dense.max(axis=0), n_bins)
    assert_counted_as_numpy_does(dense, sp.csr_matrix(dense, dtype=np.float32), np.array([0, 41]), edges)


def test_cells_beyond_the_range_are_counted_at_its_ends_and_noted():
    dense = np.array([[0.0], [0.9], [1.0], [3.0], [3.4], [9.0]], dtype=np.float32)
    # Training range 1 to 3 in 3 bins: edges 0.5, 1.5, 2.5, 3.5.
    edges = bin_edges(np.array([1.0]), np.array([3.0]), 3)
    counts = count_shard(sp.csr_matrix(dense), np.array([0, 6]), edges)
    assert counts.in_bin.tolist() == [[[3, 0, 3]]]
    assert counts.outside.tolist() == [[2]]


def test_rows_outside_every_group_are_passed_over():
    dense = np.arange(1, 9, dtype=np.float32)[:, None]
    edges = bin_edges(np.array([1.0]), np.array([8.0]), 8)
    counts = count_shard(sp.csr_matrix(dense), np.array([2, 3, 5]), edges)
    assert counts.in_bin.tolist() == [[[0, 0, 1, 0, 0, 0, 0, 0]], [[0, 0, 0, 1, 1, 0, 0, 0]]]


@given(cells_in_groups(), st.integers(2, 20), st.data())
def test_shards_merge_to_the_same_counts_however_the_rows_are_cut(cells, n_bins, data):
    dense, group_start, random = cells
    matrix = awkward_csr(dense, random)
    edges = bin_edges(dense[:2].min(axis=0).astype(np.float64), dense[:2].max(axis=0).astype(np.float64), n_bins)
    whole = count_shard(matrix, group_start, edges)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(dense)), max_size=6)))
    shards = [
        count_shard(matrix[first:last], np.clip(group_start - first, 0, last - first), edges)
        for first, last in zip([0, *cuts], [*cuts, len(dense)], strict=True)
    ]
    merged = merge(data.draw(st.permutations(shards)))
    for name in ("in_bin", "outside"):
        assert getattr(merged, name).dtype == getattr(whole, name).dtype
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


@given(cells_in_groups())
def test_moments_are_those_of_the_dense_cells(cells):
    dense, group_start, random = cells
    moments = group_moments(awkward_csr(dense, random), group_start)
    exact = dense.astype(np.float64)
    for group, (first, last) in enumerate(pairwise(group_start)):
        cells_here = exact[first:last]
        assert moments.n_cells[group] == last - first
        for k in (1, 2, 3, 4):
            np.testing.assert_allclose(moments.power_sums[k - 1][group], np.sum(cells_here**k, axis=0), rtol=1e-12)
        np.testing.assert_array_equal(moments.minimum[group], cells_here.min(axis=0, initial=np.inf))
        np.testing.assert_array_equal(moments.maximum[group], cells_here.max(axis=0, initial=-np.inf))
        np.testing.assert_array_equal(moments.n_detected[group], np.count_nonzero(cells_here, axis=0))


def test_bin_edges_follow_equation_1():
    edges = bin_edges(np.array([0.0, 1.0]), np.array([4.0, 3.0]), 5)
    # eps is (4 - 0) / 8 = 0.5 and (3 - 1) / 8 = 0.25.
    assert edges.edges.tolist() == [[-0.5, 0.5, 1.5, 2.5, 3.5, 4.5], [0.75, 1.25, 1.75, 2.25, 2.75, 3.25]]
    assert not edges.constant.any()


@given(st.floats(0, 5), st.floats(0.01, 8), st.integers(2, 60))
def test_the_first_bin_is_centred_on_the_minimum_and_the_last_on_the_maximum(low, spread, n_bins):
    edges = bin_edges(np.array([low]), np.array([low + spread]), n_bins).edges[0]
    assert (edges[0] + edges[1]) / 2 == pytest.approx(low, abs=1e-12)
    assert (edges[-2] + edges[-1]) / 2 == pytest.approx(low + spread, abs=1e-12)
    np.testing.assert_allclose(np.diff(edges), spread / (n_bins - 1), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_a_constant_gene_gets_a_narrow_range_and_is_marked(value):
    edges = bin_edges(np.array([value, 0.0]), np.array([value, 1.0]), 15)
    assert edges.constant.tolist() == [True, False]
    assert edges.edges[0, 0] < value < edges.edges[0, 1]
    assert 0 < edges.edges[0, -1] - edges.edges[0, 0] < 0.05


@pytest.mark.parametrize("n_bins", [1, 0, -2])
def test_fewer_than_two_bins_are_refused(n_bins):
    with pytest.raises(ValueError, match="at least 2"):
        bin_edges(np.array([0.0]), np.array([1.0]), n_bins)
