"""How many bins are enough, in words: the fewest whose error is not told apart from that of the best number.

Compared is the CRPS, which stands for the whole distribution and may be compared across numbers of bins, as likelihood
may not; RMAE has the same rule applied to it, statistic by statistic.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.averages import over_folds, same_perturbations
from analysis.methods_tables import FLOORS, SUBJECT
from analysis.paired import Comparison, compared
from analysis.report_words import against, listed, number, of_pair
from analysis.summary import read_sweeps
from histpert.results import METRICS

__all__ = ["Enough", "bin_sweep", "enough_bins"]

_CRPS = "crps"
_RMAE = ("rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt")


class Enough(NamedTuple):
    """The fewest bins whose error is not worse than that of the best number, by both paired intervals.

    Attributes:
        n_bins: So many.
        best: The number of bins of the lowest error.
        value: The error at `n_bins`.
        below: The next smaller number that was tried, if any, less the best.
        pair: `n_bins` less the best.
    """

    n_bins: int
    best: int
    value: float
    below: tuple[int, Comparison] | None
    pair: Comparison


def bin_sweep(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """How many bins are enough for MLP+Hist, and how it does there against the best floor; for each screen."""
    rows = same_perturbations(read_sweeps([folder]).rows, ["screen", "method", "n_bins"])
    screens = {str(screen): part for screen, part in rows.groupby("screen", sort=False)}
    said = [[f"{screen}: {one}" for one in _of_screen(part)] for screen, part in screens.items()]
    return _of_screen(rows) if len(screens) == 1 else [one for part in zip(*said, strict=False) for one in part]


def enough_bins(rows: pd.DataFrame, metric: str) -> Enough | None:
    """The fewest bins that are enough for one method by one metric; None where it is nowhere defined.

    Args:
        rows: Of `perturbations.parquet`, of one screen and method, each perturbation once at each number of bins.
        metric: Lower is better.
    """
    by_bins = {int(str(n)): part for n, part in rows.groupby("n_bins")}
    values = over_folds(rows, ["n_bins"])[metric].dropna()
    if values.empty:
        return None
    best, below = int(str(values.idxmin())), None
    for n in sorted(n for n in by_bins if n in values.index):
        pair = compared(by_bins[n], by_bins[best], metric)
        if n == best or pair.verdict(METRICS[metric].higher_is_better) != "worse":
            return Enough(n, best, float(values[n]), below, pair)
        below = n, pair
    raise AssertionError("the best number is among those tried")


def _of_screen(rows: pd.DataFrame) -> list[str]:
    own = rows[rows["method"] == SUBJECT]
    found = enough_bins(own, _CRPS) if len(own) else None
    if found is None:
        return [f"No trial of {SUBJECT} has finished."]
    tried = sorted(map(int, own["n_bins"].unique()))
    if len(tried) > 1 and found.pair.folds.n < 2:
        return [f"The CRPS of {SUBJECT} is lowest with {found.best} bins; whether fewer are enough takes two folds."]
    return [*_enough(found, tried), *_against_floor(rows, found.n_bins), *_by_statistic(own, tried)]


def _enough(found: Enough, tried: list[int]) -> list[str]:
    value = number(found.value)
    if len(tried) == 1:
        return [f"One number of bins was tried, {tried[0]}: the CRPS of {SUBJECT} is {value} there."]
    if found.n_bins < found.best:
        return [
            f"{found.n_bins} bins are enough for {SUBJECT}: its CRPS, {value}, is a tie with the lowest, that of"
            f" {found.best} bins ({of_pair(found.pair)})."
        ]
    if found.below is None:
        return [f"{found.best} bins, the fewest tried, are enough for {SUBJECT}: their CRPS, {value}, is the lowest."]
    n, pair = found.below
    most = ", the most that were tried" if found.best == tried[-1] else ""
    more = [f"No more than {found.best} bins were tried: more may be better still."] if most else []
    needs = f"{SUBJECT} needs {found.best} bins{most}: its CRPS, {value}, is worse with {n}"
    return [f"{needs} ({of_pair(pair)}).", *more]


def _against_floor(rows: pd.DataFrame, n_bins: int) -> list[str]:
    """MLP+Hist beside the best floor at the same number of bins."""
    by_method = {str(method): part for method, part in rows[rows["n_bins"] == n_bins].groupby("method")}
    values = {name: over_folds(by_method[name], ["method"])[_CRPS].iloc[0] for name in FLOORS if name in by_method}
    values = {name: value for name, value in values.items() if pd.notna(value)}
    if not values:
        return []
    floor = min(values, key=lambda name: values[name])
    pair = compared(by_method[SUBJECT], by_method[floor], _CRPS)
    verdict = pair.verdict(METRICS[_CRPS].higher_is_better)
    which = "the best floor" if len(values) > 1 else "the floor"
    return [f"With {n_bins} bins the CRPS of {SUBJECT} is {against(verdict, which)}, {floor} ({of_pair(pair)})."]


def _by_statistic(own: pd.DataFrame, tried: list[int]) -> list[str]:
    found = {name: enough_bins(own, name) for name in _RMAE}
    parts = [
        f"{one.n_bins} bins for the {METRICS[name].label.removeprefix('RMAE of the ')}"
        for name, one in found.items()
        if one
    ]
    return [f"The same rule on RMAE gives {listed(parts)}."] if len(tried) > 1 and parts else []
