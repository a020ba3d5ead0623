"""Likelihood and CRPS of predicted histograms."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["MASS_FLOOR", "continuous_ranked_probability", "negative_log_likelihood"]

MASS_FLOOR = 1e-6
"""Least predicted mass of a bin in the likelihood: one cell in a bin predicted empty costs 14 nats, not infinity."""


def negative_log_likelihood(
    predicted: Float[Tensor, "*batch gene bin"],
    observed: Float[Tensor, "*batch gene bin"],
    width: Float[Tensor, "gene"],
    floor: float = MASS_FLOOR,
) -> Float[Tensor, "*batch gene"]:
    """Mean negative log density at the cells (Eq. 12), in nats. Depends on the bin count: never compare across them.

    Args:
        predicted: Bin masses, each row adding to 1.
        observed: Bin masses of the cells.
        width: Width of each gene's bins.
        floor: Predicted masses below it are raised to it.
    """
    return -(observed * (predicted.clamp_min(floor).log() - width.log()[:, None])).sum(-1)


def continuous_ranked_probability(
    predicted: Float[Tensor, "*batch gene bin"],
    observed: Float[Tensor, "*batch gene bin"],
    zero_fraction: Float[Tensor, "*batch gene"],
    width: Float[Tensor, "gene"],
    starts_at_zero: Bool[Tensor, "gene"],
) -> Float[Tensor, "*batch gene"]:
    """Mean over cells x of their CRPS under the predicted distribution, the integral of `(F - 1{x <= z})^2 dz`.

    The prediction is uniform inside each bin. Of the cells, the zeros are taken where they are: at 0, the centre of the
    first bin of a gene whose training minimum is 0. The other cells are taken as uniform inside their bins. So the
    score compares across bin counts, which a score against the observed histogram does not: there a coarse zero bin
    counts as spread.

    With `H` the cells' distribution function it is the integral of `H - 2 F H + F^2`; each part has a closed form.

    Args:
        predicted: Bin masses, each row adding to 1.
        observed: Bin masses of the cells.
        zero_fraction: Fraction of cells that are exactly 0.
        width: Width of each gene's bins.
        starts_at_zero: Genes whose first bin is centred on 0.

    Returns:
        Scores, in log-normalized expression.
    """
    atom = torch.where(starts_at_zero, zero_fraction, torch.zeros_like(zero_fraction))
    spread = observed.clone()
    spread[..., 0] -= atom
    f_left, f_right = _cdf(predicted)
    h_left, h_right = _cdf(spread)
    f_squared = (f_left**2 + f_left * f_right + f_right**2) / 3
    f_times_h = (2 * f_left * h_left + 2 * f_right * h_right + f_left * h_right + f_right * h_left) / 6
    of_spread = ((h_left + h_right) / 2 - 2 * f_times_h + f_squared).sum(-1)
    # From the centre of the first bin on, the atom has been passed: half of that bin, where F is 3/4 of its mass on
    # average, and all the others.
    after_atom = predicted.shape[-1] - 0.5
    f_after_atom = 0.375 * predicted[..., 0] + ((f_left + f_right) / 2)[..., 1:].sum(-1)
    return width * (of_spread + atom * (after_atom - 2 * f_after_atom))


def _cdf(masses: Float[Tensor, "*batch bin"]) -> tuple[Float[Tensor, "*batch bin"], Float[Tensor, "*batch bin"]]:
    """The distribution function at the left and the right edge of each bin."""
    right = masses.cumsum(-1)
    return right - masses, right
