"""From log-normalized expression, which has exact zeros, to numbers that have a density, and back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CellScale"]

N_KNOTS = 128
"""Of a gene's table, at steps of the same size on the scale of the flow."""


class CellScale(nn.Module):
    """Normal scores: a value becomes the standard normal's quantile at the share of training cells that lie below it.

    What many cells have in common, 0 above all, is spread evenly over their share (distributional transform;
    Rüschendorf 2009, Journal of Statistical Planning and Inference 139). So zeros are the lower tail of what is seen,
    and not a spike beside it, into which a flow of affine steps gets too few of its cells. On the way back no value is
    larger, nor smaller without being 0, than any in training.

    Args:
        cells: Of training.
    """

    threshold: Tensor
    lowest: Tensor
    highest: Tensor
    knots: Tensor

    def __init__(self, cells: Float[Tensor, "cell gene"]):
        super().__init__()
        n_cells, n_genes = cells.shape
        threshold = torch.special.ndtri((cells == 0).double().mean(0))
        highest = torch.special.ndtri(torch.tensor(1 - 0.5 / (n_cells + 1), dtype=torch.float64))
        lowest = torch.where(threshold < highest, threshold.clamp_min(-highest), -highest)
        steps = torch.linspace(0, 1, N_KNOTS, dtype=torch.float64, device=cells.device)
        knots = cells.new_ones(n_genes, N_KNOTS)
        for gene in range(n_genes):
            values = cells[:, gene]
            values = values[values > 0].sort().values
            if len(values):
                first, last = torch.special.ndtr(lowest[gene]), torch.special.ndtr(highest)
                shares = torch.special.ndtr(lowest[gene] + (highest - lowest[gene]) * steps)
                rank = ((shares - first) / (last - first)).clamp(0, 1) * (len(values) - 1)
                below = rank.long()
                above = (below + 1).clamp_max(len(values) - 1)
                knots[gene] = values[below].lerp(values[above], (rank - below).to(values.dtype))
        for name, found in (("threshold", threshold), ("lowest", lowest), ("highest", highest), ("knots", knots)):
            self.register_buffer(name, found.to(cells.dtype))

    def to_flow(
        self, cells: Float[Tensor, "cell gene"], uniform: Float[Tensor, "cell gene"]
    ) -> Float[Tensor, "cell gene"]:
        """Numbers with a density; `uniform` is from 0 to 1."""
        zeros = torch.special.ndtri((torch.special.ndtr(self.threshold) * uniform).clamp_min(1e-7))
        values = cells.T.contiguous()
        first = torch.searchsorted(self.knots, values)
        last = torch.searchsorted(self.knots, values, right=True) - 1
        above = first.clamp(1, N_KNOTS - 1)
        start, end = (self.knots.gather(1, place) for place in (above - 1, above))
        between = above - 1 + ((values - start) / (end - start).clamp_min(1e-12)).clamp(0, 1)
        first, last = (torch.special.ndtr(self.lowest + self._step * place.T) for place in (first, last))
        spread = torch.special.ndtri(first.lerp(last, uniform).clamp_max(1 - 1e-7))
        values = torch.where(last > first, spread, self.lowest + self._step * between.T)
        return torch.where(cells == 0, zeros, values)

    def to_cells(self, values: Float[Tensor, "cell gene"]) -> Float[Tensor, "cell gene"]:
        """Expression, zeros exact."""
        place = ((values - self.lowest) / self._step).clamp(0, N_KNOTS - 1).T.contiguous()
        below = place.long().clamp_max(N_KNOTS - 2)
        start, end = (self.knots.gather(1, number) for number in (below, below + 1))
        return torch.where(values < self.threshold, 0, start.lerp(end, place - below).T)

    @property
    def _step(self) -> Float[Tensor, "gene"]:
        return (self.highest - self.lowest) / (N_KNOTS - 1)
