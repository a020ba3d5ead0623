"""All scores of one fold's held-out perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from histpert.losses import wasserstein1
from histpert.metrics.distances import CellPositions, continuous_ranked_probability, negative_log_likelihood
from histpert.metrics.shifts import pearson_over_top_genes, relative_error
from histpert.moments import Moments, histogram_mean, histogram_moments

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
    """

    masses: Float[Tensor, "perturbation gene bin"]
    moments: Moments
    ranking: Int[Tensor, "perturbation gene"]
    control_mean: Float[Tensor, "gene"]
    lower: Float[Tensor, "gene"]
    width: Float[Tensor, "gene"]
    positions: CellPositions
    constant: Bool[Tensor, "gene"]


def evaluate(
    predicted: Float[Tensor, "perturbation gene bin"], control: Float[Tensor, "gene bin"], held_out: HeldOut
) -> Mapping[str, Float[np.ndarray, "perturbation"]]:
    """Every metric of `histpert.results.METRICS`, a value per held-out perturbation.

    Predicted statistics come from the predicted histograms, observed ones from the cells (appendix A). A predicted
    shift is the predicted mean minus the mean of the method's own view of control, an observed one is between means of
    cells.

    Args:
        predicted: Predicted bin masses.
        control: The method's own view of control, bin masses.
        held_out: What was observed.
    """
    predicted, control = predicted.double(), control.double()
    edges = held_out.lower, held_out.width
    statistics = histogram_moments(predicted, *edges)
    shift = statistics.mean - histogram_mean(control, *edges)
    observed_shift = held_out.moments.mean - held_out.control_mean
    likelihood = negative_log_likelihood(predicted, held_out.masses, held_out.width)
    crps = continuous_ranked_probability(predicted, held_out.positions, held_out.width)
    values = {
        "nll": likelihood[:, ~held_out.constant].mean(-1),
        "rmae_mean": relative_error(shift, observed_shift),
        "rmae_var": relative_error(statistics.variance, held_out.moments.variance),
        "rmae_skew": relative_error(statistics.skewness, held_out.moments.skewness),
        "rmae_kurt": relative_error(statistics.kurtosis, held_out.moments.kurtosis),
        **{
            f"pearson_top{n_top}": pearson_over_top_genes(shift, observed_shift, held_out.ranking, n_top)
            for n_top in (20, 50, 100)
        },
        "w1": wasserstein1(predicted, held_out.masses, held_out.width).mean(-1),
        "crps": crps.mean(-1),
    }
    return {name: value.cpu().numpy() for name, value in values.items()}
