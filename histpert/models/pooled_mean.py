"""Non-Ctrl Mean: one mean for all perturbations, that of the pooled training cells. A floor of methods for means."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet
from histpert.predictions import Prediction, predicted_means
from histpert.settings import ModelSettings

__all__ = ["PooledMean"]


class PooledMean:
    """The mean of all perturbed training cells, pooled cell by cell (section 4.2)."""

    version = 1
    n_parameters = 0

    def __init__(self, settings: ModelSettings):
        pass

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Pool the cells of the training perturbations; there are no epochs."""
        self._control_mean = training.control_mean
        means = training.means[torch.arange(len(training.n_cells), device=training.n_cells.device)]
        self._mean = (training.n_cells / training.n_cells.sum()) @ means
        return iter(())

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """The pooled mean for each perturbation."""
        return predicted_means(self._mean.expand(len(embeddings), -1), self._control_mean)
