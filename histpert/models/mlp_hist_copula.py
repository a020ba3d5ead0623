"""MLP+Hist copula: whole cells with the histograms of MLP+Hist, whose genes go together as in control cells."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.copula import GaussianCopula
from histpert.models.interface import TrainingSet
from histpert.models.mlp_hist import MLPHist
from histpert.predictions import Prediction
from histpert.settings import ModelSettings

__all__ = ["MLPHistCopula"]


class MLPHistCopula(MLPHist):
    """MLP+Hist, and a Gaussian copula that costs no training; each gene's distribution is that of MLP+Hist."""

    def __init__(self, settings: ModelSettings):
        super().__init__(settings)
        self._seed = settings.seed

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Train the histograms, then match the copula."""
        self._bins = training.lower, training.width
        yield from super().fit(training, checkpoint)
        self._copula = GaussianCopula(training.expression().of_control(), self._seed)

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """The histograms, and cells that have them."""
        predicted = super().predict(embeddings)
        assert predicted.masses is not None
        masses = predicted.masses
        return predicted._replace(cells=lambda n: self._copula.sample(masses, *self._bins, n, self._seed))
