"""Nearest neighbours: the pooled cells of the training perturbations whose embeddings are most alike."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet, smoothed
from histpert.predictions import Prediction, predicted_histograms, predicted_means
from histpert.settings import ModelSettings

__all__ = ["Neighbors", "NeighborsMean"]

NUMBERS = (1, 2, 3, 5, 8, 13, 21, 34, 55)
"""Of neighbours to choose from."""


class Neighbors:
    """The average histogram of the k perturbations of largest cosine similarity (embeddings centred on training).

    k is the one whose average of neighbours' means has the least squared error on the training perturbations, each left
    out once.
    """

    version = 1
    n_parameters = 0

    def __init__(self, settings: ModelSettings):
        self._settings = settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Choose k; there are no epochs."""
        self._training = training
        self._center = training.embeddings.mean(0)
        self._directions = self._direction(training.embeddings)
        likeness = self._directions @ self._directions.T
        order = likeness.fill_diagonal_(-torch.inf).argsort(descending=True, stable=True)[:, :-1]
        means = training.means[torch.arange(len(order), device=order.device)]
        numbers = [k for k in NUMBERS if k <= order.shape[1]] or [1]
        self.k = min(numbers, key=lambda k: _error(means, order[:, :k]))
        return iter(())

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """The smoothed average histogram of the neighbours of each perturbation."""
        training, smoothing = self._training, self._settings.control_smoothing
        masses = torch.stack([self._average(numbers) for numbers in self._nearest(embeddings)])
        control = smoothed(training.control, smoothing)
        return predicted_histograms(smoothed(masses, smoothing), control, training.lower, training.width)

    def _nearest(self, embeddings: Float[Tensor, "perturbation feature"]) -> Int[Tensor, "perturbation k"]:
        likeness = self._direction(embeddings) @ self._directions.T
        return likeness.argsort(descending=True, stable=True)[:, : self.k]

    def _average(self, numbers: Int[Tensor, "k"]) -> Float[Tensor, "gene bin"]:
        return self._training.masses[numbers].mean(0)

    def _direction(self, embeddings: Float[Tensor, "perturbation feature"]) -> Float[Tensor, "perturbation feature"]:
        return torch.nn.functional.normalize(embeddings - self._center, dim=1)


class NeighborsMean(Neighbors):
    """The average of the means of the same neighbours' cells."""

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """The average mean of the neighbours of each perturbation."""
        means = torch.stack([self._training.means[numbers].mean(0) for numbers in self._nearest(embeddings)])
        return predicted_means(means, self._training.control_mean)


def _error(means: Float[Tensor, "perturbation gene"], nearest: Int[Tensor, "perturbation k"]) -> float:
    """Squared error of the neighbours' average mean."""
    return sum(float((means[some].mean(0) - own).square().sum()) for some, own in zip(nearest, means, strict=True))
