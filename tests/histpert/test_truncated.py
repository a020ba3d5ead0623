"""TG and ZITG: sizes, where they start, and that they learn densities which embeddings tell."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm
from test_densities import rows_of
from test_models import fitted, problem

from histpert.cells import Cells
from histpert.densities import Density
from histpert.models import ModelSettings
from histpert.models.truncated import DensityNetwork

ONE = torch.tensor([0])


@pytest.mark.parametrize(("has_spike", "n_parameters"), [(False, 13_927_696), (True, 19_052_696)])
def test_the_networks_of_the_published_shape_have_the_published_number_of_parameters(has_spike, n_parameters):
    with torch.device("meta"):
        genes, none = torch.ones(5_000), torch.ones(0, dtype=torch.int64)
        cells = Cells(*(genes[None] for _ in range(4)), none, none, none.float(), none.float())
        network = DensityNetwork(cells, genes, genes, genes, 2_560, ModelSettings().layers(1_000), has_spike)
    assert sum(parameter.numel() for parameter in network.parameters()) == n_parameters


def zero_inflated(n_perturbations=40, n_genes=5, n_cells=300):
    """Cells whose density follows from the embedding, their embeddings and the parameters."""
    random = np.random.default_rng(1)
    embeddings = random.normal(size=(n_perturbations + 1, 6))
    embeddings[0] = 0
    effect = random.normal(size=(3, 6, n_genes)) / 6
    mu, log_sigma, log_odds = np.einsum("pf,kfg->kpg", embeddings, effect) + np.array([1.5, -0.6, -0.5])[:, None, None]
    sigma = np.exp(log_sigma)
    groups = []
    for number in range(n_perturbations + 1):
        m, s = mu[number], sigma[number]
        cells = truncnorm.rvs(-m / s, (6 - m) / s, loc=m, scale=s, size=(n_cells, n_genes), random_state=random)
        cells[random.random(cells.shape) < 1 / (1 + np.exp(-log_odds[number]))] = 0
        groups.append(cells.astype(np.float32))
    return embeddings, groups, (mu, sigma, log_odds)


def training_of(embeddings, groups):
    rows, edges = rows_of(groups, dtype=torch.float32)
    n = len(groups) - 1
    base = problem(n_perturbations=n, n_genes=groups[0].shape[1], n_bins=edges.n_bins)
    means = torch.from_numpy(np.stack([cells.mean(0) for cells in groups])).float()
    perturbed, _ = rows_of(groups[1:], dtype=torch.float32, edges=edges)
    return replace(
        base,
        embeddings=torch.from_numpy(embeddings[1:]).float(),
        means=means[1:],
        control_mean=means[0],
        lower=torch.from_numpy(edges.lower).float(),
        width=torch.from_numpy(edges.width).float(),
        cells=lambda: perturbed,
        control_cells=lambda: rows[ONE],
    ), rows_of(groups[1:], edges=edges)[0]


def test_densities_that_embeddings_tell_are_learned():
    embeddings, groups, (mu, sigma, log_odds) = zero_inflated()
    training, cells = training_of(embeddings, groups)
    every = torch.arange(40)

    def likelihood(density):
        return density.negative_log_likelihood(cells[every]).mean().item()

    true = (torch.from_numpy(values[1:]) for values in (mu, sigma))
    ends = training.lower.double(), (training.lower + 15 * training.width).double(), training.width.double() / 2
    best = likelihood(Density(*true, *ends, torch.from_numpy(log_odds[1:])))
    settings = ModelSettings(epochs=120, dropout=0.0, hidden=(64,), batch_size=40, learning_rate=1e-2)
    start, _ = fitted(replace(settings, epochs=0), training, "ZITG")
    model, losses = fitted(settings, training, "ZITG")
    gain = likelihood(start.predict(training.embeddings).density) - best
    assert losses[-1] < losses[0]
    assert gain > 0.1
    assert likelihood(model.predict(training.embeddings).density) - best < 0.1 * gain
    without, _ = fitted(settings, training, "TG")
    assert likelihood(without.predict(training.embeddings).density) > best + 0.3


@pytest.mark.parametrize("method", ["TG", "ZITG"])
def test_training_starts_near_the_moments_of_control(method):
    embeddings, groups, _ = zero_inflated()
    training, _ = training_of(embeddings, groups)
    model, _ = fitted(ModelSettings(epochs=0, hidden=(8,)), training, method)
    found = model.predict(torch.zeros(1, 6)).moments
    control = groups[0].astype(float)
    tolerance = 0.15 if method == "ZITG" else 0.45  # a cut-off Gaussian with the moments of cells has not the same ones
    np.testing.assert_allclose(found.mean[0], control.mean(0), rtol=tolerance)
    np.testing.assert_allclose(found.variance[0], control.var(0), rtol=0.35)


@pytest.mark.parametrize("method", ["TG", "ZITG"])
def test_perturbations_without_a_single_detected_cell_have_finite_likelihoods(method):
    embeddings, groups, _ = zero_inflated(n_cells=30)
    groups[3][:] = 0
    groups[4][:, 1] = groups[5][:, 1] = 0
    training, cells = training_of(embeddings, groups)
    model, losses = fitted(ModelSettings(epochs=30, hidden=(16,), learning_rate=1e-2), training, method)
    density = model.predict(training.embeddings).density
    assert np.isfinite(losses).all()
    assert density.negative_log_likelihood(cells[torch.arange(40)]).isfinite().all()
    assert (density.sigma >= training.width / 12**0.5 * (1 - 1e-6)).all()
