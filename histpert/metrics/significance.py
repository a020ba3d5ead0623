"""Differential expression from moments: Welch's test against control, significant genes, log fold changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from histpert.screens.statistics import welch_test

__all__ = [
    "MIN_SIGNIFICANT",
    "DifferentialExpression",
    "differential_expression",
    "log_fold_change",
    "spearman_of_significant",
]

MIN_SIGNIFICANT = 3
"""Fewer significant genes have no rank correlation: of two it is -1 or 1 whatever they are."""

FOLD_CHANGE_OFFSET = 1e-9
"""What scanpy adds to both expressions of a ratio."""

TINY_FOLD_CHANGE = 1e-6
"""Log fold changes that differ by less are constant."""


class DifferentialExpression(NamedTuple):
    """Genes of each perturbation's cells against control cells.

    Attributes:
        ranking: Gene numbers by falling |t|, as scanpy's `rank_genes_groups(rankby_abs=True)`; a gene without a defined
            t comes last.
        significant: Genes with a false discovery rate below 5% (Benjamini-Hochberg, for each perturbation).
    """

    ranking: Int[np.ndarray, "perturbation gene"]
    significant: Bool[np.ndarray, "perturbation gene"]


def differential_expression(
    mean: Float[np.ndarray, "perturbation gene"],
    variance: Float[np.ndarray, "perturbation gene"],
    n_cells: Int[np.ndarray, "perturbation"],
    control_mean: Float[np.ndarray, "gene"],
    control_variance: Float[np.ndarray, "gene"],
    n_control: int,
) -> DifferentialExpression:
    """Welch's t-test of each gene against control cells.

    Args:
        mean: Mean of each perturbation's cells.
        variance: Their variance, over n (not n - 1).
        n_cells: Their number.
        control_mean: Mean of the control cells.
        control_variance: Their variance, over n.
        n_control: Their number.
    """
    n = n_cells[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        of_control = control_mean, control_variance * n_control / (n_control - 1), n_control
        t, significant = welch_test(mean, variance * n / (n - 1), n, *of_control)
    ranking = np.argsort(-np.nan_to_num(np.abs(t), nan=0.0, posinf=np.inf), axis=1, kind="stable")
    return DifferentialExpression(ranking, significant)


def log_fold_change(
    mean: Float[np.ndarray, "perturbation gene"], control_mean: Float[np.ndarray, "gene"]
) -> Float[np.ndarray, "perturbation gene"]:
    """Log2 fold changes from means of log1p data as scanpy takes them, `expm1` of the means over one another.

    A predicted mean below 0, which no cells have, counts as 0.
    """
    expression, of_control = (np.expm1(np.maximum(values, 0)) for values in (mean, control_mean))
    return np.log2((expression + FOLD_CHANGE_OFFSET) / (of_control + FOLD_CHANGE_OFFSET))


def spearman_of_significant(
    predicted: Float[np.ndarray, "perturbation gene"],
    observed: Float[np.ndarray, "perturbation gene"],
    significant: Bool[np.ndarray, "perturbation gene"],
) -> Float[np.ndarray, "perturbation"]:
    """Spearman correlation of log fold changes over the significant genes of each perturbation.

    NaN where fewer than three are significant, or either does not vary over them.
    """
    return np.array([_spearman(predicted[row, genes], observed[row, genes]) for row, genes in enumerate(significant)])


def _spearman(x: Float[np.ndarray, "gene"], y: Float[np.ndarray, "gene"]) -> float:
    if len(x) < MIN_SIGNIFICANT or not min(np.ptp(x), np.ptp(y)) > TINY_FOLD_CHANGE:
        return np.nan
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
