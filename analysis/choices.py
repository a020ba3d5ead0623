"""Does it matter? Runs that differ from the defaults in one choice each, against the defaults, as a table.

`python -m analysis.choices FOLDER [--out DIR]` writes it from the result tables of a study whose trials name their
`variant`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.averages import over_folds, same_perturbations
from analysis.methods_tables import method_rank
from analysis.output import draw_folder_again, output_folders
from analysis.paired import Comparison, PairedDifference, compared
from analysis.reading import Study, left_out, read_study, refuse_repeats
from analysis.tables import DASH, PrintedTable, decimals, heading_of, interval, means, write_tables
from histpert.errors import InputError
from histpert.results import METRICS

__all__ = ["DEFAULT", "draw_choices", "main", "printed_choices", "read_choices", "summarize_choices"]

DEFAULT = "default"
"""What a run without a variant is called."""

_SHOWN = (
    *("rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt", "nll", "crps", "energy_distance"),
    *("pearson_top20", "pearson_delta_split", "pds"),
)
_SIDE_BY_SIDE = 5
_NOTHING = PairedDifference(np.nan, -np.inf, np.inf, 0)
_CAPTION = (
    "Runs that differ from the defaults in one choice each. First row of a method: mean ± standard deviation over folds"
    " of the average over held-out perturbations. Other rows: difference to it over the perturbations that both hold"
    " out, and Student's 95% interval, which does not know that perturbations of a fold share a trained model. Better,"
    " worse: that interval and the one over differences of fold means both lie on that side of zero. Where a choice"
    " changes which perturbations are held out together, folds do not pair and no verdict is given. NLL is not compared"
    " across numbers of bins."
)


def draw_choices(folder: Path, out: Path) -> list[Path]:
    """Write `tables/open_choices.*` into `out`; returns their paths.

    Raises:
        InputError: The folder holds no study of choices, or `out` cannot be written.
    """
    study = read_choices(folder)
    table = summarize_choices(study)
    with output_folders(out) as (_, tables):
        paths = write_tables(tables / "open_choices", table, printed_choices(table, study, _CAPTION))
    if study.n_left_out:
        print(left_out(study))
    return paths


def read_choices(folder: Path, default: str = DEFAULT) -> Study:
    """Read a study of choices; runs without a variant get the name of the default.

    Raises:
        InputError: No run has a variant, a method has variants but no default to compare them with, or something
            varies that is not named.
    """
    study = read_study(folder)
    trials, rows = (table.assign(variant=table["variant"].replace("", default)) for table in (study.trials, study.rows))
    if (trials["variant"] == default).all():
        raise InputError(f"no trial in {folder} has a variant: give the folder of a study of choices")
    variants = trials.groupby("method")["variant"].unique()
    without = [str(method) for method, names in variants.items() if default not in names]
    if without:
        raise InputError(
            f"{folder} holds no finished default run of {', '.join(without)} to compare the variants with:"
            " run the study again"
        )
    refuse_repeats(folder, trials, ["screen", "method", "variant"], "what it names")
    return Study(trials, rows, study.n_trials)


def summarize_choices(study: Study, default: str = DEFAULT) -> pd.DataFrame:
    """A row per method and variant, the default first and the others in the order in which they were run.

    Returns:
        Columns of `analysis.averages.over_folds`, `n_bins`, and for each metric shown the paired difference to the
        method's default: `<metric>_difference`, `_low`, `_high`, `_compared` (perturbations), `_fold_low`,
        `_fold_high` and `_verdict` on the variant.
    """
    point = ["method", "variant"]
    rows = same_perturbations(study.rows, ["screen", *point])
    by_point = {key: part for key, part in rows.groupby(point)}
    table = over_folds(rows, point).join(rows.groupby(point)["n_bins"].first())
    found = [
        _against(by_point[method, variant], by_point[method, default], is_default=variant == default)
        for method, variant in table.index
    ]
    table = table.join(pd.DataFrame(found, index=table.index)).reset_index()
    return table.sort_values(point, key=partial(_rank, default), ignore_index=True, kind="stable")


def _rank(default: str, column: pd.Series) -> pd.Series:
    """Methods in printing order, the default before its variants, which stay as they are."""
    return column.map(method_rank) if column.name == "method" else column != default


def _against(rows: pd.DataFrame, default: pd.DataFrame, *, is_default: bool) -> dict[str, float | str]:
    same_bins = rows["n_bins"].iloc[0] == default["n_bins"].iloc[0]
    found: dict[str, float | str] = {}
    for metric in _SHOWN:
        nothing = is_default or (metric == "nll" and not same_bins)
        pair = Comparison(_NOTHING, _NOTHING, np.nan) if nothing else compared(rows, default, metric)
        found |= {
            f"{metric}_difference": pair.perturbations.mean,
            **{f"{metric}_low": pair.perturbations.low, f"{metric}_high": pair.perturbations.high},
            f"{metric}_compared": pair.perturbations.n,
            **{f"{metric}_fold_low": pair.folds.low, f"{metric}_fold_high": pair.folds.high},
            f"{metric}_verdict": pair.verdict(METRICS[metric].higher_is_better),
        }
    return found


def printed_choices(
    table: pd.DataFrame, study: Study, about: str, heading: str = "Variant", default: str = DEFAULT
) -> list[PrintedTable]:
    """As many tables as the metrics need: a page does not hold more than a few intervals side by side.

    Args:
        table: What `summarize_choices` gave.
        study: Of it.
        about: What the caption says.
        heading: Of the column of variants.
        default: The one that the others are compared with.
    """
    n, screen = study.rows["perturbation"].nunique(), study.trials["screen"].iloc[0]
    failed = f" {left_out(study)}" if study.n_left_out else ""
    caption = f"{screen}, {n} perturbations. {about} {DASH}: undefined, or not compared.{failed}"
    is_default = table["variant"] == default
    breaks = {place for place in np.flatnonzero(is_default).tolist() if place}
    tables = []
    for start in range(0, len(_SHOWN), _SIDE_BY_SIDE):
        metrics = _SHOWN[start : start + _SIDE_BY_SIDE]
        columns = [table["method"], table["variant"], *(_cells(table, metric, is_default) for metric in metrics)]
        headings = ("Method", heading, *map(heading_of, metrics))
        rows = list(zip(*columns, strict=True))
        tables.append(PrintedTable(headings, rows, caption, n_labels=2, breaks=breaks))
    return tables


def _cells(table: pd.DataFrame, metric: str, is_default: pd.Series) -> pd.Series:
    digits = decimals(table[metric])
    bounds = table[[f"{metric}_{name}" for name in ("difference", "low", "high")]].to_numpy(float)
    differences = pd.Series([interval(mean, low, high, digits) for mean, low, high in bounds], table.index)
    differences += table[f"{metric}_verdict"].map(lambda verdict: f" {verdict}" if verdict not in ("", "tie") else "")
    return means(table[metric], table[f"{metric}_sd"], digits).where(is_default, differences)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_folder_again(
        "choices", "Compare variants with the defaults of a study, from its result tables.", arguments, draw_choices
    )


if __name__ == "__main__":
    sys.exit(main())
