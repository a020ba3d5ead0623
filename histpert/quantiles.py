"""Values of histograms by the shares that lie below them: cells are drawn by shares that are drawn."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["quantiles"]


def quantiles(
    masses: Float[Tensor, "perturbation gene bin"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
    uniform: Float[Tensor, "perturbation cell gene"],
) -> Float[Tensor, "perturbation cell gene"]:
    """Values that these shares of the distributions lie below; a first bin that is centred on 0 is the value 0."""
    ends = masses.double().cumsum(-1)
    ends = ends / ends[..., -1:]
    share = uniform.transpose(1, 2).contiguous()
    place = torch.searchsorted(ends, share).clamp_max(masses.shape[-1] - 1)
    below = torch.nn.functional.pad(ends, (1, 0)).gather(-1, place)
    inside = (share - below) / masses.double().gather(-1, place).clamp_min(1e-300)
    values = lower[:, None] + width[:, None] * (place + inside.clamp(0, 1))
    is_zero = (place == 0) & (lower + width / 2 == 0)[:, None]
    return values.masked_fill(is_zero, 0).clamp_min(0).transpose(1, 2)
