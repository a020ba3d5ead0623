"""GEARS: its loss beside pairs of cells, what it learns from a graph, and what it cannot predict."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_models import QUICK, problem

from histpert.checkpoints import Checkpoint
from histpert.gene_sets import gene_graph
from histpert.models import METHODS, ModelSettings
from histpert.models.gears import GearsNetwork, autofocus, n_parameters

SETTINGS = replace(QUICK, epochs=60, batch_size=8)


def central(cells):
    return np.stack([((cells - cells.mean(0)) ** power).mean(0) for power in (2, 3, 4)])


def test_the_loss_is_that_of_all_pairs_of_cells():
    random = np.random.default_rng(0)
    x, y = random.gamma(1, size=(40, 3)), random.gamma(2, size=(4, 30, 3))
    shift = random.normal(size=(4, 3))
    pairs = ((x[:, None, None] + shift[:, None] - y) ** 4).mean((0, 2))
    error = shift - (y.mean(1) - x.mean(0))
    moments = torch.from_numpy(central(x)), torch.from_numpy(np.stack([central(cells) for cells in y]))
    np.testing.assert_allclose(autofocus(torch.from_numpy(error), *moments), pairs, rtol=1e-10)


def families(n_perturbations=48, n_families=6, seed=0):
    """Perturbations in families, told by gene sets, that shift the same genes."""
    random = np.random.default_rng(seed)
    names = [f"P{number}" for number in range(n_perturbations)]
    family = np.arange(n_perturbations) % n_families
    sets = {f"family {number}": [names[i] for i in np.flatnonzero(family == number)] for number in range(n_families)}
    shifts = random.normal(size=(n_families, 10))[family] / 2
    training = problem(n_perturbations=n_perturbations, n_genes=10)
    means = training.control_mean + torch.from_numpy(shifts).float()
    return replace(training, embeddings=torch.from_numpy(gene_graph(sets, names)), means=means)


def part(training, numbers):
    spread = training.spread()[numbers]
    rows = {name: getattr(training, name)[numbers] for name in ("embeddings", "masses", "means", "n_cells")}
    return replace(training, **rows, spread=lambda: spread)


def fitted(training, settings=SETTINGS, checkpoint=None):
    model = METHODS["GEARS"](settings)
    losses = [loss.item() for loss in model.fit(training, checkpoint)]
    return model, losses


def test_what_the_graph_tells_is_learned():
    training = families()
    model, losses = fitted(part(training, torch.arange(36)), replace(SETTINGS, epochs=200))
    assert losses[-1] < losses[0]
    found = model.predict(training.embeddings[36:]).moments.mean
    observed, pooled = training.means[36:], training.means[:36].mean(0)
    assert (found - observed).square().mean() < 0.2 * (pooled - observed).square().mean()


def test_a_perturbation_outside_the_graph_is_neither_trained_on_nor_predicted():
    training = families()
    without = training.embeddings.clone()
    without[5] = 0
    wild = training.means.clone()
    wild[5] = 1e6
    model, _ = fitted(replace(training, embeddings=without))
    other, _ = fitted(replace(training, embeddings=without, means=wild))
    found = model.predict(without)
    assert found.moments.mean[5].isnan().all()
    assert torch.equal(found.moments.mean.isnan().any(1).nonzero()[:, 0], torch.tensor([5]))
    torch.testing.assert_close(other.predict(without).moments.mean, found.moments.mean, equal_nan=True)


def test_training_starts_near_control():
    training = families()
    model, losses = fitted(training, replace(SETTINGS, epochs=0))
    assert losses == []
    assert (model.predict(training.embeddings).moments.mean - training.control_mean).abs().max() < 0.1


def test_the_weights_of_the_best_epoch_are_kept():
    # A learning rate at which the training blows up, sooner or later.
    training = families()
    settings = replace(SETTINGS, epochs=12, learning_rate=0.3)
    validation = torch.from_numpy(np.random.default_rng(0).permutation(48)[:4])
    errors = []
    for epochs in range(1, 13):
        model, _ = fitted(training, replace(settings, epochs=epochs))
        found = model.predict(training.embeddings[validation]).moments.mean
        errors.append((found - training.means[validation]).square().mean().item())
    assert np.all(np.diff(errors) <= 1e-9)
    assert len(set(errors)) < 12  # some epochs were no better


@pytest.mark.parametrize("stop", [1, 7])
def test_a_training_that_goes_on_ends_with_the_same_bytes(tmp_path, stop):
    training, settings = families(), replace(SETTINGS, epochs=12, learning_rate=0.05)
    whole, _ = fitted(training, settings)
    model = METHODS["GEARS"](settings)
    begun = model.fit(training, Checkpoint(tmp_path / "state.pt", 0.0))
    for _ in range(stop):
        next(begun)
    ended, losses = fitted(training, settings, Checkpoint(tmp_path / "state.pt", 0.0))
    assert len(losses) < 12
    one, other = (model.predict(training.embeddings).moments.mean.numpy().tobytes() for model in (whole, ended))
    assert one == other


def test_correlations_that_are_small_are_no_edges():
    neighbor = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 1, 0]])
    correlation = torch.tensor([[1.0, -0.9, 0.3], [1.0, -0.9, 0.39], [1.0, 0.39, 0.3]])
    network = GearsNetwork(4, neighbor, correlation)
    expected = torch.tensor([[1 / 1.9, 0.9 / 1.9, 0], [1 / 1.9, 0.9 / 1.9, 0], [1, 0, 0]])
    torch.testing.assert_close(network.weight, expected)


def test_parameters_are_counted():
    square, norm = 64 * 64 + 64, 2 * 64
    of_perturbed = 48 * 64 + 3 * square + 2 * norm
    of_genes = 2 * 10 * 64 + norm + 3 * square + 2 * norm
    of_cells = norm + (64 * 128 + 128 + 2 * 128) + (128 * 64 + 64 + norm)
    decoder = 10 * 64 + 10 + (10 * 64 + 64 + norm) + (square + norm) + 10 * 65 + 10
    model, _ = fitted(families(), ModelSettings(epochs=0))
    assert model.n_parameters == n_parameters(48, 10)
    assert model.n_parameters == of_perturbed + of_genes + of_cells + decoder
