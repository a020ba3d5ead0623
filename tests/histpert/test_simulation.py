"""Simulated screens: their truth against a million cells and against SciPy, their effects, their cells, their files."""

import json
import os
from dataclasses import replace

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest, lognorm, nbinom, norm

from histpert.embeddings import read_embeddings
from histpert.errors import InputError
from histpert.screens import read_screen
from histpert.screens.simulation import PRESETS, ScreenTruth, Simulation, simulate_screen, write_screen
from histpert.screens.simulation.cells import assign_cells
from histpert.screens.simulation.drawing import draw_screen

TINY = Simulation(n_perturbations=8, n_genes=30, n_cells=600, n_control=100, min_cells=20, max_cells=120)
PAIRED = replace(TINY, n_pairs=5, n_cells=900)

CHECKED = replace(
    PAIRED,
    n_genes=40,
    n_pairs=8,
    # Every gene is seen in thousands of a million cells, so that each standard error can be relied on.
    log_rate_mean=-1.0,
    log_rate_spread=1.0,
    # All that a perturbation does is strong enough to be missed where it is left out.
    effect_size=0.7,
    guide_efficiency=0.7,
    dispersion_effect=1.0,
    silencing_effect=1.0,
)
# Odd places, that no value falls on but for rounding.
EDGES = np.array([0.0, 0.3713, 0.7317, 1.0931, 1.4719, 1.8113, 2.2371, 2.7139, 3.1771, 4.1])

# Nothing but the perturbed gene itself changes, and a gene's counts are negative binomial.
PLAIN = replace(TINY, program_spread=0.0, null_share=1.0, effect_size=0.0, log_rate_mean=0.0, log_rate_spread=1.0)


@pytest.fixture(scope="module")
def checked():
    return draw_screen(1, CHECKED)[0]


def strength(truth):
    """Root mean square log fold change, before it saturates, of every single perturbation and pair."""
    return np.sqrt(((truth.activity @ truth.loadings.T) ** 2).mean(axis=1))


def singles_and_pairs(truth):
    n_singles = len(truth.targets)
    return truth.perturbations[:n_singles], truth.perturbations[n_singles:]


def perturbation_of(truth, kind):
    """The strongest single perturbation, one without effects, or the strongest pair that is not additive."""
    singles, pairs = singles_and_pairs(truth)
    single, pair = np.split(strength(truth), [len(singles)])
    if kind == "control":
        return kind
    if kind == "pair":
        return pairs[int(np.argmax(pair * [name != "additive" for name in truth.interactions]))]
    return singles[int(np.argmax(single) if kind == "strong" else np.argmin(single))]


# ---- The truth against cells ----


def statistics_and_errors(expression):
    """Per gene the mean, variance, skewness and kurtosis of a sample, and their standard errors.

    The errors follow from what a cell adds to each statistic (its influence function), a polynomial in the cell's
    standardized value whose variance takes moments up to the eighth.
    """
    n_cells, n_genes = expression.shape
    total = np.bincount(expression.indices, expression.data, n_genes)
    mean = total / n_cells
    n_zeros = n_cells - np.bincount(expression.indices, minlength=n_genes)
    deviation = expression.data.astype(np.float64) - mean[expression.indices]
    central, power = [np.ones(n_genes)], np.ones_like(deviation)
    for k in range(1, 9):
        power *= deviation
        central.append((np.bincount(expression.indices, power, n_genes) + n_zeros * (-mean) ** k) / n_cells)
    spread = np.sqrt(central[2])
    z = np.array([moment / spread**k for k, moment in enumerate(central)])
    skewness, fourth = z[3], z[4]
    one, nothing = np.ones(n_genes), np.zeros(n_genes)
    influence = {  # coefficients of 1, z, z^2, z^3, z^4
        "mean": spread * np.array([nothing, one, nothing, nothing, nothing]),
        "variance": central[2] * np.array([-one, nothing, one, nothing, nothing]),
        "skewness": np.array([skewness / 2, -3 * one, -1.5 * skewness, one, nothing]),
        "kurtosis": np.array([fourth, -4 * skewness, -2 * fourth, nothing, one]),
    }
    errors = {
        name: np.sqrt(sum(c[i] * c[j] * z[i + j] for i in range(5) for j in range(5)) / n_cells)
        for name, c in influence.items()
    }
    return {"mean": mean, "variance": central[2], "skewness": skewness, "kurtosis": fourth - 3}, errors


def masses_of(expression, edges):
    """Share of cells per gene and bin, counted by NumPy gene by gene."""
    columns = sp.csc_matrix(expression)
    masses = np.empty((columns.shape[1], len(edges) - 1))
    for gene in range(columns.shape[1]):
        values = columns.data[columns.indptr[gene] : columns.indptr[gene + 1]]
        inside = np.clip(values, edges[0], np.nextafter(edges[-1], 0))
        masses[gene] = np.histogram(inside, edges)[0]
        masses[gene, 0] += columns.shape[0] - len(values)
    return masses / columns.shape[0]


@pytest.mark.parametrize("kind", ["control", "strong", "null", "pair"])
def test_the_truth_is_that_of_a_million_cells_within_four_standard_errors(checked, kind):
    perturbation, n_cells = perturbation_of(checked, kind), 1_000_000
    expression = checked.sample(perturbation, n_cells, seed=0).expression()
    found, errors = statistics_and_errors(expression)
    truth = checked.moments(perturbation)
    assert truth.index.tolist() == list(checked.genes)
    assert truth["zeros"].max() < 1 - 1e3 / n_cells

    def binomial(p):
        return np.sqrt(p * (1 - p) / n_cells)

    found["zeros"] = 1 - np.bincount(expression.indices, minlength=len(checked.genes)) / n_cells
    errors["zeros"] = binomial(truth["zeros"].to_numpy())
    off = {name: (found[name] - truth[name].to_numpy()) / errors[name] for name in found}
    masses = checked.histogram(perturbation, EDGES)
    often = masses * n_cells > 10
    off["masses"] = (masses_of(expression, EDGES) - masses)[often] / binomial(masses)[often]
    assert often.mean() > 0.75
    for name, z in off.items():
        assert np.abs(z).max() < 4, (name, z)
        # And over genes they are as far apart as standard errors say, no more and no less.
        assert 0.6 < np.sqrt(np.mean(z**2)) < 1.5, (name, z)
    # What is too rare for a standard error is rare in the sample too.
    assert masses_of(expression, EDGES)[~often].max(initial=0) * n_cells < 40


@pytest.mark.parametrize("kind", ["strong", "pair"])
def test_the_checked_perturbations_do_all_that_perturbations_can_do(checked, kind):
    response = checked.number(perturbation_of(checked, kind))
    effects = checked.effects(np.array([response]))
    assert np.abs(checked.activity[response] @ checked.loadings.T).max() > 3
    assert np.abs(effects.log_dispersion).max() > 0.7
    assert effects.silenced.max() > 0.3


# ---- The truth against closed forms ----


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


# ---- Histograms ----


def test_masses_add_to_one_and_what_lies_outside_counts_in_the_nearest_bin(checked):
    perturbation = perturbation_of(checked, "strong")
    wide = checked.histogram(perturbation, np.array([-1.0, 0.5, 1.0, 1.5, 2.0, 30.0]))
    np.testing.assert_allclose(wide.sum(axis=1), 1, atol=1e-9)
    narrow = checked.histogram(perturbation, np.array([0.5, 1.0, 1.5, 2.0]))
    np.testing.assert_allclose(narrow, np.column_stack([wide[:, 0] + wide[:, 1], wide[:, 2], wide[:, 3:].sum(axis=1)]))
    beyond = checked.histogram(perturbation, np.array([20.0, 21.0, 22.0]))
    np.testing.assert_allclose(beyond, [[1, 0]] * len(checked.genes), atol=1e-9)
    below = checked.histogram(perturbation, np.array([-3.0, -2.0, -1.0]))
    np.testing.assert_allclose(below, [[0, 1]] * len(checked.genes), atol=1e-9)
    np.testing.assert_array_equal(
        checked.histogram(perturbation, np.array([-np.inf, 0.5, 1.0, 1.5, 2.0, np.inf])), wide
    )


def test_edges_per_gene_give_each_gene_what_edges_for_all_give(checked):
    rows = np.sort(np.random.default_rng(0).uniform(0, 4, (len(checked.genes), 6)), axis=1)
    each = checked.histogram("control", rows)
    for gene in (0, 17, 39):
        np.testing.assert_array_equal(each[gene], checked.histogram("control", rows[gene])[gene])
    np.testing.assert_array_equal(
        checked.histogram("control", np.tile(EDGES, (len(checked.genes), 1))), checked.histogram("control", EDGES)
    )


@pytest.mark.parametrize("kind", ["control", "strong", "pair"])
def test_a_fine_histogram_has_the_true_mean_and_variance(checked, kind):
    perturbation, edges = perturbation_of(checked, kind), np.linspace(-0.005, 11.995, 1201)
    masses, centres = checked.histogram(perturbation, edges), (edges[1:] + edges[:-1]) / 2
    moments = checked.moments(perturbation)
    np.testing.assert_allclose(masses @ centres, moments["mean"], atol=0.005)
    np.testing.assert_allclose(masses @ centres**2 - (masses @ centres) ** 2, moments["variance"], atol=0.005)
    np.testing.assert_allclose(masses[:, 0], moments["zeros"], rtol=1e-12)


BAD_EDGES = {
    "falling": np.array([0.0, 2.0, 1.0]),
    "standing": np.array([0.0, 1.0, 1.0]),
    "not a number": np.array([0.0, np.nan, 1.0]),
    "one": np.array([1.0]),
    "none": np.zeros(0),
    "rows for other genes": np.tile(EDGES, (39, 1)),
    "one falling row": np.concatenate([np.tile([0.0, 1.0, 2.0], (39, 1)), [[2.0, 1.0, 3.0]]]),
}


@pytest.mark.parametrize("case", BAD_EDGES)
def test_edges_that_do_not_fit_are_refused(checked, case):
    with pytest.raises(InputError, match=r"bin edges of shape \(.*\): give two or more rising edges"):
        checked.histogram("control", BAD_EDGES[case])


@pytest.mark.parametrize("name", ["NOGENE", "ctrl", "", "control+GENE01", "GENE01+GENE01", "+"])
def test_an_unknown_perturbation_is_named(checked, name):
    for ask in (
        lambda: checked.moments(name),
        lambda: checked.histogram(name, EDGES),
        lambda: checked.sample(name, 5, 0),
    ):
        with pytest.raises(InputError) as failure:
            ask()
        assert repr(name) in str(failure.value)


# ---- Pairs ----


def test_a_pair_is_named_in_either_order(checked):
    for pair in singles_and_pairs(checked)[1][:2]:
        turned = "+".join(reversed(pair.split("+")))
        assert turned != pair
        assert checked.moments(turned).equals(checked.moments(pair))
        np.testing.assert_array_equal(checked.histogram(turned, EDGES), checked.histogram(pair, EDGES))
        assert (checked.sample(turned, 50, 1).counts != checked.sample(pair, 50, 1).counts).nnz == 0


def test_the_guides_of_a_pair_work_independently_of_each_other(checked):
    n_cells = 200_000
    pair = perturbation_of(checked, "pair")
    first, second = (checked.perturbations.index(name) for name in pair.split("+"))
    both, (a, b) = checked.perturbations.index(pair), checked.efficiency[[first, second]]
    assert abs(a - b) > 0.05
    shares = {-1: (1 - a) * (1 - b), first: a * (1 - b), second: (1 - a) * b, both: a * b}
    assert checked.mixture(pair) == pytest.approx(shares)
    response = checked.sample(pair, n_cells, seed=2).response
    assert set(response) == set(shares)
    for number, share in shares.items():
        assert np.mean(response == number) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / n_cells))


def test_a_single_guide_works_in_its_share_of_cells_and_control_cells_have_none(checked):
    n_cells = 200_000
    for name in singles_and_pairs(checked)[0][:3]:
        number = checked.perturbations.index(name)
        share = checked.efficiency[number]
        assert checked.mixture(name) == pytest.approx({-1: 1 - share, number: share})
        response = checked.sample(name, n_cells, seed=3).response
        assert set(response) == {-1, number}
        assert np.mean(response == number) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / n_cells))
    assert set(checked.sample("control", 100, 3).response) == {-1}


def test_the_truth_of_a_pair_is_the_mixture_of_its_parts(checked):
    pair = perturbation_of(checked, "pair")
    first, second = pair.split("+")
    a, b = (checked.efficiency[checked.perturbations.index(name)] for name in (first, second))
    sure = replace(checked, efficiency=np.ones_like(checked.efficiency))
    parts = [(pair, a * b), (first, a * (1 - b)), (second, (1 - a) * b), ("control", (1 - a) * (1 - b))]
    for column in ("mean", "zeros"):
        expected = sum(share * sure.moments(name)[column] for name, share in parts)
        np.testing.assert_allclose(checked.moments(pair)[column], expected, rtol=1e-9)
    expected = sum(share * sure.histogram(name, EDGES) for name, share in parts)
    np.testing.assert_allclose(checked.histogram(pair, EDGES), expected, atol=1e-12)


def many_pairs(epistatic_share):
    simulation = Simulation(
        n_perturbations=25, n_pairs=200, n_genes=60, n_cells=30_000, epistatic_share=epistatic_share, null_share=0.2
    )
    return draw_screen(5, simulation)[0]


def test_pairs_are_of_two_genes_perturbed_alone_too():
    truth = many_pairs(0.5)
    singles, pairs = singles_and_pairs(truth)
    assert len({frozenset(pair.split("+")) for pair in pairs}) == 200
    for pair, (first, second) in zip(pairs, truth.pairs, strict=True):
        assert pair == f"{singles[first]}+{singles[second]}"
        assert first != second
    n_other = sum(kind != "additive" for kind in truth.interactions)
    assert abs(n_other - 100) < 4 * np.sqrt(200 / 4)


def test_without_epistasis_the_effect_of_a_pair_is_the_sum_of_the_single_ones():
    truth = many_pairs(0.0)
    assert set(truth.interactions) == {"additive"}
    np.testing.assert_allclose(truth.activity[25:], truth.activity[truth.pairs].sum(axis=1), atol=1e-12)


def test_interactions_combine_the_single_effects_as_their_names_say():
    truth = many_pairs(1.0)
    kinds = np.array(truth.interactions)
    assert set(kinds) == {"synergy", "suppression", "epistasis", "neomorphism"}
    assert min(np.sum(kinds == kind) for kind in set(kinds)) > 50 - 4 * np.sqrt(200 * 0.25 * 0.75)
    size = strength(truth)
    for kind, (first, second), joint in zip(kinds, truth.pairs, truth.activity[25:], strict=True):
        strong = first if size[first] >= size[second] else second
        both = truth.activity[first] + truth.activity[second]
        expected = {"synergy": 1.5 * both, "suppression": 0.5 * both, "epistasis": truth.activity[strong]}
        if kind in expected:
            np.testing.assert_allclose(joint, expected[kind], atol=1e-12)
        else:
            # Something new besides, as strong as the stronger one and unlike either.
            new = (joint - both) @ truth.loadings.T
            assert np.sqrt(np.mean(new**2)) == pytest.approx(size[strong], abs=1e-9)
            assert size[strong] == 0 or not np.allclose(joint - both, truth.activity[strong])


# ---- Effects, and what embeddings tell of them ----


@pytest.mark.parametrize(("n", "null_share", "n_null"), [(25, 0.4, 10), (25, 0.0, 0), (9, 1.0, 9), (10, 0.33, 3)])
def test_the_share_without_effects_and_the_median_size_of_the_others_are_as_asked(n, null_share, n_null):
    simulation = replace(
        TINY, n_perturbations=n, n_cells=100 + 60 * n, null_share=null_share, effect_size=0.31, effect_spread=0.9
    )
    truth, _ = draw_screen(6, simulation)
    size = strength(truth)
    assert np.sum(size == 0) == n_null
    if n_null < n:
        assert (n - n_null) % 2 == 1  # so that one of them is the median
        assert np.median(size[size > 0]) == pytest.approx(0.31, rel=1e-9)


def test_sizes_of_effects_are_log_normal():
    truth, _ = draw_screen(7, replace(TINY, n_perturbations=200, n_genes=300, n_cells=9000, null_share=0.25))
    size = np.log(strength(truth)[strength(truth) > 0])
    assert len(size) == 150
    expected = norm(np.log(TINY.effect_size), TINY.effect_spread)
    assert kstest(size, expected.cdf).statistic < 1 / 150


def held_out_r2(vectors, wanted):
    """R2, on every second gene, of a linear regression fitted on the others."""
    design = np.column_stack([np.ones(len(vectors)), vectors.astype(np.float64)])
    coefficients = np.linalg.lstsq(design[::2], wanted[::2], rcond=1e-5)[0]
    left = wanted[1::2] - design[1::2] @ coefficients
    return 1 - (left**2).sum() / ((wanted[1::2] - wanted[::2].mean(axis=0)) ** 2).sum()


def embedded(told_share, embedding_quality):
    """What embeddings tell of directions and of sizes, by source."""
    simulation = replace(
        TINY,
        n_perturbations=600,
        n_genes=600,
        n_cells=30_000,
        null_share=0.0,
        told_share=told_share,
        embedding_quality=embedding_quality,
    )
    truth, embeddings = draw_screen(8, simulation)
    size = strength(truth)
    told = {"direction": truth.activity / size[:, None], "size": np.log(size)[:, None]}
    names = truth.perturbations
    return {
        source: {what: held_out_r2(vectors.lookup(names), values) for what, values in told.items()}
        for source, vectors in embeddings.items()
    }


@pytest.mark.parametrize("what", ["direction", "size"])
def test_embeddings_tell_effects_as_far_as_the_settings_say(what):
    assert embedded(1.0, (1.0, 1.0))["good"][what] > 0.8
    assert embedded(0.0, (1.0, 1.0))["good"][what] < 0.1
    half = embedded(0.5, (1.0, 0.3))
    assert 0.3 < half["good"][what] < 0.7
    assert 0.05 < half["poor"][what] < half["good"][what] - 0.1
    assert half["permuted"][what] < 0.1


def test_permuted_embeddings_are_those_of_other_genes():
    truth, embeddings = draw_screen(9, replace(TINY, n_features=(7, 3)))
    assert set(embeddings) == {"good", "poor", "permuted"}
    good, permuted = embeddings["good"].vectors, embeddings["permuted"].vectors
    assert good.shape == permuted.shape == (8, 7)
    assert embeddings["poor"].vectors.shape == (8, 3)
    assert sorted(map(tuple, good)) == sorted(map(tuple, permuted))
    assert not np.array_equal(good, permuted)
    for name, source in embeddings.items():
        assert source.name == name
        assert source.genes == truth.perturbations
        assert len(np.unique(source.vectors, axis=0)) == 8


def test_effects_saturate_however_strong_the_shift(checked):
    strongest = checked.number(perturbation_of(checked, "strong"))
    others = np.arange(len(checked.genes)) != checked.targets[strongest]

    def scaled(factor):
        activity = np.zeros_like(checked.activity)
        activity[strongest] = factor * checked.activity[strongest]
        effects = replace(checked, activity=activity).effects(np.array([strongest]))
        return (values[0, others] for values in effects)

    log_rate, log_dispersion, silenced = scaled(1e-4)
    linear = [loadings @ checked.activity[strongest] for loadings in (checked.loadings, checked.dispersion_loadings)]
    np.testing.assert_allclose(log_rate, 1e-4 * linear[0][others], rtol=1e-5)
    np.testing.assert_allclose(log_dispersion, 1e-4 * linear[1][others], rtol=1e-5)
    log_rate, log_dispersion, silenced = scaled(1e9)
    np.testing.assert_allclose(np.abs(log_rate), 3)
    np.testing.assert_allclose(np.abs(log_dispersion), 1.5)
    # A fifth of the genes can be silenced, and a program does it in one direction only.
    assert set(silenced) == {0.0, 1.0}
    assert silenced.mean() < 0.3


def test_silencing_adds_zeros_and_leaves_the_other_values_as_they_are():
    settings = replace(CHECKED, guide_efficiency=1.0)
    (with_silencing, _), (without, _) = (draw_screen(1, replace(settings, silencing_effect=x)) for x in (1.0, 0.0))
    name = perturbation_of(without, "strong")
    before, after = (truth.histogram(name, EDGES) for truth in (without, with_silencing))
    added = with_silencing.moments(name)["zeros"] - without.moments(name)["zeros"]
    assert added.min() >= 0
    assert 2 <= np.sum(added > 0.05) < 0.4 * len(added)
    kept = (1 - with_silencing.moments(name)["zeros"]) / (1 - without.moments(name)["zeros"])
    np.testing.assert_allclose(after[:, 1:], before[:, 1:] * kept.to_numpy()[:, None], atol=1e-12)
    assert with_silencing.moments("control").equals(without.moments("control"))


def test_genes_of_a_program_vary_together():
    def correlation(program_spread):
        expressed = replace(TINY, log_rate_mean=2.0, log_rate_spread=0.3, n_programs=3)
        truth, _ = draw_screen(10, replace(expressed, program_spread=program_spread))
        sample = truth.sample("control", 4000, 0)
        of_genes = np.corrcoef(sample.expression().toarray().T)
        along = truth.loadings * truth.activity_spread**2 @ truth.loadings.T
        upper = np.triu_indices(30, 1)
        return np.abs(of_genes[upper]).mean(), np.corrcoef(of_genes[upper], along[upper])[0, 1]

    # Sampling alone gives sqrt(2 / pi / 4000) = 0.013 and, through library sizes, hardly more.
    assert correlation(1e-9)[0] < 0.02
    strong, with_loadings = correlation(0.8)
    assert strong > 0.08
    assert with_loadings > 0.9


def test_guides_work_in_the_asked_share_of_cells_on_average():
    many = replace(TINY, n_perturbations=900, n_genes=900, n_cells=50_000)
    efficiency = draw_screen(11, many)[0].efficiency
    # A beta distribution of mean 0.8 and concentration 12.
    assert efficiency.mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 13 / 900))
    assert efficiency.std() == pytest.approx(np.sqrt(0.8 * 0.2 / 13), rel=0.1)
    assert (draw_screen(11, replace(many, guide_efficiency=1.0))[0].efficiency == 1).all()


def test_log_rates_and_library_sizes_are_distributed_as_asked():
    truth, _ = draw_screen(12, replace(TINY, n_genes=4000))
    z = (truth.log_rate - TINY.log_rate_mean) / TINY.log_rate_spread
    assert np.abs(z).max() < 3
    assert kstest(z, norm.cdf).pvalue > 1e-3
    sizes = lognorm(s=TINY.library_spread, scale=TINY.library_size)
    assert kstest(truth.library_sizes, sizes.cdf).statistic < 1 / len(truth.library_sizes)


# ---- Cells ----


def group_sizes(truth):
    groups = assign_cells(truth)
    assert groups.min() == -1
    return np.bincount(groups + 1, minlength=len(truth.perturbations) + 1)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 12), st.integers(1, 40), st.integers(0, 60), st.floats(0, 1), st.floats(0, 3), st.integers(0, 2**32)
)
def test_every_perturbation_has_a_number_of_cells_within_its_limits(n, least, more, share, spread, seed):
    n_cells = 17 + n * least + round(share * n * more)
    simulation = replace(
        TINY, n_perturbations=n, n_control=17, min_cells=least, max_cells=least + more, n_cells=n_cells
    )
    sizes = group_sizes(draw_screen(seed, replace(simulation, cells_spread=spread))[0])
    assert sizes[0] == 17
    assert sizes.sum() == n_cells
    assert least <= sizes[1:].min() <= sizes[1:].max() <= least + more


def test_numbers_of_cells_spread_as_asked():
    wide = replace(TINY, n_perturbations=300, n_genes=300, n_cells=300_100, min_cells=1, max_cells=100_000)
    assert set(group_sizes(draw_screen(0, replace(wide, cells_spread=0.0))[0])[1:]) == {1000}
    spread = np.log(group_sizes(draw_screen(0, replace(wide, cells_spread=0.6))[0])[1:]).std()
    assert spread == pytest.approx(0.6, abs=4 * 0.6 / np.sqrt(2 * 300))


def test_cells_are_whole_counts_and_have_the_library_sizes_of_the_truth(checked):
    cells = checked.sample(perturbation_of(checked, "strong"), 30_000, seed=4)
    assert cells.counts.shape == (30_000, 40)
    assert cells.counts.dtype == np.float32
    assert (cells.counts.data > 0).all()
    np.testing.assert_array_equal(cells.counts.data, np.rint(cells.counts.data))
    sizes, seen = np.unique(cells.library_size, return_counts=True)
    np.testing.assert_array_equal(sizes, np.unique(checked.library_sizes))
    assert np.abs(seen - 30_000 / 256).max() < 5 * np.sqrt(30_000 / 256)
    expected = np.log1p(cells.counts.toarray() / cells.library_size[:, None] * 10_000)
    np.testing.assert_allclose(cells.expression().toarray(), expected, rtol=1e-6)


def test_the_seed_decides_the_screen():
    one, again, other = (simulate_screen(seed, PAIRED) for seed in (3, 3, 4))
    assert one.screen.fingerprint() == again.screen.fingerprint() != other.screen.fingerprint()
    for source, vectors in one.embeddings.items():
        assert vectors.fingerprint() == again.embeddings[source].fingerprint() != other.embeddings[source].fingerprint()
    assert one.truth.moments("control").equals(again.truth.moments("control"))
    assert not one.truth.moments("control").equals(other.truth.moments("control"))


def test_the_seed_decides_a_sample_which_repeats_no_cells_of_the_screen(tmp_path):
    write_screen(tmp_path / "s.h5ad", 5, TINY)
    truth = ScreenTruth.load(tmp_path / "s.truth.npz")
    of_screen = anndata.read_h5ad(tmp_path / "s.h5ad").obs["library_size"].to_numpy()
    one, again, other = (truth.sample("control", 600, seed) for seed in (5, 5, 6))
    assert (one.counts != again.counts).nnz == 0
    np.testing.assert_array_equal(one.library_size, again.library_size)
    # Of 256 sizes two that have nothing to do with each other are the same once in 256 cells.
    for first, second in ((one.library_size, other.library_size), (one.library_size, of_screen)):
        assert np.mean(first == second) < 0.03


def test_the_screen_holds_the_cells_that_its_truth_describes():
    simulation = replace(CHECKED, n_pairs=0, n_cells=40_000, n_control=15_000, min_cells=1000, max_cells=10_000)
    screen, _, truth = simulate_screen(6, simulation)
    assert screen.perturbations == truth.perturbations
    for group, name in enumerate(("control", *truth.perturbations)):
        cells = screen.expression[screen.group_start[group] : screen.group_start[group + 1]].toarray()
        moments = truth.moments(name)
        error = np.sqrt(moments["variance"] / len(cells))
        assert (np.abs(cells.mean(axis=0) - moments["mean"]) < 4.5 * error).all(), name


def test_cells_do_not_depend_on_the_number_of_threads(checked, monkeypatch):
    def sample(n_threads):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(n_threads)), raising=False)
        return checked.sample(checked.perturbations[1], 120_000, seed=7)  # five blocks

    one, three = sample(1), sample(3)
    assert (one.counts != three.counts).nnz == 0
    np.testing.assert_array_equal(one.library_size, three.library_size)
    np.testing.assert_array_equal(one.response, three.response)


@pytest.mark.parametrize("n_cells", [0, -3])
def test_a_sample_without_cells_is_refused(checked, n_cells):
    with pytest.raises(InputError, match=f"{n_cells} cells of 'control'"):
        checked.sample("control", n_cells, 0)


def test_perturbed_genes_go_down_and_others_move_in_the_cells_of_a_screen():
    large = replace(TINY, n_cells=4000, n_control=800, min_cells=300, max_cells=600)
    expressed = replace(large, log_rate_mean=1.0, log_rate_spread=0.5, own_gene_fold=0.1)
    screen, _, truth = simulate_screen(12, replace(expressed, effect_size=0.4, effect_spread=0.2, null_share=0.5))
    control = screen.control.toarray()
    noise = np.abs(control[::2].mean(axis=0) - control[1::2].mean(axis=0)).mean()
    shifts = []
    for group, name in enumerate(screen.perturbations, start=1):
        cells = screen.expression[screen.group_start[group] : screen.group_start[group + 1]].toarray()
        gene = screen.genes.index(name)
        others = np.arange(len(screen.genes)) != gene
        shifts.append(np.abs(cells.mean(axis=0) - control.mean(axis=0))[others].mean())
        if strength(truth)[group - 1] == 0:
            assert cells[:, gene].mean() < 0.6 * control[:, gene].mean()
    acts = strength(truth) > 0
    assert acts.sum() == 4
    assert np.max(np.array(shifts)[~acts]) < 2 * noise < np.min(np.array(shifts)[acts])


# ---- Files ----

KINDS = {"screen": "h5ad", "truth": "truth.npz", "good": "good.npz", "poor": "poor.npz", "permuted": "permuted.npz"}
# Four blocks of cells.
IN_BLOCKS = replace(PAIRED, n_genes=2000, n_cells=1700, max_cells=200, log_rate_mean=-3.0)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_written_screen_is_read_by_anndata(tmp_path):
    paths = write_screen(tmp_path / "new" / "folder" / "s.h5ad", 1, PAIRED)
    assert {kind: path.name for kind, path in paths.items()} == {kind: f"s.{end}" for kind, end in KINDS.items()}
    assert names_in(tmp_path / "new" / "folder") == sorted(f"s.{end}" for end in KINDS.values())
    data = anndata.read_h5ad(paths["screen"])
    truth, _ = draw_screen(1, PAIRED)
    assert data.shape == (900, 30)
    assert tuple(data.var_names) == truth.genes
    assert data.obs_names.is_unique
    assert list(data.obs) == ["perturbation", "library_size"]
    assert data.obs["perturbation"].value_counts()["control"] == 100
    assert set(data.obs["perturbation"]) == {"control", *truth.perturbations}
    assert set(data.obs["library_size"]) <= set(truth.library_sizes.tolist())
    assert sp.isspmatrix_csr(data.X)
    np.testing.assert_array_equal(data.X.data, np.rint(data.X.data))
    assert data.uns["simulation"]["seed"] == 1
    assert json.loads(data.uns["simulation"]["settings"])["n_pairs"] == 5
    # Cells are in no order: about a ninth of either half is control.
    of_half = (data.obs["perturbation"] == "control").to_numpy().reshape(2, 450).sum(axis=1)
    assert of_half.min() > 30


@pytest.mark.parametrize("simulation", [TINY, PAIRED, IN_BLOCKS], ids=["singles", "pairs", "blocks"])
def test_the_screen_in_a_file_is_the_screen_in_memory(tmp_path, simulation):
    done = []
    write_screen(tmp_path / "s.h5ad", 2, simulation, done.append)
    assert sum(done) == simulation.n_cells
    assert len(done) == (4 if simulation is IN_BLOCKS else 1)
    read, made = read_screen(tmp_path / "s.h5ad"), simulate_screen(2, simulation)
    assert read.fingerprint() == made.screen.fingerprint()
    assert read.n_cells[0] == simulation.n_control
    assert len(read.perturbations) == simulation.n_perturbations
    assert any("SIMULATED" in note for note in made.screen.notes)
    for source, embeddings in made.embeddings.items():
        with np.load(tmp_path / f"s.{source}.npz") as archive:
            assert archive["genes"].tolist() == list(embeddings.genes)
            np.testing.assert_array_equal(archive["vectors"], embeddings.vectors)
        found = read_embeddings([tmp_path / f"s.{source}.npz"])
        assert found.genes == embeddings.genes
        # Readers may bring sources to one scale.
        factor = np.linalg.norm(found.vectors) / np.linalg.norm(embeddings.vectors)
        np.testing.assert_allclose(found.vectors, factor * embeddings.vectors, rtol=1e-5)


def test_the_truth_in_a_file_is_the_truth_in_memory(tmp_path):
    write_screen(tmp_path / "s.h5ad", 3, PAIRED)
    loaded, drawn = ScreenTruth.load(str(tmp_path / "s.truth.npz")), draw_screen(3, PAIRED)[0]
    assert (loaded.simulation, loaded.seed, loaded.interactions) == (PAIRED, 3, drawn.interactions)
    for name in ("control", *drawn.perturbations):
        assert loaded.moments(name).equals(drawn.moments(name))
    pair = drawn.perturbations[-1]
    np.testing.assert_array_equal(loaded.histogram(pair, EDGES), drawn.histogram(pair, EDGES))
    assert (loaded.sample(pair, 100, 0).counts != drawn.sample(pair, 100, 0).counts).nnz == 0


@pytest.mark.parametrize("end", KINDS.values())
def test_no_file_is_overwritten(tmp_path, end):
    there = tmp_path / f"s.{end}"
    there.write_text("mine")
    with pytest.raises(InputError) as failure:
        write_screen(tmp_path / "s.h5ad", 0, TINY)
    assert str(failure.value).startswith(f"{there} exists already")
    assert there.read_text() == "mine"
    assert names_in(tmp_path) == [there.name]


@pytest.mark.parametrize("name", ["s.h5", "s", "s.h5ad.gz", ".h5ad"])
def test_a_screen_is_written_under_its_own_suffix_only(tmp_path, name):
    with pytest.raises(InputError, match=r"name a file that ends in \.h5ad"):
        write_screen(tmp_path / name, 0, TINY)
    assert names_in(tmp_path) == []


def test_a_screen_that_is_stopped_half_way_leaves_nothing_behind(tmp_path):
    done = []

    def stop(n_cells):
        done.append(n_cells)
        if len(done) == 2:
            assert len(names_in(tmp_path)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_screen(tmp_path / "s.h5ad", 0, IN_BLOCKS, stop)
    assert len(done) == 2
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("end", KINDS.values())
def test_a_file_that_cannot_be_put_in_place_leaves_no_others_behind(tmp_path, end):
    # Somebody makes a folder of that name while the cells are drawn.
    with pytest.raises(InputError, match=r"s\.h5ad cannot be written"):
        write_screen(tmp_path / "s.h5ad", 0, TINY, lambda n_cells: (tmp_path / f"s.{end}").mkdir())
    assert names_in(tmp_path) == [f"s.{end}"]


def test_a_place_where_no_files_can_be_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file" / "s.h5ad", tmp_path / f"{300 * 's'}.h5ad"):
        with pytest.raises(InputError) as failure:
            write_screen(path, 0, TINY)
        assert str(failure.value).startswith(f"{path} cannot be written")


def truth_file(folder, simulation=TINY):
    path = folder / "s.truth.npz"
    draw_screen(0, simulation)[0].save(path)
    return path


def rewritten(folder, change):
    """A truth file whose arrays, and settings, were changed."""
    path = truth_file(folder)
    with np.load(path) as archive:
        arrays = dict(archive)
    words = json.loads(str(arrays["settings"]))
    change(words, arrays)
    np.savez(path, **{**arrays, "settings": np.array(json.dumps(words))})
    return path


def contents(folder, content):
    path = folder / "s.truth.npz"
    path.write_bytes(content)
    return path


def an_array(folder):
    np.save(folder / "array.npy", np.zeros(3))
    return folder / "array.npy"


def embeddings_file(folder):
    draw_screen(0, TINY)[1]["good"].save(folder / "s.good.npz")
    return folder / "s.good.npz"


BAD_TRUTHS = {
    "missing": (lambda folder: folder / "gone.truth.npz", "does not exist"),
    "folder": (lambda folder: folder, "is not the parameter file"),
    "empty": (lambda folder: contents(folder, b""), "is not the parameter file"),
    "text": (lambda folder: contents(folder, b"no archive\n"), "is not the parameter file"),
    "truncated": (lambda folder: contents(folder, truth_file(folder).read_bytes()[:2000]), "is not the parameter file"),
    "one array": (an_array, "is not the parameter file"),
    "embeddings": (embeddings_file, "is not the parameter file"),
    "array missing": (
        lambda folder: rewritten(folder, lambda words, arrays: arrays.pop("loadings")),
        "is not the parameter file",
    ),
    "setting missing": (
        lambda folder: rewritten(folder, lambda words, arrays: words.pop("simulation")),
        "is not the parameter file",
    ),
    "unknown setting": (
        lambda folder: rewritten(folder, lambda words, arrays: words["simulation"].update(n_moons=2)),
        "is not the parameter file",
    ),
    "other version": (
        lambda folder: rewritten(folder, lambda words, arrays: words.update(format=0)),
        "was written by another version of histpert",
    ),
}


@pytest.mark.parametrize("case", BAD_TRUTHS)
def test_a_file_that_is_no_truth_is_named_in_one_line(tmp_path, case):
    make, words = BAD_TRUTHS[case]
    path = make(tmp_path)
    with pytest.raises(InputError) as failure:
        ScreenTruth.load(path)
    assert str(failure.value).startswith(f"{path} {words}")
    assert not str(failure.value).endswith(": ")


def test_a_truth_file_with_a_damaged_byte_is_refused_or_tells_the_truth_all_the_same(tmp_path):
    path = truth_file(tmp_path, replace(TINY, n_genes=12, n_programs=2))
    content, truth = path.read_bytes(), ScreenTruth.load(path).moments("control")
    n_refused = 0
    for place in range(5, len(content), len(content) // 300):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            loaded = ScreenTruth.load(path)
        except InputError:
            n_refused += 1
        else:
            assert loaded.moments("control").equals(truth)
    assert n_refused > 200


# ---- Settings ----

BAD_SETTINGS = [
    ("n_perturbations", 0),
    ("n_perturbations", 31),
    ("n_genes", 0),
    ("n_genes", 7),
    ("n_pairs", -1),
    ("n_pairs", 29),
    ("n_control", 0),
    ("n_cells", 259),
    ("n_cells", 1061),
    ("min_cells", 0),
    ("min_cells", 63),
    ("min_cells", 200),
    ("max_cells", 62),
    ("n_programs", 0),
    ("cells_spread", -0.1),
    ("library_size", 0.0),
    ("library_size", np.inf),
    ("library_spread", -0.1),
    ("log_rate_mean", np.nan),
    ("log_rate_mean", 8.0),
    ("log_rate_spread", -1.0),
    ("log_rate_spread", 8.0),
    ("dispersion", 0.0),
    ("rare_dispersion", -0.1),
    ("program_spread", -0.5),
    ("program_spread", np.inf),
    ("null_share", 1.1),
    ("null_share", -0.1),
    ("told_share", 2.0),
    ("told_share", np.nan),
    ("epistatic_share", -1.0),
    ("effect_size", -0.1),
    ("effect_size", np.nan),
    ("effect_spread", np.inf),
    ("guide_efficiency", 0.0),
    ("guide_efficiency", 1.01),
    ("own_gene_fold", 0.0),
    ("dispersion_effect", -1.0),
    ("silencing_effect", -1.0),
    ("n_features", (0, 4)),
    ("n_features", (4, 0)),
    ("embedding_quality", (1.1, 0.5)),
    ("embedding_quality", (0.5, -0.1)),
    ("embedding_quality", (np.nan, 0.5)),
    ("embedding_quality", (0.5, np.nan)),
]
OTHER_OPTION = {
    ("n_genes", 7): "--n-perturbations",
    ("log_rate_mean", 8.0): "lower --log-rate-mean",
    ("log_rate_spread", 8.0): "or --log-rate-spread",
    ("min_cells", 63): "--n-cells",
    ("min_cells", 200): "--n-cells",
    ("max_cells", 62): "--n-cells",
}
"""What is wrong is how options fit together, and the message says so."""


@pytest.mark.parametrize(("option", "value"), BAD_SETTINGS, ids=str)
def test_a_setting_that_makes_no_screen_is_named(option, value):
    with pytest.raises(InputError) as failure:
        draw_screen(0, replace(TINY, **{option: value}))
    assert OTHER_OPTION.get((option, value), f"--{option.replace('_', '-')} ") in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"n_perturbations": 30, "n_cells": 800},
        {"n_perturbations": 1, "n_cells": 220},
        {"n_pairs": 28, "n_cells": 900},
        {"n_cells": 260},
        {"n_cells": 1060},
        {"n_control": 1, "n_programs": 1, "n_features": (1, 1)},
        {"cells_spread": 0.0, "library_spread": 0.0, "log_rate_spread": 0.0, "program_spread": 0.0},
        {"null_share": 1.0, "told_share": 0.0, "guide_efficiency": 1.0, "embedding_quality": (1.0, 0.0)},
        {"effect_size": 0.0, "effect_spread": 0.0, "dispersion_effect": 0.0, "silencing_effect": 0.0},
        {"effect_size": 10.0, "dispersion_effect": 10.0, "silencing_effect": 10.0, "program_spread": 10.0},
    ],
    ids=",".join,
)
def test_the_outermost_settings_make_a_screen(changes):
    screen, embeddings, truth = simulate_screen(0, replace(TINY, **changes))
    assert screen.expression.shape == (screen.group_start[-1], 30)
    assert np.isfinite(screen.expression.data).all()
    assert all(np.isfinite(source.vectors).all() for source in embeddings.values())
    for name in ("control", truth.perturbations[0], truth.perturbations[-1]):
        assert np.isfinite(truth.moments(name).to_numpy()).all()
        np.testing.assert_allclose(truth.histogram(name, EDGES).sum(axis=1), 1, atol=1e-9)


PUBLISHED = {
    "papalexi": (25, 0, 303, 16_093),
    "easy": (90, 0, 200, 10_000),
    "norman": (102, 131, 5_045, 91_205),
    "replogle-k562": (1_092, 0, 5_000, 162_751),
    "replogle-rpe1": (1_543, 0, 5_000, 162_733),
}
"""Single perturbations, pairs, genes and cells."""


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_sizes_of_the_published_screens(preset):
    assert set(PRESETS) == set(PUBLISHED)
    n_singles, n_pairs, n_genes, n_cells = PUBLISHED[preset]
    truth, embeddings = draw_screen(0, PRESETS[preset])
    assert len(truth.perturbations) == n_singles + n_pairs
    assert len(truth.interactions) == n_pairs
    assert len(truth.genes) == n_genes
    sizes = group_sizes(truth)
    assert sizes.sum() == n_cells
    assert sizes[0] == PRESETS[preset].n_control
    assert all(len(source.genes) == n_singles for source in embeddings.values())


@pytest.mark.parametrize(("preset", "zeros"), [("replogle-k562", 0.61), ("replogle-rpe1", 0.64)])
def test_control_cells_of_the_large_screens_have_the_published_zeros(preset, zeros):
    truth, _ = draw_screen(0, PRESETS[preset])
    assert truth.moments("control")["zeros"].mean() == pytest.approx(zeros, abs=0.015)
