"""Bootstrap replicates of moments against dense sums, and against what statistics says of them."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from test_store import FOLDS, make_screen

from histpert.errors import InputError
from histpert.histograms import open_or_build
from histpert.histograms.bootstrap import Resampling


@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_replicates_are_sums_over_the_cells_drawn(n_cells, n_genes, n_replicates, seed):
    random = np.random.default_rng(seed)
    dense = random.poisson(1.0, (n_cells, n_genes)) * random.uniform(0.5, 2, (n_cells, 1))
    cells, resampling = sp.csr_matrix(dense), Resampling(n_replicates)
    weights = resampling.weights(cells)
    assert weights.sum(axis=0).tolist() == [n_cells] * n_replicates
    for power, sums in enumerate(resampling(cells), start=1):
        np.testing.assert_allclose(sums, weights.T @ dense**power, rtol=1e-12, atol=1e-12)


def test_a_group_without_cells_has_sums_of_zero():
    assert not Resampling(3)(sp.csr_matrix((0, 4), dtype=np.float32)).any()


def test_means_vary_as_much_as_sampling_theory_says():
    dense = np.random.default_rng(0).gamma(1.0, 1.0, (400, 30))
    means = Resampling(2000)(sp.csr_matrix(dense))[0] / 400
    np.testing.assert_allclose(means.mean(axis=0), dense.mean(axis=0), rtol=0.01)
    # The variance of 2,000 draws is known to about 3%.
    np.testing.assert_allclose(means.var(axis=0), dense.var(axis=0) / 400, rtol=0.15)
    # Cells are drawn whole: genes of a cell go together.
    covariance = np.cov(means.T) * 400
    np.testing.assert_allclose(covariance, np.cov(dense.T), atol=0.15 * dense.var())


def test_draws_depend_on_the_cells_alone():
    screen = make_screen()
    found = {}
    screen.for_each_group(Resampling(4), found.__setitem__)
    for group in (3, 1):
        alone = Resampling(4)(screen.expression[screen.group_start[group] : screen.group_start[group + 1]])
        np.testing.assert_array_equal(found[group], alone)
    assert not np.array_equal(
        Resampling(4).weights(screen.expression[40:70]), Resampling(4).weights(screen.expression[70:100])
    )


def test_a_store_takes_replicates_when_they_are_asked_for(tmp_path):
    screen = make_screen()
    store = open_or_build(tmp_path, screen, FOLDS, [5])
    with pytest.raises(InputError, match="replicates_R6"):
        store.replicates(6)
    before = (store.folder.path / "counts_B5.arrow").stat()
    store = open_or_build(tmp_path, screen, FOLDS, [5], n_replicates=6)
    after = (store.folder.path / "counts_B5.arrow").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    for group in range(8):
        cells = screen.expression[screen.group_start[group] : screen.group_start[group + 1]]
        for sums, expected in zip(store.replicates(6), Resampling(6)(cells), strict=True):
            np.testing.assert_array_equal(sums[group], expected)
