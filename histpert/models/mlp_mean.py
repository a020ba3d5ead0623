"""MLP+Mean: shifts of the mean from control, from the perturbed gene's embedding. MLP+Hist without histograms."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet
from histpert.models.mlp_hist import mlp
from histpert.predictions import Prediction, predicted_means
from histpert.settings import ModelSettings
from histpert.training import train

__all__ = ["MLPMean"]


class MLPMean:
    """The network of MLP+Hist with one output a gene, trained on the squared error of the mean shift (section 4.2)."""

    version = 2

    def __init__(self, settings: ModelSettings):
        self._settings = settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Train the network from the seed of the settings; torch's global generators are left as they were."""
        settings, self._control_mean = self._settings, training.control_mean
        n_training, n_features = training.embeddings.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = mlp(n_features, len(training.control_mean), settings.layers(n_training))
        self.network = network.to(training.embeddings.device)

        def loss_of(shifts: Tensor, batch: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
            return torch.nn.functional.mse_loss(shifts, training.means[batch] - training.control_mean)

        return train(self.network, loss_of, training.embeddings, settings, checkpoint)

    @torch.no_grad()
    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """Predicted means, dropout off."""
        self.network.eval()
        return predicted_means(self._control_mean + self.network(embeddings), self._control_mean)

    @property
    def n_parameters(self) -> int:
        """Weights and biases, LayerNorm included."""
        return sum(parameter.numel() for parameter in self.network.parameters())
