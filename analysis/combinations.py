"""Which method predicts pairs of perturbations: CellTARNet's table with our numbers beside the printed ones.

`python -m analysis.combinations FOLDER [--out DIR]` redraws tables and figure from the result tables of a study.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.averages import over_folds, same_perturbations
from analysis.output import draw_folder_again, output_folders
from analysis.paired import compared
from analysis.published import published_pairs
from analysis.reading import Study, left_out, read_study, refuse_repeats
from analysis.tables import DASH, PrintedTable, best_of, decimals, heading_of, in_bold, interval, means, write_tables
from histpert.plots import COLORS, CurveStyle, DotPanel, dot_panels, save_figure
from histpert.results import METRICS

__all__ = [
    "COLUMNS",
    "SUBJECT",
    "draw_combinations",
    "main",
    "paired_pairs",
    "read_combinations",
    "summarize_combinations",
]

SUBJECT = "CellTARNet"
COLUMNS = (
    *("l2", "mse", "mae", "de_spearman", "pearson_delta", "pds", "pearson_delta_hat"),
    *("edistance", "mmd", "correlation_error", "crps"),
)
"""Those that the paper prints, and those of whole cells."""
NAMES = {"Ctrl Hist": "Control", "Ridge": "Linear", "MLP+Hist": "MLP+Hist (genes apart)"}
WHOLE = f"{SUBJECT}, nothing left out"
"""On the folds of the rows with a part left out, to read those beside."""
ORDER = ("Control", "Additive", "Linear", "GEARS", "MLP+Hist (genes apart)", "MLP+Hist copula", SUBJECT)
_POINT = ["screen", "point"]
_CAPTION = (
    "Mean ± standard deviation over folds of held-out pairs, the same ones for all methods that ran on all folds; rows"
    f" of {SUBJECT} with a part left out may be of fewer, on which it stands whole beside them. Best in bold, among"
    " methods on all folds. E-distance, MMD and correlations are of whole cells: genes of MLP+Hist are drawn apart,"
    " methods of means shift control cells."
)


def draw_combinations(folder: Path, out: Path) -> list[Path]:
    """Write `figures/` and `tables/` of a study of combinations; returns the files written.

    Raises:
        InputError: The tables cannot be drawn, or `out` cannot be written.
    """
    study = read_combinations(folder)
    note = f" {left_out(study)}" if study.n_left_out else ""
    table, pairs = summarize_combinations(study), paired_pairs(study)
    with output_folders(out) as (figures, tables):
        paths = write_tables(tables / "combinations", table, [_printed(table, study, note), _published()])
        paths += write_tables(tables / "combinations_paired", pairs, [_printed_pairs(pairs, note)])
        paths += save_figure(_figure(study), figures / "combinations")
    return paths


def read_combinations(folder: Path) -> Study:
    """Read a study of combinations, with a column `point`: the method, and the part that it lacks.

    Raises:
        InputError: A table is missing, or holds something else that varies.
    """
    study = _named(read_study(folder))
    refuse_repeats(folder, study.trials, _POINT, "method and variant")
    return study


def _named(study: Study) -> Study:
    def point(rows: pd.DataFrame) -> pd.DataFrame:
        named = rows["method"].replace(NAMES)
        return rows.assign(point=named.where(rows["variant"] == "", named + ", " + rows["variant"]))

    return Study(point(study.trials), point(study.rows), study.n_trials)


def _with_whole(study: Study) -> Study:
    """With the subject once more, on the folds of those rows that are of fewer."""
    fewer = study.trials[~study.trials["point"].isin(_on_all_folds(study))]
    folds = fewer[fewer["method"] == SUBJECT]["fold"].unique()

    def again(rows: pd.DataFrame) -> pd.DataFrame:
        own = rows[(rows["point"] == SUBJECT) & rows["fold"].isin(folds)]
        return pd.concat([rows, own.assign(point=WHOLE)], ignore_index=True)

    return Study(again(study.trials), again(study.rows), study.n_trials)


def _rank(point: str) -> tuple[int, str]:
    if point == WHOLE:
        return ORDER.index(SUBJECT), point
    return (ORDER.index(point), "") if point in ORDER else (len(ORDER), point)


def _on_all_folds(study: Study) -> list[str]:
    folds = study.trials.groupby("point")["fold"].nunique()
    return sorted(folds.index[folds == folds.max()], key=_rank)


def summarize_combinations(study: Study) -> pd.DataFrame:
    """A row per method and variant: of each metric mean and `_sd` over folds, and `_n`, the pairs averaged."""
    study = _with_whole(study)
    everywhere = study.rows["point"].isin(_on_all_folds(study))
    whole = same_perturbations(study.rows[everywhere], ["point"])
    found = pd.concat([over_folds(whole, ["point"]), over_folds(study.rows[~everywhere], ["point"])]).rename_axis(
        "point"
    )
    costs = study.trials.assign(train_minutes=study.trials["train_seconds"] / 60).groupby("point")
    found = found.join(costs["train_minutes"].mean()).reset_index()
    return found.iloc[sorted(range(len(found)), key=lambda row: _rank(found["point"][row]))].reset_index(drop=True)


def paired_pairs(study: Study) -> pd.DataFrame:
    """CellTARNet less each other row on the pairs that both predict: a row per metric and point."""
    by_point: dict[str, pd.DataFrame] = {str(point): rows for point, rows in study.rows.groupby("point")}
    others = sorted(set(by_point) - {SUBJECT}, key=_rank) if SUBJECT in by_point else []
    rows = []
    for metric in COLUMNS:
        for point in others:
            found = compared(by_point[SUBJECT], by_point[point], metric)
            pairs, folds = found.perturbations, found.folds
            rows.append(
                {
                    "metric": metric,
                    "point": point,
                    **{"difference": pairs.mean, "low": pairs.low, "high": pairs.high},
                    **{"fold_low": folds.low, "fold_high": folds.high, "n": pairs.n},
                    "verdict": found.verdict(METRICS[metric].higher_is_better),
                }
            )
    columns = ["metric", "point", "difference", "low", "high", "fold_low", "fold_high", "n", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _printed(table: pd.DataFrame, study: Study, note: str) -> PrintedTable:
    whole = table["point"].isin(_on_all_folds(study))
    cells = [table["point"]]
    for metric in COLUMNS:
        texts = means(table[metric], table[f"{metric}_sd"])
        cells.append(in_bold(texts, best_of(metric, table[metric].where(whole))))
    cells.append(means(table["train_minutes"], table["train_minutes"] * float("nan"), 2))
    headings = ("Method", *map(heading_of, COLUMNS), "Minutes")
    n_pairs = study.rows["perturbation"].nunique()
    subject = (
        f"Held-out pairs: {study.trials['screen'].iloc[0]} ({n_pairs} pairs, {study.trials['fold'].nunique()} folds)."
    )
    breaks = {int(whole.sum())} if not whole.all() else set()
    return PrintedTable(headings, list(zip(*cells, strict=True)), f"{subject} {_CAPTION}{note}", breaks=breaks)


def _published() -> PrintedTable:
    """Table 1 of the paper, as it stands there."""
    rows = published_pairs()
    columns = [metric for metric in COLUMNS if metric in set(rows["metric"])]
    wide = rows.pivot(index="method", columns="metric", values="value").loc[list(rows["method"].unique()), columns]
    texts = wide.map(lambda value: DASH if pd.isna(value) else f"{value:g}")
    body = [(str(name), *row) for name, *row in texts.itertuples()]
    caption = (
        "Printed in Table 1 of CellTARNet's paper: Norman et al. 2019, 10 folds of pairs; other data, not to be ranked"
        " with ours. Its Control has another PDS than ours, of which a constant prediction has 0.5 + 1/(2N)."
    )
    return PrintedTable(("Method", *map(heading_of, columns)), body, caption)


def _printed_pairs(pairs: pd.DataFrame, note: str) -> PrintedTable:
    rows = []
    for metric, part in pairs.groupby("metric", sort=False):
        digits = decimals(part["difference"])
        for row in part.to_dict("records"):
            shown = interval(row["difference"], row["low"], row["high"], digits) if row["n"] else DASH
            rows.append((heading_of(str(metric)), row["point"], shown, row["verdict"] or DASH, str(row["n"])))
    caption = (
        f"{SUBJECT} less each other method, over pairs that both predict; 95% intervals over pairs. A verdict needs the"
        f" intervals over pairs and over folds to agree.{note}"
    )
    return PrintedTable(("Metric", "Against", "Difference (95%)", "Verdict", "Pairs"), rows, caption, n_labels=2)


def _figure(study: Study):
    study = _with_whole(study)
    points = sorted(study.rows["point"].unique(), key=_rank)
    per_fold = study.rows.groupby(["point", "fold"])[list(COLUMNS)].mean()
    panels = []
    for metric in ("l2", "pearson_delta", "pearson_delta_hat", "pds", "edistance", "mmd", "correlation_error", "crps"):
        rows = {point: per_fold.loc[point, metric].to_numpy(float) for point in points}
        panels.append(DotPanel(METRICS[metric].label, rows, METRICS[metric].higher_is_better, {}))
    styles = {}
    for point in points:
        styles[point] = CurveStyle(COLORS[0] if point == SUBJECT else "#333333", "o" if point in ORDER else "D")
    return dot_panels(panels, styles, {}, columns=4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_folder_again(
        "combinations",
        "Compare methods on held-out pairs, from the result tables of a study.",
        arguments,
        draw_combinations,
    )


if __name__ == "__main__":
    sys.exit(main())
