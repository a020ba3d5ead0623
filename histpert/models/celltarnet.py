"""CellTARNet: whole cells of an unseen perturbation, by a transformer normalizing flow from control cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from histpert.celltarnet.flow import CellFlow
from histpert.celltarnet.losses import CellBatch, projection, training_loss
from histpert.celltarnet.prior import attention_prior
from histpert.celltarnet.scale import CellScale
from histpert.celltarnet.settings import FlowSettings
from histpert.checkpoints import Checkpoint
from histpert.correlations import pearson_correlations
from histpert.models.interface import TrainingSet
from histpert.predictions import Prediction, predicted_cells
from histpert.settings import ModelSettings
from histpert.training import train

__all__ = ["SAMPLED_AT_ONCE", "CellNetwork", "CellSettings", "CellTARNet", "n_parameters"]

AVERAGED = 0.05
"""Share of an epoch's weights in the average that samples are drawn with: it is nearer the optimum than any one is."""

SAMPLED_AT_ONCE = 500
"""Cells that are sampled together."""


@dataclass(frozen=True)
class CellSettings(ModelSettings):
    """Settings of a training, and of the flow."""

    flow: FlowSettings = field(default_factory=FlowSettings)


class CellNetwork(nn.Module):
    """The flow, the head of its contrastive loss, and the scale of its cells.

    Its forward pass passes embeddings on: which cells a step sees is drawn by the loss, which runs the flow.
    """

    average: Tensor

    def __init__(self, scale: CellScale, n_features: int, settings: FlowSettings, attended: Bool[Tensor, "gene gene"]):
        super().__init__()
        n_genes = len(attended)
        self.scale = scale
        self.flow = CellFlow(n_genes, n_features, settings, attended)
        self.project = projection(n_genes)
        self.register_buffer("average", self._weights())

    def _weights(self) -> Float[Tensor, "weight"]:
        return nn.utils.parameters_to_vector(self.parameters()).detach()

    @torch.no_grad()
    def add_to_average(self) -> None:
        """Move the average of the weights towards those of now."""
        self.average.lerp_(self._weights(), AVERAGED)

    def take_average(self) -> None:
        """Put the average in the place of the weights."""
        nn.utils.vector_to_parameters(self.average, self.parameters())

    def forward(self, embeddings: Float[Tensor, "perturbation feature"]) -> Float[Tensor, "perturbation feature"]:
        """The embeddings."""
        return embeddings


class CellTARNet:
    """The transformer normalizing flow of paper 003, on batches of perturbations like the other networks here.

    A step draws cells of each of its perturbations, and a control cell for each. What is given as embeddings is what
    stands for the perturbation: a place for each gene, as in the paper, or embeddings, with which unseen genes work
    too; combinations are sums of places, or averages of embeddings.

    Readings: `histpert.celltarnet.flow`; zeros of expression are spread (`histpert.celltarnet.scale`); attention is to
    the genes that correlate over training cells. All perturbations are predicted from the same control cells and the
    same noise.
    """

    version = 1

    def __init__(self, settings: ModelSettings):
        self._settings = settings
        self._flow_settings = settings.flow if isinstance(settings, CellSettings) else FlowSettings()

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Train the network from the seed of the settings; torch's global generators are left as they were."""
        settings, expression, device = self._flow_settings, training.expression(), training.embeddings.device
        self._control, n_features = expression.of_control(), training.embeddings.shape[1]
        groups = [expression.of(number) for number in range(len(training.embeddings))]
        cells = torch.cat([group.cpu() for group in (self._control, *groups)])
        scale, attended = CellScale(cells), training.attended
        if attended is None:
            attended = attention_prior(pearson_correlations(cells), settings)
        del cells
        self._lower, self._width = training.lower, training.width
        self._control_masses, self._control_mean = training.control, training.control_mean
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._settings.seed)
            network = CellNetwork(scale, n_features, settings, attended)
        self.network = network.to(device)

        def loss_of(embeddings: Tensor, batch: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
            n_each = settings.cells_per_perturbation
            drawn = torch.cat([_drawn(groups[number], n_each) for number in batch.tolist()])
            control = _drawn(self._control, len(drawn))
            noise, *uniform = torch.randn(drawn.shape), torch.rand(drawn.shape), torch.rand(drawn.shape)
            perturbed, control = (
                scale.to_flow(values, part.to(device)) for values, part in zip((drawn, control), uniform, strict=True)
            )
            cells = CellBatch(perturbed, control, embeddings.repeat_interleave(n_each, dim=0), n_each)
            return training_loss(network.flow, network.project, cells, noise.to(device), settings)

        how = {"is_static": False, "after_epoch": network.add_to_average}
        yield from train(self.network, loss_of, training.embeddings, self._settings, checkpoint, **how)
        network.take_average()

    @torch.no_grad()
    def sample(
        self, embeddings: Float[Tensor, "perturbation feature"], n_cells: int
    ) -> Float[Tensor, "perturbation cell gene"]:
        """So many cells of each perturbation, log-normalized, from the seed of the settings."""
        self.network.eval()
        device, random = embeddings.device, torch.Generator().manual_seed(self._settings.seed)
        control = self._control[torch.randint(len(self._control), (n_cells,), generator=random).to(device)]
        shape = control.shape
        uniform, blur, noise = (
            make(shape, generator=random).to(device) for make in (torch.rand, torch.randn, torch.randn)
        )
        control = self.network.scale.to_flow(control, uniform)
        if self._flow_settings.noise_in_sampling:
            control = control + self._flow_settings.noise * blur
        n_each = len(embeddings)
        parts = control.repeat(n_each, 1), embeddings.repeat_interleave(n_cells, dim=0), noise.repeat(n_each, 1)
        flow, scale = self.network.flow, self.network.scale
        found = [
            scale.to_cells(flow.inverse(noise, flow.encoder(control, embedding)))
            for control, embedding, noise in zip(*(part.split(SAMPLED_AT_ONCE) for part in parts), strict=True)
        ]
        return torch.cat(found).unflatten(0, (n_each, n_cells))

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """What cells that are drawn of each perturbation say."""
        cells = self.sample(embeddings, self._flow_settings.samples)
        known = self._control_masses, self._control_mean, self._lower, self._width
        return predicted_cells(cells, *known, lambda n_cells: self.sample(embeddings, n_cells))

    @property
    def n_parameters(self) -> int:
        """Weights and biases, embeddings of genes included."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def _drawn(cells: Float[Tensor, "cell gene"], n_cells: int) -> Float[Tensor, "drawn gene"]:
    """Cells with replacement, by torch's generator of the CPU."""
    return cells[torch.randint(len(cells), (n_cells,)).to(cells.device)]


def n_parameters(n_features: int, n_genes: int, settings: FlowSettings) -> int:
    """Learned parameters of the network."""
    with torch.device("meta"):
        flow = CellFlow(n_genes, n_features, settings)
        parts = *flow.parameters(), *projection(n_genes).parameters()
    return sum(parameter.numel() for parameter in parts)
