"""Do cells lie where predicted distributions say? Coverage of central intervals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["coverage"]


def coverage(
    predicted: Float[Tensor, "*batch gene bin"], observed: Float[Tensor, "*batch gene bin"], levels: Sequence[float]
) -> Float[Tensor, "*batch gene level"]:
    """Share of the cells inside the central interval that is predicted to hold `level` of them.

    The interval runs from the quantile `(1 - level) / 2` to `(1 + level) / 2`; a cell is inside where its probability
    integral transform F(x) is between the two. Cells are known to their bin: theirs is spread evenly from F at the left
    edge to F at the right one (the randomized PIT of Czado, Gneiting and Held 2009), so that a perfect prediction has
    a coverage of exactly `level`, however few the bins.

    Args:
        predicted: Bin masses, each row adding to 1.
        observed: Bin masses of the cells.
        levels: Predicted shares, between 0 and 1.
    """
    bounds = [(1 - level) / 2 for level in levels] + [(1 + level) / 2 for level in levels]
    below = _share_below(predicted, observed, predicted.new_tensor(bounds))
    return below[..., len(levels) :] - below[..., : len(levels)]


def _share_below(
    predicted: Float[Tensor, "*batch bin"], observed: Float[Tensor, "*batch bin"], bounds: Float[Tensor, "bound"]
) -> Float[Tensor, "*batch bound"]:
    """Share of the cells whose PIT is below each bound: their cumulated mass, linear in F inside a bin."""
    right = predicted.cumsum(-1)
    bounds = bounds.expand(*right.shape[:-1], -1).contiguous()
    bins = torch.searchsorted(right, bounds).clamp_max(right.shape[-1] - 1)
    mass, cells = predicted.gather(-1, bins), observed.gather(-1, bins)
    before = observed.cumsum(-1).gather(-1, bins) - cells
    # The last bin may hold nothing, where rounding leaves F below a bound to its end.
    inside = torch.where(mass > 0, 1 - (right.gather(-1, bins) - bounds) / mass, 1).clamp(0, 1)
    return before + cells * inside
