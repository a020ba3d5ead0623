"""From result tables to means over folds: the one path to every number that a figure or a table of a bin sweep shows.

A *point* is one (screen, method, number of bins). Its value in a fold is the average over the fold's held-out
perturbations; its mean and standard deviation (n - 1) are over folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from histpert.errors import InputError
from histpert.results import METRICS, PERTURBATION_SCHEMA, TRIAL_SCHEMA, read_table

__all__ = ["OBSERVED", "Sweep", "read_sweeps", "summarize"]

OBSERVED = "Observed Hist"
"""The observed cells, binned: what binning alone costs. Not a method, for it has seen the answer."""

_POINT = ["screen", "method", "n_bins"]
_RMAE = [name for name in METRICS if name.startswith("rmae_")]
_SCREEN_NAMES = {"simulated": "simulated screen"}
_SETTINGS = TRIAL_SCHEMA.names[TRIAL_SCHEMA.names.index("embeddings") : TRIAL_SCHEMA.names.index("status")]


@dataclass(frozen=True)
class Sweep:
    """A row per (method, number of bins, held-out perturbation) of finished trials, and how many did not finish."""

    rows: pd.DataFrame
    n_trials: int
    n_left_out: int


def read_sweeps(folders: Sequence[Path]) -> Sweep:
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
    rows = pd.concat([sweep.rows for sweep in sweeps], ignore_index=True)
    return Sweep(rows, sum(sweep.n_trials for sweep in sweeps), sum(sweep.n_left_out for sweep in sweeps))


def _label(screen: str, folder: Path, holders: Sequence[Path]) -> str:
    """Name a screen as figures show it, with the shortest end of `folder` that no other holder shares."""
    name = _SCREEN_NAMES.get(screen, screen)
    if len(holders) == 1:
        return name
    others = [holder.parts for holder in holders if holder != folder]
    depth = 1
    while any(parts[-depth:] == folder.parts[-depth:] for parts in others):
        depth += 1
    return f"{name} ({'/'.join(folder.parts[-depth:])})"


def _read_sweep(folder: Path) -> Sweep:
    trials = _read(folder / "trials.parquet", TRIAL_SCHEMA.names)
    rows = _read(folder / "perturbations.parquet", PERTURBATION_SCHEMA.names)
    finished = trials[trials["status"] == "ok"]
    if finished.empty:
        reason = trials["error"].dropna().astype(str).str.split("\n").str[0].head(1).to_list()
        said = f" (the first says: {reason[0]})" if reason else ""
        raise InputError(f"none of the {len(trials)} trials in {folder} finished{said}: run the study again")
    _refuse_repeats(folder, finished)
    _check_tables_agree(folder, finished, rows)
    rows = rows[rows["trial_id"].isin(finished["trial_id"])].copy()
    return Sweep(rows, len(trials), len(trials) - len(finished))


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = read_table(path).to_pandas()
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}: run the study again with this version")
    if table.empty:
        raise InputError(f"{path} has no rows: run the study, or wait until its first trial has finished")
    return table


def _refuse_repeats(folder: Path, trials: pd.DataFrame) -> None:
    """Refuse what is not a bin sweep: rows without bins, or several trials for one point and fold."""
    if trials["n_bins"].isna().any():
        method = trials.loc[trials["n_bins"].isna(), "method"].iloc[0]
        raise InputError(f"{folder} holds trials of {method} without a number of bins: give the folder of a bin sweep")
    key = [*_POINT, "fold"]
    repeated = trials[trials.duplicated(key, keep=False)]
    if repeated.empty:
        return
    first = repeated[(repeated[key] == repeated[key].iloc[0]).all(axis=1)]
    differing = [name for name in _SETTINGS if first[name].astype(str).nunique() > 1]
    screen, method, n_bins, fold = first[key].iloc[0]
    raise InputError(
        f"{folder} holds {len(first)} trials of {method} with {n_bins} bins in fold {fold} of {screen}"
        f" (differing in: {', '.join(differing) or 'nothing'}): give a study that varies only the number of bins"
    )


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


def summarize(rows: pd.DataFrame, apart: Sequence[str] = ()) -> pd.DataFrame:
    """Average over perturbations and folds, for all targets and, with `apart`, for those genes and the rest.

    Args:
        rows: `Sweep.rows`.
        apart: Genes whose perturbations, alone or in combination, are also averaged apart from the rest.

    Returns:
        A row per screen, targets, number of bins and method. Column `<metric>` is the mean over folds, `<metric>_sd`
        the standard deviation, `<metric>_n` the number of perturbations averaged, `<metric>_excess` the mean over
        folds of the difference to the observed histogram on the same bins.

    Raises:
        InputError: A gene of `apart` is in no table, or `apart` leaves no rest.
    """
    rows = _same_perturbations(rows)
    parts = {"all": rows}
    if apart:
        genes = [{name, *name.split("+")} for name in rows["perturbation"]]
        absent = [gene for gene in apart if not any(gene in names for names in genes)]
        if absent:
            raise InputError(
                f"no perturbation in the tables is named {', '.join(absent)}: check the names to set apart"
            )
        chosen = pd.Series([not names.isdisjoint(apart) for names in genes], index=rows.index)
        if chosen.all():
            raise InputError("the names to set apart cover every perturbation: name fewer, so that a rest remains")
        parts |= {"apart": rows[chosen], "rest": rows[~chosen]}
    table = pd.concat([_summarize_part(part).assign(targets=name) for name, part in parts.items()], ignore_index=True)
    return table[
        ["screen", "method", "targets", *(name for name in table if name not in ("screen", "method", "targets"))]
    ]


def _same_perturbations(rows: pd.DataFrame) -> pd.DataFrame:
    """Blank a metric for a perturbation on which any point lacks it; points that lack it everywhere have no say.

    So all methods, and all numbers of bins of a curve, are averaged over the same perturbations.
    """
    rows = rows.copy()
    for metric in METRICS:
        defined = rows[metric].notna()
        somewhere = defined.groupby([rows[name] for name in _POINT]).transform("any")
        by_perturbation = [rows[name] for name in ("screen", "fold", "perturbation")]
        everywhere = (defined | ~somewhere).groupby(by_perturbation).transform("all")
        rows[metric] = rows[metric].where(everywhere)
    return rows


def _summarize_part(rows: pd.DataFrame) -> pd.DataFrame:
    metrics = list(METRICS)
    per_fold = rows.groupby([*_POINT, "fold"], sort=False)[metrics].mean().reset_index()
    # Paired by fold, so that a fold which one of the two lacks does not enter the difference.
    observed = per_fold[per_fold["method"] == OBSERVED][["screen", "n_bins", "fold", *_RMAE]]
    paired = per_fold[[*_POINT, "fold"]].merge(observed, on=["screen", "n_bins", "fold"], how="left")
    excess = per_fold.assign(**{name: per_fold[name] - paired[name] for name in _RMAE})
    points = rows.groupby(_POINT, sort=False)
    summary = pd.DataFrame({"n_folds": points["fold"].nunique(), "n_perturbations": points["perturbation"].nunique()})
    folds = per_fold.groupby(_POINT, sort=False)
    for name in metrics:
        summary[name] = folds[name].mean()
        summary[f"{name}_sd"] = folds[name].std()
        summary[f"{name}_n"] = points[name].count()
        if name in _RMAE:
            summary[f"{name}_excess"] = excess.groupby(_POINT, sort=False)[name].mean()
    return summary.reset_index()
