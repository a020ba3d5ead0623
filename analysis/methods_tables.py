"""The paper's Tables 1 to 3 with our numbers, and those that the paper prints beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analysis.averages import CEILING, OBSERVED, TARGETS
from analysis.published import published_table
from analysis.tables import DASH, PrintedTable, best_of, heading_of, in_bold, means
from histpert.results import METRICS

__all__ = [
    "FLOORS",
    "LAYOUTS",
    "SUBJECT",
    "Layout",
    "kind_of",
    "label_of",
    "method_rank",
    "numbers_of",
    "printed_methods",
]

SUBJECT = "MLP+Hist"
"""The method that the others are compared with."""

FLOORS = ("Ctrl Hist", "Non-Ctrl Hist", "Non-Ctrl Mean")
"""Predictions that do not look at which gene is perturbed."""

_REFERENCES = {OBSERVED: "binning alone", CEILING: "perfect prediction"}
_ORDER = (
    *("GEARS", "GP", "Ridge", "Neighbors Mean", "MLP+Mean", "Neighbors Hist", "TG", "ZITG", "GP+Hist", "GP+MLP+Hist"),
)
_COSTS = {"train_minutes": ("Minutes", 2), "peak_memory_mb": ("Memory (MB)", 0), "n_parameters": ("Parameters", 0)}
_DISTRIBUTIONAL = ["nll", "crps", "w1", "energy_distance"]


@dataclass(frozen=True)
class Layout:
    """One of the paper's tables: its number, our columns, and what it shows."""

    number: int
    columns: tuple[str, ...]
    caption: str


_DISTRIBUTIONS = (
    *("nll", "rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt", "train_minutes"),
    *("crps", "energy_distance", "w1"),
)
_MEANS = (
    *("pearson_top20", "pearson_top50", "pearson_top100", "rmae_mean"),
    *("pearson_delta", "pearson_delta_split", "pearson_delta_hat", "de_spearman", "pds", "mse_corrected"),
)


LAYOUTS = {
    "methods_distributions": Layout(1, _DISTRIBUTIONS, "Predicted distributions"),
    "methods_means": Layout(2, _MEANS, "Predicted mean shifts"),
    "methods_resources": Layout(3, tuple(_COSTS), "Costs of training, per fold"),
}
"""File name of each table, and what is in it."""


_AVERAGED = (
    "Each fold's value is the average over its held-out perturbations, the same ones for all methods. Bold: the best"
    " method or floor. Floors do not look at which gene is perturbed. Observed Hist is the observed cells, binned: what"
    " binning alone costs; Ceiling is what a perfect prediction would score, given how few cells were observed, over"
    " the perturbations where that can be told. Neither is a method."
)
_PUBLISHED = (
    "Published: Table {} of the paper of the histogram model, other screens, embeddings and machines, not to be ranked"
    " with ours."
)


def kind_of(method: str) -> str:
    """`floor`, `method`, or `reference` for what is no prediction."""
    return "floor" if method in FLOORS else "reference" if method in _REFERENCES else "method"


def label_of(method: str) -> str:
    """A method as tables and figures name it, with what it is where it is no method of its own right."""
    note = "floor" if method in FLOORS else _REFERENCES.get(method, "")
    return f"{method} ({note})" if note else method


def method_rank(method: str) -> tuple[int, int, str]:
    """Floors, then methods in the paper's order, then others by name, the subject, and last what is no method."""
    for section, names in ((0, FLOORS), (1, _ORDER), (3, (SUBJECT,)), (4, tuple(_REFERENCES))):
        if method in names:
            return section, names.index(method), method
    return 2, 0, method


def numbers_of(layout: Layout, table: pd.DataFrame) -> pd.DataFrame:
    """Every number of one table: a row per targets and method of ours or of the paper's.

    Columns: `kind`; for each of the layout's the mean, `_sd` and, for metrics, `_n`; and
    `published_<screen>_<metric>`, with `_sd` where the paper prints one.
    """
    published = _published(layout)
    table = table[table["targets"] == "all"] if layout.number == 3 else table  # costs are those of all targets
    parts = [_part(layout, rows, published).assign(targets=name) for name, rows in table.groupby("targets", sort=False)]
    numbers = pd.concat(parts, ignore_index=True)
    first = ["targets", "method", "kind"]
    return numbers[[*first, *(name for name in numbers if name not in first)]]


def _published(layout: Layout) -> pd.DataFrame:
    """By method, columns in our order."""
    rows = published_table(layout.number)
    columns = {}
    for screen in rows["screen"].unique():
        for name in layout.columns:
            found = rows[(rows["screen"] == screen) & (rows["metric"] == name)].set_index("method")
            if len(found):
                columns[f"published_{screen}_{name}"] = found["value"]
            if found["spread"].notna().any():
                columns[f"published_{screen}_{name}_sd"] = found["spread"]
    return pd.DataFrame(columns)


def _part(layout: Layout, rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    rows = rows.set_index("method")
    if layout.number == 1:
        rows = rows[rows[_DISTRIBUTIONAL].notna().any(axis=1)]
    if layout.number == 3:
        rows = rows[[kind_of(method) != "reference" for method in rows.index]]
    wanted = [column for name in layout.columns for column in (name, f"{name}_sd", f"{name}_n") if column in rows]
    ours = rows[["n_folds", "n_perturbations", *wanted]].copy()
    costs = [column for name in _COSTS for column in (name, f"{name}_sd") if column in ours]
    ours.loc[[kind_of(method) == "reference" for method in ours.index], costs] = np.nan
    methods = sorted({*ours.index, *published.index}, key=method_rank)
    joined = ours.reindex(methods).join(published.reindex(methods)).rename_axis("method").reset_index()
    joined[["n_folds", "n_perturbations"]] = joined[["n_folds", "n_perturbations"]].fillna(0).astype(int)
    return joined.assign(kind=joined["method"].map(kind_of))


def printed_methods(
    layout: Layout, table: pd.DataFrame, subject: str, apart: Sequence[str], note: str
) -> list[PrintedTable]:
    """The table to read, once for each part of the targets; costs are those of all targets.

    Args:
        layout: Which of the tables.
        table: What `analysis.methods.summarize_methods` returns.
        subject: What our numbers are of.
        apart: Genes whose perturbations are shown apart from the rest.
        note: Said at the end of the caption.
    """
    tables = []
    for targets, rows in numbers_of(layout, table).groupby("targets", sort=False):
        printed = [_ours(name, rows) for name in layout.columns], list(_papers(rows))
        named = {name for name, *_ in printed[1]}
        paper = [column for name, *column in printed[0] if name in named] + [column for _, *column in printed[1]]
        beyond = [column for name, *column in printed[0] if name not in named]
        what = partial(_caption, layout, str(targets), subject, apart)
        tables.append(_printed(rows, paper, f"{what()} {_PUBLISHED.format(layout.number)}{note}"))
        if beyond:
            tables.append(_printed(rows[rows["n_folds"] > 0], beyond, what(", beyond the paper's columns") + note))
    return tables


def _printed(rows: pd.DataFrame, columns: Sequence[Sequence[Any]], caption: str) -> PrintedTable:
    groups, headings, cells = zip(("", "Method", rows["method"].map(label_of)), *columns, strict=True)
    kinds = rows["kind"].to_list()
    breaks = {place for place in range(1, len(kinds)) if kinds[place] != kinds[place - 1]}
    texts = [column.loc[rows.index] for column in cells]
    return PrintedTable(headings, list(zip(*texts, strict=True)), caption, groups, breaks=breaks)


def _ours(name: str, rows: pd.DataFrame) -> tuple[str, str, str, pd.Series]:
    """Name, group, heading and cells of one of our columns."""
    heading, digits = _COSTS[name] if name in _COSTS else (heading_of(name), None)
    cells = means(rows[name], rows[f"{name}_sd"] if name != "n_parameters" else rows[name] * np.nan, digits)
    if name in METRICS:
        cells = in_bold(cells, best_of(name, rows[name].where(rows["kind"] != "reference")))
    return name, "", heading, cells


def _papers(rows: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.Series]]:
    """The same of each of the paper's columns."""
    for column in map(str, rows):
        if not column.startswith("published_") or column.endswith("_sd"):
            continue
        place, _, name = column.removeprefix("published_").partition("_")
        heading, digits = _COSTS[name] if name in _COSTS else (heading_of(name), 3)
        texts = means(rows[column], rows[column] * np.nan, digits)
        if f"{column}_sd" in rows:
            texts += rows[f"{column}_sd"].map(lambda sd: "" if pd.isna(sd) else f" ± {sd:.2f}")
        yield name, f"published, other data: {place}", heading, texts


def _caption(layout: Layout, targets: str, subject: str, apart: Sequence[str], which: str = "") -> str:
    named = f" ({', '.join(apart)})" if targets == "apart" else ""
    part = "" if layout.number == 3 else f", {TARGETS[targets]}{named}"
    explained = "" if layout.number == 3 else f" {_AVERAGED}"
    undefined = f" {DASH}: undefined, or not run."
    return f"{layout.caption}{which}: {subject}{part}. Mean ± standard deviation over folds.{explained}{undefined}"
