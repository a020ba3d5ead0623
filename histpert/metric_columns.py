"""What each metric column is: its name on an axis, which way is better, and where it comes from. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MASS_FLOOR", "METRICS", "Metric"]

MASS_FLOOR = 1e-6
"""Least predicted mass of a bin in the likelihood: one cell in a bin predicted empty costs 14 nats, not infinity."""


@dataclass(frozen=True)
class Metric:
    """One column of the result tables.

    Attributes:
        label: What it is called on an axis.
        meaning: Source, range and convention, in a line.
        higher_is_better: Which way is better.
        target: The value to come near, where neither direction is better.
        needs_replicates: Whether it is worked out only in studies that ask for bootstrap replicates of the cells.
        needs_cells: Whether it is worked out only in studies that ask for the cells one by one.
    """

    label: str
    meaning: str
    higher_is_better: bool = False
    target: float | None = None
    needs_replicates: bool = False
    needs_cells: bool = False


def _top(n_top: int) -> Metric:
    label = f"Pearson of mean shifts, top {n_top} DE genes"
    meaning = (
        f"-1 to 1; shifts from control over the {n_top} genes of the largest |t| of Welch's test on observed cells"
    )
    return Metric(label, meaning, higher_is_better=True)


def _zero_atom(of: str, name: str) -> Metric:
    meaning = f"0 up; as `{name}`, with the predicted mass of the bin centred on 0 at its centre, not spread over it"
    return Metric(f"RMAE of the {of}, zeros as a point", meaning)


def _coverage(share: int) -> Metric:
    label = f"Coverage of the central {share}%"
    meaning = f"0 to 1; share of the cells inside the predicted central {share}% interval, by the randomized PIT"
    return Metric(label, meaning, target=share / 100)


METRICS: Mapping[str, Metric] = {
    "nll": Metric(
        "Negative log-likelihood (Eq. 12)",
        "nats, any value; mean over cells and non-constant genes; depends on the number of bins",
    ),
    "rmae_mean": Metric("RMAE of the mean shift", "0 up, control scores 1; sum of errors over sum of shifts (Eq. 13)"),
    "rmae_var": Metric("RMAE of the variance", "0 up; of the variances themselves (Eq. 13)"),
    "rmae_skew": Metric("RMAE of the skewness", "0 up; over genes whose cells vary (Eq. 13)"),
    "rmae_kurt": Metric("RMAE of the excess kurtosis", "0 up; over genes whose cells vary (Eq. 13)"),
    "pearson_top20": _top(20),
    "pearson_top50": _top(50),
    "pearson_top100": _top(100),
    "w1": Metric(
        "Wasserstein-1 (log-normalized expression)",
        "0 up; between predicted and observed masses in the same bins, averaged over genes (Eq. 5)",
    ),
    "crps": Metric(
        "CRPS (log-normalized expression)",
        "0 up; mean over cells of the integral of (F - 1{x <= z})^2 dz, averaged over genes",
    ),
    "rmae_var_zero_atom": _zero_atom("variance", "rmae_var"),
    "rmae_skew_zero_atom": _zero_atom("skewness", "rmae_skew"),
    "rmae_kurt_zero_atom": _zero_atom("excess kurtosis", "rmae_kurt"),
    "pearson_delta": Metric(
        "Pearson of mean shifts, all genes",
        "-1 to 1; both shifts from the same control cells, whose noise they share",
        higher_is_better=True,
    ),
    "pearson_delta_split": Metric(
        "Pearson of mean shifts, control split",
        "-1 to 1; prediction minus one half of the control cells, observation minus the other",
        higher_is_better=True,
        needs_replicates=True,
    ),
    "pearson_delta_hat": Metric(
        "Pearson of shifts from the mean perturbation",
        "-1 to 1; shifts from the unweighted mean of the training perturbations, not from control",
        higher_is_better=True,
    ),
    "pearson_delta_no_target": Metric(
        "Pearson of mean shifts, without targets",
        "-1 to 1; as `pearson_delta`, the perturbed genes themselves left out",
        higher_is_better=True,
    ),
    "de_spearman": Metric(
        "Spearman of log fold changes, DE genes",
        "-1 to 1; over genes significant in observed cells (Welch, Benjamini-Hochberg 5%)",
        higher_is_better=True,
    ),
    "pds": Metric(
        "Perturbation discrimination score",
        "1/N to 1, by chance 0.5 + 1/(2N); 1 - rank / N of its own among the fold's N observations, by L1 of shifts",
        higher_is_better=True,
    ),
    "l2": Metric("L2 of mean expression", "0 up; Euclidean distance of predicted and observed means over genes"),
    "mse": Metric("MSE of mean expression", "0 up; squared error of the means, averaged over genes"),
    "mae": Metric("MAE of mean expression", "0 up; absolute error of the means, averaged over genes"),
    "mse_corrected": Metric(
        "MSE of mean expression, noise removed",
        "any value, 0 for the true means; `mse` less the sampling variance of the observed means",
    ),
    "energy_distance": Metric(
        "Energy distance, squared, unbiased",
        "any value, 0 for the true distributions; twice the CRPS less what the cells' own spread adds, over genes",
    ),
    "edistance": Metric(
        "E-distance of whole cells",
        "any value, 0 for the true distribution; 2 E|X - Y| - E|X - X'| - E|Y - Y'|, Euclidean, over pairs of cells",
        needs_cells=True,
    ),
    "mmd": Metric(
        "MMD of whole cells, squared, unbiased",
        "any value, 0 for the true distribution; three Gaussian kernels, by the median distance of observed cells",
        needs_cells=True,
    ),
    "correlation_error": Metric(
        "Error of gene-gene correlations",
        "0 up; mean absolute difference of Pearson correlations over cells, over pairs of genes seen in 5% of them",
        needs_cells=True,
    ),
    "coverage50": _coverage(50),
    "coverage80": _coverage(80),
    "coverage90": _coverage(90),
    "coverage95": _coverage(95),
}
"""Every metric column of both tables, in printing order."""
