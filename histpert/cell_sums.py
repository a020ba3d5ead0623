"""From the store to what likelihoods need of cells: sums, less the cells that are kept one by one."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from histpert.cells import Cells
from histpert.histograms.cells_apart import CellsApart
from histpert.histograms.counting import GroupMoments
from histpert.histograms.edges import BinEdges
from histpert.tensors import mapped

__all__ = ["CellSums"]


class CellSums:
    """The cells of a fold's perturbations, worked out for those that are asked for.

    Args:
        groups: Groups of the screen that are numbered here.
        moments: Moments of all groups of the screen.
        apart: Cells of all groups that are kept one by one.
        edges: Of the fold, whose half bin around zero and whose range say which of these matter in it.
        device: Where they are wanted.
        dtype: Of the result; sums are float64 throughout.
    """

    def __init__(
        self,
        groups: Int[np.ndarray, "perturbation"],
        moments: GroupMoments,
        apart: CellsApart,
        edges: BinEdges,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self._groups, self._dtype = torch.from_numpy(groups).to(device), dtype
        ends = edges.lower, edges.edges[:, -1], edges.width / 2
        self._lower, self._upper, self._near = (torch.from_numpy(end).to(device) for end in ends)
        arrays = moments.n_cells, moments.n_detected, *moments.power_sums[:2], *apart
        (self._n_cells, self._n_detected, self._sums, self._squares, self._first, self._gene, self._value) = (
            mapped(array, device) for array in arrays
        )

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, numbers: Int[Tensor, "batch"]) -> Cells:
        groups = self._groups[numbers]
        n_cells = self._n_cells[groups].double()
        n_detected, sums, squares = (
            array.index_select(0, groups).double() for array in (self._n_detected, self._sums, self._squares)
        )
        row, gene, value = self._apart(groups)
        place, weight = row * sums.shape[1] + gene, 1 / n_cells
        rest, first, second = (
            total.flatten().index_add(0, place, -(value**power)).view_as(total) * weight[:, None]
            for power, total in enumerate((n_detected, sums, squares))
        )
        some = rest.clamp_min(weight[:, None])
        mean = first / some
        return Cells(
            zeros=(1 - n_detected * weight[:, None]).to(self._dtype),
            rest=rest.to(self._dtype),
            mean=mean.to(self._dtype),
            variance=(second / some - mean**2).clamp_min(0).to(self._dtype),
            row=row,
            gene=gene,
            value=value.clamp(self._lower[gene], self._upper[gene]).to(self._dtype),
            weight=weight[row].to(self._dtype),
        )

    def _apart(self, groups: Int[Tensor, "batch"]) -> tuple[Tensor, Tensor, Tensor]:
        """Row, gene and value of each cell apart of these groups."""
        first, number = self._first[groups], self._first[groups + 1] - self._first[groups]
        row = torch.repeat_interleave(number)
        # Places run on within a group, and jump from the end of one to the start of the next.
        start = first - number.cumsum(0) + number
        place = torch.arange(len(row), device=row.device) + start[row]
        gene, value = self._gene[place].long(), self._value[place].double()
        kept = (value.abs() <= self._near[gene]) | (value < self._lower[gene]) | (value > self._upper[gene])
        return row[kept], gene[kept], value[kept]
