"""Bin sweeps, averaged: the one path to every number that their figures and tables show.

A point is one (screen, method, number of bins).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.averages import OBSERVED, fold_means, over_folds, same_perturbations, target_parts
from analysis.reading import Study, read_study, refuse_repeats
from histpert.errors import InputError
from histpert.results import METRICS

__all__ = ["read_sweeps", "summarize"]

_POINT = ["screen", "method", "n_bins"]
_RMAE = [name for name in METRICS if name.startswith("rmae_")]


def read_sweeps(folders: Sequence[Path]) -> Study:
    """Read study folders into one sweep; a screen that several folders hold is labelled `screen (folder)`.

    Raises:
        InputError: A table is missing, empty, contradicts the other one, or holds no finished trial or no bin sweep.
    """
    folders = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not folders:
        raise InputError("no study folder is given: name at least one that holds trials.parquet")
    sweeps = [_read_sweep(folder) for folder in folders]
    holders: dict[str, list[Path]] = {}
    for folder, sweep in zip(folders, sweeps, strict=True):
        for screen in sweep.rows["screen"].unique():
            holders.setdefault(screen, []).append(folder)
    for folder, sweep in zip(folders, sweeps, strict=True):
        labels = {screen: _label(screen, folder, holders[screen]) for screen in sweep.rows["screen"].unique()}
        sweep.rows["screen"] = sweep.rows["screen"].map(labels)
    trials = pd.concat([sweep.trials for sweep in sweeps], ignore_index=True)
    rows = pd.concat([sweep.rows for sweep in sweeps], ignore_index=True)
    return Study(trials, rows, sum(sweep.n_trials for sweep in sweeps))


def _label(screen: str, folder: Path, holders: Sequence[Path]) -> str:
    """Name a screen as figures show it, with the shortest end of `folder` that no other holder shares."""
    if len(holders) == 1:
        return screen
    others = [holder.parts for holder in holders if holder != folder]
    depth = 1
    while any(parts[-depth:] == folder.parts[-depth:] for parts in others):
        depth += 1
    return f"{screen} ({'/'.join(folder.parts[-depth:])})"


def _read_sweep(folder: Path) -> Study:
    sweep = read_study(folder)
    without = sweep.trials.loc[sweep.trials["n_bins"].isna(), "method"]
    if len(without):
        raise InputError(
            f"{folder} holds trials of {without.iloc[0]} without a number of bins: give the folder of a bin sweep"
        )
    refuse_repeats(folder, sweep.trials, _POINT, "the number of bins")
    return sweep


def summarize(rows: pd.DataFrame, apart: Sequence[str] = ()) -> pd.DataFrame:
    """Average over perturbations and folds, for all targets and, with `apart`, for those genes and the rest.

    Args:
        rows: `Study.rows` of a sweep.
        apart: Genes whose perturbations, alone or in combination, are also averaged apart from the rest.

    Returns:
        A row per screen, targets, number of bins and method, with the columns of `analysis.averages.over_folds` and,
        for each RMAE, `<metric>_excess`: the mean over folds of the difference to the observed histogram on the same
        bins.

    Raises:
        InputError: A gene of `apart` is in no table, or `apart` leaves no rest.
    """
    parts = target_parts(same_perturbations(rows, _POINT), apart)
    table = pd.concat([_summarize_part(part).assign(targets=name) for name, part in parts.items()], ignore_index=True)
    return table[
        ["screen", "method", "targets", *(name for name in table if name not in ("screen", "method", "targets"))]
    ]


def _summarize_part(rows: pd.DataFrame) -> pd.DataFrame:
    per_fold = fold_means(rows, _POINT)
    # Paired by fold, so that a fold which one of the two lacks does not enter the difference.
    observed = per_fold[per_fold["method"] == OBSERVED][["screen", "n_bins", "fold", *_RMAE]]
    paired = per_fold[[*_POINT, "fold"]].merge(observed, on=["screen", "n_bins", "fold"], how="left")
    excess = per_fold[_POINT].join(per_fold[_RMAE] - paired[_RMAE])
    excess = excess.groupby(_POINT, sort=False)[_RMAE].mean().add_suffix("_excess")
    return over_folds(rows, _POINT).join(excess).reset_index()
