"""From counts in the store to tensors: what models train on, and what their predictions are held against."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from histpert.cell_sums import CellSums
from histpert.grouped_expression import GroupedExpression
from histpert.histograms.counting import GroupMoments
from histpert.histograms.store import FoldCounts, HistogramStore
from histpert.metrics import HeldOut
from histpert.metrics.held_out import CellReader
from histpert.metrics.significance import differential_expression
from histpert.models.interface import TrainingSet
from histpert.moments import Moments, moments_from_sums
from histpert.observed_cells import HeldOutCells, ResampledCells
from histpert.tensors import mapped, masses_of

__all__ = [
    "CellMeans",
    "CellSpread",
    "CountedMasses",
    "held_out_targets",
    "replicate_differences",
    "resampled_targets",
    "training_targets",
]

RELATIVE_ROUNDING = 1e-12
"""A variance below this share of the mean square is what rounding leaves of none."""


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
        control=masses_of(counts.control_counts, torch.float32, device),
        control_mean=_on(device, moments.power_sums[0][0] / moments.n_cells[0], torch.float32),
        lower=_on(device, counts.edges.lower, torch.float32),
        width=_on(device, counts.edges.width, torch.float32),
        control_cells=lambda: CellSums(control, moments, counts.apart(), counts.edges, device, torch.float32)[one],
        spread=lambda: CellSpread(groups, moments, device),
        control_spread=lambda: CellSpread(control, moments, device)[one][0],
        coexpression=counts.coexpression,
        expression=lambda: GroupedExpression(*counts.cells(), groups, device),
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
        self._on_all_cells, self._own = mapped(counts.on_all_cells, device), mapped(counts.own, device)
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
        self._sums = mapped(moments.power_sums[0], device)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, numbers: Int[Tensor, "batch"]) -> Float[Tensor, "batch gene"]:
        return (self._sums.index_select(0, self._groups[numbers]) / self._n_cells[numbers, None]).float()


class CellSpread:
    """Second, third and fourth central moments of cells, float32, worked out for the groups that are asked for.

    Args:
        groups: Groups of the screen that are numbered here.
        moments: Moments of all groups of the screen.
        device: Where the moments are wanted.
    """

    def __init__(self, groups: Int[np.ndarray, "perturbation"], moments: GroupMoments, device: torch.device):
        self._groups = torch.from_numpy(groups).to(device)
        self._n_cells = _on(device, moments.n_cells)
        self._sums = [mapped(sums, device) for sums in moments.power_sums]

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, numbers: Int[Tensor, "batch"]) -> Float[Tensor, "batch 3 gene"]:
        groups = self._groups[numbers]
        m1, m2, m3, m4 = (sums.index_select(0, groups) / self._n_cells[groups, None] for sums in self._sums)
        central = m2 - m1**2, m3 - 3 * m1 * m2 + 2 * m1**3, m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        return torch.stack(central, dim=1).float()


def held_out_targets(
    store: HistogramStore,
    counts: FoldCounts,
    device: torch.device,
    n_replicates: int = 0,
    with_cells: bool = False,
) -> HeldOut:
    """The held-out perturbations of a fold, float64, on the device; their histograms are read when they are asked for.

    Args:
        store: Of the screen.
        counts: Counts of the fold.
        device: Where to compare.
        n_replicates: Bootstrap replicates that the store has; without them the columns that need them are NaN.
        with_cells: Whether they are compared cell by cell too, which the store must have.
    """
    moments = store.moments
    groups, control = np.append(0, counts.held_out + 1), moments.power_sums[0][0] / moments.n_cells[0]
    noise = np.zeros((0, len(control)))
    if n_replicates:
        noise = store.replicates(n_replicates)[0][0] / moments.n_cells[0] - control
    found = _held_out(store, counts, device, _moments(moments, groups), HeldOutCells(counts, moments, device), noise)
    whole = GroupedExpression(*counts.cells(), counts.held_out + 1, device) if with_cells else None
    return replace(found, whole_cells=whole)


def resampled_targets(
    store: HistogramStore, counts: FoldCounts, device: torch.device, n_replicates: int, number: int, seed: int
) -> HeldOut:
    """The same of one bootstrap replicate of control and of the held-out perturbations, in the place of their cells.

    Moments are those of the stored replicate, histograms are drawn from the observed ones. The other replicates stand
    for how this one's control varies.

    Args:
        store: Of the screen.
        counts: Counts of the fold.
        device: Where to compare.
        n_replicates: Bootstrap replicates that the store has, 2 or more.
        number: Which of them.
        seed: Of the draws of histograms.
    """
    groups = np.append(0, counts.held_out + 1)
    moments = _replicate_moments(store, groups, n_replicates, number)
    of_control = store.replicates(n_replicates)[0][0] / store.moments.n_cells[0]
    noise = np.delete(of_control, number, axis=0) - store.moments.power_sums[0][0] / store.moments.n_cells[0]
    return _held_out(store, counts, device, moments, ResampledCells(counts, store.moments, device, number, seed), noise)


def replicate_differences(store: HistogramStore, group: int, n_replicates: int) -> tuple[Moments, Moments]:
    """Statistics of a perturbation's cells less those of control: observed, and of every bootstrap replicate of both.

    Args:
        store: Of the screen.
        group: Of the perturbation.
        n_replicates: Bootstrap replicates that the store has.
    """
    groups = np.array([0, group])
    observed = _moments(store.moments, groups)
    replicates = [_replicate_moments(store, groups, n_replicates, number) for number in range(n_replicates)]
    return (
        Moments(*(values[1] - values[0] for values in observed)),
        Moments(*(torch.stack([value[1] - value[0] for value in values]) for values in zip(*replicates, strict=True))),
    )


def _held_out(
    store: HistogramStore,
    counts: FoldCounts,
    device: torch.device,
    of_groups: Moments,
    cells: CellReader,
    control_noise: Float[np.ndarray, "replicate gene"],
) -> HeldOut:
    """From statistics of control and of the held-out perturbations after it."""
    control, observed = (Moments(*(values[part] for values in of_groups)) for part in (0, slice(1, None)))
    n_cells = store.moments.n_cells
    tested = differential_expression(
        observed.mean.numpy(),
        observed.variance.numpy(),
        n_cells[counts.held_out + 1],
        control.mean.numpy(),
        control.variance.numpy(),
        int(n_cells[0]),
    )
    training = counts.training + 1
    training_mean = (1 / n_cells[training]) @ store.moments.power_sums[0][training] / len(training)
    moments = Moments(*(values.to(device) for values in observed))
    return HeldOut(
        rows=np.arange(len(counts.held_out)),
        cells=cells,
        n_cells=_on(device, n_cells[counts.held_out + 1]),
        moments=moments,
        ranking=torch.from_numpy(tested.ranking).to(device),
        significant=torch.from_numpy(tested.significant).to(device),
        targets=_targets(store, counts.held_out).to(device),
        control_mean=control.mean.to(device),
        control_noise=_on(device, control_noise),
        training_mean=_on(device, training_mean),
        fold_means=moments.mean,
        lower=_on(device, counts.edges.lower),
        width=_on(device, counts.edges.width),
        constant=torch.from_numpy(counts.edges.constant).to(device),
    )


def _targets(store: HistogramStore, numbers: Int[np.ndarray, "perturbation"]) -> Bool[Tensor, "perturbation gene"]:
    """The genes that are perturbed; one that is not among the screen's genes is none."""
    names = [set(store.perturbations[number].split("+")) for number in numbers]
    return torch.tensor([[gene in perturbed for gene in store.genes] for perturbed in names], dtype=torch.bool)


def _moments(moments: GroupMoments, groups: np.ndarray) -> Moments:
    chosen = moments.of(groups)
    arrays = np.stack(chosen.power_sums), chosen.n_cells[:, None], chosen.minimum, chosen.maximum
    power_sums, n_cells, minimum, maximum = (torch.from_numpy(array) for array in arrays)
    return moments_from_sums(power_sums, n_cells.double(), minimum, maximum)


def _on(device: torch.device, array: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.array(array)).to(device, dtype)


def _replicate_moments(store: HistogramStore, groups: np.ndarray, n_replicates: int, number: int) -> Moments:
    """Of one stored replicate of each group; cells that are all the same have no variance, whatever rounding says."""
    power_sums = np.stack([sums[groups, number] for sums in store.replicates(n_replicates)])
    n_cells = store.moments.n_cells[groups, None]
    squared = power_sums[1] * n_cells
    varies = squared - power_sums[0] ** 2 > RELATIVE_ROUNDING * squared
    arrays = power_sums, n_cells, np.zeros(varies.shape), varies
    return moments_from_sums(*(torch.from_numpy(array).double() for array in arrays))
