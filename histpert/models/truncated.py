"""TG and ZITG: truncated Gaussians from the perturbed gene's embedding, ZITG with a spike of zeros (Eq. 9, 10)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from histpert.cells import Cells
from histpert.checkpoints import Checkpoint
from histpert.densities import Density
from histpert.models.interface import TrainingSet
from histpert.models.mlp_hist import mlp
from histpert.predictions import Prediction, predicted_densities
from histpert.settings import Layers, ModelSettings
from histpert.training import train

__all__ = ["DensityNetwork", "TruncatedGaussian", "ZeroInflatedTruncatedGaussian"]

BEYOND = 1.5 / 12**0.5
"""How far, in widths of the range, the mean may lie beyond it: 1.5 deviations of the uniform density (section 4.2)."""

MOST_SHARE = 1 - 1e-3
"""Where the mean starts between its bounds, and the spike's share between 0 and 1, at most; the least is 1 less it."""


class DensityNetwork(nn.Module):
    """Parameters of a density per gene, as shifts from those of the control cells.

    The mean is held between its bounds by a sigmoid. The deviation is at least that of a bin, so that cells that are
    all alike, as zeros are, have a likelihood: a histogram's density has the same limit.

    Args:
        control: The control cells, one row.
        lower: Left end of each gene's range.
        upper: Right end.
        spike: Half the width of the spike around zero.
        n_features: Length of an embedding.
        shape: Of the network.
        has_spike: Whether there is one.
    """

    start: Tensor
    lower: Tensor
    upper: Tensor
    spike: Tensor

    def __init__(
        self,
        control: Cells,
        lower: Float[Tensor, "gene"],
        upper: Float[Tensor, "gene"],
        spike: Float[Tensor, "gene"],
        n_features: int,
        shape: Layers,
        has_spike: bool,
    ):
        super().__init__()
        for name, ends in (("lower", lower), ("upper", upper), ("spike", spike)):
            self.register_buffer(name, ends)
        self.register_buffer("start", torch.stack(self._start(control, has_spike)))
        self.shift = mlp(n_features, self.start.numel(), shape)

    def _start(self, control: Cells, has_spike: bool) -> list[Float[Tensor, "gene"]]:
        """Parameters that give the moments of the control cells, roughly: training starts at control."""
        zeros, rest, mean, variance = (value[0] for value in control[:4])
        if not has_spike:
            shares = zeros + rest
            whole = rest * mean / shares
            variance = (rest * (variance + mean**2)) / shares - whole**2
            mean = whole
        low, high = self._bounds
        at = ((mean - low) / (high - low)).clamp(1 - MOST_SHARE, MOST_SHARE)
        start = [at.logit(), (variance.sqrt() / self._least).clamp_min(1).log()]
        return [*start, zeros.clamp(1 - MOST_SHARE, MOST_SHARE).logit()] if has_spike else start

    @property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        beyond = BEYOND * (self.upper - self.lower)
        return self.lower - beyond, self.upper + beyond

    @property
    def _least(self) -> Tensor:
        """Deviation of the uniform density of a bin."""
        return self.spike / 3**0.5

    def forward(self, embeddings: Float[Tensor, "perturbation feature"]) -> Float[Tensor, "perturbation number gene"]:
        """What `density` takes: place of the mean, deviation and share of the spike, as numbers without bounds."""
        return self.shift(embeddings).view(len(embeddings), *self.start.shape) + self.start

    def density(self, numbers: Float[Tensor, "perturbation number gene"]) -> Density:
        """The densities that the network's outputs stand for."""
        place, scale, *log_odds = numbers.unbind(1)
        low, high = self._bounds
        sigma = self._least * (1 + (2 * scale).exp()).sqrt()
        return Density(low + (high - low) * place.sigmoid(), sigma, self.lower, self.upper, self.spike, *log_odds)


class TruncatedGaussian:
    """TG: the network of MLP+Hist with two outputs a gene, trained on the likelihood of all cells (section 4.2)."""

    version = 2
    has_spike = False

    def __init__(self, settings: ModelSettings):
        self._settings = settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Train the network from the seed of the settings; torch's global generators are left as they were."""
        settings, self._control = self._settings, (training.control, training.control_mean)
        cells, control = training.cells(), training.control_cells()
        upper = training.lower + training.control.shape[-1] * training.width
        n_training, n_features = training.embeddings.shape
        shape = n_features, settings.layers(n_training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = DensityNetwork(control, training.lower, upper, training.width / 2, *shape, self.has_spike)
        self.network = network.to(training.embeddings.device)

        def loss_of(numbers: Tensor, batch: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
            return network.density(numbers).negative_log_likelihood(cells[batch]).mean()

        # How many cells near zero a batch has differs from batch to batch.
        return train(self.network, loss_of, training.embeddings, settings, checkpoint, is_static=False)

    @torch.no_grad()
    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """Predicted densities, dropout off."""
        self.network.eval()
        return predicted_densities(self.network.density(self.network(embeddings)), *self._control)

    @property
    def n_parameters(self) -> int:
        """Weights and biases, LayerNorm included."""
        return sum(parameter.numel() for parameter in self.network.parameters())


class ZeroInflatedTruncatedGaussian(TruncatedGaussian):
    """ZITG: the same with a third output a gene, the share of a spike around zero (Eq. 10)."""

    has_spike = True
