"""Truncated Gaussians and their zero-inflated mixtures, beside SciPy and sums over cells."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.integrate import quad
from scipy.stats import norm, truncnorm

from histpert.cell_sums import CellSums
from histpert.densities import Density, log_normal_mass
from histpert.histograms import open_or_build
from histpert.histograms.cells_apart import CellsApart, limits
from histpert.histograms.counting import group_moments
from histpert.histograms.edges import bin_edges
from histpert.histograms.ranges import NO_FOLD
from histpert.screens import ReadOptions, assign_folds, read_screen

LOWER, UPPER, SPIKE = -0.2, 5.4, 0.2
# Mean and deviation before the cut, in the middle, at an end, 6 and more deviations beyond one, wide and narrow.
SHAPES = [(1.0, 0.7), (-0.2, 0.3), (5.4, 0.3), (-1.4, 0.2), (6.6, 0.2), (-2.6, 0.12), (2.0, 400.0), (3.0, 0.01)]


def density(shapes=SHAPES, log_odds=None, dtype=torch.float64):
    mu, sigma = torch.tensor(shapes, dtype=dtype).T
    ends = (torch.full((len(shapes),), end, dtype=dtype) for end in (LOWER, UPPER, SPIKE))
    odds = None if log_odds is None else torch.full((1, len(shapes)), log_odds, dtype=dtype)
    return Density(mu[None], sigma[None], *ends, odds)


def scipy_density(mu, sigma):
    return truncnorm((LOWER - mu) / sigma, (UPPER - mu) / sigma, loc=mu, scale=sigma)


def drawn(shapes, n_cells=400, p_zero=0.4):
    """Cells of one perturbation, genes as the densities say, with zeros and some near zero."""
    random = np.random.default_rng(0)
    columns = [scipy_density(*shape).rvs(n_cells, random_state=random) for shape in shapes]
    cells = np.stack(columns, axis=1).astype(np.float32)
    cells[random.random(cells.shape) < p_zero] = 0
    cells[random.random(cells.shape) < 0.05] = 0.1
    return cells


def rows_of(groups, n_bins=15, held_out=(), edges=None, dtype=torch.float64):
    """What is known of the cells of each group, on the range of all cells but the held-out groups."""
    start = np.cumsum([0, *map(len, groups)])
    screen = sp.csr_matrix(np.concatenate(groups))
    moments = group_moments(screen, start)
    training = [number for number in range(len(groups)) if number not in held_out]
    low, high = moments.minimum[training].min(0), moments.maximum[training].max(0)
    edges = edges or bin_edges(low, high, n_bins)
    keep = limits(edges, np.arange(len(low)), len(low))
    kept = [keep(screen[start[g] : start[g + 1]]) for g in range(len(groups))]
    first = np.cumsum([0, *(len(gene) for gene, _ in kept)])
    apart = CellsApart(first, *(np.concatenate(arrays) for arrays in zip(*kept, strict=True)))
    return CellSums(np.arange(len(groups)), moments, apart, edges, torch.device("cpu"), dtype), edges


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-6)])
def test_normal_masses_are_those_of_scipy_far_out_in_either_tail(dtype, tolerance):
    low = np.array([-40, -9, -6.5, -6, -1, -1e-3, 2, 6, 6, 8, 30, -8, -0.02])
    high = np.array([-38, -8, -6, -5.9, 1, 1e-3, 2.5, 6.2, 7, 9, 31, 8, 0.03])
    low, high = (np.asarray(torch.tensor(end, dtype=dtype).double()) for end in (low, high))
    with np.errstate(divide="ignore"):
        left = norm.logcdf(high) + np.log1p(-np.exp(norm.logcdf(low) - norm.logcdf(high)))
        right = norm.logsf(low) + np.log1p(-np.exp(norm.logsf(high) - norm.logsf(low)))
    expected = np.where(low > 0, right, left)
    found = log_normal_mass(torch.tensor(low, dtype=dtype), torch.tensor(high, dtype=dtype))
    np.testing.assert_allclose(found.double(), expected, rtol=tolerance, atol=30 * tolerance)


def test_gradients_of_masses_are_those_of_finite_differences():
    low = torch.tensor([-7.0, -1.0, 0.2, 6.0, -0.01], dtype=torch.float64, requires_grad=True)
    high = torch.tensor([-6.0, 2.0, 0.5, 7.5, 0.01], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_normal_mass, (low, high))


def test_moments_of_truncated_gaussians_are_those_of_scipy():
    found = density().moments()
    for gene, (mu, sigma) in enumerate(SHAPES):
        exact = scipy_density(mu, sigma)
        mean = exact.mean()
        central = [
            quad(lambda x, k=k, d=exact, m=mean: (x - m) ** k * d.pdf(x), *_support(exact), epsabs=1e-14, limit=500)[0]
            for k in (2, 3, 4)
        ]
        expected = mean, central[0], central[1] / central[0] ** 1.5, central[2] / central[0] ** 2 - 3
        np.testing.assert_allclose([value[0, gene] for value in found], expected, rtol=1e-6, atol=1e-6)


def _support(exact):
    return max(LOWER, exact.ppf(1e-14)), min(UPPER, exact.isf(1e-14))


@pytest.mark.parametrize("log_odds", [-2.0, 0.5])
def test_moments_and_masses_with_a_spike_are_those_of_the_integrated_mixture(log_odds):
    share = 1 / (1 + np.exp(-log_odds))
    found, masses = density(log_odds=log_odds).moments(), density(log_odds=log_odds).masses(14)
    edges = np.linspace(LOWER, UPPER, 15)
    for gene, (mu, sigma) in enumerate(SHAPES):
        exact = scipy_density(mu, sigma)
        raw = [share * (SPIKE**k / (k + 1) if k % 2 == 0 else 0) + (1 - share) * exact.moment(k) for k in range(5)]
        variance = raw[2] - raw[1] ** 2
        third = raw[3] - 3 * raw[1] * raw[2] + 2 * raw[1] ** 3
        fourth = raw[4] - 4 * raw[1] * raw[3] + 6 * raw[1] ** 2 * raw[2] - 3 * raw[1] ** 4
        expected = raw[1], variance, third / variance**1.5, fourth / variance**2 - 3
        np.testing.assert_allclose([value[0, gene] for value in found], expected, rtol=1e-5, atol=1e-5)
        in_bins = (1 - share) * np.diff(exact.cdf(edges))
        in_bins[0] += share
        np.testing.assert_allclose(masses[0, gene], in_bins, atol=1e-9)


def test_the_likelihood_from_sums_is_that_of_all_cells_by_scipy():
    shapes = SHAPES[:3]
    cells = drawn(shapes)
    rows, _ = rows_of([cells])
    # The range here is that of the cells; the density's own is wider, so that all are inside.
    found = density(shapes).negative_log_likelihood(rows[torch.tensor([0])])
    expected = [-scipy_density(*shape).logpdf(column).mean() for shape, column in zip(shapes, cells.T, strict=True)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_zero_inflated_likelihood_from_sums_is_that_of_all_cells(dtype):
    groups = [drawn(SHAPES[:3], n_cells) for n_cells in (50, 400, 7)]
    groups[0][:] = 0
    rows, edges = rows_of(groups, dtype=dtype)
    numbers = torch.tensor([2, 0, 1])
    mu, sigma, log_odds = torch.rand(3, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(0)) + 0.2
    lower, width = (torch.tensor(array, dtype=dtype) for array in (edges.lower, edges.width))
    upper = lower + edges.n_bins * width
    found = Density(mu, sigma, lower, upper, width / 2, log_odds).negative_log_likelihood(rows[numbers])
    for place, number in enumerate(numbers.tolist()):
        values = groups[number].astype(float)
        assert number == 0 or ((values > 0) & (values <= edges.width / 2)).any()
        m, s, odds = (array[place].double().numpy() for array in (mu, sigma, log_odds))
        low, high = (end.double().numpy() for end in (lower, upper))
        pdf = truncnorm.pdf(values, (low - m) / s, (high - m) / s, loc=m, scale=s)
        share = 1 / (1 + np.exp(-odds))
        spike = (np.abs(values) <= edges.width / 2) / edges.width
        expected = -np.log(share * spike + (1 - share) * pdf).mean(0)
        np.testing.assert_allclose(found[place], expected, rtol=1e-6 if dtype == torch.float64 else 2e-5, atol=1e-6)


def test_cells_beyond_the_range_count_as_at_its_end():
    training, held_out = drawn(SHAPES[:2], 200), drawn(SHAPES[:2], 60)
    held_out[:5] = 9.0
    held_out[5:9, 0] = -1.0
    rows, edges = rows_of([training, held_out], held_out=[1])
    lower, upper = torch.from_numpy(edges.lower), torch.from_numpy(edges.edges[:, -1])
    mu, sigma, odds = (torch.full((1, 2), value, dtype=torch.float64) for value in (0.8, 1.3, 0.3))
    each = Density(mu, sigma, lower, upper, torch.from_numpy(edges.width / 2), odds)
    clipped = np.clip(held_out.astype(float), edges.lower, edges.edges[:, -1])
    pdf = truncnorm.pdf(clipped, (edges.lower - 0.8) / 1.3, (edges.edges[:, -1] - 0.8) / 1.3, loc=0.8, scale=1.3)
    share = 1 / (1 + np.exp(-0.3))
    spike = (np.abs(clipped) <= edges.width / 2) / edges.width
    expected = -np.log(share * spike + (1 - share) * pdf).mean(0)
    np.testing.assert_allclose(each.negative_log_likelihood(rows[torch.tensor([1])])[0], expected, rtol=1e-6)


def test_the_store_keeps_apart_what_lies_near_zero_and_beyond_each_folds_range(tmp_path):
    random = np.random.default_rng(3)
    labels = np.repeat(["control", *(f"P{number}" for number in range(6))], 30)
    values = random.gamma(0.6, size=(len(labels), 5)).astype(np.float32)
    values[random.random(values.shape) < 0.4] = 0
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{number}" for number in range(len(labels))])
    anndata.AnnData(sp.csr_matrix(values), obs=obs).write_h5ad(tmp_path / "screen.h5ad")
    screen = read_screen(tmp_path / "screen.h5ad", ReadOptions())
    folds = assign_folds(screen.perturbations, 3, 0)
    store = open_or_build(tmp_path / "stores", screen, folds, (8,), apart=(8,))
    expression = screen.expression.toarray()
    for fold in range(3):
        counts = store.fold(fold, 8)
        first, gene, value = counts.apart()
        lower, upper, near = counts.edges.lower, counts.edges.edges[:, -1], counts.edges.width / 2
        for number in counts.held_out:
            cells = expression[screen.group_start[number + 1] : screen.group_start[number + 2]]
            needed = (cells != 0) & ((np.abs(cells) <= near) | (cells < lower) | (cells > upper))
            kept = slice(first[number + 1], first[number + 2])
            expected = sorted(zip(np.nonzero(needed)[1].tolist(), cells[needed].tolist(), strict=True))
            found = sorted(zip(gene[kept].tolist(), value[kept].tolist(), strict=True))
            assert set(expected) <= set(found)
    edges = bin_edges(*store.ranges.of_fold(NO_FOLD), 8)
    assert len(value) < ((expression != 0) & (expression <= 2 * edges.width)).sum()
