"""What each term of the loss is worth: the paper's Table 4 with our numbers, and a figure over all weights.

`python -m analysis.loss_weights FOLDER [--out DIR]` redraws them from the result tables of a study whose trials differ
in the weights of cross-entropy, Wasserstein-1 and squared error of the mean. They show how weights do on held-out
perturbations; weights for use are to be chosen inside the training folds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.averages import over_folds, same_perturbations
from analysis.methods_tables import SUBJECT
from analysis.output import draw_folder_again, output_folders
from analysis.paired import compared
from analysis.published import published_weights
from analysis.reading import Study, left_out, read_study, refuse_repeats
from analysis.tables import DASH, SHORT, TIE, PrintedTable, heading_of, in_bold, means, write_tables
from histpert.errors import InputError
from histpert.plots import TernaryPanel, save_figure, ternary_panels
from histpert.results import METRICS

__all__ = ["draw_loss_weights", "loss_weights_figure", "main", "read_loss_weights", "summarize_loss_weights"]

_WEIGHTS = ["weight_ce", "weight_wass", "weight_mse"]
_SHOWN = ("pearson_top20", "rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt", "crps")


def draw_loss_weights(folder: Path, out: Path) -> list[Path]:
    """Write `figures/loss_weights.*` and `tables/loss_weights.*` into `out`; returns their paths.

    Raises:
        InputError: The folder holds no study of loss weights, or `out` cannot be written.
    """
    study = read_loss_weights(folder)
    table = summarize_loss_weights(study)
    with output_folders(out) as (figures, tables):
        paths = write_tables(tables / "loss_weights", table, [_printed(table, study)])
        paths += save_figure(loss_weights_figure(table), figures / "loss_weights")
    if study.n_left_out:
        print(left_out(study))
    return paths


def read_loss_weights(folder: Path) -> Study:
    """Read a study of loss weights: its trials of MLP+Hist, their rows with the weights.

    Raises:
        InputError: It has no trials of MLP+Hist, fewer than two triples of weights, or something else varies too.
    """
    study = read_study(folder)
    trials = study.trials[study.trials["method"] == SUBJECT]
    if trials.empty:
        raise InputError(f"{folder} holds no finished trial of {SUBJECT}: give the folder of a study of loss weights")
    trials = trials.assign(**{name: trials[name].round(6) for name in _WEIGHTS})
    refuse_repeats(folder, trials, ["screen", "method", *_WEIGHTS], "the loss weights")
    n_triples = len(trials[_WEIGHTS].drop_duplicates())
    if n_triples < 2:
        one = ", ".join(f"{weight:g}" for weight in trials[_WEIGHTS].iloc[0])
        raise InputError(
            f"all trials in {folder} have the loss weights {one}: give the folder of a study of loss weights"
        )
    rows = study.rows.merge(trials[["trial_id", *_WEIGHTS]], on="trial_id")
    return Study(trials, rows, study.n_trials - len(study.trials) + len(trials))


def summarize_loss_weights(study: Study) -> pd.DataFrame:
    """A row per triple of weights that we tried or the paper prints: first those in its order, then the others.

    Returns:
        Columns `weight_*`; `published_pearson_top20`, NaN for a triple that is not printed; those of
        `analysis.averages.over_folds`; and, for each metric shown, `<metric>_best`, `<metric>_tie` (not
        distinguishable from the best), and the paired difference to the best: `_difference`, `_low`, `_high`,
        `_fold_low`, `_fold_high`.
    """
    rows = same_perturbations(study.rows, ["screen", *_WEIGHTS])
    table, printed = over_folds(rows, _WEIGHTS), published_weights().rename("published_pearson_top20")
    printed.index.names = _WEIGHTS
    order = [*printed.index, *sorted(set(table.index) - set(printed.index), reverse=True)]
    table = table.reindex(pd.MultiIndex.from_tuples(order, names=_WEIGHTS))
    table.insert(0, printed.name, printed.reindex(table.index))
    by_weights = {weights: part for weights, part in rows.groupby(_WEIGHTS)}
    for metric in _SHOWN:
        table = table.join(_against_best(table[metric], by_weights, metric))
    return table.fillna({"n_folds": 0, "n_perturbations": 0}).reset_index()


def _against_best(values: pd.Series, rows: Mapping[Any, pd.DataFrame], metric: str) -> pd.DataFrame:
    """How the rows of each triple differ from those of the triple with the best value."""
    higher = METRICS[metric].higher_is_better
    best = None if values.isna().all() else values.idxmax() if higher else values.idxmin()
    found = {}
    for weights in values.index if best is not None else ():
        if weights not in rows:
            continue
        pair = compared(rows[weights], rows[best], metric)
        found[weights] = {
            f"{metric}_best": weights == best,
            f"{metric}_tie": weights != best and pair.verdict(higher) == "tie",
            f"{metric}_difference": pair.perturbations.mean,
            **{f"{metric}_low": pair.perturbations.low, f"{metric}_high": pair.perturbations.high},
            **{f"{metric}_fold_low": pair.folds.low, f"{metric}_fold_high": pair.folds.high},
        }
    names = ["best", "tie", "difference", "low", "high", "fold_low", "fold_high"]
    table = pd.DataFrame.from_dict(found, orient="index", columns=[f"{metric}_{name}" for name in names])
    table = table.reindex(values.index)
    return table.assign(**{name: table[name].eq(True) for name in table.columns[:2]})


def _printed(table: pd.DataFrame, study: Study) -> PrintedTable:
    cells = [table[name].map("{:g}".format) for name in _WEIGHTS]
    for metric in _SHOWN:
        texts = in_bold(means(table[metric], table[f"{metric}_sd"]), table[f"{metric}_best"])
        cells.append(texts.where(~table[f"{metric}_tie"], texts + f" {TIE}"))
    paper = table["published_pearson_top20"]
    cells.append(paper.map("{:.3f}".format).where(paper.notna(), "not printed"))
    headings = ["CE", "W1", "MSE", *(heading_of(metric) for metric in _SHOWN)]
    groups = [*(["weights"] * 3), *([""] * len(_SHOWN)), "published, other data: K562"]
    breaks = {int(paper.notna().sum())} if paper.isna().any() else set()
    headings.append(heading_of("pearson_top20"))
    rows = list(zip(*cells, strict=True))
    return PrintedTable(headings, rows, _caption(study), groups, n_labels=3, breaks=breaks)


def _caption(study: Study) -> str:
    trials, rows = study.trials, study.rows
    failed = f" {left_out(study)}" if study.n_left_out else ""
    sizes = f"{rows['perturbation'].nunique()} perturbations, {trials['fold'].nunique()} folds"
    return (
        f"Weights of cross-entropy, Wasserstein-1 and squared error of the mean in the loss of {SUBJECT},"
        f" {trials['screen'].iloc[0]} ({sizes}): mean ± standard deviation over folds of the average over held-out"
        " perturbations, the same ones in all rows. Bold: the best of a column."
        f" {TIE}: a tie with it, since Student's 95% interval of the paired difference, over perturbations or over fold"
        " means, holds zero; the best of many is best in part by luck. Rows are in the order of the paper's Table 4,"
        " then those it does not print. These are held-out perturbations: weights for use are to be chosen inside the"
        f" training folds. {DASH}: not tried.{failed}"
    )


def loss_weights_figure(table: pd.DataFrame) -> Figure:
    """A triangle per metric, a hexagon per triple of weights.

    Args:
        table: What `summarize_loss_weights` returns.
    """
    tried = table[table["n_folds"] > 0]
    panels = [
        TernaryPanel(
            SHORT[metric] + (", higher is better" if METRICS[metric].higher_is_better else ", lower is better"),
            tried[_WEIGHTS].to_numpy(float),
            tried[metric].to_numpy(float),
            METRICS[metric].higher_is_better,
            tried[f"{metric}_best"].to_numpy(bool),
            tried[f"{metric}_tie"].to_numpy(bool),
        )
        for metric in _SHOWN
    ]
    corners = ("cross-entropy", "Wasserstein-1", "squared error")
    edges = {"best": "best", "ties": "not distinguishable from the best"}
    return ternary_panels(panels, corners, edges, columns=3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_folder_again(
        "loss_weights",
        "Show what loss weights do, from the result tables of a study of them.",
        arguments,
        draw_loss_weights,
    )


if __name__ == "__main__":
    sys.exit(main())
