"""CellTARNet: whole cells of an unseen perturbation, by a transformer normalizing flow from control cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
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

SAMPLED_AT_ONCE = 500
"""Cells that are sampled together."""


@dataclass(frozen=True)
class CellSettings(ModelSettings):
    """Settings of a training, of which four have other defaults here, and of the flow.

    They were measured on the simulated screen of `studies/combinations.py`: with a weight decay of 0.001 the network
    learns each pair of its training set by heart, and with 1 not enough.
    """

    epochs: int = 150
    learning_rate: float = 3e-3
    weight_decay: float = 0.5
    batch_size: int = 16
    flow: FlowSettings = field(default_factory=FlowSettings)

    @classmethod
    def like(cls, other: ModelSettings, **own: Any) -> CellSettings:
        """With the seed, and all else that is not of training, of other settings."""
        training = {"epochs", "learning_rate", "weight_decay", "batch_size"}
        return cls(**{**{name: value for name, value in vars(other).items() if name not in training}, **own})


class Member(nn.Module):
    """A flow, and the head of its contrastive loss."""

    def __init__(self, n_genes: int, n_features: int, settings: FlowSettings, attended: Tensor | None = None):
        super().__init__()
        self.flow = CellFlow(n_genes, n_features, settings, attended)
        self.project = projection(n_genes)


class CellNetwork(nn.Module):
    """The members of an ensemble, and the scales of cells and embeddings.

    Its forward pass scales embeddings: which cells a step sees is drawn by the loss, which runs the flows.
    """

    size: Tensor

    def __init__(self, scale: CellScale, size: Tensor, n_features: int, settings: FlowSettings, attended: Tensor):
        super().__init__()
        self.scale = scale
        self.register_buffer("size", size)
        self._members = nn.ModuleList(
            Member(len(attended), n_features, settings, attended) for _ in range(settings.members)
        )

    @property
    def members(self) -> list[Member]:
        """Those of the ensemble, in the order in which cells are drawn of them."""
        return [member for member in self._members if isinstance(member, Member)]

    def forward(self, embeddings: Float[Tensor, "perturbation feature"]) -> Float[Tensor, "perturbation feature"]:
        """Embeddings, their norm 1 on average over training perturbations."""
        return embeddings / self.size


class CellTARNet:
    """The transformer normalizing flow of paper 003, on batches of perturbations like the other networks here.

    A step draws cells of each of its perturbations, and a control cell for each. What is given as embeddings is what
    stands for the perturbation: a place for each gene, as in the paper, or embeddings, with which unseen genes work
    too; combinations are sums of places, or averages of embeddings.

    Readings: `histpert.celltarnet.flow`; expression becomes normal scores (`histpert.celltarnet.scale`); attention is
    to the genes that correlate over training cells; several networks are trained, of which cells are drawn alike. All
    perturbations are predicted from the same control cells and the same noise.
    """

    version = 3

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
            network = CellNetwork(scale, _size(training.embeddings), n_features, settings, attended)
        self.network = network.to(device)

        def loss_of(embeddings: Tensor, batch: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
            n_each = settings.cells_per_perturbation
            losses = []
            for member in network.members:
                drawn = torch.cat([_drawn(groups[number], n_each) for number in batch.tolist()])
                control = _drawn(self._control, len(drawn))
                noise, *uniform = torch.randn(drawn.shape), torch.rand(drawn.shape), torch.rand(drawn.shape)
                values = zip((drawn, control), uniform, strict=True)
                perturbed, control = (scale.to_flow(some, part.to(device)) for some, part in values)
                cells = CellBatch(perturbed, control, embeddings.repeat_interleave(n_each, dim=0), n_each)
                losses.append(training_loss(member.flow, member.project, cells, noise.to(device), settings))
            return torch.stack(losses).mean()

        yield from train(
            self.network,
            loss_of,
            training.embeddings,
            self._settings,
            checkpoint,
            is_static=False,
            is_decayed=True,
        )

    @torch.no_grad()
    def sample(
        self, embeddings: Float[Tensor, "perturbation feature"], n_cells: int, is_mirrored: bool = False
    ) -> Float[Tensor, "perturbation cell gene"]:
        """So many cells of each perturbation, log-normalized, from the seed of the settings.

        Of those that are mirrored the second half comes from the negative of the noise of the first. Each is
        distributed as any cell; their mean has a fraction of the error of that of independent ones (antithetic).
        """
        self.network.eval()
        device, random = embeddings.device, torch.Generator().manual_seed(self._settings.seed)
        embeddings = self.network(embeddings)
        control = self._control[torch.randint(len(self._control), (n_cells,), generator=random).to(device)]
        shape = control.shape
        uniform, blur, noise = (
            make(shape, generator=random).to(device) for make in (torch.rand, torch.randn, torch.randn)
        )
        if is_mirrored:
            noise = torch.cat([noise[: (n_cells + 1) // 2], -noise[: n_cells // 2]])
        control = self.network.scale.to_flow(control, uniform)
        if self._flow_settings.noise_in_sampling:
            control = control + self._flow_settings.noise * blur
        cells = control.new_empty(len(embeddings), *shape)
        members = self.network.members[:n_cells]
        for number, member in enumerate(members):
            own = slice(number, None, len(members))
            cells[:, own] = self._sample_of(member.flow, embeddings, control[own], noise[own])
        return cells

    def _sample_of(
        self,
        flow: CellFlow,
        embeddings: Float[Tensor, "perturbation feature"],
        control: Float[Tensor, "cell gene"],
        noise: Float[Tensor, "cell gene"],
    ) -> Float[Tensor, "perturbation cell gene"]:
        """Of one member, of each perturbation a cell for each control cell and noise."""
        n_each, n_cells = len(embeddings), len(control)
        parts = control.repeat(n_each, 1), embeddings.repeat_interleave(n_cells, dim=0), noise.repeat(n_each, 1)
        found = [
            self.network.scale.to_cells(flow.inverse(noise, flow.encoder(control, embedding)))
            for control, embedding, noise in zip(*(part.split(SAMPLED_AT_ONCE) for part in parts), strict=True)
        ]
        return torch.cat(found).unflatten(0, (n_each, n_cells))

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """What cells that are drawn of each perturbation say."""
        n_samples = self._flow_settings.samples
        mirrored = self.sample(embeddings, n_samples, is_mirrored=True)

        def independent(n_cells: int) -> Float[Tensor, "perturbation cell gene"]:
            return mirrored[:, :n_cells] if 2 * n_cells <= n_samples else self.sample(embeddings, n_cells)

        return predicted_cells(
            mirrored, self._control_masses, self._control_mean, self._lower, self._width, independent
        )

    @property
    def n_parameters(self) -> int:
        """Weights and biases, embeddings of genes included."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def _drawn(cells: Float[Tensor, "cell gene"], n_cells: int) -> Float[Tensor, "drawn gene"]:
    """Cells with replacement, by torch's generator of the CPU."""
    return cells[torch.randint(len(cells), (n_cells,)).to(cells.device)]


def _size(embeddings: Float[Tensor, "perturbation feature"]) -> Float[Tensor, ""]:
    """Norm of an embedding, on average; 1 where there is nothing in any."""
    size = embeddings.norm(dim=1).mean()
    return torch.where(size > 0, size, 1).cpu()


def n_parameters(n_features: int, n_genes: int, settings: FlowSettings) -> int:
    """Learned parameters of the network."""
    with torch.device("meta"):
        member = Member(n_genes, n_features, settings)
    return settings.members * sum(parameter.numel() for parameter in member.parameters())
