"""What every method is given and what it must give back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from histpert.cells import CellRows, Cells
from histpert.checkpoints import Checkpoint
from histpert.coexpression import Coexpression
from histpert.grouped_expression import GroupedExpression
from histpert.predictions import Prediction
from histpert.settings import ModelSettings

__all__ = ["Method", "Rows", "TrainingSet", "smoothed"]


@runtime_checkable
class Rows(Protocol):
    """A row for each perturbation: a tensor, or what works out those that are asked for."""

    def __len__(self) -> int:
        """Number of perturbations."""
        ...

    def __getitem__(self, numbers: Int[Tensor, "batch"], /) -> Float[Tensor, "batch ..."]:
        """Rows of the perturbations of these numbers."""
        ...


@dataclass(frozen=True)
class TrainingSet:
    """Training perturbations of one fold, on the device that trains.

    Attributes:
        embeddings: Embedding of each perturbed gene.
        masses: Observed bin masses, perturbation x gene x bin.
        means: Mean expression of the cells, perturbation x gene.
        n_cells: Cells of each perturbation.
        cells: Reads what likelihoods need of the cells of each perturbation.
        control: Bin masses of the control cells, not smoothed.
        control_mean: Mean expression of the control cells.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        control_cells: Reads what likelihoods need of the control cells.
        spread: Reads the second, third and fourth central moments of the cells of each perturbation.
        control_spread: Reads those of the control cells.
        coexpression: Reads the most correlated genes of each gene.
        expression: Reads the cells of control and of each perturbation.
        attended: Which genes each gene attends to in models of whole cells, where that is given.
    """

    embeddings: Float[Tensor, "perturbation feature"]
    masses: Rows
    means: Rows
    n_cells: Float[Tensor, "perturbation"]
    cells: Callable[[], CellRows]
    control: Float[Tensor, "gene bin"]
    control_mean: Float[Tensor, "gene"]
    lower: Float[Tensor, "gene"]
    width: Float[Tensor, "gene"]
    control_cells: Callable[[], Cells]
    spread: Callable[[], Rows]
    control_spread: Callable[[], Float[Tensor, "3 gene"]]
    coexpression: Callable[[], Coexpression]
    expression: Callable[[], GroupedExpression]
    attended: Bool[Tensor, "gene gene"] | None = None


class Method(Protocol):
    """A method that predicts responses to unseen perturbations.

    `fit` must have been run to its end before anything else is asked for.
    """

    version: int
    """Raised when the method gives other results for the same settings, so that those of before are not taken."""

    def __init__(self, settings: ModelSettings): ...

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Learn from the training perturbations; yields the mean training loss of each epoch, on the device.

        A training with epochs keeps its state in `checkpoint`, and goes on from what it finds there.
        """
        ...

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """What perturbations with these embeddings would give; histograms are on the training edges."""
        ...

    @property
    def n_parameters(self) -> int:
        """Learned parameters."""
        ...


def smoothed(masses: Float[Tensor, "*batch bin"], uniform_mass: float) -> Float[Tensor, "*batch bin"]:
    """The histogram with this much of its mass spread evenly over all bins, so that none is empty."""
    return torch.lerp(masses, torch.full_like(masses, 1 / masses.shape[-1]), uniform_mass)
