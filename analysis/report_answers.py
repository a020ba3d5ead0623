"""What a study asks, and its answer in words with an interval: studies of the response to unseen perturbations.

All numbers are those of the functions that also draw the study's tables. A difference is of the same held-out
perturbations; `better`, `worse` and `tie` are verdicts of `analysis.paired`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.averages import over_folds, same_perturbations
from analysis.choices import DEFAULT, read_choices, summarize_choices
from analysis.combinations import SUBJECT as PAIRS_SUBJECT
from analysis.combinations import paired_pairs, read_combinations, summarize_combinations
from analysis.loss_weights import read_loss_weights, summarize_loss_weights
from analysis.methods import read_methods
from analysis.methods_paired import paired_comparisons
from analysis.methods_tables import SUBJECT, kind_of
from analysis.report_words import against, gap, listed, number, short
from analysis.search import judgement, read_search, settings_of
from histpert.results import METRICS, RANDOM

__all__ = ["choices", "combinations", "embedding_sources", "loss_weights", "methods", "search"]

Record = Mapping[str, Any]
"""What stands in a study's study.json."""

_HEADLINES = ("crps", "rmae_mean")
_WEIGHTS = ("weight_ce", "weight_wass", "weight_mse")


def methods(folder: Path, record: Record) -> list[str]:
    """The best method by CRPS and by RMAE of the mean, against MLP+Hist, and what ties with that."""
    rows = same_perturbations(read_methods(folder).rows, ["screen", "method"])
    pairs = paired_comparisons({"all": rows})
    pairs = pairs[(pairs["kind"] != "reference") & (pairs["n"] > 0)].set_index("method")
    values = over_folds(rows, ["method"])
    values = values.loc[[kind_of(str(method)) != "reference" for method in values.index]]
    said = []
    for metric in _HEADLINES:
        if values[metric].notna().any():
            said += _best_method(metric, values[metric].dropna(), pairs[pairs["metric"] == metric].to_dict("index"))
    return said


def _best_method(metric: str, values: pd.Series, pairs: Mapping[Any, Any]) -> list[str]:
    ranked = [str(method) for method in values.sort_values().index]
    best, rivals = f"By {short(metric)}, {ranked[0]} is best ({number(values[ranked[0]])})", [*ranked[1:2]]
    other = ranked[0] if ranked[0] != SUBJECT else next(iter(rivals), "")
    if other not in pairs:
        return [f"{best}, with nothing to hold it against."]
    verdict, of = pairs[other]["verdict"], _of_row(pairs[other])
    joint = f"{best}, {against(verdict, SUBJECT)}" if other == ranked[0] else f"{best}; next is {other}, {verdict}"
    ties = [name for name in ranked if name != other and pairs.get(name, {}).get("verdict") == "tie"]
    return [f"{joint} ({of}).", *([f"Also a tie with {SUBJECT}: {listed(ties)}."] if ties else [])]


def _of_row(pair: Mapping[str, Any], of: str = "held-out perturbations") -> str:
    """A row of comparisons: difference and interval."""
    over_folds = pair["fold_low"], pair["fold_high"]
    return gap(pair["difference"], pair["low"], pair["high"], pair["n"], of, over_folds)


def loss_weights(folder: Path, record: Record) -> list[str]:
    """The best triple by CRPS against the triple of the settings."""
    table = summarize_loss_weights(read_loss_weights(folder))
    rows: dict[Any, Any] = table[table["n_folds"] > 0].set_index(list(_WEIGHTS)).to_dict("index")
    best = next((triple for triple, row in rows.items() if row["crps_best"]), None)
    if best is None:
        return ["No triple of weights has a CRPS."]
    ties = [f"{sum(row['crps_tie'] for row in rows.values())} of the other {len(rows) - 1} triples tie with it."]
    said = f"{_triple(best)} has the lowest CRPS ({number(rows[best]['crps'])})"
    model = record.get("settings", {}).get("model", {})
    default = tuple(round(model.get(name, np.nan), 6) for name in _WEIGHTS)
    if default == best:
        return [f"The default, {said}.", *ties]
    if default not in rows:
        return [f"{_upper(said)}.", *ties]
    row = rows[default]
    of = _of_variant(row | {"crps_compared": row["crps_n"]}, "crps")
    verdict = "a tie with it" if row["crps_tie"] else "worse"
    return [f"{_upper(said)}; the default, {_triple(default)}, is {verdict} ({of}).", *ties]


def _triple(weights: tuple[float, ...]) -> str:
    ce, wass, mse = (f"{weight:g}" for weight in weights)
    return f"cross-entropy {ce}, Wasserstein-1 {wass}, squared error {mse}"


def choices(folder: Path, record: Record) -> list[str]:
    """Which variants of MLP+Hist differ from the default in CRPS."""
    table = summarize_choices(read_choices(folder))
    own = table[(table["method"] == SUBJECT) & (table["variant"] != DEFAULT)]
    rows: dict[Any, Any] = own.set_index("variant").to_dict("index")
    if not rows:
        return [f"No variant of {SUBJECT} has finished."]
    by_verdict = {
        name: [variant for variant, row in rows.items() if row["crps_verdict"] == name]
        for name in ("worse", "better", "tie", "")
    }
    if not any(np.isfinite(row["crps_fold_low"]) for row in rows.values()):
        return [f"Not told: with one fold no verdict is given on any of the {len(rows)} choices."]
    moved = by_verdict["worse"] + by_verdict["better"]
    said = [f"{len(moved)} of {len(rows)} choices change the CRPS of {SUBJECT}{': ' if moved else ''}{listed(moved)}."]
    for variant in moved:
        of = _of_variant(rows[variant], "crps")
        said.append(f"{_upper(variant)} is {rows[variant]['crps_verdict']} than the default ({of}).")
    said += [f"Ties with the default: {listed(by_verdict['tie'])}."] if by_verdict["tie"] else []
    rest = [f"{variant} ({_of_variant(rows[variant], 'crps')})" for variant in by_verdict[""]]
    return said + ([f"Without a verdict, as folds do not pair: {listed(rest)}."] if rest else [])


def _upper(name: str) -> str:
    return name[:1].upper() + name[1:]


def _of_variant(row: Mapping[str, Any], metric: str) -> str:
    """The same of a row that has several metrics."""
    of = {name: row[f"{metric}_{name}"] for name in ("difference", "low", "high", "fold_low", "fold_high")}
    return _of_row(of | {"n": row[f"{metric}_compared"]})


def embedding_sources(folder: Path, record: Record) -> list[str]:
    """Per method the best source against random vectors: by CRPS, or by RMAE of the mean of methods of means."""
    table = summarize_choices(read_choices(folder, RANDOM), RANDOM)
    return [_best_source(str(method), part) for method, part in table.groupby("method", sort=False)]


def _best_source(method: str, part: pd.DataFrame) -> str:
    metric = next((name for name in _HEADLINES if part[name].notna().any()), _HEADLINES[-1])
    rows: dict[Any, Any] = part.set_index("variant").to_dict("index")
    others = {source: row[metric] for source, row in rows.items() if source != RANDOM and pd.notna(row[metric])}
    if not others:
        return f"With {method} no source has finished."
    best = min(others, key=lambda source: others[source])
    row = rows[best]
    verdict = against(str(row[f"{metric}_verdict"]), f"{RANDOM} vectors")
    return (
        f"With {method}, {best} has the lowest {short(metric)} of all sources ({number(others[best])}), {verdict}"
        f" ({_of_variant(row, metric)})."
    )


def search(folder: Path, record: Record) -> list[str]:
    """What was chosen against what was given, on perturbations that the search has not seen."""
    found = read_search(folder)
    metric = found.objectives[0]
    difference = judgement(found, metric)
    better = difference.sign == (1 if METRICS[metric].higher_is_better else -1)
    verdict = against("better" if better else "worse" if difference.sign else "tie", "the given ones")
    return [
        f"On perturbations that the search did not see, the {short(metric)} of the chosen settings is {verdict}"
        f" ({gap(*difference)}).",
        f"Chosen of {len(found.configurations)} configurations: {settings_of(found.chosen)}.",
    ]


def combinations(folder: Path, record: Record) -> list[str]:
    """The best on pairs by error of the means and by distance of whole cells, against CellTARNet."""
    study = read_combinations(folder)
    table, pairs = summarize_combinations(study).set_index("point"), paired_pairs(study)
    return [_best_on_pairs(name, table, pairs) for name in ("l2", "edistance") if table[name].notna().any()]


def _best_on_pairs(metric: str, table: pd.DataFrame, pairs: pd.DataFrame) -> str:
    values = table.loc[table["n_folds"] == table["n_folds"].max(), metric].dropna().sort_values()
    ranked = [str(point) for point in values.index]
    best = f"By {METRICS[metric].label}, {ranked[0]} is best ({number(values.iloc[0])})"
    other = ranked[0] if ranked[0] != PAIRS_SUBJECT else next(iter(ranked[1:]), "")
    own: dict[Any, Any] = pairs[pairs["metric"] == metric].set_index("point").to_dict("index")
    if other not in own:
        return f"{best}."
    of = _of_row(own[other], "held-out pairs")
    return f"{best}; {PAIRS_SUBJECT} is {against(own[other]['verdict'], other)} ({of})."
