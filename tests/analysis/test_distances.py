"""Distances against SciPy, against those of the losses, and in cells drawn again and again."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.distances import beyond_mean, histogram_mean, sampling_noise, wasserstein1
from histpert.losses import wasserstein1 as distance_of_losses

PER_BIN = 1_000


def masses(random, *shape):
    return random.dirichlet(np.full(shape[-1], 0.5), shape[:-1])


def of_points(first, second, width):
    """SciPy's distance between histograms whose bins are cut into many weighted points."""
    points = (np.arange(len(first) * PER_BIN) + 0.5) * width / PER_BIN
    return scipy.stats.wasserstein_distance(points, points, *(np.repeat(row, PER_BIN) for row in (first, second)))


@pytest.mark.parametrize("n_bins", [2, 3, 7, 35])
def test_distances_agree_with_scipy_on_finely_cut_bins(n_bins):
    random = np.random.default_rng(n_bins)
    first, second = masses(random, 2, 4, n_bins), masses(random, 2, 4, n_bins)
    width = random.uniform(0.1, 0.5, 4)
    found = wasserstein1(first, second, width)
    for i, gene in np.ndindex(2, 4):
        assert found[i, gene] == pytest.approx(of_points(first[i, gene], second[i, gene], width[gene]), abs=1e-5)


@given(st.integers(2, 40), st.integers(0, 1000))
def test_the_distance_is_that_of_the_losses(n_bins, seed):
    random = np.random.default_rng(seed)
    first, second, width = masses(random, 3, 5, n_bins), masses(random, 5, n_bins), random.uniform(0.1, 0.5, 5)
    first[0, :, : n_bins // 2], second[:, 0] = 0, 0.0  # gaps that are 0, and those that change their sign
    first /= first.sum(-1, keepdims=True)
    second /= second.sum(-1, keepdims=True)
    tensors = map(torch.from_numpy, (first, second, width))
    np.testing.assert_allclose(wasserstein1(first, second, width), distance_of_losses(*tensors).numpy(), atol=1e-12)


def measured(first, second):
    """Distance, and what it has beyond the means, in bins one unit wide."""
    edges = np.zeros(len(first)), np.ones(len(first))
    distance = wasserstein1(first, second, edges[1])
    return distance, beyond_mean(first, second, *edges, distance)


@given(st.integers(2, 30), st.integers(0, 1000))
def test_mass_that_moves_one_way_has_nothing_beyond_the_mean(n_bins, seed):
    random = np.random.default_rng(seed)
    first = masses(random, 4, n_bins)
    up = np.zeros_like(first)
    for i in range(n_bins):  # a share of each bin moves to some bin at its right
        share, to = random.random(4), random.integers(i, n_bins)
        up[:, i] += (1 - share) * first[:, i]
        up[:, to] += share * first[:, i]
    distance, beyond = measured(first, up)
    np.testing.assert_allclose(beyond, 0, atol=1e-12)
    assert (measured(first, masses(random, 4, n_bins))[1] > -1e-12).all()
    edges = np.zeros(4), np.ones(4)
    np.testing.assert_allclose(distance, histogram_mean(up, *edges) - histogram_mean(first, *edges), atol=1e-12)


def test_a_spread_about_the_same_mean_is_all_beyond_it():
    narrow, wide = np.array([[0.0, 0.5, 0.5, 0.0]]), np.array([[0.25, 0.25, 0.25, 0.25]])
    assert measured(narrow, wide) == (pytest.approx(0.5), pytest.approx(0.5))


def test_what_moves_both_ways_counts_twice():
    # A fifth of the cells goes up by two bins, a tenth down by two: the distance is 0.6, the means differ by 0.2.
    before, after = np.array([[0, 0, 1.0, 0, 0]]), np.array([[0.1, 0, 0.7, 0, 0.2]])
    distance, beyond = measured(before, after)
    assert distance - beyond == pytest.approx(0.2)
    # Mass is spread inside its bins, so that the middle one is crossed from both sides: 0.6 less what cancels there.
    assert distance == pytest.approx(of_points(before[0], after[0], 1.0), abs=1e-5)
    assert beyond == pytest.approx(distance - 0.2)


def test_noise_is_the_mean_distance_of_two_samples_of_one_distribution():
    random = np.random.default_rng(3)
    truth = np.array([[0.6, 0.1, 0.1, 0.1, 0.05, 0.05], [0.95, 0.05, 0, 0, 0, 0], [0.1, 0.2, 0.3, 0.2, 0.1, 0.1]])
    width, sizes = np.array([0.3, 0.2, 0.5]), (150, 900)
    drawn = [np.stack([random.multinomial(size, row, 3_000) for row in truth], axis=1) / size for size in sizes]
    # Cells sit at bin centres there: the distance is summed over the steps between them.
    measured = width * np.abs(np.cumsum(drawn[0] - drawn[1], axis=-1)).sum(-1)
    np.testing.assert_allclose(sampling_noise(truth, width, *sizes), measured.mean(0), rtol=0.03)
    assert sampling_noise(truth[:1] * 0 + np.eye(6)[0], width[:1], *sizes) == 0
