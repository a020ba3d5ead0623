"""GP+MLP+Hist: the average of what GP+Hist and MLP+Hist predict."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.gp_hist import GPHist
from histpert.models.interface import TrainingSet, smoothed
from histpert.models.mlp_hist import MLPHist
from histpert.predictions import Prediction, predicted_histograms
from histpert.settings import ModelSettings

__all__ = ["GPMLPHist"]


class GPMLPHist:
    """The linear pool of two distributions, weighted alike (Stone, Annals of Mathematical Statistics 1961).

    CRPS and energy distance are convex: those of the pool are at most the average of the two methods', and less by as
    much as the two differ. Weights are not fitted, there being few perturbations to fit them on.
    """

    version = 2

    def __init__(self, settings: ModelSettings):
        self._settings = settings
        self._gp, self._mlp = GPHist(settings), MLPHist(settings)

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Solve the one, then train the other."""
        self._control = smoothed(training.control, self._settings.control_smoothing)
        self._edges = training.lower, training.width
        yield from self._gp.fit(training)
        yield from self._mlp.fit(training, checkpoint)

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """The average histogram for each perturbation."""
        masses = (self._gp.masses(embeddings) + self._mlp.masses(embeddings)) / 2
        return predicted_histograms(masses, self._control, *self._edges)

    @property
    def n_parameters(self) -> int:
        """Of both."""
        return self._gp.n_parameters + self._mlp.n_parameters
