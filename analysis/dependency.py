"""Which gene embeddings predict gene dependency: Table 2 of PerturBERT's paper with floors, and intervals over lines.

`python -m analysis.dependency FOLDER [--out DIR]` redraws tables and figure from the result tables of a study.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.output import draw_folder_again, output_folders
from analysis.published import published_gene_table
from analysis.tables import DASH, TIE, PrintedTable, in_bold, interval, means, write_tables
from histpert.errors import InputError
from histpert.plots import COLORS, CurveStyle, DotPanel, dot_panels, save_figure
from histpert.results import DEPENDENCY_SCHEMA, RANDOM, read_table

__all__ = ["FLOORS", "SCORES", "differences", "draw_dependency", "main", "read_dependency", "summarize_dependency"]

SCORES = {
    "rmse": ("RMSE", False),
    "mae": ("MAE", False),
    "r2": ("R\u00b2", True),
    "r_within_gene": ("Within-gene r", True),
}
"""Headings, and whether higher is better."""

MEAN, ONE_HOT = "Per-gene mean", "one-hot"
FLOORS = (MEAN, ONE_HOT)
"""What the others are held against: no model, and no embedding."""

_HELD_OUT = {"lines": "Held-out lines", "genes": "Held-out genes in held-out lines"}
_DIGITS = 4
_CAPTION = (
    "Mean ± standard error over fits. Best in bold, with those whose mean ± standard error meets its own, as the paper"
    f" has it; {TIE}: the 95% interval over what is held out of the difference from the best holds zero, whatever the"
    " fits say. Within-gene r: mean over genes of the correlation across lines; a prediction that is the same in all"
    " lines counts as 0."
)


def draw_dependency(folder: Path, out: Path) -> list[Path]:
    """Write `figures/` and `tables/` of a study of gene dependency; returns the files written.

    Raises:
        InputError: The tables cannot be drawn, or `out` cannot be written.
    """
    rows, note = read_dependency(folder)
    table, gaps = summarize_dependency(rows), differences(rows)
    splits = list(rows["split"].unique())
    printed = [_printed(split, table, gaps, note) for split in splits]
    with output_folders(out) as (figures, tables):
        paths = write_tables(tables / "dependency", table, [*printed, _published()])
        paths += write_tables(tables / "dependency_floors", gaps, [_printed_gaps(gaps, note)])
        paths += save_figure(_figure(rows), figures / "dependency")
    return paths


def read_dependency(folder: Path) -> tuple[pd.DataFrame, str]:
    """Rows of scores, and a note on fits that failed.

    Raises:
        InputError: A table cannot be read, has no rows, or is of another study.
    """
    rows, trials = (read_table(folder / f"{name}.parquet").to_pandas() for name in ("scores", "trials"))
    if lacking := [name for name in DEPENDENCY_SCHEMA.names if name not in rows.columns]:
        raise InputError(f"{folder / 'scores.parquet'} has no column {', '.join(lacking)}: give a study of dependency")
    if rows.empty:
        raise InputError(
            f"{folder / 'scores.parquet'} has no rows: run the study, or wait until its first fit has ended"
        )
    n_failed = int((trials["status"] != "ok").sum())
    return rows, f" {n_failed} of {len(trials)} fits failed and are left out." if n_failed else ""


def summarize_dependency(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per split and source: the mean over fits of each score, `_se` its standard error, and what the fits are.

    Args:
        rows: Of `scores.parquet`.
    """
    groups = rows[rows["replicate"] == 0].groupby(["split", "source"], sort=False)
    columns: dict[str, Any] = {name: (name, "first") for name in ("n_train", "n_test")}
    columns |= {"n_fits": ("seed", "nunique"), "n_trees": ("n_trees", "mean")}
    columns |= {"n_genes_constant": ("n_genes_constant", "mean")}
    for score in SCORES:
        columns |= {score: (score, "mean"), f"{score}_se": (score, "sem")}
    return groups.agg(**columns).reset_index()


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Each source less the floors, and less the best source of its split (`of` is best), with bootstrap intervals.

    A row per split, source, other source and score. Scores are averaged over fits first; the 95% interval is that of
    their difference over the samples of what is held out, which are the same ones for all sources.

    Args:
        rows: Of `scores.parquet`.
    """
    found = []
    for split, part in rows.groupby("split", sort=False):
        for score, (_, higher_is_better) in SCORES.items():
            wide = part.pivot_table(index="replicate", columns="source", values=score, sort=False, dropna=False)
            whole = wide.loc[0].dropna()
            best = str(whole.idxmax() if higher_is_better else whole.idxmin()) if len(whole) else ""
            against = [(name, "floor") for name in FLOORS if name in wide.columns] + [(best, "best")] * bool(best)
            for other, kind in against:
                for source in wide.columns.drop(other):
                    gap = wide[source] - wide[other]
                    low, high = (
                        np.nanquantile(gap.iloc[1:], [0.025, 0.975]) if gap.iloc[1:].notna().any() else [np.nan] * 2
                    )
                    key = {"split": split, "source": source, "against": other, "kind": kind, "score": score}
                    found.append({**key, "difference": gap.loc[0], "low": low, "high": high})
    columns = ["split", "source", "against", "kind", "score", "difference", "low", "high"]
    return pd.DataFrame(found, columns=columns)


def _printed(split: str, table: pd.DataFrame, gaps: pd.DataFrame, note: str) -> PrintedTable:
    """The layout of Table 2."""
    own = table[table["split"] == split].reset_index(drop=True)
    ties = gaps[(gaps["split"] == split) & (gaps["kind"] == "best") & (gaps["low"] <= 0) & (gaps["high"] >= 0)]
    cells = [own["source"]]
    for score in SCORES:
        tied = own["source"].isin(ties.loc[ties["score"] == score, "source"])
        texts = means(own[score], own[f"{score}_se"], _DIGITS)
        cells.append(in_bold(texts.where(~tied, texts + TIE), _is_best(own, score)))
    cells.append(own["n_trees"].map("{:,.0f}".format).where(own["source"] != MEAN, DASH))
    first = own.iloc[0]
    fits = f"{own['n_fits'].max()} fits" if own["n_fits"].max() > 1 else "one fit"
    subject = f"{_HELD_OUT[split]}: {first['n_train']:,} training rows, {first['n_test']:,} scored, {fits} each."
    return PrintedTable(
        ("Embedding", *map(_heading, SCORES), "Trees"), list(zip(*cells, strict=True)), f"{subject} {_CAPTION}{note}"
    )


def _is_best(own: pd.DataFrame, score: str) -> pd.Series:
    """The best, and those whose interval of one standard error meets that of the best."""
    sign = 1 if SCORES[score][1] else -1
    value, error = sign * own[score], own[f"{score}_se"].fillna(0)
    if value.notna().sum() < 2:
        return pd.Series(False, own.index)
    best = value.idxmax()
    return value + error >= value[best] - error[best]


def _heading(score: str) -> str:
    name, higher_is_better = SCORES[score]
    return name + (" \u2191" if higher_is_better else " \u2193")


def _published() -> PrintedTable:
    """Table 2 of the paper, as it stands there."""
    rows = published_gene_table(2)
    texts = rows.assign(cell=rows["value"].map("{:.6f}".format) + " ± " + rows["spread"].map("{:.6f}".format))
    columns = [score for score in SCORES if score in set(rows["metric"])]
    wide = texts.pivot(index="method", columns="metric", values="cell").loc[list(rows["method"].unique()), columns]
    body = [(str(name), *row) for name, *row in wide.itertuples()]
    caption = (
        "Printed in Table 2 of PerturBERT's paper: DepMap Q2 2025, held-out lines, mean ± standard error over 20 seeds;"
        " other data than a simulated DepMap, not to be ranked with it. The paper has no mean of genes and no"
        " correlation within genes."
    )
    return PrintedTable(("Embedding", *map(_heading, columns)), body, caption)


def _printed_gaps(gaps: pd.DataFrame, note: str) -> PrintedTable:
    floors = gaps[gaps["kind"] == "floor"]
    body = []
    for (split, against, source), part in floors.groupby(["split", "against", "source"], sort=False):
        of = part.set_index("score")[["difference", "low", "high"]].loc[list(SCORES)]
        shown = [interval(gap, low, high, _DIGITS) for gap, low, high in of.to_numpy(float)]
        body.append((str(split), str(against), str(source), *shown))
    breaks = {row for row in range(1, len(body)) if body[row][:2] != body[row - 1][:2]}
    caption = (
        "Less the floor, averaged over fits, with 95% bootstrap intervals over what is held out: lines, or genes and"
        f" lines. What tells nothing about lines has a within-gene r of 0.{note}"
    )
    headings = ("Held out", "Less", "Embedding", *map(_heading, SCORES))
    return PrintedTable(headings, body, caption, n_labels=3, breaks=breaks)


def _figure(rows: pd.DataFrame) -> Figure:
    """A dot per fit, in the same panels what needs no embedding, in grey, and no model, hollow."""
    whole = rows[rows["replicate"] == 0]
    sources = list(whole["source"].unique())
    panels = []
    for split, part in whole.groupby("split", sort=False):
        for score, (name, higher_is_better) in SCORES.items():
            values = {source: part.loc[part["source"] == source, score].to_numpy(float) for source in sources}
            panels.append(DotPanel(f"{name}, {split}", values, higher_is_better))
    styles = {
        source: CurveStyle("#333333" if source in (*FLOORS, RANDOM) else COLORS[0], "o", thin=source == MEAN)
        for source in sources
    }
    title = "Held out: lines, or genes in held-out lines"
    return dot_panels(panels, styles, {}, columns=len(SCORES), title=title, dot="fit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_folder_again(
        "dependency",
        "Compare gene embeddings by the gene dependency that they predict, from the result tables of a study.",
        arguments,
        draw_dependency,
    )


if __name__ == "__main__":
    sys.exit(main())
