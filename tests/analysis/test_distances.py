"""Distances against SciPy, against those of the losses, and in cells drawn again and again."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.distances import histogram_mean, sampling_noise, shape_distance, wasserstein1
from histpert.losses import wasserstein1 as distance_of_losses

PER_BIN = 1_000


def masses(random, *shape):
    return random.dirichlet(np.full(shape[-1], 0.5), shape[:-1])


def of_points(first, second, width, *, centred=False):
    """SciPy's distance between histograms whose bins are cut into many weighted points."""
    points = (np.arange(len(first) * PER_BIN) + 0.5) * width / PER_BIN
    weights = [np.repeat(row, PER_BIN) for row in (first, second)]
    places = [points - (np.average(points, weights=weight) if centred else 0) for weight in weights]
    return scipy.stats.wasserstein_distance(*places, *weights)


@pytest.mark.parametrize("n_bins", [2, 3, 7, 35])
@pytest.mark.parametrize(("distance", "centred"), [(wasserstein1, False), (shape_distance, True)])
def test_distances_agree_with_scipy_on_finely_cut_bins(n_bins, distance, centred):
    random = np.random.default_rng(n_bins)
    first, second = masses(random, 2, 4, n_bins), masses(random, 2, 4, n_bins)
    width = random.uniform(0.1, 0.5, 4)
    found = distance(first, second, width)
    for i, gene in np.ndindex(2, 4):
        expected = of_points(first[i, gene], second[i, gene], width[gene], centred=centred)
        assert found[i, gene] == pytest.approx(expected, abs=2 * width[gene] / PER_BIN)


@given(st.integers(2, 40), st.integers(0, 1000))
def test_the_distance_is_that_of_the_losses(n_bins, seed):
    random = np.random.default_rng(seed)
    first, second, width = masses(random, 3, 5, n_bins), masses(random, 5, n_bins), random.uniform(0.1, 0.5, 5)
    first[0, :, : n_bins // 2], second[:, 0] = 0, 0.0  # gaps that are 0, and those that change their sign
    first /= first.sum(-1, keepdims=True)
    second /= second.sum(-1, keepdims=True)
    tensors = map(torch.from_numpy, (first, second, width))
    np.testing.assert_allclose(wasserstein1(first, second, width), distance_of_losses(*tensors).numpy(), atol=1e-12)


@given(st.integers(3, 30), st.integers(0, 1000))
def test_the_shape_of_a_histogram_that_moves_by_whole_bins_stays(n_bins, seed):
    random = np.random.default_rng(seed)
    first = np.concatenate([masses(random, 4, n_bins), np.zeros((4, 3))], axis=-1)
    moved, width = np.roll(first, 3, axis=-1), np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(shape_distance(first, moved, width), 0, atol=1e-12)
    np.testing.assert_allclose(wasserstein1(first, moved, width), 3 * width)
    lower = np.zeros(4)
    np.testing.assert_allclose(histogram_mean(moved, lower, width) - histogram_mean(first, lower, width), 3 * width)


@given(st.integers(2, 30), st.integers(0, 1000))
def test_moving_to_one_mean_changes_a_distance_by_no_more_than_the_means_differ(n_bins, seed):
    random = np.random.default_rng(seed)
    first, second, width = masses(random, 6, n_bins), masses(random, 6, n_bins), random.uniform(0.1, 0.5, 6)
    shift = np.abs(histogram_mean(first, width, width) - histogram_mean(second, width, width))
    change = np.abs(shape_distance(first, second, width) - wasserstein1(first, second, width))
    assert (change <= shift + 1e-12).all()


def test_a_spread_that_doubles_about_its_mean_is_a_change_of_shape_alone():
    narrow, wide = np.array([[0.0, 0.5, 0.5, 0.0]]), np.array([[0.25, 0.25, 0.25, 0.25]])
    assert wasserstein1(narrow, wide, np.ones(1)) == pytest.approx(0.5)
    assert shape_distance(narrow, wide, np.ones(1)) == pytest.approx(0.5)


def test_noise_is_the_mean_distance_of_two_samples_of_one_distribution():
    random = np.random.default_rng(3)
    truth = np.array([[0.6, 0.1, 0.1, 0.1, 0.05, 0.05], [0.95, 0.05, 0, 0, 0, 0], [0.1, 0.2, 0.3, 0.2, 0.1, 0.1]])
    width, sizes = np.array([0.3, 0.2, 0.5]), (150, 900)
    drawn = [np.stack([random.multinomial(size, row, 3_000) for row in truth], axis=1) / size for size in sizes]
    # Cells sit at bin centres there: the distance is summed over the steps between them.
    measured = width * np.abs(np.cumsum(drawn[0] - drawn[1], axis=-1)).sum(-1)
    np.testing.assert_allclose(sampling_noise(truth, width, *sizes), measured.mean(0), rtol=0.03)
    assert sampling_noise(truth[:1] * 0 + np.eye(6)[0], width[:1], *sizes) == 0
