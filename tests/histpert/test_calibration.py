"""Energy distance and coverage against SciPy and the cells one by one."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_metrics import histograms, tensors

from histpert.metrics.calibration import coverage
from histpert.metrics.distances import (
    cell_positions,
    continuous_ranked_probability,
    energy_distance,
    mean_difference,
)

N_BINS, LOWER, WIDTH = 6, np.array([-0.15, 0.4]), np.array([0.3, 0.7])
LEVELS = (0.5, 0.8, 0.9, 0.95)


def drawn(masses, n_cells, random):
    """Cells of a histogram that is uniform inside each bin, genes x cells."""
    bins = np.stack([random.choice(N_BINS, n_cells, p=row) for row in masses])
    return LOWER[:, None] + WIDTH[:, None] * (bins + random.uniform(size=bins.shape))


def crps_and_gini(masses, cells):
    """From each cell as a value of its own."""
    values = np.sort(cells, axis=1)
    values, shares, lower, width = tensors(values, np.full(values.shape, 1 / values.shape[1]), LOWER, WIDTH)
    positions = cell_positions(values, shares, lower, width, N_BINS)
    return continuous_ranked_probability(torch.from_numpy(masses), positions, width), mean_difference(values, shares)


def test_mean_difference_is_that_of_all_pairs_of_cells():
    cells = np.sort(np.random.default_rng(0).gamma(1, 1, (2, 40)).round(1), axis=1)  # with ties
    expected = np.abs(cells[:, :, None] - cells[:, None]).mean((1, 2))
    found = mean_difference(*tensors(cells, np.full(cells.shape, 1 / 40)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    # A value that several cells take, once.
    values, shares = zip(*(np.unique(row, return_counts=True) for row in cells), strict=True)
    for gene in range(2):
        found = mean_difference(*tensors(values[gene][None], shares[gene][None] / 40))
        np.testing.assert_allclose(found, expected[gene], rtol=1e-12)


def test_energy_distance_is_that_of_scipy():
    random = np.random.default_rng(1)
    masses = random.dirichlet(np.ones(N_BINS), 2)
    cells = drawn(random.dirichlet(np.ones(N_BINS), 2), 60, random)
    crps, gini = crps_and_gini(masses, cells)
    n_cells = torch.tensor(60.0).double()
    fine = (np.arange(4000 * N_BINS) + 0.5) / 4000  # the histogram, as many points
    for gene in range(2):
        points, weights = LOWER[gene] + WIDTH[gene] * fine, np.repeat(masses[gene], 4000)
        expected = scipy.stats.energy_distance(points, cells[gene], u_weights=weights)
        for squared, value in ((True, expected**2), (False, expected)):
            found = energy_distance(crps[[gene]], gini[[gene]], n_cells, squared=squared, unbiased=False)
            assert found.item() == pytest.approx(value, rel=1e-3)


def test_unbiased_means_over_pairs_of_different_cells():
    random = np.random.default_rng(2)
    masses, n_cells = random.dirichlet(np.ones(N_BINS), 2), 7
    cells = drawn(masses, n_cells, random)
    crps, gini = crps_and_gini(masses, cells)
    found = energy_distance(crps, gini, torch.tensor(7.0).double(), squared=True, unbiased=True)
    apart = np.abs(cells[:, :, None] - cells[:, None]).sum((1, 2)) / (n_cells * (n_cells - 1))
    np.testing.assert_allclose(found, 2 * crps.numpy() - apart, rtol=1e-12)


def test_the_true_distribution_has_an_unbiased_distance_of_zero_on_average_and_a_root_only_above_it():
    random = np.random.default_rng(3)
    masses = random.dirichlet(np.ones(N_BINS), 2)
    n_cells = torch.tensor(10.0).double()
    pairs = [crps_and_gini(masses, drawn(masses, 10, random)) for _ in range(400)]
    unbiased, biased = (
        np.stack([energy_distance(*pair, n_cells, squared=True, unbiased=way) for pair in pairs])
        for way in (True, False)
    )
    error = unbiased.std(0) / np.sqrt(len(pairs))
    assert (np.abs(unbiased.mean(0)) < 3 * error).all()
    assert (biased.mean(0) > 10 * error).all()
    roots = np.stack([energy_distance(*pair, n_cells, squared=False, unbiased=True) for pair in pairs])
    np.testing.assert_array_equal(np.isnan(roots), unbiased < 0)


def test_a_single_cell_has_no_unbiased_distance():
    crps, gini = crps_and_gini(np.full((2, N_BINS), 1 / N_BINS), np.full((2, 1), 0.5))
    one = torch.tensor(1.0).double()
    assert energy_distance(crps, gini, one, squared=True, unbiased=True).isnan().all()
    np.testing.assert_array_equal(energy_distance(crps, gini, one, squared=True, unbiased=False), 2 * crps)


def test_coverage_is_the_share_of_cells_whose_randomized_transform_is_inside():
    random = np.random.default_rng(4)
    predicted = random.dirichlet(np.ones(N_BINS), 2)
    predicted[0, 2] = 0  # cells in a bin that was predicted empty
    predicted /= predicted.sum(1, keepdims=True)
    n_cells = 200_000
    cells = drawn(random.dirichlet(np.ones(N_BINS), 2), n_cells, random)
    found = coverage(*tensors(predicted, histograms(cells, LOWER, WIDTH, N_BINS)), LEVELS)
    for gene in range(2):
        edges = np.concatenate([[0], predicted[gene].cumsum()])
        bins = ((cells[gene] - LOWER[gene]) / WIDTH[gene]).astype(int)
        transformed = random.uniform(edges[bins], edges[bins + 1])
        for number, level in enumerate(LEVELS):
            expected = (np.abs(transformed - 0.5) < level / 2).mean()
            assert found[gene, number].item() == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(n_cells))


def test_coverage_of_a_continuous_prediction_is_that_of_its_quantiles():
    """Many bins: the share of the cells between the quantiles of the prediction, whatever the bins."""
    random = np.random.default_rng(5)
    cells, edges = random.normal(0.3, 1.4, 5_000), np.linspace(-8, 8, 2001)
    predicted = np.diff(scipy.stats.norm.cdf(edges))
    observed = np.histogram(cells, edges)[0] / len(cells)
    found = coverage(*tensors(predicted[None], observed[None]), LEVELS)[0]
    for level, value in zip(LEVELS, found, strict=True):
        low, high = scipy.stats.norm.interval(level)
        assert value.item() == pytest.approx(((low < cells) & (cells < high)).mean(), abs=0.003)


masses = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any).map(lambda x: np.array([x]) / sum(x))


@given(masses, masses)
def test_a_wider_interval_covers_more_and_a_perfect_prediction_what_it_says(predicted, observed):
    found = coverage(*tensors(predicted, observed), LEVELS)[0]
    assert ((found >= -1e-12) & (found <= 1 + 1e-12)).all()
    assert (found.diff() >= -1e-12).all()
    np.testing.assert_allclose(coverage(*tensors(observed, observed), LEVELS)[0], LEVELS, atol=1e-12)
