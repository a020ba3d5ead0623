"""The three losses between predicted and observed histograms (Eq. 5 to 8, appendix C)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.moments import histogram_mean

__all__ = ["HistogramLoss", "cross_entropy", "mean_squared_error", "wasserstein1"]


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


class HistogramLoss:
    """Weighted sum of the three losses of `softmax(logits)`, averaged over perturbations and genes (appendix C).

    Value and gradient come from one pass over buffers that are kept between calls: on a CPU, fresh memory costs more
    than the arithmetic. The value is that of the functions above, which define the losses.

    A result's `backward` must run before the next call; autograd says so where it has not.

    Args:
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        weights: Of cross-entropy, Wasserstein-1 and squared error of the mean.
    """

    def __init__(self, lower: Float[Tensor, "gene"], width: Float[Tensor, "gene"], weights: tuple[float, float, float]):
        self.lower, self.width, self.weights = lower, width, weights
        self._buffers: list[Tensor] = []

    def __call__(
        self,
        logits: Float[Tensor, "batch gene bin"],
        observed: Float[Tensor, "batch gene bin"],
        observed_mean: Float[Tensor, "batch gene"],
    ) -> Float[Tensor, ""]:
        """Loss of a batch.

        Args:
            logits: Logarithms of the predicted masses, up to a constant per gene.
            observed: Bin masses, each row adding to 1.
            observed_mean: Mean of the cells.
        """
        return _ValueAndGradient.apply(logits, observed, observed_mean, self)

    def buffers(self, like: Float[Tensor, "batch gene bin"], n_buffers: int) -> list[Tensor]:
        """Uninitialized tensors of this shape, the same memory in every call."""
        if not self._buffers or len(self._buffers[0]) < len(like) or self._buffers[0].shape[1:] != like.shape[1:]:
            self._buffers = [torch.empty_like(like) for _ in range(n_buffers)]
        return [buffer[: len(like)] for buffer in self._buffers]


class _ValueAndGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, observed: Tensor, observed_mean: Tensor, loss: HistogramLoss) -> Tensor:
        weight_ce, weight_wass, weight_mse = loss.weights
        predicted, gradient, *scratch = loss.buffers(logits, 5)
        scale = 1 / observed_mean.numel()
        # exp and sum instead of torch.softmax, which is many times slower on a CPU for rows of fewer than 16 bins.
        torch.sub(logits, logits.amax(-1, keepdim=True), out=gradient)
        torch.exp(gradient, out=predicted)
        total = predicted.sum(-1, keepdim=True)
        value = logits.new_zeros(())
        if weight_ce:
            value += weight_ce * scale * (total.log().sum() - (observed * gradient).sum())
        predicted.div_(total)
        # `gradient` first holds the slope of the loss in each predicted mass, up to a constant per gene.
        if weight_wass:
            distance = _wasserstein1_and_slope(predicted, observed, gradient, scratch)
            value += weight_wass * scale * (distance @ loss.width).sum()
            gradient.mul_((loss.width * (weight_wass * scale))[:, None])
        else:
            gradient.zero_()
        if weight_mse:
            number = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device) + 0.5
            error = loss.lower + loss.width * (predicted @ number) - observed_mean
            value += weight_mse * scale * error.square().sum()
            gradient.addcmul_((error * loss.width * (2 * weight_mse * scale))[..., None], number)
        # Through the softmax: p * (slope - sum p slope); cross-entropy's own gradient there is p - observed.
        gradient.mul_(predicted)
        gradient.addcmul_(predicted, gradient.sum(-1, keepdim=True), value=-1)
        if weight_ce:
            gradient.add_(predicted, alpha=weight_ce * scale).sub_(observed, alpha=weight_ce * scale)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None


def _wasserstein1_and_slope(
    predicted: Tensor, observed: Tensor, slope: Tensor, scratch: list[Tensor]
) -> Float[Tensor, "batch gene"]:
    """Distances in bin widths, and into `slope` their derivatives in each predicted mass, up to a constant per gene.

    Where the gap changes sign from `a` to `b`, the bin's term `|a| |b| / (|a| + |b|)` falls away from the sum of sizes;
    its derivatives in `|a|` and `|b|` are the squared shares of the other. All rows are worked on as one line of
    memory: a row's last gap is 0, so no sign changes from one row to the next.
    """
    gap, size, share = scratch
    torch.cumsum(torch.sub(predicted, observed, out=gap), -1, out=gap)
    gap[..., -1] = 0
    torch.abs(gap, out=size)
    share_of_left, pair_sum = share.view(-1)[1:], slope.view(-1)[1:]
    left, right = size.view(-1)[:-1], size.view(-1)[1:]
    torch.mul(gap.view(-1)[:-1], gap.view(-1)[1:], out=share_of_left)
    share_of_left.clamp_max_(0).sign_().neg_()  # 1 where the gap changes sign inside the bin, else 0
    torch.add(left, right, out=pair_sum).clamp_min_(torch.finfo(gap.dtype).tiny)
    share_of_left.mul_(left).div_(pair_sum)
    share.view(-1)[0] = 0
    distance = size.sum(-1) - torch.mul(share, size, out=slope).sum(-1)
    # d distance / d size is 1 less the squared shares in the bins to the left and to the right of an edge; the share of
    # the right is 1 less that of the left, where the sign changes.
    size.fill_(1).addcmul_(share, share, value=-1)
    torch.sub(1, share, out=slope).square_().mul_(share.sign())
    size.view(-1)[:-1].sub_(pair_sum)
    gap.sign_().mul_(size)
    # The slope in mass b sums the gap's slopes from b on; up to a constant, less those before b.
    torch.cumsum(gap, -1, out=slope)
    torch.sub(gap, slope, out=slope)
    return distance
