"""Scores of whole cells beside brute force, and the copula beside the cells that it is matched to."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import kstest
from sklearn.metrics.pairwise import rbf_kernel

from histpert.copula import GaussianCopula
from histpert.correlations import pearson_correlations
from histpert.metrics.joint import (
    correlation_error,
    energy_statistic,
    maximum_mean_discrepancy,
)
from histpert.quantiles import quantiles
from histpert.screens import PRESETS, simulate_screen

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.gamma(1, size=(40, 5)), RANDOM.gamma(1.5, size=(30, 5))


def pairs(values):
    return values[~np.eye(len(values), dtype=bool)].mean()


def test_the_energy_statistic_is_that_over_all_pairs():
    expected = 2 * cdist(X, Y).mean() - pairs(cdist(X, X)) - pairs(cdist(Y, Y))
    assert energy_statistic(torch.from_numpy(X), torch.from_numpy(Y)).item() == pytest.approx(expected)


def test_the_discrepancy_is_that_of_the_kernels():
    median = np.median(cdist(Y, Y)[~np.eye(30, dtype=bool)] ** 2)
    expected = []
    for bandwidth in (0.5, 1, 2):
        gamma = 1 / (2 * bandwidth**2 * median)
        expected.append(
            pairs(rbf_kernel(X, X, gamma)) + pairs(rbf_kernel(Y, Y, gamma)) - 2 * rbf_kernel(X, Y, gamma).mean()
        )
    found = maximum_mean_discrepancy(torch.from_numpy(X), torch.from_numpy(Y)).item()
    assert found == pytest.approx(np.mean(expected), rel=5e-2)  # torch takes the lower of two middle values


@pytest.mark.parametrize("score", [energy_statistic, maximum_mean_discrepancy])
def test_cells_of_one_distribution_score_0_on_average_and_shifted_ones_more(score):
    draws = torch.from_numpy(np.random.default_rng(1).gamma(1, size=(200, 2, 40, 4)))
    found = torch.stack([score(*pair) for pair in draws])
    assert abs(found.mean()) < 4 * found.std() / 200**0.5
    shifted = torch.stack([score(one + 0.5, other) for one, other in draws])
    assert shifted.mean() - found.mean() > 10 * shifted.std() / 200**0.5


def correlated(n_cells, seed=2):
    random = np.random.default_rng(seed)
    latent, noise = random.normal(size=(n_cells, 2)), random.normal(size=(n_cells, 4))
    return torch.from_numpy(np.maximum(latent[:, [0, 0, 1, 1]] + 0.7 * noise, 0))


def test_the_correlation_error_is_that_of_numpy():
    one, other = correlated(300), correlated(200, 7)
    off = ~np.eye(4, dtype=bool)
    expected = np.abs(np.corrcoef(one.T) - np.corrcoef(other.T))[off].mean()
    assert correlation_error(one, other).item() == pytest.approx(expected)
    apart = torch.stack([gene[torch.randperm(300)] for gene in one.T], dim=1)
    assert correlation_error(apart, other) > 2 * correlation_error(one, other)


def test_rare_and_constant_genes_do_not_count():
    one, other = correlated(300), correlated(200, 7)
    rare = torch.zeros(200, 2, dtype=torch.float64)
    rare[:3, 0] = 1
    wider = torch.cat([one, torch.rand(300, 2, dtype=torch.float64)], dim=1), torch.cat([other, rare], dim=1)
    assert correlation_error(*wider).item() == pytest.approx(correlation_error(one, other).item())
    assert correlation_error(one[:, :1], other[:, :1]).isnan()


def test_quantiles_have_the_distribution_of_the_histogram():
    masses = torch.tensor([[[0.4, 0.0, 0.35, 0.25], [0.1, 0.2, 0.3, 0.4]]], dtype=torch.float64)
    lower, width = torch.tensor([-0.25, 1.0], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    uniform = torch.rand(1, 4_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = quantiles(masses, lower, width, uniform)[0].T.numpy()
    assert (first == 0).mean() == pytest.approx(0.4, abs=0.03)  # its first bin is centred on 0
    assert not ((first > 0) & (first < 0.75)).any()
    ends = np.linspace(1, 3, 5)
    assert kstest(second, lambda x: np.interp(x, ends, [0, 0.1, 0.3, 0.6, 1])).pvalue > 1e-3


def test_the_copula_gives_back_distributions_and_correlations_of_control():
    screen = simulate_screen(0, PRESETS["easy"]).screen.most_expressed(60)
    control = torch.from_numpy(screen.control.toarray())
    n_bins = 40
    width = control.amax(0).double() / (n_bins - 1)
    lower = -width / 2
    place = ((control - lower) / width).floor().long().T
    masses = torch.zeros(60, n_bins, dtype=torch.float64)
    masses = masses.scatter_add_(1, place, torch.ones_like(place, dtype=torch.float64)) / len(control)
    cells = GaussianCopula(control, 0).sample(masses[None], lower, width, 5_000, 1)[0]
    assert torch.equal(cells, GaussianCopula(control, 0).sample(masses[None], lower, width, 5_000, 1)[0])
    assert (cells.mean(0) - control.double().mean(0)).abs().max() < 0.05
    assert ((cells == 0).double().mean(0) - (control == 0).double().mean(0)).abs().max() < 0.03
    off = ~torch.eye(60, dtype=torch.bool)
    wanted, found = (pearson_correlations(some)[off] for some in (control, cells))
    assert wanted.abs().max() > 0.3
    by_chance = (2 / np.pi) ** 0.5 * (1 / 1_000 + 1 / 5_000) ** 0.5  # between so many cells of uncorrelated genes
    assert (found - wanted).abs().mean() < by_chance
    apart = torch.stack([gene[torch.randperm(len(cells))] for gene in cells.T], dim=1)
    assert (pearson_correlations(apart)[off] - wanted).abs().mean() > 2 * (found - wanted).abs().mean()


def test_more_genes_than_cells_can_be_matched():
    control = torch.rand(20, 50) * (torch.rand(20, 50) < 0.7)
    masses = torch.full((2, 50, 4), 0.25)
    cells = GaussianCopula(control, 0).sample(masses, torch.zeros(50), torch.ones(50), 30, 0)
    assert cells.isfinite().all()
    assert cells.shape == (2, 30, 50)
