"""Floors and regressions that the histogram model is held against, beside direct solutions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from test_models import QUICK, fitted, problem

from histpert.models import METHODS, ModelSettings
from histpert.models.mlp_hist import mlp


def linear(noise=0.0, n_perturbations=60, n_genes=8, seed=0):
    """Shifts that are linear in the embedding."""
    random = np.random.default_rng(seed)
    training = problem(n_perturbations=n_perturbations, n_genes=n_genes, n_features=5)
    vectors = random.normal(size=(n_perturbations, 5)) * [3, 1, 0.1, 10, 1] + 2
    shifts = vectors @ random.normal(size=(5, n_genes)) / 5 + noise * random.normal(size=(n_perturbations, n_genes))
    return replace(
        training,
        embeddings=torch.from_numpy(vectors).float(),
        means=(training.control_mean + torch.from_numpy(shifts)).float(),
    )


def part(training, numbers):
    numbers = torch.as_tensor(numbers)
    rows = {name: getattr(training, name)[numbers] for name in ("embeddings", "masses", "means", "n_cells")}
    return replace(training, **rows)


def test_the_network_for_means_of_the_published_shape_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = mlp(2_560, 5_000, ModelSettings().layers(1_000))
    assert sum(parameter.numel() for parameter in network.parameters()) == 8_802_696


def test_the_pooled_mean_is_that_of_all_perturbed_cells():
    random = np.random.default_rng(0)
    cells = [random.gamma(1, size=(n_cells, 3)) for n_cells in (20, 35, 80)]
    training = replace(
        problem(n_perturbations=3, n_genes=3, n_bins=4),
        means=torch.from_numpy(np.stack([some.mean(0) for some in cells])).float(),
        n_cells=torch.tensor([20.0, 35.0, 80.0]),
    )
    model, _ = fitted(QUICK, training, "Non-Ctrl Mean")
    found = model.predict(torch.zeros(2, 8))
    np.testing.assert_allclose(found.moments.mean, np.tile(np.concatenate(cells).mean(0), (2, 1)), rtol=1e-6)
    np.testing.assert_allclose(found.control_mean, training.control_mean)


@pytest.mark.parametrize("method", ["MLP+Mean", "Ridge", "GP"])
def test_what_embeddings_tell_is_learned(method):
    training = linear()
    settings = ModelSettings(epochs=400, dropout=0.0, hidden=(64,), batch_size=16)
    model, _ = fitted(settings, part(training, range(45)), method)
    floor, _ = fitted(settings, part(training, range(45)), "Non-Ctrl Mean")
    held_out = part(training, range(45, 60))

    def error(found):
        return (found.predict(held_out.embeddings).moments.mean - held_out.means).square().mean().item()

    assert error(model) < 0.2 * error(floor)


def test_ridge_is_the_direct_solution_with_the_penalty_of_least_error_left_out():
    training = linear(noise=0.8)
    model, _ = fitted(QUICK, training, "Ridge")
    x = training.embeddings.double().numpy()
    x, queries = ((some - x.mean(0)) / x.std(0) for some in (x, x[:4] + 0.3))
    shifts = (training.means - training.control_mean).double().numpy()

    def solved(rows, at, penalty):
        center, mean = x[rows].mean(0), shifts[rows].mean(0)
        z = x[rows] - center
        return mean + (at - center) @ np.linalg.solve(z.T @ z + penalty * np.eye(5), z.T @ (shifts[rows] - mean))

    def error(penalty):
        others = [np.delete(np.arange(60), i) for i in range(60)]
        return np.mean([(solved(rows, x[i], penalty) - shifts[i]) ** 2 for i, rows in enumerate(others)])

    best = min(np.logspace(-2, 10, 13), key=error)
    expected = solved(np.arange(60), queries, best)
    found = model.predict(training.embeddings[:4] + 0.3).moments.mean - training.control_mean
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert model.n_parameters == 8 * 6


def test_the_gaussian_process_agrees_with_a_direct_solve_at_the_likeliest_kernel():
    training = linear(noise=0.5, n_perturbations=40)
    model, _ = fitted(QUICK, training, "GP")
    size, length, noise = np.exp(model._fitted[-1].kernel_.theta)
    x = training.embeddings.double().numpy()
    x, queries = ((some - x.mean(0)) / x.std(0) for some in (x, x[:4] + 0.3))
    shifts = (training.means - training.control_mean).double().numpy()
    mean, scale = shifts.mean(0), shifts.std(0)
    y = (shifts - mean) / scale

    def kernel(one, other, size=size, length=length):
        return size * np.exp(-((one[:, None] - other) ** 2).sum(-1) / (2 * length**2))

    solved = kernel(queries, x) @ np.linalg.solve(kernel(x, x) + noise * np.eye(40), y)
    found = model.predict(training.embeddings[:4] + 0.3).moments.mean - training.control_mean
    np.testing.assert_allclose(found, mean + scale * solved, rtol=1e-5, atol=1e-6)

    def likelihood(size, length, noise):
        covariance = kernel(x, x, size, length) + noise * np.eye(40)
        return multivariate_normal(np.zeros(40), covariance).logpdf(y.T).sum()

    best = likelihood(size, length, noise)
    for factor in (0.8, 1.25):
        assert likelihood(size * factor, length, noise) < best
        assert likelihood(size, length * factor, noise) < best
        assert likelihood(size, length, noise * factor) < best


def test_neighbours_are_those_of_largest_cosine_and_as_many_as_predict_best_left_out():
    training = problem(n_perturbations=30, n_genes=6, n_features=4)
    settings = ModelSettings(control_smoothing=0.01)
    model, _ = fitted(settings, training, "Neighbors Hist")
    x = (training.embeddings - training.embeddings.mean(0)).double().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    means = training.means.double().numpy()

    def error(k):
        total = 0.0
        for i in range(30):
            others = sorted(set(range(30)) - {i}, key=lambda j: -x[i] @ x[j])[:k]
            total += ((means[others].mean(0) - means[i]) ** 2).sum()
        return total

    assert model.k == min((1, 2, 3, 5, 8, 13, 21), key=error)
    query = torch.tensor([[0.3, -2.0, 1.0, 0.5]])
    direction = (query - training.embeddings.mean(0)).double().numpy()[0]
    nearest = sorted(range(30), key=lambda j: -direction @ x[j])[: model.k]
    expected = 0.99 * training.masses[nearest].mean(0) + 0.01 / training.control.shape[1]
    torch.testing.assert_close(model.predict(query).masses[0].float(), expected)
    of_means, _ = fitted(settings, training, "Neighbors Mean")
    np.testing.assert_allclose(of_means.predict(query).moments.mean[0], means[nearest].mean(0), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_predicts_each_perturbation_by_itself(method):
    training = problem()
    model, _ = fitted(QUICK, training, method)
    whole = model.predict(training.embeddings[:5])
    alone = model.predict(training.embeddings[3:4])
    torch.testing.assert_close(whole.moments.mean[3:4], alone.moments.mean)
    assert whole.moments.mean.shape == (5, training.control.shape[0])
    assert torch.isfinite(whole.moments.mean).all()
    assert whole.moments.mean.dtype == torch.float64
    assert whole.control_mean.shape == training.control.shape[:1]
