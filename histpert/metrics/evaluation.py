"""All scores of one fold's held-out perturbations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from histpert.densities import Density
from histpert.losses import wasserstein1
from histpert.metric_columns import MASS_FLOOR, METRICS
from histpert.metrics.calibration import coverage
from histpert.metrics.distances import continuous_ranked_probability, energy_distance, negative_log_likelihood
from histpert.metrics.held_out import HeldOut
from histpert.metrics.joint import joint_scores
from histpert.metrics.shifts import discrimination, pearson, pearson_over_top_genes, pearson_split, relative_error
from histpert.metrics.significance import log_fold_change, spearman_of_significant
from histpert.predictions import Prediction

__all__ = ["Scores", "evaluate", "evaluate_in_batches"]

Scores = Mapping[str, Float[np.ndarray, "perturbation"]]

OF_DISTRIBUTIONS = ("nll", "w1", "crps", "energy_distance", "coverage50", "coverage80", "coverage90", "coverage95")

OF_WHOLE_CELLS = ("edistance", "mmd", "correlation_error")


def evaluate_in_batches(
    predict: Callable[[HeldOut], Prediction], held_out: HeldOut, nll_floor: float = MASS_FLOOR
) -> Scores:
    """Every metric of `histpert.results.METRICS`, few perturbations in memory at a time.

    Args:
        predict: What is predicted of some of the held-out perturbations.
        held_out: What was observed of all of them.
        nll_floor: Least predicted mass of a bin in the likelihood.
    """
    parts = [evaluate(predict(batch), batch, nll_floor) for batch in held_out.batches()]
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def evaluate(prediction: Prediction, held_out: HeldOut, nll_floor: float = MASS_FLOOR) -> Scores:
    """Every metric of `histpert.results.METRICS`, a value per held-out perturbation.

    Predicted statistics are those of the predicted distributions, observed ones those of the cells (appendix A). A
    predicted shift is the predicted mean minus the mean of the method's own view of control, an observed one is between
    means of cells. What a method does not predict is NaN, and so is every score of a perturbation of which it predicts
    no gene's mean.

    Args:
        prediction: What was predicted of the held-out perturbations.
        held_out: What was observed.
        nll_floor: Least predicted mass of a bin in the likelihood.
    """
    values = _of_statistics(prediction, held_out) | _of_shifts(prediction, held_out) | _of_means(prediction, held_out)
    if prediction.masses is None:
        values |= dict.fromkeys(OF_DISTRIBUTIONS, torch.full_like(values["mse"], torch.nan))
    else:
        values |= _of_distributions(prediction.masses, prediction.density, held_out, nll_floor)
    if held_out.whole_cells is None:
        values |= dict.fromkeys(OF_WHOLE_CELLS, torch.full_like(values["mse"], torch.nan))
    else:
        values |= joint_scores(prediction, held_out)
    absent = prediction.moments.mean.isnan().all(1).cpu().numpy()
    return {name: np.where(absent, np.nan, values[name].cpu().numpy()) for name in METRICS}


def _of_statistics(prediction: Prediction, held_out: HeldOut) -> dict[str, Tensor]:
    observed, values = held_out.moments, {}
    zero_atom = prediction.moments if prediction.zero_atom is None else prediction.zero_atom
    for reading, predicted in {"": prediction.moments, "_zero_atom": zero_atom}.items():
        values[f"rmae_var{reading}"] = relative_error(predicted.variance, observed.variance)
        values[f"rmae_skew{reading}"] = relative_error(predicted.skewness, observed.skewness)
        values[f"rmae_kurt{reading}"] = relative_error(predicted.kurtosis, observed.kurtosis)
    return values


def _of_shifts(prediction: Prediction, held_out: HeldOut) -> dict[str, Tensor]:
    shift, observed = prediction.moments.mean - prediction.control_mean, held_out.moments.mean - held_out.control_mean
    of_training = held_out.training_mean - held_out.control_mean
    of_fold = held_out.fold_means - held_out.control_mean
    fold_changes = (
        log_fold_change(mean.cpu().numpy(), control.cpu().numpy())
        for mean, control in (
            (prediction.moments.mean, prediction.control_mean),
            (held_out.moments.mean, held_out.control_mean),
        )
    )
    return {
        "rmae_mean": relative_error(shift, observed),
        **{
            f"pearson_top{n_top}": pearson_over_top_genes(shift, observed, held_out.ranking, n_top)
            for n_top in (20, 50, 100)
        },
        "pearson_delta": pearson(shift, observed),
        "pearson_delta_split": pearson_split(shift, observed, held_out.control_noise),
        "pearson_delta_hat": pearson(shift - of_training, observed - of_training),
        "pearson_delta_no_target": pearson(shift, observed, held_out.targets),
        "de_spearman": torch.from_numpy(
            spearman_of_significant(*fold_changes, held_out.significant.cpu().numpy())  # pyright: ignore[reportArgumentType, reportCallIssue]
        ),
        "pds": discrimination(shift, of_fold, torch.from_numpy(held_out.rows).to(shift.device), held_out.targets),
    }


def _of_means(prediction: Prediction, held_out: HeldOut) -> dict[str, Tensor]:
    error = prediction.moments.mean - held_out.moments.mean
    sampling = held_out.moments.variance / (held_out.n_cells[:, None] - 1)  # the variance is over n: NaN for one cell
    return {
        "l2": error.norm(dim=1),
        "mse": (error**2).mean(1),
        "mae": error.abs().mean(1),
        "mse_corrected": (error**2 - sampling).mean(1),
    }


def _of_distributions(
    predicted: Float[Tensor, "perturbation gene bin"], density: Density | None, held_out: HeldOut, nll_floor: float
) -> dict[str, Tensor]:
    observed, (positions, gini) = held_out.masses, held_out.cells.positions(held_out.rows)
    crps = continuous_ranked_probability(predicted, positions, held_out.width)
    energy = energy_distance(crps, gini, held_out.n_cells, squared=True, unbiased=True)
    if density is None:
        likelihood = negative_log_likelihood(predicted, observed, held_out.width, nll_floor)
    else:
        likelihood = density.negative_log_likelihood(held_out.cells.sums(held_out.rows))
    levels = (50, 80, 90, 95)
    covered = coverage(predicted, observed, [level / 100 for level in levels])[:, ~held_out.constant].mean(1)
    return {
        "nll": likelihood[:, ~held_out.constant].mean(-1),
        "w1": wasserstein1(predicted, observed, held_out.width).mean(-1),
        "crps": crps.mean(-1),
        "energy_distance": energy.mean(-1),
        **{f"coverage{level}": covered[:, number] for number, level in enumerate(levels)},
    }
