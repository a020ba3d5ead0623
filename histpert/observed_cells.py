"""Histograms of held-out cells for scoring, read from the store for the perturbations that are asked for."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from histpert.cell_sums import CellSums
from histpert.cells import Cells
from histpert.histograms.counting import GroupMoments
from histpert.histograms.store import FoldCounts
from histpert.metrics.distances import CellPositions, cell_positions, mean_difference
from histpert.tensors import masses_of

__all__ = ["HeldOutCells", "ResampledCells"]


class HeldOutCells:
    """Histograms of a fold's held-out perturbations, float64, divided out of the counts of those that are asked for.

    Args:
        counts: Counts of the fold.
        moments: Moments of all groups of the screen.
        device: Where they are wanted.
    """

    def __init__(self, counts: FoldCounts, moments: GroupMoments, device: torch.device):
        self._counts, self._moments, self._device = counts, moments, device

    def masses(self, rows: Int[np.ndarray, "perturbation"]) -> Float[Tensor, "perturbation gene bin"]:
        """Bin masses on training edges; cells beyond them are in the edge bins."""
        return masses_of(self._counted(rows), torch.float64, self._device)

    def positions(
        self, rows: Int[np.ndarray, "perturbation"]
    ) -> tuple[CellPositions, Float[Tensor, "perturbation gene"]]:
        """Where the cells lie in the bins, finer than the bins tell, and their mean difference from one another.

        Summed on the CPU: a GPU would add in another order each time, and the last digits would differ.
        """
        edges, values = self._counts.edges, torch.from_numpy(self._counts.reference_centers)
        shares = masses_of(self._referred(rows), torch.float64, torch.device("cpu"))
        lower, width = torch.from_numpy(edges.lower), torch.from_numpy(edges.width)
        positions = cell_positions(values, shares, lower, width, edges.n_bins)
        on_device = CellPositions(*(part.to(self._device) for part in positions))
        return on_device, mean_difference(values, shares).to(self._device)

    def sums(self, rows: Int[np.ndarray, "perturbation"]) -> Cells:
        """What the likelihood of a density needs of them."""
        counts, every = self._counts, np.arange(len(rows))
        groups = counts.held_out[rows] + 1
        known = self._moments.of(groups), counts.apart().of(groups), counts.edges
        return CellSums(every, *known, self._device, torch.float64)[torch.from_numpy(every).to(self._device)]

    def _counted(self, rows: Int[np.ndarray, "perturbation"]) -> Int[np.ndarray, "perturbation gene bin"]:
        groups = self._counts.held_out[rows] + 1
        counted = self._counts.on_all_cells[groups]
        counted[:, self._counts.own_genes] = self._counts.own[groups]
        return counted

    def _referred(self, rows: Int[np.ndarray, "perturbation"]) -> Int[np.ndarray, "perturbation gene reference"]:
        return self._counts.reference()[self._counts.held_out[rows] + 1]


class ResampledCells(HeldOutCells):
    """The same of cells that are drawn with replacement from the observed ones, gene by gene.

    The draws of a perturbation follow from seed, replicate and perturbation alone, whatever else is asked for.

    Args:
        counts: Counts of the fold.
        moments: Moments of all groups of the screen.
        device: Where they are wanted.
        number: Of the replicate.
        seed: Of the draws.
    """

    def __init__(self, counts: FoldCounts, moments: GroupMoments, device: torch.device, number: int, seed: int):
        super().__init__(counts, moments, device)
        self._seed = seed, number

    def sums(self, rows: Int[np.ndarray, "perturbation"]) -> Cells:
        """Nobody knows which cells near zero a replicate has."""
        raise NotImplementedError("densities are scored against observed cells only")

    def _counted(self, rows: Int[np.ndarray, "perturbation"]) -> Int[np.ndarray, "perturbation gene bin"]:
        return self._drawn(super()._counted(rows), rows, 0)

    def _referred(self, rows: Int[np.ndarray, "perturbation"]) -> Int[np.ndarray, "perturbation gene reference"]:
        return self._drawn(super()._referred(rows), rows, 1)

    def _drawn(self, observed: np.ndarray, rows: np.ndarray, which: int) -> np.ndarray:
        drawn = np.empty_like(observed)
        for row, counts, into in zip(self._counts.held_out[rows], observed, drawn, strict=True):
            random, n_cells = np.random.default_rng([*self._seed, int(row), which]), counts[0].sum()
            into[:] = random.multinomial(n_cells, counts / n_cells)
        return drawn
