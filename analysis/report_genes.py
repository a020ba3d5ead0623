"""The answers of studies that predict no perturbation: gene embeddings, what training costs, and screens compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.dependency import MEAN, SCORES, differences, read_dependency, summarize_dependency
from analysis.gene_properties import against_random
from analysis.gene_properties_tables import named
from analysis.paired import paired_difference
from analysis.pretrain import summarize_pretrain
from analysis.report_tables import read_numbers
from analysis.report_words import gap, number
from histpert.results import RANDOM, read_table

__all__ = ["compare_screens", "dependency", "gene_properties", "pretrain", "resources"]

Record = Mapping[str, Any]
"""What stands in a study's study.json."""

_SCORE = "rmse"
"""By which sources are ranked that predict dependency."""


def pretrain(folder: Path, record: Record) -> list[str]:
    """The cross-entropy of test signatures beside that of marginal frequencies."""
    table = summarize_pretrain(read_table(folder / "scores.parquet").to_pandas())
    part = "test" if table["test_loss"].notna().any() else "validation"
    marginal = "test_marginal_loss" if part == "test" else "marginal_loss"
    ours, theirs = table[f"{part}_loss"], table[marginal]
    less = f"{table[f'{part}_gain'].mean():.1%} less than that of the frequencies of each gene's bins"
    said = (
        f"On {part} signatures the cross-entropy of masked responses is {number(ours.mean())} nats, {less}"
        f" ({number(theirs.mean())})"
    )
    if len(table) == 1:
        return [f"{said}.", "One training has no interval."]
    return [f"{said} ({gap(*paired_difference(ours.to_numpy(), theirs.to_numpy()), 'folds')})."]


def gene_properties(folder: Path, record: Record) -> list[str]:
    """In how many tasks each source is told apart from random embeddings, and its largest gain."""
    rows = read_table(folder / "scores.parquet").to_pandas()
    gaps, n_folds = against_random(rows), int(rows["fold"].nunique())
    if gaps.empty:
        return [f"{RANDOM} embeddings, with which sources are compared, are not among those tried."]
    return [_of_source(str(source), part, n_folds) for source, part in gaps.groupby("source", sort=False)]


def _of_source(source: str, gaps: pd.DataFrame, n_folds: int) -> str:
    tasks: list[dict[Any, Any]] = gaps.assign(task=named(gaps)).dropna(subset=["difference"]).to_dict("records")
    n_better = sum(task["low"] > 0 for task in tasks)
    said = f"{source} tells more than {RANDOM} in {n_better} of {len(gaps)} tasks"
    if not tasks:
        return f"{said}."
    top = max(tasks, key=lambda task: task["difference"])
    of = gap(top["difference"], top["low"], top["high"], n_folds, "folds")
    return f"{said}, most in {top['task']} (ROC-AUC: {of})."


def dependency(folder: Path, record: Record) -> list[str]:
    """The source of the lowest error in each split, against the mean of each gene, with its bootstrap interval."""
    rows, _ = read_dependency(folder)
    n_samples = int(rows["replicate"].max())
    gaps = differences(rows)
    gaps = gaps[(gaps["against"] == MEAN) & (gaps["kind"] == "floor") & (gaps["score"] == _SCORE)]
    said = []
    for split, part in summarize_dependency(rows).groupby("split", sort=False):
        values = part.set_index("source")[_SCORE].dropna().sort_values()
        best = str(values.index[0])
        start = f"Of held-out {split}, {best} has the lowest {SCORES[_SCORE][0]} ({number(float(values.iloc[0]))})"
        for row in gaps[(gaps["split"] == split) & (gaps["source"] == best)].to_dict("records"):
            of = gap(row["difference"], row["low"], row["high"], n_samples, "bootstrap samples")
            start += f", held against the {MEAN[0].lower()}{MEAN[1:]} ({of})"
        said.append(f"{start}.")
    return said


def resources(folder: Path, record: Record) -> list[str]:
    """Seconds per fold of each method, and how many times its floor a step takes."""
    table = read_numbers(folder / "tables" / "resources.csv")
    said = [
        f"{row['method']} with {row['n_bins']:g} bins takes {row['seconds_per_fold']:,.1f} s per fold, a step"
        f" {row['ratio']:,.1f} times its floor."
        for row in table.to_dict("records")
    ]
    return [*said, "Each was measured once: there is no interval."]


def compare_screens(folder: Path, record: Record) -> list[str]:
    """Where two screens' distributions lie farthest apart, and where nearest."""
    table = read_numbers(folder / "tables" / "screens.csv").dropna(subset=["distance"]).sort_values("distance")
    if table.empty:
        return ["No statistic is defined in both screens."]
    first, last, either = table.iloc[0], table.iloc[-1], f"{table['screen_1'].iloc[0]} and {table['screen_2'].iloc[0]}"
    return [
        f"{either} are farthest apart in {_lower(last['statistic'])} (Kolmogorov-Smirnov distance"
        f" {last['distance']:.2f}) and nearest in {_lower(first['statistic'])} ({first['distance']:.2f})."
    ]


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]
