"""Reading the two result tables of a study folder, and refusing what does not hold together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from histpert.errors import InputError
from histpert.results import METRICS, PERTURBATION_SCHEMA, TRIAL_SCHEMA, read_table

__all__ = ["Study", "left_out", "read_study", "refuse_repeats"]

_RMAE = [name for name in METRICS if name.startswith("rmae_")]
_SCREEN_NAMES = {"simulated": "simulated screen"}
_SETTINGS = TRIAL_SCHEMA.names[TRIAL_SCHEMA.names.index("embeddings") : TRIAL_SCHEMA.names.index("status")]


@dataclass(frozen=True)
class Study:
    """What study folders hold.

    Attributes:
        trials: A row per finished trial.
        rows: A row per finished trial and held-out perturbation.
        n_trials: Trials in all, finished or not.
    """

    trials: pd.DataFrame
    rows: pd.DataFrame
    n_trials: int

    @property
    def n_left_out(self) -> int:
        """Trials that did not finish."""
        return self.n_trials - len(self.trials)


def left_out(study: Study) -> str:
    """How many trials the numbers lack."""
    return f"{study.n_left_out} of {study.n_trials} trials did not finish: their methods lack those folds here."


def read_study(folder: Path) -> Study:
    """Read `trials.parquet` and `perturbations.parquet`; a run without a variant has the empty one.

    Raises:
        InputError: A table is missing, empty or contradicts the other one, or no trial has finished.
    """
    trials = _read(folder / "trials.parquet", TRIAL_SCHEMA.names)
    rows = _read(folder / "perturbations.parquet", PERTURBATION_SCHEMA.names)
    finished = trials[trials["status"] == "ok"]
    if finished.empty:
        reason = trials["error"].dropna().astype(str).str.split("\n").str[0].head(1).to_list()
        said = f" (the first says: {reason[0]})" if reason else ""
        raise InputError(f"none of the {len(trials)} trials in {folder} finished{said}: run the study again")
    _check_tables_agree(folder, finished, rows)
    rows = rows[rows["trial_id"].isin(finished["trial_id"])]
    return Study(_named(finished), _named(rows), len(trials))


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = read_table(path).to_pandas()
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}: run the study again with this version")
    if table.empty:
        raise InputError(f"{path} has no rows: run the study, or wait until its first trial has finished")
    return table


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(screen=table["screen"].replace(_SCREEN_NAMES), variant=table["variant"].fillna(""))


def _check_tables_agree(folder: Path, trials: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Refuse tables of different runs: each trial's RMAE is the average over its perturbations."""
    averages = rows.groupby("trial_id")[_RMAE].mean().reindex(trials["trial_id"])
    stated = trials.set_index("trial_id")[_RMAE]
    absent = ~trials["trial_id"].isin(rows["trial_id"]).to_numpy()
    differs = (averages - stated).abs() > 1e-6 * stated.abs() + 1e-9
    wrong = trials["trial_id"][absent | differs.any(axis=1).to_numpy()]
    if len(wrong):
        raise InputError(
            f"perturbations.parquet and trials.parquet in {folder} disagree on {len(wrong)} of {len(trials)} trials"
            f" (first: {wrong.iloc[0]}): they come from different runs, run the study again"
        )


def refuse_repeats(folder: Path, trials: pd.DataFrame, point: Sequence[str], varied: str) -> None:
    """Refuse several trials for one point and fold, naming the settings in which they differ.

    Args:
        folder: Where they were read.
        trials: Rows of `trials.parquet`.
        point: Columns that tell the points of the study apart, with `screen` and `method`.
        varied: What such a study varies, in words.

    Raises:
        InputError: A point has two trials in a fold.
    """
    key = [*point, "fold"]
    repeated = trials[trials.duplicated(key, keep=False)]
    if repeated.empty:
        return
    first = repeated[(repeated[key] == repeated[key].iloc[0]).all(axis=1)]
    differing = [name for name in _SETTINGS if first[name].astype(str).nunique() > 1]
    one = first.iloc[0]
    bins = f" with {one['n_bins']} bins" if "n_bins" in point else ""
    raise InputError(
        f"{folder} holds {len(first)} trials of {one['method']}{bins} in fold {one['fold']} of {one['screen']}"
        f" (differing in: {', '.join(differing) or 'nothing'}): give a study that varies only {varied}"
    )
