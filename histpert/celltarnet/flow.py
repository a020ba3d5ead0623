"""The flow of CellTARNet: from a cell to noise and back, given a control cell and a perturbation (paper 3.1)."""

from __future__ import annotations

from math import log, pi

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from histpert.celltarnet.attention import KeysValues, Layer
from histpert.celltarnet.settings import FlowSettings

__all__ = ["CellFlow", "ContextEncoder", "FlowBlock", "normal_log_density"]

LARGEST_SCALE = 4.0
"""Log scales of a block lie between this and minus this."""

EMBEDDING_SCALE = 0.5
"""Deviation of learned positions at the start."""


class ContextEncoder(nn.Module):
    """A transformer encoder over [CLS], the control cell's genes, and one token of the perturbation.

    Args:
        n_genes: Genes of a cell.
        n_features: Of a perturbation.
        settings: Of the network.
    """

    def __init__(self, n_genes: int, n_features: int, settings: FlowSettings):
        super().__init__()
        width = settings.width
        self.start = nn.Parameter(torch.randn(1, 1, width) * EMBEDDING_SCALE)
        self.positions = nn.Parameter(torch.randn(n_genes + 2, width) * EMBEDDING_SCALE)
        self.of_value, self.of_perturbation = nn.Linear(1, width), nn.Linear(n_features, width)
        nn.init.normal_(self.of_perturbation.weight)  # a perturbation of norm 1 is as large as what it stands beside
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                settings.heads,
                settings.expansion * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(settings.context_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, control: Float[Tensor, "cell gene"], perturbation: Float[Tensor, "cell feature"]
    ) -> Float[Tensor, "cell token width"]:
        """Tokens that the flow attends to, two more than genes."""
        start = self.start.expand(len(control), -1, -1)
        parts = start, self.of_value(control[..., None]), self.of_perturbation(perturbation)[:, None]
        tokens = torch.cat(parts, dim=1) + self.positions
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)


class FlowBlock(nn.Module):
    """An affine autoregressive step: each gene is scaled and shifted by what the genes before it, and the context, say.

    The queries of a gene carry no value, of itself nor of others; in every layer they attend to the values of genes
    before it, so that a gene's parameters move with those alone that its mask names, however many layers there are. A
    first token without a value is always attended to: a gene without others has one. Each gene has an output of its
    own, which starts at 0, the block as the identity.

    Args:
        order: Genes in the order of the block.
        attended: Which genes each gene may attend to.
        settings: Of the network.
    """

    order: Tensor
    allowed: Tensor

    def __init__(self, order: Int[Tensor, "gene"], attended: Bool[Tensor, "gene gene"], settings: FlowSettings):
        super().__init__()
        n_genes, width = len(order), settings.width
        before = torch.ones(n_genes, n_genes, dtype=torch.bool).tril(-1)
        self.register_buffer("order", order)
        start = torch.ones(n_genes, 1, dtype=torch.bool)
        self.register_buffer("allowed", torch.cat([start, before & attended[order][:, order]], dim=1))
        self.start = nn.Parameter(torch.randn(1, 1, width) * EMBEDDING_SCALE)
        self.queries = nn.Parameter(torch.randn(n_genes, width) * EMBEDDING_SCALE)
        self.positions = nn.Parameter(torch.randn(n_genes, width) * EMBEDDING_SCALE)
        expanded = settings.expansion * width
        self.of_value = nn.Sequential(nn.Linear(1, expanded), nn.GELU(), nn.Linear(expanded, width))
        self.layers = nn.ModuleList(Layer(width, settings.heads, settings.expansion) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(width)
        self.norm_tokens = nn.LayerNorm(width)
        self.out = nn.Parameter(torch.zeros(n_genes, width + 1, 2))

    def tokens(self, values: Float[Tensor, "cell some"], places: slice) -> Float[Tensor, "cell some width"]:
        """What is attended to of the genes at these places."""
        return self.norm_tokens(self.of_value(values[..., None]) + self.positions[places])

    def first_token(self, n_cells: int) -> Float[Tensor, "cell 1 width"]:
        """What is attended to where there is nothing else."""
        return self.norm_tokens(self.start).expand(n_cells, -1, -1)

    def parameters_of(
        self,
        contexts: list[KeysValues],
        tokens: list[KeysValues],
        places: slice,
    ) -> tuple[Float[Tensor, "cell query"], Float[Tensor, "cell query"]]:
        """Shift and log scale of the genes at these places, given the tokens up to the last of them."""
        queries, allowed = self.queries[places].expand(len(contexts[0].keys), -1, -1), self.allowed[places]
        for layer, context, before in zip(self.layers, contexts, tokens, strict=True):
            queries = layer(queries, context, before, allowed[:, : before.keys.shape[2]])
        weight, bias = self.out[places].split([queries.shape[-1], 1], dim=1)
        shift, scale = (torch.einsum("cqw,qwp->cqp", self.norm(queries), weight) + bias[:, 0]).unbind(-1)
        return shift, LARGEST_SCALE * (scale / LARGEST_SCALE).tanh()

    def contexts(self, context: Float[Tensor, "cell token width"]) -> list[KeysValues]:
        """Keys and values of the context, for each layer."""
        return [layer.across.kept(context) for layer in self._layers]

    @property
    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def forward(
        self, values: Float[Tensor, "cell gene"], context: Float[Tensor, "cell token width"]
    ) -> tuple[Float[Tensor, "cell gene"], Float[Tensor, "cell"]]:
        """One step towards noise, genes where they were, and the log-determinant of its Jacobian."""
        ordered = values[:, self.order]
        shift, scale = self.parameters_all(ordered, context)
        stepped = torch.empty_like(ordered)
        stepped[:, self.order] = ordered * scale.exp() + shift
        return stepped, scale.sum(1)

    def parameters_all(
        self, ordered: Float[Tensor, "cell gene"], context: Float[Tensor, "cell token width"]
    ) -> tuple[Float[Tensor, "cell gene"], Float[Tensor, "cell gene"]]:
        """Shift and log scale of all genes, in the block's order."""
        tokens = torch.cat([self.first_token(len(ordered)), self.tokens(ordered, slice(None))], dim=1)
        kept = [layer.own.kept(tokens) for layer in self._layers]
        return self.parameters_of(self.contexts(context), kept, slice(None))

    def inverse(
        self, noise: Float[Tensor, "cell gene"], context: Float[Tensor, "cell token width"]
    ) -> Float[Tensor, "cell gene"]:
        """The step back, gene after gene. Keys and values of what is known are kept, in arrays made at the start."""
        ordered, values = noise[:, self.order], torch.empty_like(noise)
        n_cells, n_genes = noise.shape
        contexts = self.contexts(context)
        kept = []
        for layer in self._layers:
            first = layer.own.kept(self.first_token(n_cells))
            kept.append(KeysValues(*(part.new_empty(*part.shape[:2], n_genes + 1, part.shape[-1]) for part in first)))
            for whole, part in zip(kept[-1], first, strict=True):
                whole[:, :, :1] = part
        for place in range(n_genes):
            known = [KeysValues(*(part[:, :, : place + 1] for part in whole)) for whole in kept]
            shift, scale = self.parameters_of(contexts, known, slice(place, place + 1))
            values[:, place] = (ordered[:, place] - shift[:, 0]) * (-scale[:, 0]).exp()
            token = self.tokens(values[:, place : place + 1], slice(place, place + 1))
            for layer, whole in zip(self._layers, kept, strict=True):
                for array, part in zip(whole, layer.own.kept(token), strict=True):
                    array[:, :, place + 1 : place + 2] = part
        found = torch.empty_like(values)
        found[:, self.order] = values
        return found


class CellFlow(nn.Module):
    """`p(cell | control cell, perturbation)`, exact: blocks of which each goes through the genes in the reverse order.

    Args:
        n_genes: Genes of a cell.
        n_features: Of a perturbation.
        attended: Which genes each gene may attend to; all by default.
        settings: Of the network.
    """

    def __init__(
        self,
        n_genes: int,
        n_features: int,
        settings: FlowSettings,
        attended: Bool[Tensor, "gene gene"] | None = None,
    ):
        super().__init__()
        if attended is None:
            attended = torch.ones(n_genes, n_genes, dtype=torch.bool)
        self.encoder = ContextEncoder(n_genes, n_features, settings)
        order = torch.arange(n_genes)
        self.blocks = nn.ModuleList(
            FlowBlock(order if number % 2 == 0 else order.flip(0), attended, settings)
            for number in range(settings.blocks)
        )

    @property
    def _blocks(self) -> list[FlowBlock]:
        return [block for block in self.blocks if isinstance(block, FlowBlock)]

    def forward(
        self, cells: Float[Tensor, "cell gene"], context: Float[Tensor, "cell token width"]
    ) -> tuple[Float[Tensor, "cell gene"], Float[Tensor, "cell"]]:
        """Noise of cells in contexts, and the log-determinant of the Jacobian."""
        total = torch.zeros_like(cells[:, 0])
        for block in self._blocks:
            cells, scale = block(cells, context)
            total = total + scale
        return cells, total

    def log_density(
        self, cells: Float[Tensor, "cell gene"], context: Float[Tensor, "cell token width"]
    ) -> Float[Tensor, "cell"]:
        """Log-density of cells in contexts."""
        noise, scale = self(cells, context)
        return normal_log_density(noise) + scale

    @torch.no_grad()
    def inverse(
        self, noise: Float[Tensor, "cell gene"], context: Float[Tensor, "cell token width"]
    ) -> Float[Tensor, "cell gene"]:
        """The cells of noise in contexts: samples, where the noise is normal."""
        for block in reversed(self._blocks):
            noise = block.inverse(noise, context)
        return noise


def normal_log_density(noise: Float[Tensor, "cell gene"]) -> Float[Tensor, "cell"]:
    """Log-density under independent standard normals."""
    return -(noise**2 + log(2 * pi)).sum(1) / 2
