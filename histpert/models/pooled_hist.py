"""Non-Ctrl Hist: one response for all perturbations, the pooled training cells. A floor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet, smoothed
from histpert.predictions import Prediction, predicted_histograms
from histpert.settings import ModelSettings

__all__ = ["PooledHist"]


BATCH = 64
"""Perturbations whose masses are held at a time."""


class PooledHist:
    """The smoothed histogram of all perturbed training cells, pooled cell by cell (section 4.2)."""

    version = 1
    n_parameters = 0

    def __init__(self, settings: ModelSettings):
        self._settings = settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Pool the cells of the training perturbations; there are no epochs."""
        self._control = smoothed(training.control, self._settings.control_smoothing)
        self._edges = training.lower, training.width
        share = training.n_cells / training.n_cells.sum()
        pooled = torch.zeros_like(training.control)
        for batch in torch.arange(len(share), device=share.device).split(BATCH):
            pooled += torch.einsum("p,pgb->gb", share[batch], training.masses[batch])
        self._pooled = smoothed(pooled, self._settings.control_smoothing)
        return iter(())

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """The pooled histogram for each perturbation."""
        masses = self._pooled.expand(len(embeddings), -1, -1)
        return predicted_histograms(masses, self._control, *self._edges)
