"""The three losses between predicted and observed histograms (Eq. 5 to 8, appendix C)."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from histpert.moments import histogram_mean
from histpert.threads import for_each

__all__ = ["composed_loss", "cross_entropy", "mean_squared_error", "three_losses", "wasserstein1", "weighted_loss"]

WORTH_THREADS = 1 << 18
"""Logits of a batch from which on its rows are shared between threads, whose start takes a tenth of a millisecond."""


def wasserstein1(
    predicted: Float[Tensor, "*batch gene bin"],
    observed: Float[Tensor, "*#batch gene bin"],
    width: Float[Tensor, "gene"],
) -> Float[Tensor, "*batch gene"]:
    """Wasserstein-1 distance between histograms that are uniform inside each bin (Eq. 5), summed over bins.

    With `a` and `b` the gaps between the CDFs at a bin's edges, both cases of Eq. 5 are
    `width / 2 * (|a| + |b| - 2 max(-a b, 0) / (|a| + |b|))`; over all bins the first terms add up to `width * sum |b|`,
    since the gap is 0 at both ends.

    Args:
        predicted: Bin masses, each row adding to 1.
        observed: Bin masses on the same edges.
        width: Width of each gene's bins, in log-normalized expression.

    Returns:
        Distances, in log-normalized expression.
    """
    gap = (predicted - observed).cumsum(-1)
    size = gap.abs()
    left, right = gap[..., :-1], gap[..., 1:]
    crossing = (-left * right).relu() / (size[..., :-1] + size[..., 1:]).clamp_min(torch.finfo(gap.dtype).tiny)
    return width * (size.sum(-1) - crossing.sum(-1))


def mean_squared_error(
    predicted: Float[Tensor, "*batch gene bin"],
    observed_mean: Float[Tensor, "*batch gene"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
) -> Float[Tensor, "*batch gene"]:
    """Squared error of the mean (Eq. 7).

    Args:
        predicted: Bin masses, each row adding to 1.
        observed_mean: Mean of the cells, in log-normalized expression.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
    """
    return (histogram_mean(predicted, lower, width) - observed_mean) ** 2


def cross_entropy(
    log_predicted: Float[Tensor, "*batch gene bin"], observed: Float[Tensor, "*batch gene bin"]
) -> Float[Tensor, "*batch gene"]:
    """Cross-entropy summed over bins (appendix C), in nats.

    Args:
        log_predicted: Logarithms of the predicted masses.
        observed: Bin masses, each row adding to 1.
    """
    return -(observed * log_predicted).sum(-1)


def weighted_loss(
    logits: Float[Tensor, "batch gene bin"],
    observed: Float[Tensor, "batch gene bin"],
    observed_mean: Float[Tensor, "batch gene"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
    weights: tuple[float, float, float],
) -> Float[Tensor, ""]:
    """Weighted sum of the three losses of `softmax(logits)`, averaged over the batch and genes (appendix C).

    On a CPU value and gradient come from one compiled pass over each row, which stays in the processor's cache, where
    the composed form writes some thirty arrays. Both give the same values.

    Args:
        logits: Logarithms of the predicted masses, up to a constant per gene.
        observed: Bin masses, each row adding to 1.
        observed_mean: Mean of the cells, in log-normalized expression.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        weights: Of cross-entropy, Wasserstein-1 and squared error of the mean.
    """
    if logits.device.type == "cpu":
        return _CompiledLoss.apply(logits, observed, observed_mean, lower, width, weights)
    return composed_loss(logits, observed, observed_mean, lower, width, weights)


def composed_loss(
    logits: Float[Tensor, "batch gene bin"],
    observed: Float[Tensor, "batch gene bin"],
    observed_mean: Float[Tensor, "batch gene"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
    weights: tuple[float, float, float],
) -> Float[Tensor, ""]:
    """The same as `weighted_loss`, composed of the losses above, on any device."""
    weight_ce, weight_wass, weight_mse = weights
    log_predicted = logits.log_softmax(-1)
    predicted = log_predicted.exp()
    loss = logits.new_zeros(())
    if weight_ce:
        loss = loss + weight_ce * cross_entropy(log_predicted, observed).mean()
    if weight_wass:
        loss = loss + weight_wass * wasserstein1(predicted, observed, width).mean()
    if weight_mse:
        loss = loss + weight_mse * mean_squared_error(predicted, observed_mean, lower, width).mean()
    return loss


def three_losses(
    logits: Float[Tensor, "batch gene bin"],
    observed: Float[Tensor, "batch gene bin"],
    observed_mean: Float[Tensor, "batch gene"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
) -> Float[Tensor, "3 batch gene"]:
    """Cross-entropy, Wasserstein-1 distance and squared error of the mean of `softmax(logits)`, not averaged."""
    log_predicted = logits.log_softmax(-1)
    predicted = log_predicted.exp()
    return torch.stack(
        [
            cross_entropy(log_predicted, observed),
            wasserstein1(predicted, observed, width),
            mean_squared_error(predicted, observed_mean, lower, width),
        ]
    )


class _CompiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, observed: Tensor, observed_mean: Tensor, lower: Tensor, width: Tensor, weights):
        largest = logits.amax(-1, keepdim=True)
        exponentials = (logits - largest).exp_()
        gradient = torch.empty_like(exponentials)
        rows = [
            tensor.detach().contiguous().numpy()
            for tensor in (logits, largest, exponentials, observed, observed_mean, gradient)
        ]
        shares = tuple(weight / observed_mean.numel() for weight in weights)
        n_parts = torch.get_num_threads() if logits.numel() >= WORTH_THREADS else 1
        values = np.zeros(n_parts)

        def part(number: int) -> None:
            here = slice(number * len(logits) // n_parts, (number + 1) * len(logits) // n_parts)
            arguments = [*(array[here] for array in rows), lower.numpy(), width.numpy(), *shares]
            values[number] = _loss_and_gradient(*arguments)

        if n_parts == 1:
            part(0)
        else:
            for_each(part, range(n_parts))
        ctx.save_for_backward(gradient)
        return logits.new_tensor(values.sum())

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None, None, None


@numba.njit(cache=True, error_model="numpy", nogil=True)
@no_type_check  # numba compiles it: it cannot be wrapped
def _loss_and_gradient(
    logits, largest, exponentials, observed, observed_mean, gradient, lower, width, share_ce, share_wass, share_mse
):
    """Fill the gradient in the logits and return the loss. A share is a weight over the number of rows of the batch.

    A bin's term of Eq. 5, in bin widths, is `(|a| + |b|) / 2`, less `|a| |b| / (|a| + |b|)` where the gap changes sign
    from a to b; its derivatives in |a| and |b| are the squared shares of the other one. The slope of the loss in a mass
    sums the slopes in the gaps from its bin on; up to a constant per row, which a softmax does not see, that is minus
    the sum over the gaps before it.
    """
    real = logits.dtype.type  # numba would widen float32 where it meets integers and Python's numbers
    zero, one = real(0), real(1)
    share_ce, share_wass, share_mse = real(share_ce), real(share_wass), real(share_mse)
    loss = 0.0
    for i in range(logits.shape[0]):
        for g in range(logits.shape[1]):
            total, mean, cross, place = zero, zero, zero, real(0.5)
            for b in range(logits.shape[2]):
                total += exponentials[i, g, b]
                mean += exponentials[i, g, b] * place
                cross += observed[i, g, b] * logits[i, g, b]
                place += one
            scale = one / total
            error = lower[g] + width[g] * mean * scale - observed_mean[i, g]
            slope_of_distance, slope_of_mean = share_wass * width[g], real(2) * share_mse * error * width[g]
            distance, gap, size, before, slope, projected, place = zero, zero, zero, zero, zero, zero, real(0.5)
            for b in range(logits.shape[2]):
                mass = exponentials[i, g, b] * scale
                last_gap, last_size, last_slope = gap, size, slope
                gap += mass - observed[i, g, b]
                size, slope = abs(gap), np.sign(gap)
                distance += size
                if gap * last_gap < zero:
                    share = last_size / (last_size + size)
                    distance -= share * size
                    last_slope += slope * (one - share) * (one - share)
                    slope -= slope * share * share
                before += last_slope
                gradient[i, g, b] = slope_of_mean * place - slope_of_distance * before
                projected += mass * gradient[i, g, b]
                place += one
            for b in range(logits.shape[2]):
                mass = exponentials[i, g, b] * scale
                gradient[i, g, b] = mass * (gradient[i, g, b] - projected) + share_ce * (mass - observed[i, g, b])
            entropy = np.log(total) + largest[i, g, 0] - cross
            loss += share_ce * entropy + share_wass * width[g] * distance + share_mse * error * error
    return loss
