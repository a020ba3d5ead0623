"""The settings with which a study predicted best."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from histpert.errors import InputError
from histpert.results import read_table
from histpert.settings import ModelSettings
from histpert.study_defaults import SUBJECT

__all__ = ["best_settings"]

_SETTINGS = [field.name for field in fields(ModelSettings) if field.name != "seed"]


def best_settings(study: Path) -> tuple[ModelSettings, int]:
    """Settings and number of bins of the best configuration of MLP+Hist: the one of least CRPS on average over folds.

    Of a search it is the one that the search chose, whose folds are others. Folds that not all configurations have are
    left out. The seed is that of the study.

    Args:
        study: Folder of its results.

    Raises:
        InputError: No tables there, or no finished trial of MLP+Hist among them.
    """
    trials = read_table(study / "trials.parquet").to_pandas()
    of_subject = (trials["method"] == SUBJECT) & (trials["status"] == "ok") & (trials["variant"].fillna("") == "")
    trials = trials[of_subject & trials["crps"].notna()]
    choice = study / "choice.json"
    if choice.exists():
        trials = trials[trials["trial_id"].isin(json.loads(choice.read_text(encoding="utf-8"))["trial_ids"]["chosen"])]
    if not len(trials):
        raise InputError(f"--settings-of {study}: no finished trial of {SUBJECT} there; run the study to its end")
    hidden = trials["hidden"].map(lambda sizes: tuple(map(int, sizes)))
    trials = trials.assign(hidden=hidden)
    by_fold = trials.pivot_table(index=["n_bins", *_SETTINGS], columns="fold", values="crps", aggfunc="mean")
    shared = by_fold.dropna(axis="columns")
    best = (shared if shared.shape[1] else by_fold).mean(axis="columns").idxmin()
    n_bins, *values = best if isinstance(best, tuple) else (best,)
    settings = {name: _plain(value) for name, value in zip(_SETTINGS, values, strict=True)}
    return ModelSettings(**settings, seed=int(trials["seed"].iloc[0])), int(n_bins)


def _plain(value: Any) -> Any:
    """A number of Python's own."""
    return value.item() if isinstance(value, np.generic) else value
