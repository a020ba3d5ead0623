"""GP+Hist: its products, weights and choices beside SciPy's energy distance and direct solves."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_baselines import part
from test_models import QUICK, fitted, problem

from histpert.models.gp_hist import LENGTHS, SHARES, STRENGTHS, cramer_products, kriging


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads on a busy machine wait for each other; a trial on a CPU uses one as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noisy(n_perturbations=18, n_genes=5, n_features=4, seed=0):
    """Histograms that follow from the embeddings in part, counted in few cells."""
    random = np.random.default_rng(seed)
    training = problem(n_perturbations=n_perturbations, n_genes=n_genes, n_features=n_features)
    n_cells = random.integers(20, 90, n_perturbations)
    counts = [
        random.multinomial(n, own.double() / own.double().sum(-1, keepdim=True))
        for n, own in zip(n_cells, training.masses, strict=True)
    ]
    masses = np.stack([count / n for count, n in zip(counts, n_cells, strict=True)])
    return replace(training, masses=torch.from_numpy(masses).float(), n_cells=torch.from_numpy(n_cells).float())


def cdfs(training):
    """At the edges of bins, so that plain inner products are integrals over expression."""
    root = training.width.double().sqrt().numpy()[:, None]
    return (training.masses.double().numpy().cumsum(-1)[..., :-1] * root).reshape(len(training.n_cells), -1)


def solved(covariance, covariances):
    """Weights of best linear unbiased prediction, from the equations with a Lagrange multiplier for their sum."""
    n = len(covariance)
    system = np.block([[covariance, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    right = np.vstack([covariances.T, np.ones((1, len(covariances)))])
    return np.linalg.solve(system, right)[:n].T


def test_products_give_the_energy_distance_of_scipy():
    training = noisy()
    products = cramer_products(training).numpy()
    centres = np.arange(7) * training.width.numpy()[:, None]
    for i, j in ((0, 1), (3, 17), (16, 2)):
        expected = sum(
            scipy.stats.energy_distance(*(centres[gene],) * 2, *(training.masses[k, gene].double() for k in (i, j)))
            ** 2
            for gene in range(5)
        )
        found = products[i, i] + products[j, j] - 2 * products[i, j]
        np.testing.assert_allclose(2 * found, expected, rtol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 8))
def test_error_is_that_of_predicting_each_perturbation_from_the_others(seed, n):
    random = np.random.default_rng(seed)
    roots, values = random.normal(size=(n, n)), random.normal(size=(n, 3))
    covariance = roots @ roots.T + np.diag(random.uniform(0.1, 2, n))
    total = 0.0
    for i in range(n):
        others = np.delete(np.arange(n), i)
        weights = solved(covariance[np.ix_(others, others)], covariance[i, others][None])
        total += ((weights @ values[others] - values[i]) ** 2).sum()
    # The origin of the values is of no account.
    for origin in (0, 5):
        products = torch.from_numpy((values + origin) @ (values + origin).T)
        found = kriging(torch.from_numpy(covariance)).error(products)
        np.testing.assert_allclose(found, total / n, rtol=1e-6, atol=1e-9)


def test_prediction_is_the_direct_solution_with_the_covariance_of_least_error_left_out():
    training = noisy()
    model, losses = fitted(replace(QUICK, control_smoothing=0.01), training, "GP+Hist")
    n, n_cells, values = 18, training.n_cells.double().numpy(), cdfs(training)
    center = training.embeddings.double().mean(0).numpy()
    queries = training.embeddings[:3].double().numpy() + 0.4

    def directions(vectors):
        return (vectors - center) / np.linalg.norm(vectors - center, axis=1, keepdims=True)

    x, q = directions(training.embeddings.double().numpy()), directions(queries)
    apart = np.linalg.norm(x[:, None] - x, axis=-1)
    typical = np.sort(apart[np.triu_indices(n, 1)])[(n * (n - 1) // 2 - 1) // 2]
    pooled = n_cells @ training.masses.double().numpy().reshape(n, -1) / n_cells.sum()
    below = pooled.reshape(5, 7).cumsum(-1)[:, :-1]
    sampling = (training.width.double().numpy()[:, None] * below * (1 - below)).sum() / n_cells
    between = values.var(0, ddof=1).sum() - sampling.mean()

    def covariances(at, length):
        def kernel(one):
            return (
                one @ x.T
                if length is None
                else np.exp(-(((one[:, None] - x) ** 2).sum(-1)) / (2 * (length * typical) ** 2))
            )

        own = kernel(x)
        return kernel(at) / (np.trace(own - own.mean(0)) / (n - 1))

    def error(length, strength, share):
        told = covariances(x, length)
        covariance = between * strength * (share * told + (1 - share) * np.eye(n)) + np.diag(sampling)
        total = 0.0
        for i in range(n):
            others = np.delete(np.arange(n), i)
            weights = solved(covariance[np.ix_(others, others)], covariance[i, others][None])
            total += ((weights @ values[others] - values[i]) ** 2).sum()
        return total

    choices = [(length, strength, share) for length in LENGTHS for strength in STRENGTHS for share in SHARES]
    length, strength, share = min(choices, key=lambda choice: error(*choice))
    assert 0 < share == model.share
    variance = between * strength
    covariance = variance * (share * covariances(x, length) + (1 - share) * np.eye(n)) + np.diag(sampling)
    weights = solved(covariance, variance * share * covariances(q, length))
    np.testing.assert_allclose(model.weights(torch.from_numpy(queries).float()), weights, rtol=1e-4, atol=1e-5)

    masses = np.einsum("qp,pgb->qgb", weights, training.masses.double().numpy()).clip(0)
    masses = 0.99 * masses / masses.sum(-1, keepdims=True) + 0.01 / 7
    np.testing.assert_allclose(model.predict(torch.from_numpy(queries).float()).masses, masses, atol=1e-5)
    assert losses == []


def test_perturbations_that_do_nothing_are_pooled_cell_by_cell():
    training = noisy(n_perturbations=12)
    same = torch.full_like(training.masses, 1 / 7)
    training = replace(training, masses=same)
    pooled = training.n_cells.double() / training.n_cells.sum()
    model, _ = fitted(QUICK, training, "GP+Hist")
    torch.testing.assert_close(model.weights(training.embeddings), pooled.expand(12, -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.predict(training.embeddings).masses.float(), same)


def test_embeddings_that_are_all_the_same_tell_nothing():
    training = noisy()
    training = replace(training, embeddings=torch.ones_like(training.embeddings))
    weights = fitted(QUICK, training, "GP+Hist")[0].weights(training.embeddings)
    torch.testing.assert_close(weights, weights[:1].expand_as(weights))
    # Perturbations differ beyond the sampling of their cells: many cells are worth more, but not by their number.
    order = training.n_cells.argsort()
    assert (weights[0, order].diff() >= 0).all()
    assert weights.max() / weights.min() < 0.9 * training.n_cells.max() / training.n_cells.min()


@pytest.mark.parametrize("n_perturbations", [1, 2, 3])
def test_few_perturbations_are_enough(n_perturbations):
    training = noisy(n_perturbations=n_perturbations)
    model, _ = fitted(QUICK, training, "GP+Hist")
    assert torch.isfinite(model.predict(torch.randn(4, 4)).masses).all()
    if n_perturbations == 1:
        torch.testing.assert_close(
            model.predict(torch.randn(4, 4)).masses.float(), 0.9999 * training.masses.expand(4, -1, -1) + 1e-4 / 7
        )


def test_turning_moving_and_scaling_all_embeddings_changes_nothing():
    training = noisy()
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0]
    moved = replace(training, embeddings=30 * training.embeddings @ turn + 2)
    models = [fitted(QUICK, some, "GP+Hist")[0] for some in (training, moved)]
    weights = [model.weights(some.embeddings[:4]) for model, some in zip(models, (training, moved), strict=True)]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights[0].sum(1), torch.ones(4, dtype=torch.float64))


def test_what_embeddings_tell_is_learned():
    training = problem(n_perturbations=80, n_genes=10)
    seen, unseen = part(training, range(60)), torch.arange(60, 80)

    def error(method):
        found = fitted(QUICK, seen, method)[0].predict(training.embeddings[unseen]).masses
        gaps = (found - training.masses[unseen]).cumsum(-1)
        return (gaps.square().sum(-1) * training.width).mean().item()

    assert error("GP+Hist") < 0.4 * error("Non-Ctrl Hist")


def test_the_pool_is_the_average_of_both_and_scores_at_most_their_average():
    training = noisy(n_perturbations=24)
    known, unseen = (part(training, numbers) for numbers in (range(16), range(16, 24)))
    models = {name: fitted(QUICK, known, name) for name in ("GP+Hist", "MLP+Hist", "GP+MLP+Hist")}
    gp, mlp, pool = (model.predict(unseen.embeddings) for model, _ in models.values())
    torch.testing.assert_close(pool.masses, (gp.masses + mlp.masses) / 2)
    torch.testing.assert_close(pool.control, mlp.control)
    assert models["GP+MLP+Hist"][1] == models["MLP+Hist"][1]
    assert models["GP+MLP+Hist"][0].n_parameters == 3 + models["MLP+Hist"][0].n_parameters

    def distances(found):
        return (found.masses - unseen.masses).cumsum(-1).square().sum(-1)

    assert (distances(pool) <= (distances(gp) + distances(mlp)) / 2 + 1e-12).all()
