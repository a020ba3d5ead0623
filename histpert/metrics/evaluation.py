"""All scores of one fold's held-out perturbations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from histpert.cells import Cells
from histpert.losses import wasserstein1
from histpert.metrics.distances import CellPositions, continuous_ranked_probability, negative_log_likelihood
from histpert.metrics.shifts import pearson_over_top_genes, relative_error
from histpert.moments import Moments
from histpert.predictions import Prediction

__all__ = ["HeldOut", "evaluate"]


@dataclass(frozen=True)
class HeldOut:
    """What was observed of the held-out perturbations, float64.

    Attributes:
        masses: Bin masses of the cells, on training edges; cells beyond them are in the edge bins.
        moments: Statistics of the cells themselves.
        ranking: Genes by falling |t| against control.
        control_mean: Mean of the control cells.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        positions: Where the cells lie in the bins, finer than the bins tell.
        constant: Genes that do not vary in training.
        cells: Reads what likelihoods of densities need of the cells.
    """

    masses: Float[Tensor, "perturbation gene bin"]
    moments: Moments
    ranking: Int[Tensor, "perturbation gene"]
    control_mean: Float[Tensor, "gene"]
    lower: Float[Tensor, "gene"]
    width: Float[Tensor, "gene"]
    positions: CellPositions
    constant: Bool[Tensor, "gene"]
    cells: Callable[[], Cells]


def evaluate(prediction: Prediction, held_out: HeldOut) -> Mapping[str, Float[np.ndarray, "perturbation"]]:
    """Every metric of `histpert.results.METRICS`, a value per held-out perturbation.

    Predicted statistics are those of the predicted distributions, observed ones those of the cells (appendix A). A
    predicted shift is the predicted mean minus the mean of the method's own view of control, an observed one is between
    means of cells. What a method does not predict is NaN.

    Args:
        prediction: What was predicted of the held-out perturbations.
        held_out: What was observed.
    """
    moments, observed = prediction.moments, held_out.moments
    shift, observed_shift = moments.mean - prediction.control_mean, observed.mean - held_out.control_mean
    values = {
        "nll": torch.full_like(shift[:, 0], torch.nan),
        "rmae_mean": relative_error(shift, observed_shift),
        "rmae_var": relative_error(moments.variance, observed.variance),
        "rmae_skew": relative_error(moments.skewness, observed.skewness),
        "rmae_kurt": relative_error(moments.kurtosis, observed.kurtosis),
        **{
            f"pearson_top{n_top}": pearson_over_top_genes(shift, observed_shift, held_out.ranking, n_top)
            for n_top in (20, 50, 100)
        },
        "w1": torch.full_like(shift[:, 0], torch.nan),
        "crps": torch.full_like(shift[:, 0], torch.nan),
    }
    if prediction.masses is not None:
        if prediction.density is None:
            likelihood = negative_log_likelihood(prediction.masses, held_out.masses, held_out.width)
        else:
            likelihood = prediction.density.negative_log_likelihood(held_out.cells())
        values["nll"] = likelihood[:, ~held_out.constant].mean(-1)
        values["w1"] = wasserstein1(prediction.masses, held_out.masses, held_out.width).mean(-1)
        crps = continuous_ranked_probability(prediction.masses, held_out.positions, held_out.width)
        values["crps"] = crps.mean(-1)
    return {name: value.cpu().numpy() for name, value in values.items()}
