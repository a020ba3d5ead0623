"""GEARS: shifts of the mean from a graph of perturbed genes and a graph of measured ones (Roohani et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet
from histpert.predictions import Prediction, predicted_means
from histpert.settings import ModelSettings
from histpert.tensors import mapped
from histpert.training import train

__all__ = ["GEARS", "WIDTH", "GearsNetwork", "autofocus", "n_parameters"]

WIDTH = 64
"""Of all embeddings."""

LEAST_CORRELATION = 0.4
"""Genes that are correlated less are no neighbours."""

POSITION_SHARE = 0.2
"""What the graph of measured genes adds to their embeddings."""

DIRECTION_WEIGHT = 0.1
"""Of the loss of directions, beside that of shifts."""

START = 0.01
"""Scale at which the last layer starts, so that training starts near control."""

VALIDATION_SHARE = 0.1
"""Of the training perturbations: the weights that predict these best are kept."""


class GearsNetwork(nn.Module):
    """A shift for each gene, from what the perturbed gene takes in from each node of their graph.

    Args:
        n_nodes: Perturbed genes in the graph.
        neighbor: The most correlated genes of each gene, itself among them.
        correlation: With these.
    """

    neighbor: Tensor
    weight: Tensor
    best: Tensor
    least_error: Tensor

    def __init__(
        self,
        n_nodes: int,
        neighbor: Int[Tensor, "gene neighbor"],
        correlation: Float[Tensor, "gene neighbor"],
    ):
        super().__init__()
        self.register_buffer("neighbor", neighbor)
        self.register_buffer("weight", _propagation(neighbor, correlation))
        n_genes = len(neighbor)
        self.nodes = nn.Parameter(torch.zeros(n_nodes, WIDTH))
        self.through_graph = nn.Linear(WIDTH, WIDTH)
        self.fuse = _layers(WIDTH, WIDTH, WIDTH)
        self.genes = nn.Parameter(torch.randn(n_genes, WIDTH))
        self.positions = nn.Parameter(torch.randn(n_genes, WIDTH))
        self.gene_norm, self.cell_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.through_coexpression = nn.Linear(WIDTH, WIDTH)
        self.of_gene = _layers(WIDTH, WIDTH, WIDTH)
        self.recover = _layers(WIDTH, 2 * WIDTH, WIDTH)
        self.decode = nn.Parameter(torch.randn(n_genes, WIDTH) * WIDTH**-0.5)
        self.decode_bias = nn.Parameter(torch.zeros(n_genes))
        self.across = _layers(n_genes, WIDTH, WIDTH)
        self.last = nn.Parameter(torch.randn(n_genes, WIDTH + 1) * START * WIDTH**-0.5)
        self.last_bias = nn.Parameter(torch.zeros(n_genes))
        self.register_buffer("best", self._weights())
        self.register_buffer("least_error", torch.tensor(torch.inf))

    def _weights(self) -> Float[Tensor, "weight"]:
        return nn.utils.parameters_to_vector(self.parameters()).detach()

    @torch.no_grad()
    def keep_better(self, error: Float[Tensor, ""]) -> None:
        """Remember the weights if this error of theirs is the least so far."""
        self.best.copy_(torch.where(error < self.least_error, self._weights(), self.best))
        self.least_error.copy_(torch.minimum(error, self.least_error))

    def take_best(self) -> None:
        """Put the remembered weights in place."""
        nn.utils.vector_to_parameters(self.best, self.parameters())

    def forward(self, rows: Float[Tensor, "perturbation node"]) -> Float[Tensor, "perturbation gene"]:
        """Shifts of the mean from control."""
        around = nn.functional.embedding_bag(self.neighbor, self.positions, per_sample_weights=self.weight, mode="sum")
        own = self.gene_norm(self.genes).relu() + POSITION_SHARE * self.through_coexpression(around)
        perturbed = self.fuse(self.through_graph(rows @ self.nodes))
        cells = self.cell_norm(self.of_gene(own) + perturbed[:, None]).relu()
        alone = (self.recover(cells) * self.decode).sum(-1) + self.decode_bias
        return alone * self.last[:, 0] + self.across(alone) @ self.last[:, 1:].T + self.last_bias


class GEARS:
    """GEARS, on the means and moments of all cells.

    What is given as embeddings are rows of the graph of perturbed genes (`histpert.gene_sets.gene_graph`): what a
    perturbation takes in from each node, added up over the genes of a combination. A perturbation with a gene that is
    not in the graph has a row of zeros: it is not trained on, and its prediction is NaN.

    Layers, widths, graphs and losses are those of the published code (github.com/snap-stanford/GEARS, 0.1.2), but:

    - The published loss goes over pairs of a control cell x and a perturbed cell y, predicting `x + shift`. Its
      expectation over all pairs follows from four moments of each, so that a step sees all cells.
    - The published loss of directions compares signs, which have no gradient. Here it compares
      `tanh(shift / deviation of the gene in control)`.
    - The nodes are the screen's perturbed genes alone. Their embeddings start at 0, so that one that is never trained
      on adds nothing; the published ones start at random and are worn down by the penalty on weights.
    - LayerNorm in the place of BatchNorm, whose batches are of cells; no bound on the norm of embeddings.
    - The weights that are kept are those of the epoch of least squared error over all genes of a tenth of the training
      perturbations, where there are ten or more; the published code has a fold of its own for it, and takes the 20
      genes of largest effect.
    - AdamW, learning rate and number of epochs are those of all networks here.
    """

    version = 1

    def __init__(self, settings: ModelSettings):
        self._settings = settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Train the network from the seed of the settings; torch's global generators are left as they were."""
        settings, self._control_mean = self._settings, training.control_mean
        rows = training.embeddings
        known = rows.any(1).nonzero()[:, 0]
        order = torch.from_numpy(np.random.default_rng(settings.seed).permutation(len(known))).to(rows.device)
        n_validation = int(VALIDATION_SHARE * len(known))
        validation, known = known[order[:n_validation]], known[order[n_validation:].sort().values]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            neighbor, correlation = (mapped(values, torch.device("cpu")) for values in training.coexpression())
            network = GearsNetwork(rows.shape[1], neighbor.long(), correlation)
        self.network = network.to(rows.device)
        spread, of_control = training.spread(), training.control_spread()
        scale = of_control[0].sqrt() + 1e-6

        def error_of(shifts: Tensor, numbers: Int[Tensor, "batch"]) -> Float[Tensor, "batch gene"]:
            return shifts - (training.means[numbers] - training.control_mean)

        def loss_of(shifts: Tensor, batch: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
            error = error_of(shifts, known[batch])
            directions = (shifts / scale).tanh() - ((shifts - error) / scale).tanh()
            focus = autofocus(error, of_control, spread[known[batch]])
            return focus.mean() + DIRECTION_WEIGHT * (directions**2).mean()

        @torch.no_grad()
        def validate() -> None:
            batches = validation.split(settings.batch_size)
            errors = [(error_of(network(rows[batch]), batch) ** 2).sum() for batch in batches]
            network.keep_better(torch.stack(errors).sum())

        after_epoch = validate if n_validation else lambda: None
        yield from train(self.network, loss_of, rows[known], settings, checkpoint, after_epoch=after_epoch)
        if n_validation and settings.epochs:
            network.take_best()

    @torch.no_grad()
    def predict(self, embeddings: Float[Tensor, "perturbation node"]) -> Prediction:
        """Predicted means; NaN for perturbations that are not in the graph."""
        self.network.eval()
        shifts = self.network(embeddings).masked_fill(~embeddings.any(1, keepdim=True), torch.nan)
        return predicted_means(self._control_mean + shifts, self._control_mean)

    @property
    def n_parameters(self) -> int:
        """Weights, biases and embeddings."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def autofocus(
    error: Float[Tensor, "perturbation gene"],
    control: Float[Tensor, "3 gene"],
    perturbed: Float[Tensor, "perturbation 3 gene"],
) -> Float[Tensor, "perturbation gene"]:
    """Expected fourth power of `x + shift - y` over control cells x and perturbed cells y (gamma = 2).

    With e the shift's error, and v, s and q the central moments of `x - y`, it is `e^4 + 6 v e^2 + 4 s e + q`.

    Args:
        error: Predicted less observed shift of the mean.
        control: Second, third and fourth central moments of the control cells.
        perturbed: The same of the perturbed cells.
    """
    of_x, of_y = control.unbind(-2), perturbed.unbind(-2)
    v, s, q = of_x[0] + of_y[0], of_x[1] - of_y[1], of_x[2] + 6 * of_x[0] * of_y[0] + of_y[2]
    return error**4 + 6 * v * error**2 + 4 * s * error + q


def _propagation(
    neighbor: Int[Tensor, "gene neighbor"], correlation: Float[Tensor, "gene neighbor"]
) -> Float[Tensor, "gene neighbor"]:
    """What a gene takes in from each neighbour: `d^-1/2 W d^-1/2`, W the correlations that are large enough."""
    weight = correlation.abs()
    weight = torch.where(weight >= LEAST_CORRELATION, weight, 0)
    scale = weight.sum(1).rsqrt()  # each gene is its own neighbour
    return scale[:, None] * weight * scale[neighbor]


def _layers(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def n_parameters(n_nodes: int, n_genes: int) -> int:
    """Learned parameters of the network."""
    with torch.device("meta"):
        itself = torch.zeros(n_genes, 1)
        network = GearsNetwork(n_nodes, itself.long(), itself)
    return sum(parameter.numel() for parameter in network.parameters())
