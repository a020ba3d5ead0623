"""What gene embeddings tell about genes: Tables 1 and 9 of PerturBERT's paper on your tasks, and maps of a class.

`python -m analysis.gene_properties FOLDER [--out DIR]` draws it from the result tables of the study.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.gene_properties_tables import (
    POINT,
    SCORES,
    named,
    printed_areas,
    printed_classes,
    printed_gaps,
    printed_scores,
    published_areas,
    wide_areas,
)
from analysis.output import draw_folder_again, output_folders
from analysis.paired import paired_difference
from analysis.tables import write_tables
from histpert.errors import InputError
from histpert.plots import COLORS, CurveStyle, DotPanel, GeneMap, dot_panels, gene_maps, save_figure
from histpert.results import RANDOM, read_table

__all__ = ["SCORES", "against_random", "draw_gene_properties", "main", "summarize_gene_properties"]

DEGREE = "Degree"
"""What tells nothing of a gene but how often it is in a pair."""

_PANELS_AT_MOST = 12
_LIMITS = 0.35, 1.02
"""Of ROC-AUC, the same in all panels; worse folds than these are not seen."""


def draw_gene_properties(folder: Path, out: Path) -> list[Path]:
    """Write `figures/` and `tables/` of a study of gene properties; returns the files written.

    Raises:
        InputError: The tables cannot be read, or `out` cannot be written.
    """
    rows = read_table(folder / "scores.parquet").to_pandas()
    if rows.empty:
        raise InputError(f"{folder / 'scores.parquet'} has no rows: run the study again")
    table, gaps = summarize_gene_properties(rows), against_random(rows)
    with output_folders(out) as (figures, tables):
        paths = write_tables(tables / "roc_auc", wide_areas(table), [printed_areas(table), *published_areas(table)])
        paths += write_tables(tables / "gene_properties", table, [printed_scores(table)])
        paths += write_tables(tables / "against_random", gaps, [printed_gaps(gaps)])
        paths += save_figure(_figure(rows), figures / "gene_properties")
        if (folder / "gene_classes.parquet").exists():
            classes = read_table(folder / "gene_classes.parquet").to_pandas()
            paths += write_tables(tables / "gene_classes", classes, [printed_classes(classes)])
            paths += save_figure(_maps(folder), figures / "gene_classes")
    return paths


def summarize_gene_properties(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per task, form, split and source: mean of each score over folds, its standard error, `_se`."""
    groups = rows.groupby([*POINT, "source"], sort=False)
    columns = {"n_folds": ("fold", "nunique"), "n_test": ("n_test", "sum")}
    columns |= {f"{score}{end}": (score, how) for score in SCORES for end, how in (("", "mean"), ("_se", "sem"))}
    return groups.agg(**columns).reset_index()  # pyright: ignore[reportArgumentType]


def against_random(rows: pd.DataFrame) -> pd.DataFrame:
    """ROC-AUC of each source less that of random embeddings on the same folds, with Student's 95% interval."""
    found = []
    for point, part in rows.groupby(POINT, sort=False):
        wide = part.pivot(index="fold", columns="source", values="roc_auc")
        for source in [one for one in part["source"].unique() if one != RANDOM and RANDOM in wide.columns]:
            gap = paired_difference(wide[source].to_numpy(), wide[RANDOM].to_numpy())
            key = dict(zip(POINT, point, strict=True))
            found.append({**key, "source": source, "difference": gap.mean, "low": gap.low, "high": gap.high})
    return pd.DataFrame(found, columns=[*POINT, "source", "difference", "low", "high"])


def _figure(rows: pd.DataFrame) -> Figure:
    """ROC-AUC of each fold and its mean, a panel per task; the first tasks where there are many."""
    rows = rows.assign(task=named(rows))
    tasks = list(dict.fromkeys(rows["task"]))[:_PANELS_AT_MOST]
    sources = list(dict.fromkeys(rows["source"]))
    floors = (RANDOM, DEGREE)
    styles = {one: CurveStyle("#333333" if one in floors else COLORS[0], "o", thin=one in floors) for one in sources}
    panels = []
    for task in tasks:
        part = rows[rows["task"] == task]
        values = {one: part.loc[part["source"] == one, "roc_auc"].to_numpy(float) for one in sources}
        panels.append(DotPanel(task, values, higher_is_better=True, lines={"chance": 0.5}, limits=_LIMITS))
    chance = {"chance": CurveStyle("#999999", line="--")}
    return dot_panels(panels, styles, chance, columns=min(3, len(panels)), title="ROC-AUC")


def _maps(folder: Path) -> Figure:
    points, pairs = (read_table(folder / f"gene_{name}.parquet").to_pandas() for name in ("map", "cosines"))
    maps = {}
    for source, part in pairs.groupby("source", sort=False):
        here = points[points["source"] == source]
        members = set(here.loc[here["is_member"], "gene"])
        genes = list(dict.fromkeys(part["gene_a"]))
        maps[str(source)] = GeneMap(
            xy=here[["x", "y"]].to_numpy(float),
            is_member=here["is_member"].to_numpy(bool),
            cosines=part["cosine"].to_numpy(float).reshape(len(genes), len(genes)),
            n_members=sum(gene in members for gene in genes),
        )
    first = pairs.iloc[0]
    return gene_maps(maps, f"{first['task']}: {first['gene_class']}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_folder_again(
        "gene_properties",
        "Draw a study of gene properties again, from its result tables.",
        arguments,
        draw_gene_properties,
    )


if __name__ == "__main__":
    sys.exit(main())
