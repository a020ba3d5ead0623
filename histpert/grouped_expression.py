"""Cells of control and of some perturbations of a fold, one by one: those it trains on, or those it holds out."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from histpert.tensors import mapped

__all__ = ["GroupedExpression"]


class GroupedExpression:
    """Log-normalized expression of the cells of some groups; on a CPU it stays in the mapped file.

    Args:
        expression: All cells of the screen, group after group, control first.
        start: First cell of each group, and their number at the end.
        groups: Groups that are numbered here.
        device: Where the cells are wanted.
    """

    def __init__(
        self,
        expression: Float[np.ndarray, "cell gene"],
        start: Int[np.ndarray, "bound"],
        groups: Int[np.ndarray, "perturbation"],
        device: torch.device,
    ):
        self._expression, self._start, self._groups, self._device = expression, start, groups, device

    def __len__(self) -> int:
        return len(self._groups)

    def of_control(self) -> Float[Tensor, "cell gene"]:
        """The control cells."""
        return self._of_group(0)

    def of(self, number: int) -> Float[Tensor, "cell gene"]:
        """The cells of a perturbation."""
        return self._of_group(int(self._groups[number]))

    def _of_group(self, group: int) -> Float[Tensor, "cell gene"]:
        return mapped(self._expression[self._start[group] : self._start[group + 1]], self._device)
