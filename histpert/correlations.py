"""How genes go together."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["pearson_correlations"]


def pearson_correlations(cells: Float[Tensor, "cell gene"]) -> Float[Tensor, "gene gene"]:
    """Over cells, float64; 0 with a gene that does not vary, 1 with itself."""
    centered = cells.double() - cells.double().mean(0)
    scale = centered.norm(dim=0)
    scaled = centered / torch.where(scale > 0, scale, torch.inf)
    return (scaled.T @ scaled).fill_diagonal_(1)
