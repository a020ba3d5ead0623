"""What the genes that a perturbation changes most are chosen by. No torch: command lines name it."""

from __future__ import annotations

from typing import Literal

__all__ = ["TopBy"]

TopBy = Literal["w1", "mean", "variance", "shape", "bimodality"]
"""Size of the change of the distribution (Wasserstein-1 distance), of its mean, of its variance, of what the distance
has beyond the shift of the mean, and of Sarle's coefficient of bimodality."""
