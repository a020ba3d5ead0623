"""Bin edges per gene, from the extremes of the training cells (Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["CONSTANT_RANGE", "BinEdges", "bin_edges"]

CONSTANT_RANGE = 0.01
"""Range given to a gene that does not vary in training, in log-normalized expression: narrow around its value."""


@dataclass(frozen=True)
class BinEdges:
    """Equal bins per gene.

    Attributes:
        lower: Left edge of each gene's first bin, in log-normalized expression.
        width: Width of each gene's bins.
        n_bins: Number of bins.
        constant: Genes that do not vary in training.
    """

    lower: Float[np.ndarray, "gene"]
    width: Float[np.ndarray, "gene"]
    n_bins: int
    constant: Bool[np.ndarray, "gene"]

    @property
    def centers(self) -> Float[np.ndarray, "gene bin"]:
        """Centres of all bins, left to right."""
        return self.lower[:, None] + self.width[:, None] * (np.arange(self.n_bins) + 0.5)

    @property
    def edges(self) -> Float[np.ndarray, "gene edge"]:
        """All edges, left to right."""
        return self.lower[:, None] + self.width[:, None] * np.arange(self.n_bins + 1)


def bin_edges(minimum: Float[np.ndarray, "gene"], maximum: Float[np.ndarray, "gene"], n_bins: int) -> BinEdges:
    """Edges on `[min - eps, max + eps]` with `eps = (max - min) / (2 (B - 1))` (Eq. 1).

    The width is `(max - min) / (B - 1)`: the first bin is centred on the minimum and the last on the maximum.

    Args:
        minimum: Smallest value of each gene over the training cells, control included.
        maximum: Largest value.
        n_bins: Number of bins, 2 or more.
    """
    if n_bins < 2:
        raise ValueError(f"{n_bins} bins: a histogram needs at least 2")
    constant = maximum <= minimum
    width = np.where(constant, CONSTANT_RANGE, maximum - minimum) / (n_bins - 1)
    return BinEdges(lower=minimum - width / 2, width=width, n_bins=n_bins, constant=constant)
