"""Ctrl Hist: every perturbation is predicted to leave control as it is. A floor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet, smoothed
from histpert.predictions import Prediction, predicted_histograms
from histpert.settings import ModelSettings

__all__ = ["ControlHist"]


class ControlHist:
    """The smoothed histogram of the control cells, whatever the perturbation (section 4.2)."""

    version = 1
    n_parameters = 0

    def __init__(self, settings: ModelSettings):
        self._settings = settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Keep the control histogram; there are no epochs."""
        self._control = smoothed(training.control, self._settings.control_smoothing)
        self._edges, self._expression = (training.lower, training.width), training.expression
        return iter(())

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """The control histogram for each perturbation."""
        masses = self._control.expand(len(embeddings), -1, -1)
        predicted = predicted_histograms(masses, self._control, *self._edges)
        return predicted._replace(cells=lambda n_cells: self._cells(n_cells).expand(len(embeddings), -1, -1))

    def _cells(self, n_cells: int) -> Float[Tensor, "cell gene"]:
        """Control cells, with replacement."""
        control = self._expression().of_control()
        random = torch.Generator().manual_seed(self._settings.seed)
        return control[torch.randint(len(control), (n_cells,), generator=random).to(control.device)]
