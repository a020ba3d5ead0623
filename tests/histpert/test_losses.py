"""Losses against SciPy, against closed forms, as a metric, and through numerical derivatives."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from histpert import losses
from histpert.losses import composed_loss, cross_entropy, mean_squared_error, wasserstein1, weighted_loss

WEIGHTS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.75, 0.25), (0.5, 0.5, 0.0), (0.2, 0.5, 0.3)]


def masses(random, *shape):
    return torch.from_numpy(random.dirichlet(np.full(shape[-1], 0.5), shape[:-1]))


def sign_changes(predicted, observed):
    gap = np.cumsum(predicted.numpy() - observed.numpy(), axis=-1)[..., :-1]
    return np.sum(gap[..., :-1] * gap[..., 1:] < -1e-12)


def w1_of_points(first, second, width, per_bin=1_000):
    """SciPy's distance between histograms whose bins are cut into many weighted points."""
    points = (np.arange(len(first) * per_bin) + 0.5) * width / per_bin
    weights = (np.repeat(row, per_bin) for row in (first, second))
    return scipy.stats.wasserstein_distance(points, points, *weights)


@pytest.mark.parametrize("shape", [(1, 2), (4, 3), (3, 7), (2, 3, 15), (2, 1, 2, 35)])
def test_w1_agrees_with_scipy_on_piecewise_uniform_histograms(shape):
    random = np.random.default_rng(sum(shape))
    predicted, observed = masses(random, *shape), masses(random, *shape)
    width = random.uniform(0.1, 0.5, shape[-2])
    expected = [
        w1_of_points(first, second, width[row % shape[-2]])
        for row, (first, second) in enumerate(
            zip(predicted.reshape(-1, shape[-1]).numpy(), observed.reshape(-1, shape[-1]).numpy(), strict=True)
        )
    ]
    distance = wasserstein1(predicted, observed, torch.from_numpy(width))
    assert distance.shape == shape[:-1]
    np.testing.assert_allclose(distance.reshape(-1), expected, atol=1e-5)
    assert shape[-1] < 7 or sign_changes(predicted, observed) >= 2


def test_w1_of_two_bins_that_swap_their_mass_is_known():
    # The gap rises to 0.6 over the first bin and falls back over the second: a triangle of area 0.6 x 1 x 2 / 2.
    distance = wasserstein1(torch.tensor([[0.8, 0.2]]), torch.tensor([[0.2, 0.8]]), torch.tensor([1.0]))
    assert distance.item() == pytest.approx(0.6, rel=1e-6)
    # Here it rises to 0.5, falls to -0.5 within one bin, and rises back: four triangles, each 0.5 high.
    distance = wasserstein1(torch.tensor([[0.5, 0, 0.5]]), torch.tensor([[0.0, 1, 0]]), torch.tensor([2.0]))
    assert distance.item() == pytest.approx(2 * (0.25 + 0.125 + 0.125 + 0.25), rel=1e-6)


def test_w1_compares_one_histogram_with_every_row_of_a_batch():
    random = np.random.default_rng(1)
    predicted, observed, width = masses(random, 4, 3, 9), masses(random, 1, 3, 9), torch.full((3,), 0.2).double()
    each = torch.stack([wasserstein1(row, observed[0], width) for row in predicted])
    torch.testing.assert_close(wasserstein1(predicted, observed, width), each)


@st.composite
def three_histograms(draw):
    n_bins = draw(st.integers(2, 12))
    counts = draw(arrays(np.int64, (3, n_bins), elements=st.integers(0, 40)))
    assume((counts.sum(axis=1) > 0).all())
    return torch.from_numpy(counts / counts.sum(axis=1, keepdims=True))


@given(three_histograms(), st.floats(0.01, 10), st.floats(0.01, 10))
def test_w1_is_a_metric_that_scales_with_the_width(histograms, width, factor):
    def distance(i, j, of_width=width):
        row = wasserstein1(histograms[i : i + 1], histograms[j : j + 1], torch.tensor([of_width], dtype=torch.float64))
        return row.item()

    close = 1e-12 * width * histograms.shape[1]
    assert distance(0, 0) == 0
    assert distance(0, 1) == pytest.approx(distance(1, 0), abs=close)
    assert distance(0, 2) <= distance(0, 1) + distance(1, 2) + close
    assert distance(0, 1, width * factor) == pytest.approx(factor * distance(0, 1), rel=1e-9, abs=close)
    assert (distance(0, 1) > 0) == (not torch.equal(histograms[0], histograms[1]))


@given(three_histograms())
def test_w1_is_at_least_the_distance_of_the_means(histograms):
    first, second = histograms[:1], histograms[1:2]
    centres = np.arange(histograms.shape[1]) + 0.5
    distance = wasserstein1(first, second, torch.ones(1).double()).item()
    assert distance >= abs(first[0].numpy() @ centres - second[0].numpy() @ centres) - 1e-12


def test_cross_entropy_agrees_with_scipy():
    random = np.random.default_rng(2)
    predicted, observed = masses(random, 3, 5, 8), masses(random, 3, 5, 8)
    expected = scipy.stats.entropy(observed, axis=-1) + scipy.stats.entropy(observed, predicted, axis=-1)
    np.testing.assert_allclose(cross_entropy(predicted.log(), observed), expected, rtol=1e-12)


def test_squared_error_of_the_mean_by_hand():
    # Bins [-1, 1] and [1, 3]: centres 0 and 2, so the means are 1.5 and 0; then bins [4, 5] and [5, 6].
    predicted = torch.tensor([[[0.25, 0.75], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]])
    observed_mean = torch.tensor([[1.0, 5.0], [-0.5, 5.0]])
    error = mean_squared_error(predicted, observed_mean, torch.tensor([-1.0, 4.0]), torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(error, torch.tensor([[0.25, 0.0], [0.25, 0.25]]))


class Problem:
    """A batch of logits, observed masses and means on random edges."""

    def __init__(self, n_bins, dtype=torch.float64, seed=0, n_batch=4, n_genes=5):
        random = np.random.default_rng(seed)
        self.lower = torch.from_numpy(random.normal(size=n_genes)).to(dtype)
        self.width = torch.from_numpy(random.uniform(0.1, 0.6, n_genes)).to(dtype)
        self.logits = torch.from_numpy(random.normal(0, 1.5, (n_batch, n_genes, n_bins))).to(dtype)
        self.observed = masses(random, n_batch, n_genes, n_bins).to(dtype)
        self.means = torch.from_numpy(random.normal(size=(n_batch, n_genes))).to(dtype)

    def by_definition(self, weights, logits=None):
        """The defining functions in float64, with autograd's own derivative."""
        logits = (self.logits if logits is None else logits).double().clone().requires_grad_()
        observed, means, lower, width = (t.double() for t in (self.observed, self.means, self.lower, self.width))
        value = (
            weights[0] * cross_entropy(logits.log_softmax(-1), observed).mean()
            + weights[1] * wasserstein1(logits.softmax(-1), observed, width).mean()
            + weights[2] * mean_squared_error(logits.softmax(-1), means, lower, width).mean()
        )
        return value.item(), torch.autograd.grad(value, logits)[0]

    def by(self, loss, weights, logits=None):
        logits = (self.logits if logits is None else logits).clone().requires_grad_()
        value = loss(logits, self.observed, self.means, self.lower, self.width, weights)
        value.backward()
        return value.item(), logits.grad


@pytest.mark.parametrize("n_bins", [2, 3, 15, 35])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("loss", [weighted_loss, composed_loss])
def test_the_loss_has_the_value_and_slope_of_the_defining_functions(loss, weights, n_bins, dtype, tolerance):
    problem = Problem(n_bins, dtype)
    assert n_bins < 15 or sign_changes(problem.logits.double().softmax(-1), problem.observed.double()) > 0
    value, gradient = problem.by(loss, weights)
    expected_value, expected_gradient = problem.by_definition(weights)
    assert value == pytest.approx(expected_value, rel=tolerance)
    size = expected_gradient.abs().max()
    torch.testing.assert_close(gradient.double() / size, expected_gradient / size, rtol=0, atol=tolerance)


@pytest.mark.parametrize("n_threads", [2, 3, 64])
def test_rows_that_threads_share_have_the_loss_of_one_thread(monkeypatch, n_threads):
    problem, weights = Problem(15), (0.2, 0.5, 0.3)
    value, gradient = problem.by(weighted_loss, weights)
    monkeypatch.setattr(losses, "WORTH_THREADS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    shared_value, shared_gradient = problem.by(weighted_loss, weights)
    assert shared_value == pytest.approx(value, rel=1e-13)
    torch.testing.assert_close(shared_gradient, gradient, rtol=0, atol=0)


def test_w1_has_the_derivative_of_its_finite_differences():
    problem = Problem(6)
    assert sign_changes(problem.logits.softmax(-1), problem.observed) > 0
    assert torch.autograd.gradcheck(
        lambda logits: wasserstein1(logits.softmax(-1), problem.observed, problem.width),
        problem.logits.requires_grad_(),
    )


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("n_bins", [2, 6])
def test_the_loss_has_the_derivative_of_its_finite_differences(weights, n_bins):
    problem = Problem(n_bins, seed=3)
    assert n_bins == 2 or sign_changes(problem.logits.softmax(-1), problem.observed) > 0
    targets = problem.observed, problem.means, problem.lower, problem.width
    assert torch.autograd.gradcheck(
        lambda logits: weighted_loss(logits, *targets, weights), problem.logits.requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_histograms_have_no_loss_and_no_slope(dtype):
    logits = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
    observed = torch.full((2, 3, 4), 0.25, dtype=dtype)
    width = torch.ones(3, dtype=dtype)
    for value in (
        weighted_loss(
            logits, observed, torch.full((2, 3), 2.0, dtype=dtype), torch.zeros(3, dtype=dtype), width, (0.0, 0.5, 0.5)
        ),
        wasserstein1(logits.softmax(-1), observed, width).sum(),
    ):
        assert value.item() == 0
        (gradient,) = torch.autograd.grad(value, logits)
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_observed_masses_as_prediction_give_finite_slopes(weights):
    problem = Problem(15, torch.float32)
    problem.observed = (problem.observed + 1e-4) / (1 + 15e-4)
    _, gradient = problem.by(weighted_loss, weights, problem.observed.log())
    assert gradient.isfinite().all()


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_the_right_finite_loss(weights, dtype):
    problem = Problem(7, dtype)
    problem.logits = 80 * problem.logits.sign()
    value, gradient = problem.by(weighted_loss, weights)
    expected_value, _ = problem.by_definition(weights)
    assert value == pytest.approx(expected_value, rel=1e-5)
    assert gradient.isfinite().all()


def test_a_prediction_that_is_not_a_number_has_no_loss():
    problem = Problem(5)
    problem.logits[0, 0, 0] = torch.nan
    value, _ = problem.by(weighted_loss, (0.0, 0.75, 0.25))
    assert np.isnan(value)
