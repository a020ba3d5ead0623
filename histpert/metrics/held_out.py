"""What predictions are held against: the held-out perturbations of a fold, or some of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from histpert.cells import Cells
from histpert.metrics.distances import CellPositions
from histpert.moments import Moments

__all__ = ["SCORED_AT_ONCE", "CellReader", "HeldOut", "WholeCells"]

SCORED_AT_ONCE = 8
"""Perturbations whose histograms are in memory at a time: 5,000 genes x 35 bins of 8 take 11 MB an array."""


@runtime_checkable
class CellReader(Protocol):
    """The cells of a fold's held-out perturbations, read for those that are asked for; float64."""

    def masses(self, rows: Int[np.ndarray, "perturbation"]) -> Float[Tensor, "perturbation gene bin"]:
        """Bin masses on training edges; cells beyond them are in the edge bins."""
        ...

    def positions(
        self, rows: Int[np.ndarray, "perturbation"]
    ) -> tuple[CellPositions, Float[Tensor, "perturbation gene"]]:
        """Where the cells lie in the bins, finer than the bins tell, and their mean difference from one another."""
        ...

    def sums(self, rows: Int[np.ndarray, "perturbation"]) -> Cells:
        """What the likelihood of a density needs of them."""
        ...


@runtime_checkable
class WholeCells(Protocol):
    """Cells of control and of a fold's held-out perturbations, log-normalized."""

    def of_control(self) -> Float[Tensor, "cell gene"]:
        """The control cells."""
        ...

    def of(self, number: int) -> Float[Tensor, "cell gene"]:
        """The cells of a perturbation, by its number among those that the fold holds out."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """What was observed of held-out perturbations, float64.

    Attributes:
        rows: Numbers of the perturbations among those that the fold holds out.
        cells: Reads their histograms, and what likelihoods need of them.
        n_cells: Cells of each.
        moments: Statistics of the cells themselves.
        ranking: Genes by falling |t| against control.
        significant: Genes whose mean differs from control.
        targets: Genes that are perturbed.
        control_mean: Mean of the control cells.
        control_noise: What means of bootstrap replicates of control differ from it by; no rows without replicates.
        training_mean: Mean over training perturbations, each counted once, of the means of their cells.
        fold_means: Means of the cells of all perturbations that the fold holds out.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        constant: Genes that do not vary in training.
        whole_cells: Reads the cells one by one; None in a study that did not ask for them.
    """

    rows: Int[np.ndarray, "perturbation"]
    cells: CellReader
    n_cells: Float[Tensor, "perturbation"]
    moments: Moments
    ranking: Int[Tensor, "perturbation gene"]
    significant: Bool[Tensor, "perturbation gene"]
    targets: Bool[Tensor, "perturbation gene"]
    control_mean: Float[Tensor, "gene"]
    control_noise: Float[Tensor, "replicate gene"]
    training_mean: Float[Tensor, "gene"]
    fold_means: Float[Tensor, "held_out gene"]
    lower: Float[Tensor, "gene"]
    width: Float[Tensor, "gene"]
    constant: Bool[Tensor, "gene"]
    whole_cells: WholeCells | None = None

    @property
    def masses(self) -> Float[Tensor, "perturbation gene bin"]:
        """Bin masses of the cells, read anew each time."""
        return self.cells.masses(self.rows)

    def batches(self) -> Iterator[HeldOut]:
        """The same, few perturbations at a time."""
        for start in range(0, len(self.rows), SCORED_AT_ONCE):
            batch = slice(start, start + SCORED_AT_ONCE)
            yield replace(
                self,
                rows=self.rows[batch],
                n_cells=self.n_cells[batch],
                moments=Moments(*(values[batch] for values in self.moments)),
                ranking=self.ranking[batch],
                significant=self.significant[batch],
                targets=self.targets[batch],
            )
