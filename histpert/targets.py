"""From counts in the store to tensors: what models train on, and what their predictions are held against."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from histpert.cell_sums import CellSums
from histpert.histograms.counting import GroupMoments
from histpert.histograms.store import FoldCounts
from histpert.metrics import HeldOut
from histpert.metrics.distances import CellPositions, cell_positions
from histpert.metrics.shifts import rank_by_welch_t
from histpert.models.interface import TrainingSet
from histpert.moments import Moments, moments_from_sums

__all__ = ["CellMeans", "CountedMasses", "held_out_targets", "training_targets"]


def training_targets(
    counts: FoldCounts,
    moments: GroupMoments,
    embeddings: Float[np.ndarray, "perturbation feature"],
    device: torch.device,
) -> TrainingSet:
    """The training perturbations of a fold, float32, on the device.

    Args:
        counts: Counts of the fold.
        moments: Moments of all groups of the screen.
        embeddings: Embeddings of all perturbations of the screen.
        device: Where to train.
    """
    groups, control, one = counts.training + 1, np.array([0]), torch.tensor([0], device=device)
    return TrainingSet(
        embeddings=torch.from_numpy(embeddings[counts.training]).to(device),
        masses=CountedMasses(counts, moments.n_cells, device),
        means=CellMeans(counts, moments, device),
        n_cells=_on(device, moments.n_cells[groups], torch.float32),
        cells=lambda: CellSums(groups, moments, counts.apart(), counts.edges, device, torch.float32),
        control=_masses(counts.control_counts, torch.float32, device),
        control_mean=_on(device, moments.power_sums[0][0] / moments.n_cells[0], torch.float32),
        lower=_on(device, counts.edges.lower, torch.float32),
        width=_on(device, counts.edges.width, torch.float32),
        control_cells=lambda: CellSums(control, moments, counts.apart(), counts.edges, device, torch.float32)[one],
    )


class CountedMasses:
    """Bin masses of a fold's training perturbations, float32, divided out of the counts of those that are asked for.

    On a CPU the counts stay where they are, in the mapped file, which all processes share; a GPU is sent integers.

    Args:
        counts: Counts of the fold.
        n_cells: Cells of each group of the screen.
        device: Where the masses are wanted.
    """

    def __init__(self, counts: FoldCounts, n_cells: Int[np.ndarray, "group"], device: torch.device):
        groups = counts.training + 1
        self._groups = torch.from_numpy(groups).to(device)
        self._n_cells = _on(device, n_cells[groups], torch.float32)
        self._on_all_cells, self._own = _mapped(counts.on_all_cells).to(device), _mapped(counts.own).to(device)
        self._own_genes = torch.from_numpy(counts.own_genes).to(device)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, numbers: Int[Tensor, "batch"]) -> Float[Tensor, "batch gene bin"]:
        groups = self._groups[numbers]
        masses = self._on_all_cells.index_select(0, groups).float()
        masses[:, self._own_genes] = self._own.index_select(0, groups).float()
        return masses.div_(self._n_cells[numbers, None, None])


class CellMeans:
    """Mean expression of a fold's training perturbations, float32, worked out for those that are asked for.

    Args:
        counts: Counts of the fold.
        moments: Moments of all groups of the screen.
        device: Where the means are wanted.
    """

    def __init__(self, counts: FoldCounts, moments: GroupMoments, device: torch.device):
        groups = counts.training + 1
        self._groups = torch.from_numpy(groups).to(device)
        self._n_cells = _on(device, moments.n_cells[groups])
        self._sums = _mapped(moments.power_sums[0]).to(device)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, numbers: Int[Tensor, "batch"]) -> Float[Tensor, "batch gene"]:
        return (self._sums.index_select(0, self._groups[numbers]) / self._n_cells[numbers, None]).float()


def held_out_targets(counts: FoldCounts, moments: GroupMoments, device: torch.device) -> HeldOut:
    """The held-out perturbations of a fold, float64, on the device.

    Args:
        counts: Counts of the fold.
        moments: Moments of all groups of the screen.
        device: Where to compare.
    """
    groups = counts.held_out + 1
    observed, control = _moments(moments, groups), _moments(moments, np.array([0]))
    n_cells = moments.n_cells[groups]
    ranking = rank_by_welch_t(
        observed.mean.numpy(),
        observed.variance.numpy(),
        n_cells,
        control.mean[0].numpy(),
        control.variance[0].numpy(),
        int(moments.n_cells[0]),
    )
    # Summed on the CPU: a GPU would add in another order each time, and the last digits would differ.
    cpu = torch.device("cpu")
    positions = cell_positions(
        torch.from_numpy(counts.reference_centers),
        _masses(counts.held_out_reference, torch.float64, cpu),
        torch.from_numpy(counts.edges.lower),
        torch.from_numpy(counts.edges.width),
        counts.edges.n_bins,
    )
    every = torch.arange(len(groups), device=device)
    return HeldOut(
        masses=_masses(counts.held_out_counts, torch.float64, device),
        moments=Moments(*(values.to(device) for values in observed)),
        ranking=torch.from_numpy(ranking).to(device),
        control_mean=control.mean[0].to(device),
        lower=_on(device, counts.edges.lower),
        width=_on(device, counts.edges.width),
        positions=CellPositions(*(values.to(device) for values in positions)),
        constant=torch.from_numpy(counts.edges.constant).to(device),
        cells=lambda: CellSums(groups, moments, counts.apart(), counts.edges, device, torch.float64)[every],
    )


def _mapped(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings(action="ignore"):  # that it cannot be written, which nobody does
        return torch.from_numpy(array)


def _masses(counts: np.ndarray, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "*batch gene bin"]:
    integers = torch.from_numpy(counts).to(device)
    return integers.to(dtype) / integers.sum(-1, keepdim=True, dtype=dtype)


def _moments(moments: GroupMoments, groups: np.ndarray) -> Moments:
    arrays = (
        np.stack([sums[groups] for sums in moments.power_sums]),
        moments.n_cells[groups, None],
        moments.minimum[groups],
        moments.maximum[groups],
    )
    power_sums, n_cells, minimum, maximum = (torch.from_numpy(array) for array in arrays)
    return moments_from_sums(power_sums, n_cells.double(), minimum, maximum)


def _on(device: torch.device, array: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.array(array)).to(device, dtype)
