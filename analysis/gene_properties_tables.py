"""How scores of gene properties are printed: as Tables 1 and 9 of PerturBERT's paper are, and what those say."""

from __future__ import annotations

import pandas as pd

from analysis.published import published_gene_table
from analysis.tables import DASH, PrintedTable, in_bold, interval, means

__all__ = [
    "POINT",
    "SCORES",
    "named",
    "printed_areas",
    "printed_classes",
    "printed_gaps",
    "printed_scores",
    "published_areas",
    "wide_areas",
]

SCORES = {"roc_auc": "ROC-AUC", "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall"}
POINT = ["task", "form", "split"]

_DIGITS = 3
_CAPTION = (
    "Logistic regression on frozen embeddings, on the genes that all sources have: mean \u00b1 standard error over"
    " folds; of several classes averages weighted by their sizes. Best in bold, with those within one standard error."
)
_PRINTED = " Printed: Table 9 of PerturBERT's paper, of other genes and labels, not to be ranked with ours."
_AS_PRINTED = ("concatenated", "random")
"""Form and split of pairs in the paper."""
_PAIR_CAPTION = " Random folds of pairs share genes: Degree knows a gene's training pairs alone."


def named(table: pd.DataFrame) -> pd.Series:
    """What a task is called, with form and split where it is of pairs."""
    how = table["form"] + ", " + table["split"] + " folds"
    return table["task"].where(table["form"] == "", table["task"] + " (" + how + ")")


def _cells(table: pd.DataFrame, score: str) -> pd.Series:
    """Means and errors, the best of each task in bold, with those within one standard error of it."""
    texts = means(table[score], table[f"{score}_se"], _DIGITS)
    best = table.groupby(POINT, sort=False)[score].transform("max")
    of_best = table[score].eq(best) * table[f"{score}_se"].fillna(0)
    reach = of_best.groupby([table[name] for name in POINT]).transform("max")
    several = table.groupby(POINT)["source"].transform("nunique") > 1
    return in_bold(texts, (table[score] >= best - reach) & several)


def printed_scores(table: pd.DataFrame) -> PrintedTable:
    """Table 9's layout, what it prints of the same tasks below ours."""
    columns = {"task": named(table), "source": table["source"]} | {one: _cells(table, one) for one in SCORES}
    ours, published = pd.DataFrame(columns), _published(table)
    rows, breaks = [], set()
    for task, part in ours.groupby("task", sort=False):
        breaks |= {len(rows)} if rows else set()
        rows += [tuple(row) for row in part.itertuples(index=False)]
        rows += _published_rows(published[published["named"] == task])
    caption = _CAPTION + (_PAIR_CAPTION + _fewer_folds(table) if (table["form"] != "").any() else "")
    caption += _PRINTED if len(published) else ""
    return PrintedTable(("Task", "Embeddings", *SCORES.values()), rows, caption, n_labels=2, breaks=breaks)


def _published(table: pd.DataFrame) -> pd.DataFrame:
    """What the paper prints of tasks of ours that have its names, `named` as ours are."""
    ours = table[(table["form"] == "") | (table["form"] + "," + table["split"] == ",".join(_AS_PRINTED))]
    ours = pd.DataFrame({"task": ours["task"], "named": named(ours)}).drop_duplicates()
    return ours.merge(published_gene_table(9), on="task")


def _published_rows(published: pd.DataFrame) -> list[tuple[str, ...]]:
    found = []
    for method, part in published.groupby("method", sort=False):
        of_score = part.set_index("metric")
        cells = means(of_score["value"], of_score["spread"], _DIGITS)
        found.append((part["named"].iloc[0], f"{method}, printed", *cells[list(SCORES)]))
    return found


def _fewer_folds(table: pd.DataFrame) -> str:
    """Which tasks of pairs are of fewer folds than their other forms and splits."""
    of_task = table.groupby("task")["n_folds"].transform("max")
    fewer = table.assign(task=named(table))[(table["n_folds"] < of_task) & (table["form"] != "")]
    parts = [f"{task} {n}" for task, n in fewer[["task", "n_folds"]].drop_duplicates().itertuples(index=False)]
    return f" Fewer folds, the others lack one kind of pairs: {', '.join(parts)}." if parts else ""


def wide_areas(table: pd.DataFrame) -> pd.DataFrame:
    """ROC-AUC, a row per task, a column per source."""
    rows = table.assign(task=named(table))
    return rows.pivot(index="task", columns="source", values="roc_auc").loc[rows["task"].unique()].reset_index()


def printed_areas(table: pd.DataFrame) -> PrintedTable:
    """Table 1's layout: a row per task, a column per source."""
    cells = table.assign(task=named(table), cell=_cells(table, "roc_auc"))
    sources = list(dict.fromkeys(table["source"]))
    wide = cells.pivot(index="task", columns="source", values="cell").loc[cells["task"].unique(), sources]
    rows = [(str(task), *row) for task, *row in wide.fillna(DASH).itertuples()]
    return PrintedTable(("Task", *sources), rows, f"ROC-AUC. {_CAPTION}")


def published_areas(table: pd.DataFrame) -> list[PrintedTable]:
    """What Table 1 and the rest of Table 9 print of the same tasks, with the paper's embeddings; none of no task."""
    rows = _published(table)
    rows = rows[rows["metric"] == "roc_auc"]
    if rows.empty:
        return []
    cells = rows.assign(cell=means(rows["value"], rows["spread"], _DIGITS))
    wide = cells.pivot(index="named", columns="method", values="cell").loc[rows["named"].unique()]
    body = [(str(task), *row) for task, *row in wide.itertuples()]
    return [PrintedTable(("Task", *wide.columns), body, f"ROC-AUC.{_PRINTED}")]


def printed_gaps(gaps: pd.DataFrame) -> PrintedTable:
    """Differences from random embeddings."""
    bounds = gaps[["difference", "low", "high"]].to_numpy(float)
    shown = [interval(mean, low, high, _DIGITS) for mean, low, high in bounds]
    rows = list(zip(named(gaps), gaps["source"], shown, strict=True))
    caption = (
        "ROC-AUC less that of random embeddings on the same folds, and Student's 95% interval over folds, which does"
        " not know that folds share training genes: it is too narrow."
    )
    return PrintedTable(("Task", "Embeddings", "Difference (95%)"), rows, caption, n_labels=2)


def printed_classes(classes: pd.DataFrame) -> PrintedTable:
    """Cosines of classes of genes."""
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
