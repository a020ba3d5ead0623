"""What gene embeddings tell about genes: Tables 1 and 9 of PerturBERT's paper on your tasks, and maps of a class.

`python -m analysis.gene_properties FOLDER [--out DIR]` draws it from the result tables of the study.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis.output import draw_again, output_folders
from analysis.paired import paired_difference
from analysis.published import published_gene_table
from analysis.tables import DASH, PrintedTable, in_bold, interval, means, write_tables
from histpert.errors import InputError
from histpert.plots import COLORS, CurveStyle, DotPanel, GeneMap, dot_panels, gene_maps, save_figure
from histpert.results import read_table

__all__ = ["RANDOM", "SCORES", "against_random", "draw_gene_properties", "main", "summarize_gene_properties"]

SCORES = {"roc_auc": "ROC-AUC", "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall"}
RANDOM, DEGREE = "Random", "Degree"
"""What tells nothing of a gene, and what tells nothing but how often it is in a pair."""

_POINT = ["task", "form", "split"]
_DIGITS = 3
_CAPTION = (
    "Logistic regression on frozen embeddings, on the genes that all sources have: mean \u00b1 standard error over"
    " folds; of several classes averages weighted by their sizes. Best in bold, with those within one standard error."
    " Printed: Table 9 of PerturBERT's paper, of other genes and labels."
)
_PAIR_CAPTION = " Random folds of pairs share genes: Degree knows a gene's training pairs alone."
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
        paths = write_tables(tables / "roc_auc", _wide(table), [_printed_areas(table)])
        paths += write_tables(tables / "gene_properties", table, [_printed(table)])
        paths += write_tables(tables / "against_random", gaps, [_printed_gaps(gaps)])
        paths += save_figure(_figure(rows), figures / "gene_properties")
        if (folder / "gene_classes.parquet").exists():
            classes = read_table(folder / "gene_classes.parquet").to_pandas()
            paths += write_tables(tables / "gene_classes", classes, [_printed_classes(classes)])
            paths += save_figure(_maps(folder), figures / "gene_classes")
    return paths


def summarize_gene_properties(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per task, form, split and source: mean of each score over folds, and its standard error, `_se`."""
    groups = rows.groupby([*_POINT, "source"], sort=False)
    columns = {"n_folds": ("fold", "nunique"), "n_genes": ("n_test", "sum")}
    columns |= {f"{score}{end}": (score, how) for score in SCORES for end, how in (("", "mean"), ("_se", "sem"))}
    return groups.agg(**columns).reset_index()  # pyright: ignore[reportArgumentType]


def against_random(rows: pd.DataFrame) -> pd.DataFrame:
    """ROC-AUC of each source less that of random embeddings on the same folds, with Student's 95% interval."""
    found = []
    for point, part in rows.groupby(_POINT, sort=False):
        wide = part.pivot(index="fold", columns="source", values="roc_auc")
        for source in [one for one in part["source"].unique() if one != RANDOM and RANDOM in wide.columns]:
            gap = paired_difference(wide[source].to_numpy(), wide[RANDOM].to_numpy())
            key = dict(zip(_POINT, point, strict=True))
            found.append({**key, "source": source, "difference": gap.mean, "low": gap.low, "high": gap.high})
    return pd.DataFrame(found, columns=[*_POINT, "source", "difference", "low", "high"])


def _named(table: pd.DataFrame) -> pd.Series:
    """What a task is called, with form and split where it is of pairs."""
    how = table["form"] + ", " + table["split"] + " folds"
    return table["task"].where(table["form"] == "", table["task"] + " (" + how + ")")


def _cells(table: pd.DataFrame, score: str) -> pd.Series:
    """Means and errors, the best of each task in bold, with those within one standard error of it."""
    texts = means(table[score], table[f"{score}_se"], _DIGITS)
    best = table.groupby(_POINT, sort=False)[score].transform("max")
    of_best = table[score].eq(best) * table[f"{score}_se"].fillna(0)
    reach = of_best.groupby([table[name] for name in _POINT]).transform("max")
    several = table.groupby(_POINT)["source"].transform("nunique") > 1
    return in_bold(texts, (table[score] >= best - reach) & several)


def _printed(table: pd.DataFrame) -> PrintedTable:
    """Table 9's layout, what it prints of the same tasks below ours."""
    named = _named(table)
    ours = pd.DataFrame({"task": named, "source": table["source"]} | {one: _cells(table, one) for one in SCORES})
    rows, breaks = [], set()
    for task, part in ours.groupby("task", sort=False):
        breaks |= {len(rows)} if rows else set()
        rows += [tuple(row) for row in part.itertuples(index=False)]
        rows += _published_rows(str(task))
    caption = _CAPTION + (_PAIR_CAPTION if (table["form"] != "").any() else "")
    return PrintedTable(("Task", "Embeddings", *SCORES.values()), rows, caption, n_labels=2, breaks=breaks)


def _published_rows(task: str) -> list[tuple[str, ...]]:
    rows = published_gene_table(9)
    rows = rows[rows["task"] == task]
    found = []
    for method, part in rows.groupby("method", sort=False):
        of_score = part.set_index("metric")
        cells = means(of_score["value"], of_score["spread"], _DIGITS)
        found.append((task, f"{method}, printed", *cells[list(SCORES)]))
    return found


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    named = table.assign(task=_named(table))
    return named.pivot(index="task", columns="source", values="roc_auc").loc[named["task"].unique()].reset_index()


def _printed_areas(table: pd.DataFrame) -> PrintedTable:
    """Table 1's layout: a row per task, a column per source."""
    cells = table.assign(task=_named(table), cell=_cells(table, "roc_auc"))
    sources = list(dict.fromkeys(table["source"]))
    wide = cells.pivot(index="task", columns="source", values="cell").loc[cells["task"].unique(), sources]
    rows = [(str(task), *row) for task, *row in wide.fillna(DASH).itertuples()]
    return PrintedTable(("Task", *sources), rows, f"ROC-AUC. {_CAPTION}")


def _printed_gaps(gaps: pd.DataFrame) -> PrintedTable:
    bounds = gaps[["difference", "low", "high"]].to_numpy(float)
    shown = [interval(mean, low, high, _DIGITS) for mean, low, high in bounds]
    rows = list(zip(_named(gaps), gaps["source"], shown, strict=True))
    caption = (
        "ROC-AUC less that of random embeddings on the same folds, and Student's 95% interval over folds, which does"
        " not know that folds share training genes: it is too narrow."
    )
    return PrintedTable(("Task", "Embeddings", "Difference (95%)"), rows, caption, n_labels=2)


def _printed_classes(classes: pd.DataFrame) -> PrintedTable:
    numbers = [classes[name].map(f"{{:.{_DIGITS}f}}".format) for name in ("within", "between")]
    p = classes["p"].map("{:.2g}".format)
    genes = classes["n_genes"].astype(str) + " of " + (classes["n_genes"] + classes["n_others"]).astype(str)
    rows = list(zip(classes["task"], classes["gene_class"], classes["source"], genes, *numbers, p, strict=True))
    headings = ("Task", "Class", "Embeddings", "Genes", "Within", "Between", "p")
    caption = (
        "Mean cosine of two genes of a class, and of one and another gene of the task, about the mean of all; p: share"
        " of permutations of the labels, and of the labels as they are, that differ by as much."
    )
    return PrintedTable(headings, rows, caption, n_labels=3)


def _figure(rows: pd.DataFrame) -> Figure:
    """ROC-AUC of each fold and its mean, a panel per task; the first tasks where there are many."""
    named = rows.assign(task=_named(rows))
    tasks = list(dict.fromkeys(named["task"]))[:_PANELS_AT_MOST]
    sources = list(dict.fromkeys(named["source"]))
    floors = (RANDOM, DEGREE)
    styles = {one: CurveStyle("#333333" if one in floors else COLORS[0], "o", thin=one in floors) for one in sources}
    panels = []
    for task in tasks:
        part = named[named["task"] == task]
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


@dataclass(frozen=True)
class Options:
    """Draw a study of gene properties again, from its result tables."""

    folder: tyro.conf.Positional[Path]
    """Study folder with scores.parquet."""
    out: Path | None = None
    """Where figures/ and tables/ are written; the study folder by default."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""

    def draw(given: Options) -> list[Path]:
        return draw_gene_properties(given.folder, given.out or given.folder)

    return draw_again("gene_properties", Options, arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
