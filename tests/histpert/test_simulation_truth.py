"""The truth about a simulated screen against a million of its cells, and its histograms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from simulated import EDGES, perturbation_of

from histpert.errors import InputError

# ---- Against cells ----


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
