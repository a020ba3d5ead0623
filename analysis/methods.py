"""Which method predicts best: the tables of the histogram paper with our numbers beside its own, and two figures.

`python -m analysis.methods FOLDER [--out DIR] [--apart GENE ...]` redraws them from the result tables of a study that
tried several methods on the same folds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from analysis.averages import fold_means, over_folds, same_perturbations, target_parts
from analysis.methods_figures import calibration_figure, methods_figure
from analysis.methods_paired import paired_comparisons, printed_comparisons
from analysis.methods_tables import LAYOUTS, SUBJECT, method_rank, numbers_of, printed_methods
from analysis.output import draw_again, output_folders
from analysis.reading import Study, left_out, read_study, refuse_repeats
from analysis.tables import write_tables
from histpert.errors import InputError
from histpert.plots import save_figure

__all__ = ["draw_methods", "main", "read_methods", "summarize_methods"]

_POINT = ["screen", "method"]
_COSTS = ["train_minutes", "peak_memory_mb", "n_parameters"]


def draw_methods(folder: Path, out: Path, apart: Sequence[str] = ()) -> list[Path]:
    """Write `figures/` and `tables/` that compare methods.

    Args:
        folder: Study folder with trials.parquet and perturbations.parquet.
        out: Where to write.
        apart: Genes whose perturbations are also shown apart from the rest.

    Returns:
        The files written.

    Raises:
        InputError: The tables cannot be drawn, or `out` cannot be written.
    """
    study = read_methods(folder)
    parts = target_parts(same_perturbations(study.rows, _POINT), apart)
    table, pairs = summarize_methods(study, parts), paired_comparisons(parts)
    note = f" {left_out(study)}" if study.n_left_out else ""
    paths = []
    with output_folders(out) as (figures, tables):
        for name, layout in LAYOUTS.items():
            printed = printed_methods(layout, table, _subject_of(study), apart, note)
            paths += write_tables(tables / name, numbers_of(layout, table), printed)
        paths += write_tables(tables / "methods_paired", pairs, printed_comparisons(pairs, apart, note))
        for targets, rows in parts.items():
            suffix = "" if targets == "all" else f"_{targets}"
            per_fold = fold_means(rows, ["method"])
            paths += save_figure(methods_figure(per_fold, targets), figures / f"methods{suffix}")
            if calibration := calibration_figure(per_fold, targets):
                paths += save_figure(calibration, figures / f"calibration{suffix}")
    if study.n_left_out:
        print(left_out(study))
    return paths


def read_methods(folder: Path) -> Study:
    """Read a study of methods.

    Raises:
        InputError: It is none: several screens or numbers of bins, several trials of a method in a fold, or nothing of
            the method that all others are compared with.
    """
    study = read_study(folder)
    for column, what in {"screen": "screens", "n_bins": "numbers of bins"}.items():
        values = sorted(study.trials[column].dropna().unique())
        if len(values) > 1:
            named = ", ".join(f"{value:g}" if column == "n_bins" else str(value) for value in values)
            raise InputError(
                f"{folder} holds {what} {named}: methods are compared on one, give the folder of such a study"
            )
    refuse_repeats(folder, study.trials, _POINT, "the method")
    if SUBJECT not in set(study.trials["method"]):
        found = ", ".join(study.trials["method"].unique())
        raise InputError(
            f"{folder} holds no finished trial of {SUBJECT}, with which all methods are compared (it has {found}):"
            " run the study again with it"
        )
    return study


def _subject_of(study: Study) -> str:
    """What our numbers are of: the screen, how many perturbations, folds and bins, and what trained on."""
    trials, rows = study.trials, study.rows
    said = [f"{rows['perturbation'].nunique()} perturbations", f"{trials['fold'].nunique()} folds"]
    said += [f"{n:g} bins" for n in trials["n_bins"].dropna().unique()]
    said += [f"trained on: {device}" for device in trials["device"].dropna().unique()]
    return f"{trials['screen'].iloc[0]} ({', '.join(said)})"


def summarize_methods(study: Study, parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per targets and method, in printing order.

    Columns are those of `analysis.averages.over_folds`, and of each cost the mean over folds and its `_sd`:
    `train_minutes` per fold, `peak_memory_mb`, `n_parameters`.
    """
    trials = study.trials.assign(train_minutes=study.trials["train_seconds"] / 60)
    costs = trials.groupby("method")[_COSTS].agg(["mean", "std"])
    costs.columns = [f"{name}_sd" if kind == "std" else name for name, kind in costs.columns]
    order = sorted(costs.index, key=method_rank)
    tables = []
    for targets, rows in parts.items():
        part = over_folds(rows, ["method"]).join(costs)
        tables.append(part.loc[[method for method in order if method in part.index]].assign(targets=targets))
    table = pd.concat(tables).reset_index()
    return table[["targets", "method", *(name for name in table if name not in ("targets", "method"))]]


@dataclass(frozen=True)
class Options:
    """Compare the methods of a study, from its result tables."""

    folder: tyro.conf.Positional[Path]
    """Study folder with trials.parquet and perturbations.parquet."""
    out: Path | None = None
    """Where figures/ and tables/ are written; the study folder by default."""
    apart: tuple[str, ...] = ()
    """Genes whose perturbations are also shown apart from the rest."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""

    def draw(given: Options) -> list[Path]:
        return draw_methods(given.folder, given.out or given.folder, given.apart)

    return draw_again("methods", Options, arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
