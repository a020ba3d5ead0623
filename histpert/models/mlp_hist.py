"""MLP+Hist: shifts of the control histogram in log space, from the perturbed gene's embedding (Eq. 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import vmap

from histpert.checkpoints import Checkpoint
from histpert.losses import three_losses, weighted_loss
from histpert.models.interface import TrainingSet, smoothed
from histpert.output_layer import OutputLayer
from histpert.predictions import Prediction, predicted_histograms
from histpert.settings import Layers, ModelSettings
from histpert.stacked_training import StackedBatch, n_steps, train_stacked
from histpert.training import train

__all__ = ["HistogramNetwork", "MLPHist", "mlp", "n_parameters"]

LEAKY_SLOPE = 0.01


class BatchDropout(nn.Module):
    """Dropout that draws the same numbers whether or not a batch is full, so that trainings side by side share them."""

    def __init__(self, share: float, batch_size: int):
        super().__init__()
        self._share, self._batch_size = share, batch_size

    def forward(self, hidden: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch hidden"]:
        """The batch with this share of its numbers dropped, and the others scaled up."""
        if not self.training or not self._share:
            return hidden
        drawn = torch.rand(self._batch_size, hidden.shape[1], device=hidden.device, dtype=hidden.dtype)
        return hidden * (drawn[: len(hidden)] >= self._share) / (1 - self._share)


def mlp(n_features: int, n_outputs: int, shape: Layers) -> nn.Sequential:
    """Linear, LayerNorm, LeakyReLU and dropout per hidden layer, then a linear output near zero (section 4.1).

    Weights are He's for the LeakyReLU, biases zero. Drawn from torch's global generator.
    """
    layers: list[nn.Module] = []
    hidden, dropout, output_scale, batch_size = shape
    for n_in, n_out in zip((n_features, *hidden), hidden, strict=False):
        layers += [
            nn.Linear(n_in, n_out),
            nn.LayerNorm(n_out),
            nn.LeakyReLU(LEAKY_SLOPE),
            BatchDropout(dropout, batch_size),
        ]
    network = nn.Sequential(*layers, OutputLayer(hidden[-1], n_outputs))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=LEAKY_SLOPE)
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        network[-1].weight.mul_(output_scale)  # pyright: ignore[reportCallIssue]
    return network


def n_parameters(n_features: int, hidden: Sequence[int], n_outputs: int) -> int:
    """Weights and biases of `mlp`, LayerNorm's included."""
    sizes = (n_features, *hidden)
    return sum(n_out * (n_in + 3) for n_in, n_out in pairwise(sizes)) + n_outputs * (hidden[-1] + 1)


class HistogramNetwork(nn.Module):
    """`log h_ctrl + MLP(e_p)`, the logits of the predicted histogram of each gene (Eq. 2).

    Args:
        control: Smoothed bin masses of control.
        n_features: Length of an embedding.
        shape: Of the network.
    """

    log_control: Tensor

    def __init__(self, control: Float[Tensor, "gene bin"], n_features: int, shape: Layers):
        super().__init__()
        self.shift = mlp(n_features, control.numel(), shape)
        self.register_buffer("log_control", control.log())

    def forward(self, embeddings: Float[Tensor, "perturbation feature"]) -> Float[Tensor, "perturbation gene bin"]:
        """Logarithms of the predicted bin masses, up to a constant per gene: their softmax is the prediction."""
        return self.shift(embeddings).view(len(embeddings), *self.log_control.shape) + self.log_control


class MLPHist:
    """The histogram model (section 3)."""

    version = 2

    def __init__(self, settings: ModelSettings):
        self._settings = settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Train the network from the seed of the settings; torch's global generators are left as they were."""
        self._start(training)
        weights = self._loss_weights

        def loss_of(logits: Tensor, batch: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
            targets = training.masses[batch], training.means[batch]
            return weighted_loss(logits, *targets, training.lower, training.width, weights)

        return train(self.network, loss_of, training.embeddings, self._settings, checkpoint)

    @staticmethod
    def fit_together(models: Sequence[MLPHist], trainings: Sequence[TrainingSet]) -> Iterator[Float[Tensor, "model"]]:
        """Train several as one; each is as if it were trained alone, to rounding. Yields each one's loss by epoch.

        Args:
            models: Their settings differ in the weights of the losses only.
            trainings: The training set of each, for which `stack_key` is the same; those of a fold are one object.
        """
        for model, training in zip(models, trainings, strict=True):
            model._start(training)
        folds = list({id(training): training for training in trainings}.values())
        fold_of = [next(place for place, fold in enumerate(folds) if fold is training) for training in trainings]
        weights = folds[0].lower.new_tensor([model._loss_weights for model in models])
        first = [fold_of.index(place) for place in range(len(folds))]  # a network of each fold
        lower, width = (torch.stack([getattr(fold, name) for fold in folds])[fold_of] for name in ("lower", "width"))

        def loss_of(logits: Tensor, batch: StackedBatch) -> Float[Tensor, "model"]:
            numbers = [batch.numbers[place] for place in first]
            masses = torch.stack([fold.masses[some] for fold, some in zip(folds, numbers, strict=True)])[fold_of]
            means = torch.stack([fold.means[some] for fold, some in zip(folds, numbers, strict=True)])[fold_of]
            losses = vmap(three_losses)(logits, masses, means, lower, width)
            return batch.mean(torch.einsum("mk,mkrg->mr", weights, losses) / logits.shape[2])

        embeddings = [training.embeddings for training in trainings]
        return train_stacked([model.network for model in models], loss_of, embeddings, models[0]._settings)

    @staticmethod
    def stack_key(settings: ModelSettings, n_training: int) -> tuple[object, ...]:
        """Models of one key, on one screen and number of bins, can be trained together."""
        alike = replace(settings, weight_ce=1.0, weight_wass=0.0, weight_mse=0.0)
        return alike, settings.hidden_sizes(n_training), n_steps(n_training, settings)

    @property
    def _loss_weights(self) -> tuple[float, float, float]:
        return self._settings.weight_ce, self._settings.weight_wass, self._settings.weight_mse

    def _start(self, training: TrainingSet) -> None:
        """Take up a training set, and draw the weights of the network."""
        settings = self._settings
        self._control = smoothed(training.control, settings.control_smoothing)
        self._edges = training.lower, training.width
        n_training, n_features = training.embeddings.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = HistogramNetwork(self._control.cpu(), n_features, settings.layers(n_training))
        self.network = network.to(self._control.device)

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """Predicted histograms, dropout off."""
        return predicted_histograms(self.masses(embeddings), self._control, *self._edges)

    @torch.no_grad()
    def masses(self, embeddings: Float[Tensor, "perturbation feature"]) -> Float[Tensor, "perturbation gene bin"]:
        """Those of the predicted histograms alone."""
        self.network.eval()
        return self.network(embeddings).softmax(-1)

    @property
    def n_parameters(self) -> int:
        """Weights and biases, LayerNorm included."""
        return sum(parameter.numel() for parameter in self.network.parameters())
