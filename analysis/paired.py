"""Paired comparisons: the same held-out perturbations under two methods."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

__all__ = ["PairedDifference", "paired_difference"]


class PairedDifference(NamedTuple):
    """Mean of the differences, and an interval that holds the true mean with 95% confidence."""

    mean: float
    low: float
    high: float
    n: int


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
