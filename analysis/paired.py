"""Paired comparisons: the same held-out perturbations under two methods.

Two intervals are given, since neither alone knows everything. Over perturbations there are many values, but those of a
fold share a trained model, so that the interval is too narrow. Over folds there are few values, and their training
perturbations overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student
from scipy.stats import wilcoxon

__all__ = ["Comparison", "PairedDifference", "compared", "holm", "paired_difference"]


class PairedDifference(NamedTuple):
    """Mean of the differences, and an interval that holds the true mean with 95% confidence."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies to one side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def paired_difference(one: np.ndarray, other: np.ndarray, confidence: float = 0.95) -> PairedDifference:
    """Student's interval of the mean of `one - other`, over the places where both are defined.

    Perturbations of one fold share a trained model, which the interval does not know: with few folds it is too narrow.
    """
    difference = np.asarray(one, float) - np.asarray(other, float)
    difference = difference[np.isfinite(difference)]
    n = len(difference)
    if n < 2:
        return PairedDifference(float(difference.mean()) if n else np.nan, -np.inf, np.inf, n)
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(n)
    reach = student.ppf((1 + confidence) / 2, n - 1) * error
    return PairedDifference(float(mean), float(mean - reach), float(mean + reach), n)


class Comparison(NamedTuple):
    """One method less another on one metric.

    `p` is that of Wilcoxon's signed-rank test over perturbations, NaN where there are none.
    """

    perturbations: PairedDifference
    folds: PairedDifference
    p: float

    def verdict(self, higher_is_better: bool) -> str:
        """`better` or `worse` where both intervals say so, else `tie`; empty where one cannot be made."""
        if not self.perturbations.n or not self.folds.n:
            return ""
        signs = {self.perturbations.sign, self.folds.sign}
        if signs not in ({1}, {-1}):
            return "tie"
        return "better" if signs == {1 if higher_is_better else -1} else "worse"


def compared(one: pd.DataFrame, other: pd.DataFrame, metric: str) -> Comparison:
    """Compare the same perturbations in two sets of rows of `perturbations.parquet`, each perturbation once in each.

    Fold means are those of the perturbations that both have. Where the two do not hold out a perturbation in the same
    fold, folds do not pair: their interval is open, its `n` 0.
    """
    columns = ["perturbation", "fold", metric]
    both = one[columns].merge(other[columns], on="perturbation", suffixes=("", "_other")).dropna()
    values, others = both[metric].to_numpy(float), both[f"{metric}_other"].to_numpy(float)
    by_fold = both.groupby("fold")[[metric, f"{metric}_other"]].mean().to_numpy(float)
    if (both["fold"] != both["fold_other"]).any():
        by_fold = by_fold[:0]
    over_folds = paired_difference(by_fold[:, 0], by_fold[:, 1])
    return Comparison(paired_difference(values, others), over_folds, _signed_rank_p(values, others))


def _signed_rank_p(one: np.ndarray, other: np.ndarray) -> float:
    if not len(one):
        return np.nan
    if not (one != other).any():
        return 1.0
    return float(wilcoxon(one, other)[1])  # pyright: ignore[reportArgumentType]


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p-values for their number (Scandinavian Journal of Statistics 6, 1979); NaN has no say."""
    p = np.asarray(p, float)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1) if len(order) else p[order]
    return corrected
