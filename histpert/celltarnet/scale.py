"""From log-normalized expression, which has exact zeros, to numbers that have a density, and back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CellScale"]


class CellScale(nn.Module):
    """Zeros spread evenly below 0, as far as the gene's smallest value lies above it; then each gene standardized.

    Half of that value is what tells the two apart on the way back, on which values are no larger than any in training.

    Args:
        cells: Of training.
    """

    width: Tensor
    mean: Tensor
    deviation: Tensor
    largest: Tensor

    def __init__(self, cells: Float[Tensor, "cell gene"]):
        super().__init__()
        smallest = torch.where(cells > 0, cells, torch.inf).amin(0)
        width = torch.where(smallest.isinf(), 1, smallest)
        # Moments of the mixture of what is spread and what is not.
        zeros = (cells == 0).to(cells.dtype).mean(0)
        mean = cells.mean(0) - zeros * width / 2
        square = (cells**2).mean(0) + zeros * width**2 / 3
        deviation = (square - mean**2).clamp_min(1e-8).sqrt()
        parts = {"width": width, "mean": mean, "deviation": deviation, "largest": cells.amax(0)}
        for name, values in parts.items():
            self.register_buffer(name, values)

    def to_flow(
        self, cells: Float[Tensor, "cell gene"], uniform: Float[Tensor, "cell gene"]
    ) -> Float[Tensor, "cell gene"]:
        """Numbers with a density; `uniform` is from 0 to 1."""
        return (torch.where(cells == 0, -self.width * uniform, cells) - self.mean) / self.deviation

    def to_cells(self, values: Float[Tensor, "cell gene"]) -> Float[Tensor, "cell gene"]:
        """Expression, zeros exact."""
        cells = values * self.deviation + self.mean
        return torch.where(cells < self.width / 2, 0, torch.minimum(cells, self.largest))
