"""Arrays of the store as tensors on the device that works with them."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["mapped", "masses_of"]


def mapped(array: np.ndarray, device: torch.device) -> Tensor:
    """An array of a mapped file; on a CPU it stays in the file, which all processes share."""
    with warnings.catch_warnings(action="ignore"):  # that it cannot be written, which nobody does
        return torch.from_numpy(array).to(device)


def masses_of(counts: np.ndarray, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "*batch gene bin"]:
    """Counts over their sum, divided out on the device."""
    integers = torch.from_numpy(counts).to(device)
    return integers.to(dtype) / integers.sum(-1, keepdim=True, dtype=dtype)
