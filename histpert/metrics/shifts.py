"""Scores of shifts from control: relative errors, ranking of differentially expressed genes, correlation."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import ttest_ind_from_stats
from torch import Tensor

__all__ = ["pearson_over_top_genes", "rank_by_welch_t", "relative_error"]


def relative_error(
    predicted: Float[Tensor, "perturbation gene"], observed: Float[Tensor, "perturbation gene"]
) -> Float[Tensor, "perturbation"]:
    """Relative mean absolute error, `sum |predicted - observed| / sum |observed|` over genes (Eq. 13).

    A gene whose observed value is NaN is left out of both sums. The result is NaN where the observed values that are
    left add to 0: there is nothing to relate an error to.
    """
    defined = ~observed.isnan()
    error, size = (values.abs().where(defined, 0).sum(-1) for values in (predicted - observed, observed))
    return torch.where(size > 0, error / size, torch.nan)


def rank_by_welch_t(
    mean: Float[np.ndarray, "perturbation gene"],
    variance: Float[np.ndarray, "perturbation gene"],
    n_cells: Int[np.ndarray, "perturbation"],
    control_mean: Float[np.ndarray, "gene"],
    control_variance: Float[np.ndarray, "gene"],
    n_control: int,
) -> Int[np.ndarray, "perturbation gene"]:
    """Genes by falling |t| of Welch's test against control cells, as scanpy's `rank_genes_groups(rankby_abs=True)`.

    Args:
        mean: Mean of each perturbation's cells.
        variance: Their variance, over n (not n - 1).
        n_cells: Their number.
        control_mean: Mean of the control cells.
        control_variance: Their variance, over n.
        n_control: Their number.

    Returns:
        Gene numbers, most significant first; a gene without a defined t comes last.
    """
    n = n_cells[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = ttest_ind_from_stats(
            mean1=mean,
            std1=np.sqrt(variance * n / (n - 1)),
            nobs1=n,
            mean2=control_mean,
            std2=np.sqrt(control_variance * n_control / (n_control - 1)),
            nobs2=n_control,
            equal_var=False,
        ).statistic
    return np.argsort(-np.nan_to_num(np.abs(t), nan=0.0, posinf=np.inf), axis=1, kind="stable")


def pearson_over_top_genes(
    predicted: Float[Tensor, "perturbation gene"],
    observed: Float[Tensor, "perturbation gene"],
    ranking: Int[Tensor, "perturbation gene"],
    n_top: int,
) -> Float[Tensor, "perturbation"]:
    """Pearson correlation of predicted and observed mean shifts over each perturbation's first `n_top` ranked genes.

    NaN where either does not vary over them: a constant prediction has no correlation.
    """
    top = ranking[:, :n_top]
    x, y = (values.gather(1, top) for values in (predicted, observed))
    constant = (x.amax(1) - x.amin(1) <= TINY_SHIFT) | (y.amax(1) - y.amin(1) <= TINY_SHIFT)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    correlation = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
    return torch.where(constant, torch.nan, correlation)


TINY_SHIFT = 1e-9
"""Shifts that differ by less are constant: what is left of equal float32 masses after the means are taken."""
