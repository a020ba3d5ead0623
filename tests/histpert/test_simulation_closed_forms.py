"""The truth about simulated screens against closed forms, by SciPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import nbinom, norm
from simulated import CHECKED, EDGES, TINY, perturbation_of

from histpert.screens.simulation.drawing import draw_screen

# Nothing but the perturbed gene itself changes, and a gene's counts are negative binomial.
PLAIN = replace(TINY, program_spread=0.0, null_share=1.0, effect_size=0.0, log_rate_mean=0.0, log_rate_spread=1.0)


def plain_masses(truth, gene, rate, largest=1500):
    """Values and their masses, by SciPy, of a gene whose log rate does not vary."""
    counts = np.arange(largest)
    size = np.exp(-truth.log_dispersion[gene])
    means = rate * truth.library_sizes / 10_000
    masses = nbinom.pmf(counts, size, size / (size + means[:, None]))
    return np.log1p(counts / truth.library_sizes[:, None] * 10_000).ravel(), masses.ravel() / len(means)


def plain_moments(values, masses):
    mean = masses @ values
    variance, third, fourth = (masses @ (values - mean) ** k for k in (2, 3, 4))
    zeros = masses[values == 0].sum()
    return [mean, variance, third / variance**1.5, fourth / variance**2 - 3, zeros]


@pytest.mark.parametrize("library_spread", [0.0, 0.54])
def test_without_programs_control_is_negative_binomial(library_spread):
    truth, _ = draw_screen(2, replace(PLAIN, library_spread=library_spread))
    assert len(np.unique(truth.library_sizes)) == (1 if library_spread == 0 else len(truth.library_sizes))
    rate = np.exp(truth.log_rate)
    dispersion = PLAIN.dispersion + PLAIN.rare_dispersion / rate
    np.testing.assert_allclose(np.exp(truth.log_dispersion), dispersion)
    moments = truth.moments("control")
    histogram = truth.histogram("control", EDGES)
    for gene in range(len(truth.genes)):
        values, masses = plain_masses(truth, gene, rate[gene])
        assert masses.sum() == pytest.approx(1, abs=1e-10)
        np.testing.assert_allclose(moments.iloc[gene], plain_moments(values, masses), rtol=1e-6)
        inside = np.clip(values, EDGES[0], np.nextafter(EDGES[-1], 0))
        np.testing.assert_allclose(histogram[gene], np.histogram(inside, EDGES, weights=masses)[0], atol=1e-10)


def test_bins_of_one_count_each_have_the_negative_binomial_masses():
    truth, _ = draw_screen(2, replace(PLAIN, library_spread=0.0, library_size=10_000.0))
    rate, size = np.exp(truth.log_rate)[:, None], np.exp(-truth.log_dispersion)[:, None]
    masses = truth.histogram("control", np.log1p(np.arange(21) - 0.5))
    counts, chance = np.arange(20), size / (size + rate)
    expected = nbinom.pmf(counts, size, chance)
    expected[:, -1] += nbinom.sf(19, size, chance)[:, 0]
    np.testing.assert_allclose(masses, expected, atol=1e-10)
    # A bin holds its left edge, so that no zero lies below 0.
    np.testing.assert_allclose(truth.histogram("control", np.array([-1.0, 0.0, 0.1]))[:, 0], 0)


def test_programs_add_a_normal_to_the_log_rate():
    truth, _ = draw_screen(3, replace(CHECKED, library_spread=0.0, program_spread=0.6))
    spread = np.sqrt(((truth.loadings * truth.activity_spread) ** 2).sum(axis=1))
    assert spread.min() < 0.3
    assert spread.max() > 0.6
    scale = truth.library_sizes[0] / 10_000
    masses = truth.histogram("control", np.log1p(np.arange(-0.5, 4) / scale))
    np.testing.assert_array_equal(masses[:, 0], truth.moments("control")["zeros"])
    for gene in np.argsort(spread)[::6]:
        size, mean = np.exp(-truth.log_dispersion[gene]), np.exp(truth.log_rate[gene]) * scale

        def integrand(z, count, size=size, mean=mean, sigma=spread[gene]):
            return norm.pdf(z) * nbinom.pmf(count, size, size / (size + mean * np.exp(sigma * z)))

        expected = [quad(integrand, -9, 9, (count,))[0] for count in range(3)]
        np.testing.assert_allclose(masses[gene, :3], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["strong", "pair"])
def test_zeros_of_a_perturbed_gene_follow_from_rate_dispersion_and_silencing(kind):
    truth, _ = draw_screen(1, replace(CHECKED, library_spread=0.0, guide_efficiency=1.0))
    perturbation = perturbation_of(truth, kind)
    shift = truth.activity[truth.perturbations.index(perturbation)]
    log_rate = truth.log_rate + 3 * np.tanh(truth.loadings @ shift / 3)
    for name in perturbation.split("+"):
        log_rate[truth.genes.index(name)] += np.log(CHECKED.own_gene_fold)
    log_dispersion = truth.log_dispersion + 1.5 * np.tanh(truth.dispersion_loadings @ shift / 1.5)
    silenced = 1 - np.exp(-np.maximum(truth.silencing_loadings @ shift, 0))
    spread = np.sqrt(((truth.loadings * truth.activity_spread) ** 2).sum(axis=1))
    zeros = truth.moments(perturbation)["zeros"]
    for gene in range(len(truth.genes)):
        mean, dispersion = np.exp(log_rate[gene]) * truth.library_sizes[0] / 10_000, np.exp(log_dispersion[gene])

        def integrand(z, mean=mean, dispersion=dispersion, sigma=spread[gene]):
            return norm.pdf(z) * (1 + dispersion * mean * np.exp(sigma * z)) ** (-1 / dispersion)

        expected = silenced[gene] + (1 - silenced[gene]) * quad(integrand, -9, 9)[0]
        assert zeros.iloc[gene] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("own_gene_fold", [0.3, 8.0])
def test_without_programs_a_perturbation_changes_its_own_gene_in_the_cells_it_acts_in(own_gene_fold):
    truth, _ = draw_screen(4, replace(PLAIN, own_gene_fold=own_gene_fold))
    control = truth.moments("control")
    for number, name in enumerate(truth.perturbations):
        moments, gene, share = truth.moments(name), truth.genes.index(name), truth.efficiency[number]
        np.testing.assert_allclose(moments.drop(name), control.drop(name), rtol=1e-9)
        rate = np.exp(truth.log_rate[gene])
        values, as_control = plain_masses(truth, gene, rate)
        _, changed = plain_masses(truth, gene, own_gene_fold * rate)
        expected = plain_moments(values, share * changed + (1 - share) * as_control)
        np.testing.assert_allclose(moments.loc[name], expected, rtol=1e-5)
        assert (moments.loc[name, "mean"] < control.loc[name, "mean"]) == (own_gene_fold < 1)


@pytest.mark.parametrize("dispersion", [1e-2, 1e-3, 1e-6])
def test_counts_that_are_hardly_dispersed_have_their_moments_too(dispersion):
    # A Poisson count of a thousand is 0 with a chance that no floating-point number holds.
    plain = replace(PLAIN, n_genes=2, n_perturbations=1, n_cells=200, dispersion=dispersion, rare_dispersion=0.0)
    few = replace(plain, log_rate_mean=4.5, log_rate_spread=0.1, library_spread=0.0, library_size=150_000.0)
    truth, _ = draw_screen(0, few)
    moments = truth.moments("control")
    for gene in range(2):
        values, masses = plain_masses(truth, gene, np.exp(truth.log_rate[gene]), largest=5_000)
        np.testing.assert_allclose(moments.iloc[gene, :3], plain_moments(values, masses)[:3], rtol=1e-5)
    assert truth.histogram("control", EDGES).sum(axis=1) == pytest.approx(1, abs=1e-9)
