"""Additive: the shift of a combination is the sum of the shifts of its genes perturbed alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet
from histpert.predictions import Prediction, predicted_means
from histpert.settings import ModelSettings

__all__ = ["Additive"]


class Additive:
    """The additive model of Ahlmann-Eltze et al. (Nature Methods 2025); it has no parameters to choose.

    What is given as embeddings has a place for each gene, 1 where it is perturbed. A combination of which a gene was
    not perturbed alone in training has no prediction.
    """

    version = 1

    def __init__(self, settings: ModelSettings):
        del settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Take the shifts of single perturbations."""
        del checkpoint
        n_training, n_genes = training.embeddings.shape
        alone = (training.embeddings.sum(1) == 1).nonzero()[:, 0]
        shifts = training.means[torch.arange(n_training, device=training.embeddings.device)] - training.control_mean
        self._shifts = shifts.new_full((n_genes, shifts.shape[1]), torch.nan)
        self._shifts[training.embeddings[alone].argmax(1)] = shifts[alone]
        self._control_mean = training.control_mean
        return iter(())

    def predict(self, embeddings: Float[Tensor, "perturbation place"]) -> Prediction:
        """Sums of shifts."""
        perturbed = embeddings[..., None].bool()
        shifts = torch.where(perturbed, self._shifts, 0).sum(1)
        return predicted_means(self._control_mean + shifts, self._control_mean)

    @property
    def n_parameters(self) -> int:
        """The shifts of single perturbations."""
        return int(self._shifts.isfinite().sum())
