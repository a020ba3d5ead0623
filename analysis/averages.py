"""From rows of perturbations to means over folds, the same perturbations for all that is compared.

A *point* is what is compared: a method, a number of bins, loss weights, a variant. Its value in a fold is the average
over the fold's held-out perturbations; its mean and standard deviation (n - 1) are over folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from histpert.errors import InputError
from histpert.results import METRICS

__all__ = ["CEILING", "OBSERVED", "TARGETS", "fold_means", "over_folds", "same_perturbations", "target_parts"]

OBSERVED = "Observed Hist"
"""The observed cells, binned: what binning alone costs. Not a method, for it has seen the answer."""

CEILING = "Ceiling"
"""What a perfect prediction would score, given how few cells were observed. Not a method."""

TARGETS = {"all": "all perturbations", "apart": "the targets set apart", "rest": "all other targets"}
"""Parts of the held-out perturbations, and what they are called."""


def same_perturbations(rows: pd.DataFrame, point: Sequence[str]) -> pd.DataFrame:
    """Blank a metric for a perturbation on which any point lacks it; points that lack it everywhere have no say.

    So all points of a screen are averaged over the same perturbations. The ceiling has no say either: it is undefined
    where cells are too few to tell, which is no reason to leave the perturbation out for the methods.
    """
    rows = rows.copy()
    perturbation = [rows["screen"], rows["perturbation"]]
    for metric in METRICS:
        defined = rows[metric].notna()
        somewhere = defined.groupby([rows[name] for name in point]).transform("any")
        no_say = ~somewhere | (rows["method"] == CEILING)
        rows[metric] = rows[metric].where((defined | no_say).groupby(perturbation).transform("all"))
    return rows


def target_parts(rows: pd.DataFrame, apart: Sequence[str]) -> Mapping[str, pd.DataFrame]:
    """The rows of all targets and, where genes are set apart, of those, alone or in combination, and of the rest.

    Raises:
        InputError: A gene of `apart` is in no table, or `apart` leaves no rest.
    """
    if not apart:
        return {"all": rows}
    genes = [{name, *name.split("+")} for name in rows["perturbation"]]
    absent = [gene for gene in apart if not any(gene in names for names in genes)]
    if absent:
        raise InputError(f"no perturbation in the tables is named {', '.join(absent)}: check the names to set apart")
    chosen = pd.Series([not names.isdisjoint(apart) for names in genes], index=rows.index)
    if chosen.all():
        raise InputError("the names to set apart cover every perturbation: name fewer, so that a rest remains")
    return {"all": rows, "apart": rows[chosen], "rest": rows[~chosen]}


def fold_means(rows: pd.DataFrame, point: Sequence[str]) -> pd.DataFrame:
    """A row per point and fold: each metric's average over the perturbations where it is defined."""
    return rows.groupby([*point, "fold"], sort=False)[list(METRICS)].mean().reset_index()


def over_folds(rows: pd.DataFrame, point: Sequence[str]) -> pd.DataFrame:
    """A row per point, indexed by it, in order of appearance.

    Column `<metric>` is the mean over folds, `<metric>_sd` the standard deviation, `<metric>_n` the number of
    perturbations averaged; `n_folds` and `n_perturbations` are those of the point.
    """
    points, folds = rows.groupby(list(point), sort=False), fold_means(rows, point).groupby(list(point), sort=False)
    columns = {"n_folds": points["fold"].nunique(), "n_perturbations": points["perturbation"].nunique()}
    for name in METRICS:
        columns |= {name: folds[name].mean(), f"{name}_sd": folds[name].std(), f"{name}_n": points[name].count()}
    return pd.DataFrame(columns)
