"""Likelihood, CRPS and energy distance of predicted histograms."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from histpert.metric_columns import MASS_FLOOR

__all__ = [
    "CellPositions",
    "cell_positions",
    "continuous_ranked_probability",
    "energy_distance",
    "mean_difference",
    "negative_log_likelihood",
]


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


class CellPositions(NamedTuple):
    """Where cells lie in the bins of a prediction: all that their mean CRPS depends on.

    Attributes:
        mass: Share of the cells in each bin, cells beyond the range are at its ends.
        first: Sum over these cells of their place `u` in the bin, 0 at its left edge and 1 at its right.
        second: The same of `u^2`.
        beyond: Mean distance of the cells beyond the range, in bin widths; 0 for a cell inside.
    """

    mass: Float[Tensor, "*batch gene bin"]
    first: Float[Tensor, "*batch gene bin"]
    second: Float[Tensor, "*batch gene bin"]
    beyond: Float[Tensor, "*batch gene"]


def cell_positions(
    values: Float[Tensor, "gene value"],
    shares: Float[Tensor, "*batch gene value"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
    n_bins: int,
) -> CellPositions:
    """Lay values into bins.

    Args:
        values: Values that cells of each gene take.
        shares: Share of the cells that take each of them, adding to 1.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        n_bins: Number of bins.
    """
    place = (values - lower[:, None]) / width[:, None]
    inside = place.clamp(0, n_bins)
    number = inside.floor().clamp_max(n_bins - 1)
    u = inside - number
    bins = number.long().expand(shares.shape)

    def summed(weights: Tensor) -> Tensor:
        return weights.new_zeros((*shares.shape[:-1], n_bins)).scatter_add_(-1, bins, weights)

    beyond = (shares * (place - inside).abs()).sum(-1)
    return CellPositions(summed(shares), summed(shares * u), summed(shares * u**2), beyond)


def continuous_ranked_probability(
    predicted: Float[Tensor, "*batch gene bin"], cells: CellPositions, width: Float[Tensor, "gene"]
) -> Float[Tensor, "*batch gene"]:
    """Mean over cells x of their CRPS, the integral of `(F - 1{x <= z})^2 dz`. Compares across bin counts.

    The prediction is uniform inside each bin, so F is linear there, the score of a cell has the slope `2 F - 1`, and
    its mean over cells follows exactly from the sums of their places and squared places in the bins.

    Args:
        predicted: Bin masses, each row adding to 1.
        cells: Where the cells lie in the same bins.
        width: Width of each gene's bins.

    Returns:
        Scores, in log-normalized expression.
    """
    right = predicted.cumsum(-1)
    left = right - predicted
    at_lower = ((1 - left) ** 2 + (1 - left) * (1 - right) + (1 - right) ** 2).sum(-1, keepdim=True) / 3
    rise = left + right - 1
    at_left = at_lower + rise.cumsum(-1) - rise
    inside = cells.mass * at_left + cells.first * (2 * left - 1) + cells.second * predicted
    return width * (inside.sum(-1) + cells.beyond)


def mean_difference(
    values: Float[Tensor, "gene value"], shares: Float[Tensor, "*batch gene value"]
) -> Float[Tensor, "*batch gene"]:
    """Gini's mean difference, `E|Y - Y'|` of two cells drawn with replacement: `2 * integral of F (1 - F) dz`.

    Args:
        values: Values that cells of each gene take, ascending.
        shares: Share of the cells that take each of them, adding to 1.
    """
    below = shares.cumsum(-1)[..., :-1]
    return 2 * (below * (1 - below) * values.diff(dim=-1)).sum(-1)


def energy_distance(
    crps: Float[Tensor, "*batch gene"],
    gini: Float[Tensor, "*batch gene"],
    n_cells: Float[Tensor, "*batch"],
    *,
    squared: bool,
    unbiased: bool,
) -> Float[Tensor, "*batch gene"]:
    """Energy distance of a predicted distribution X and cells Y, `2 E|X - Y| - E|X - X'| - E|Y - Y'|` where squared.

    The CRPS is `E|X - Y| - E|X - X'| / 2`, so twice the CRPS less the mean difference of the cells. Over pairs of
    different cells that difference, and with it the squared distance, is unbiased: a prediction of the distribution
    that the cells were drawn from scores 0 on average, and may score below it. Half the unbiased squared distance is
    the CRPS without what the sampling and spread of the cells add to it: `integral of (F - F_true)^2 dz`.
    Székely and Rizzo 2013; `scipy.stats.energy_distance` is neither squared nor unbiased.

    Args:
        crps: Mean CRPS of the cells.
        gini: Mean difference of the cells, over all pairs, a cell with itself included.
        n_cells: Number of cells; a single one has no unbiased mean difference, and NaN.
        squared: Squared, as it is estimated without bias; its root is NaN where the estimate is below 0.
        unbiased: Over pairs of different cells.
    """
    if unbiased:
        n_cells = n_cells[..., None]
        gini = gini * n_cells / (n_cells - 1)
    distance = 2 * crps - gini
    return distance if squared else distance.sqrt()
