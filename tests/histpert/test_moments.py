"""Moments against numerical integration, NumPy and SciPy."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from histpert.moments import histogram_mean, histogram_moments, histogram_moments_both, moments_from_sums


def integrated(masses, width):
    """Mean from the lower edge, variance, skewness and excess kurtosis of a density, by quadrature bin by bin."""

    def expectation(function):
        return sum(
            scipy.integrate.quad(function, b * width, (b + 1) * width)[0] * mass / width
            for b, mass in enumerate(masses)
        )

    mean = expectation(lambda x: x)
    variance, third, fourth = (expectation(lambda x, k=k: (x - mean) ** k) for k in (2, 3, 4))
    return mean, variance, third / variance**1.5, fourth / variance**2 - 3


@pytest.mark.parametrize("n_bins", [2, 3, 10, 25])
@pytest.mark.parametrize("lower", [0.0, -0.3, 1e4])
def test_histogram_moments_agree_with_quadrature(n_bins, lower):
    random = np.random.default_rng(n_bins)
    masses = random.dirichlet(np.full(n_bins, 0.5), (2, 3))
    width = random.uniform(0.01, 0.5, 3)
    moments = histogram_moments(
        torch.from_numpy(masses), torch.full((3,), lower, dtype=torch.float64), torch.from_numpy(width)
    )
    expected = np.array([[integrated(masses[p, g], width[g]) for g in range(3)] for p in range(2)])
    np.testing.assert_allclose(moments.mean, lower + expected[..., 0], rtol=1e-12)
    for found, wanted in zip(moments[1:], np.moveaxis(expected, -1, 0)[1:], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)


def test_zeros_are_a_point_where_the_first_bin_is_centred_on_them():
    random = np.random.default_rng(1)
    masses, width = random.dirichlet(np.full(8, 0.7), (2, 3)), np.array([0.3, 0.1, 0.5])
    lower = np.array([-0.15, 0.02, -0.25])  # the smallest value of the second gene is not 0
    paper, zero_atom = histogram_moments_both(*map(torch.from_numpy, (masses, lower, width)))
    for found, expected in zip(paper, histogram_moments(*map(torch.from_numpy, (masses, lower, width))), strict=True):
        np.testing.assert_array_equal(found, expected)
    edges = lower[:, None] + width[:, None] * np.arange(9)

    def raw(k):  # of a mixture of a point and uniform bins
        of_bin = (edges[:, 1:] ** (k + 1) - edges[:, :-1] ** (k + 1)) / ((k + 1) * width[:, None])
        of_bin[[0, 2], 0] = 0
        return (masses * of_bin).sum(-1)

    m1, m2, m3, m4 = (raw(k) for k in (1, 2, 3, 4))
    variance = m2 - m1**2
    np.testing.assert_allclose(zero_atom.mean, m1, rtol=1e-10)
    np.testing.assert_allclose(zero_atom.variance, variance, rtol=1e-10)
    np.testing.assert_allclose(zero_atom.skewness, (m3 - 3 * m1 * m2 + 2 * m1**3) / variance**1.5, rtol=1e-8)
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    np.testing.assert_allclose(zero_atom.kurtosis, fourth / variance**2 - 3, rtol=1e-7)
    for both, one in zip(paper, zero_atom, strict=True):
        assert (both[:, 1] == one[:, 1]).all()
    assert (zero_atom.variance[:, [0, 2]] < paper.variance[:, [0, 2]]).all()


def test_all_cells_at_zero_have_no_skewness_in_the_reading_that_says_so():
    masses = torch.eye(4, dtype=torch.float64)[:1]
    paper, zero_atom = histogram_moments_both(masses, torch.tensor([-0.5]).double(), torch.tensor([1.0]).double())
    assert paper.variance.item() == pytest.approx(1 / 12)
    assert zero_atom.variance.item() == 0
    assert zero_atom.skewness.isnan().all()
    assert zero_atom.kurtosis.isnan().all()


def test_moments_of_a_narrow_histogram_far_from_zero_keep_their_digits():
    masses = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(15), (4, 1)))
    width = torch.tensor([1e-4]).double()
    near, far = (histogram_moments(masses, torch.tensor([lower]).double(), width) for lower in (0.0, 1e6))
    for statistic in ("variance", "skewness", "kurtosis"):
        torch.testing.assert_close(getattr(far, statistic), getattr(near, statistic), rtol=1e-10, atol=1e-10)


def test_one_full_bin_has_the_moments_of_a_uniform_distribution():
    masses = torch.zeros(1, 1, 9, dtype=torch.float64)
    masses[..., 6] = 1
    moments = histogram_moments(masses, torch.tensor([2.0]).double(), torch.tensor([0.3]).double())
    uniform = scipy.stats.uniform(2 + 6 * 0.3, 0.3).stats("mvsk")
    np.testing.assert_allclose([value.item() for value in moments], uniform, atol=1e-12)


def test_histogram_mean_is_the_weighted_average_of_the_centres():
    random = np.random.default_rng(4)
    masses, lower, width = random.dirichlet(np.ones(6), (2, 3)), random.normal(size=3), random.uniform(0.1, 1, 3)
    edges = lower[:, None] + width[:, None] * np.arange(7)
    expected = np.average(np.broadcast_to((edges[:, 1:] + edges[:, :-1]) / 2, masses.shape), weights=masses, axis=-1)
    found = histogram_mean(*(torch.from_numpy(array) for array in (masses, lower, width)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def moments_of(cells):
    """Moments of a cells x genes array by way of its sums."""
    sums = np.stack([np.sum(cells**k, axis=0) for k in (1, 2, 3, 4)])
    arrays = (sums, np.array([float(len(cells))]), cells.min(axis=0), cells.max(axis=0))
    return moments_from_sums(*(torch.from_numpy(array) for array in arrays))


def test_moments_of_cells_agree_with_numpy_and_scipy():
    random = np.random.default_rng(5)
    cells = np.log1p(random.poisson(random.gamma(2, 1, 20), (300, 20))).astype(np.float64)
    moments = moments_of(cells)
    np.testing.assert_allclose(moments.mean, np.mean(cells, axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, np.var(cells, axis=0), rtol=1e-11)
    np.testing.assert_allclose(moments.skewness, scipy.stats.skew(cells, bias=True), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(moments.kurtosis, scipy.stats.kurtosis(cells, bias=True), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.3])
def test_a_constant_gene_has_no_variance_and_no_shape(value):
    moments = moments_of(np.full((7, 2), value))
    assert moments.variance.tolist() == [0, 0]
    assert moments.skewness.isnan().all()
    assert moments.kurtosis.isnan().all()
    np.testing.assert_allclose(moments.mean, value, rtol=1e-15)
