"""Scores of whole cells, joint over genes: what scores of one gene at a time do not see."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.correlations import pearson_correlations
from histpert.metrics.held_out import HeldOut
from histpert.predictions import Prediction
from histpert.quantiles import quantiles

__all__ = [
    "MOST_CELLS",
    "correlation_error",
    "energy_statistic",
    "joint_scores",
    "maximum_mean_discrepancy",
]

MOST_CELLS = 500
"""Cells that are drawn of a prediction, and the most that are taken of an observation."""

LEAST_DETECTION = 0.05
"""Genes seen in a smaller share of the observed cells say little about correlations."""

BANDWIDTHS = 0.5, 1.0, 2.0
"""Of the kernels, in median distances between observed cells."""

SEED = 0
"""Of what is drawn for scores."""


def energy_statistic(x: Float[Tensor, "n gene"], y: Float[Tensor, "m gene"]) -> Float[Tensor, ""]:
    """E-distance, `2 E|X - Y| - E|X - X'| - E|Y - Y'|`, Euclidean, over pairs of different cells (Szekely, Rizzo 2013).

    0 on average for cells of one distribution, and then below 0 about as often as above it.
    """
    x, y = x.double(), y.double()
    return 2 * torch.cdist(x, y).mean() - _between(torch.cdist(x, x)) - _between(torch.cdist(y, y))


def maximum_mean_discrepancy(
    predicted: Float[Tensor, "n gene"], observed: Float[Tensor, "m gene"]
) -> Float[Tensor, ""]:
    """MMD, squared, unbiased, the average of three Gaussian kernels (Gretton et al. 2012).

    Their bandwidths are half, one and two medians of the distances between observed cells.
    """
    x, y = predicted.double(), observed.double()
    squared = {name: torch.cdist(*pair) ** 2 for name, pair in {"xx": (x, x), "yy": (y, y), "xy": (x, y)}.items()}
    apart = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    median = squared["yy"][apart].median()
    total = torch.zeros((), dtype=torch.float64, device=y.device)
    for bandwidth in BANDWIDTHS:
        kernel = {name: (-values / (2 * bandwidth**2 * median)).exp() for name, values in squared.items()}
        total = total + _between(kernel["xx"]) + _between(kernel["yy"]) - 2 * kernel["xy"].mean()
    return total / len(BANDWIDTHS)


def correlation_error(predicted: Float[Tensor, "n gene"], observed: Float[Tensor, "m gene"]) -> Float[Tensor, ""]:
    """Mean absolute difference of the correlations between genes, over pairs of genes.

    Of genes that vary in the observed cells and are seen in at least 5% of them. One that does not vary in the
    prediction is correlated with none there. NaN for fewer than two such genes.
    """
    varies = observed.double().var(0) > 0
    seen = varies & ((observed != 0).double().mean(0) >= LEAST_DETECTION)
    n_genes = int(seen.sum())
    if n_genes < 2:
        return torch.full((), torch.nan, dtype=torch.float64, device=observed.device)
    difference = (pearson_correlations(predicted[:, seen]) - pearson_correlations(observed[:, seen])).abs()
    return difference.fill_diagonal_(0).sum() / (n_genes * (n_genes - 1))


def joint_scores(prediction: Prediction, held_out: HeldOut) -> dict[str, Float[Tensor, "perturbation"]]:
    """The three scores of each perturbation, whose cells a method draws, or which follow from what it predicts.

    Cells of histograms are drawn gene by gene, as nothing says how genes go together; a method of means shifts control
    cells.
    """
    whole = held_out.whole_cells
    assert whole is not None
    random = torch.Generator().manual_seed(SEED)
    control = _some(whole.of_control(), random)
    if prediction.cells is not None:
        predicted = prediction.cells(MOST_CELLS)
    elif prediction.masses is not None:
        predicted = drawn_apart(prediction.masses, held_out.lower, held_out.width, MOST_CELLS, random)
    else:
        shift = prediction.moments.mean - prediction.control_mean
        predicted = (control.double() + shift[:, None]).clamp_min(0)
    rows = []
    for row, cells in zip(held_out.rows, predicted, strict=True):
        observed = _some(whole.of(int(row)), random)
        scores = energy_statistic, maximum_mean_discrepancy, correlation_error
        rows.append(torch.stack([score(cells, observed.to(cells.dtype)) for score in scores]))
    return dict(zip(("edistance", "mmd", "correlation_error"), torch.stack(rows).unbind(1), strict=True))


def drawn_apart(
    masses: Float[Tensor, "perturbation gene bin"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
    n_cells: int,
    random: torch.Generator,
) -> Float[Tensor, "perturbation cell gene"]:
    """Cells of histograms, each gene by itself."""
    uniform = torch.rand(len(masses), n_cells, masses.shape[1], generator=random, dtype=torch.float64)
    return quantiles(masses, lower, width, uniform.to(masses.device))


def _some(cells: Float[Tensor, "cell gene"], random: torch.Generator) -> Float[Tensor, "some gene"]:
    if len(cells) <= MOST_CELLS:
        return cells
    return cells[torch.randperm(len(cells), generator=random)[:MOST_CELLS].to(cells.device)]


def _between(values: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Mean over pairs of different cells; NaN for a single one."""
    return (values.sum() - values.diagonal().sum()) / (len(values) * (len(values) - 1))
