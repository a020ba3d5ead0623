"""Numbers as sentences have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.paired import Comparison
from analysis.tables import SHORT, decimals
from histpert.results import METRICS

__all__ = ["against", "gap", "listed", "number", "of_pair", "short"]

_VERDICTS = {"better": "better than", "worse": "worse than", "tie": "a tie with", "": "not told apart from"}


def short(metric: str) -> str:
    """A metric's name inside a sentence."""
    return SHORT.get(metric, METRICS[metric].label).rstrip(".")


def against(verdict: str, other: str) -> str:
    """`better than GEARS`, from a verdict of `analysis.paired`; the empty one could not be made."""
    return f"{_VERDICTS[verdict]} {other}"


def number(value: float) -> str:
    """With the digits that tables give it."""
    return f"{value:,.{decimals(pd.Series([value]))}f}".replace("-", "\u2212")


def gap(
    mean: float,
    low: float,
    high: float,
    n: float,
    of: str = "held-out perturbations",
    over_folds: tuple[float, float] | None = None,
) -> str:
    """A difference with its 95% interval, and over how many values it is; without an interval, that it has none.

    Args:
        mean: The difference.
        low: Lower end of its interval.
        high: Upper end.
        n: Number of values.
        of: What they are.
        over_folds: The interval over folds, which a verdict needs too: said where it holds 0 and the other does not.
    """
    if not np.isfinite(mean):
        return "difference not defined"
    ends = [value for value in (mean, low, high) if np.isfinite(value)]
    digits = decimals(pd.Series([max(ends, key=abs)]))
    shown, *bounds = (f"{value:+.{digits}f}".replace("-", "\u2212") for value in (mean, low, high))
    if len(ends) < 3:
        return f"difference {shown}, no interval: {n:,.0f} {of}"
    said = f"difference {shown}, 95% interval {bounds[0]} to {bounds[1]}, {n:,.0f} {of}"
    if over_folds is None or low <= 0 <= high or not over_folds[0] <= 0 <= over_folds[1]:
        return said
    return said + (
        "; the interval over folds holds 0" if np.isfinite(over_folds).all() else "; one fold has none over folds"
    )


def of_pair(pair: Comparison) -> str:
    """The same of two sets of rows that were compared."""
    return gap(*pair.perturbations, over_folds=(pair.folds.low, pair.folds.high))


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
