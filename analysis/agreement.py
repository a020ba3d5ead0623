"""Do two runs of a study agree? Row by row, metric by metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histpert.results import METRICS, read_table

__all__ = ["describe_agreement"]

_KEYS = (["trial_id", "perturbation"], ["method", "n_bins", "fold", "perturbation"])
"""What makes rows the same: where no trial is the same, since data or versions differ, its place in the study."""


def describe_agreement(first: Path, second: Path) -> Iterator[str]:
    """Lines that say how far the rows of two study folders agree; none where one has no table of them.

    Those of `perturbations.parquet`, metric by metric; of studies that have none, those of `scores.parquet`, number by
    number.
    """
    scores = [folder / "scores.parquet" for folder in (first, second)]
    if all(path.exists() for path in scores):
        yield from _agreement_of_scores(*(read_table(path).to_pandas() for path in scores))
        return
    paths = [folder / "perturbations.parquet" for folder in (first, second)]
    if not all(path.exists() for path in paths):
        return
    one, other = (read_table(path).to_pandas() for path in paths)
    key = next((key for key in _KEYS if len(one.merge(other, on=key))), _KEYS[1])
    if one.duplicated(key).any() or other.duplicated(key).any():
        yield "no trial is the same, and their rows cannot be told apart by method, number of bins and fold"
        return
    both = one.merge(other, on=key, suffixes=("", "_again"))
    if len(both) < max(len(one), len(other)):
        yield f"{len(one)} rows then, {len(other)} now, {len(both)} of them of the same trial and perturbation"
    yield from _said(both, list(METRICS))


def _agreement_of_scores(one: pd.DataFrame, other: pd.DataFrame) -> Iterator[str]:
    numbers = [name for name in one.columns if one[name].dtype.kind == "f"]
    key = [name for name in one.columns if name not in numbers]
    numbers = [name for name in numbers if "second" not in name]  # how long it took
    both = one.merge(other, on=key, suffixes=("", "_again"))
    if len(both) != len(one) or len(both) != len(other):
        yield f"{len(one)} rows then, {len(other)} now, {len(both)} of them of the same {', '.join(key)}"
    yield from _said(both, numbers)


def _said(both: pd.DataFrame, names: Sequence[str]) -> Iterator[str]:
    """Which numbers of the rows that both runs have moved."""
    moved = [
        line
        for name in names
        if (line := _moved(name, both[name].to_numpy(float), both[f"{name}_again"].to_numpy(float)))
    ]
    if moved:
        yield f"of {len(both)} rows these moved: {'; '.join(moved)}"
    elif len(both):
        yield f"all {len(both)} rows are the same to the last digit"


def _moved(name: str, then: np.ndarray, now: np.ndarray) -> str:
    """How a metric moved, empty where it did not."""
    undefined = np.isnan(then) != np.isnan(now)
    differs = (then != now) & ~np.isnan(then) & ~np.isnan(now)
    parts = []
    if differs.any():
        parts.append(f"in {np.count_nonzero(differs)} rows by up to {np.abs(now - then)[differs].max():.2g}")
    if undefined.any():
        parts.append(f"in {np.count_nonzero(undefined)} rows defined in one run only")
    return f"{name} {' and '.join(parts)}" if parts else ""
