"""What a search tried, what it chose, and how that does on perturbations the search did not see.

`python -m analysis.search FOLDER` redraws figure and table from what is in the folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis.output import draw_again
from analysis.paired import PairedDifference, paired_difference
from analysis.tables import DASH, PrintedTable, interval, write_tables
from histpert.errors import InputError
from histpert.plots import COLORS, MARKERS, ComparisonPanel, CurveStyle, comparison_panels, save_figure
from histpert.results import METRICS, read_table

__all__ = ["draw_search", "judgement", "main", "read_search", "search_figure", "settings_of"]

_PARAMETERS = {
    "learning_rate": ("Learning rate", "log"),
    "width": ("Width of hidden layers", "linear"),
    "dropout": ("Dropout", "linear"),
    "weight_decay": ("Weight decay", "log"),
    "n_bins": ("Number of bins", "linear"),
}
_SHOWN = ("crps", "w1", "rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt", "pearson_top20")
_NAMES = {"chosen": "chosen", "given": "given settings", "floor": "Non-Ctrl Hist (floor)"}


@dataclass(frozen=True)
class Search:
    """What a study folder holds of a search.

    Attributes:
        configurations: A row per configuration that was tried.
        objectives: Metrics it was chosen by.
        chosen: The row of the choice.
        judged: Per candidate, a row per perturbation of the judging folds.
    """

    configurations: pd.DataFrame
    objectives: tuple[str, ...]
    chosen: Mapping[str, Any]
    judged: Mapping[str, pd.DataFrame]


def draw_search(folder: Path) -> list[Path]:
    """Write `figures/search.*` and `tables/search.*` into the folder of a search; returns their paths.

    Raises:
        InputError: The folder holds no search, or cannot be written.
    """
    search = read_search(folder)
    table = _table(search)
    numbers = pd.DataFrame(table.rows, columns=pd.Index(table.headings))
    try:
        (folder / "tables").mkdir(exist_ok=True)
        tables = write_tables(folder / "tables" / "search", numbers, [table])
        return [*save_figure(search_figure(search), folder / "figures" / "search"), *tables]
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error}): give another folder") from error


def read_search(folder: Path) -> Search:
    """Read what a search left.

    Raises:
        InputError: The folder holds none.
    """
    try:
        choice = json.loads((folder / "choice.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'choice.json'} cannot be read ({error}): give the folder of a search") from error
    rows = read_table(folder / "perturbations.parquet").to_pandas()
    judged = {
        name: rows[rows["trial_id"].isin(ids)].set_index("perturbation") for name, ids in choice["trial_ids"].items()
    }
    configurations = read_table(folder / "configurations.parquet").to_pandas()
    return Search(configurations, tuple(choice["objectives"]), choice["chosen"], judged)


def judgement(search: Search, metric: str) -> PairedDifference:
    """The chosen configuration less the given settings, over the perturbations of the judging folds."""
    one, other = search.judged["chosen"][metric].align(search.judged["given"][metric], join="inner")
    return paired_difference(one.to_numpy(float), other.to_numpy(float))


def search_figure(search: Search) -> Figure:
    """The score of each configuration in the order they were tried, and against each parameter."""
    metric, rows = search.objectives[0], search.configurations
    rows = rows[rows["n_folds"] == rows["n_folds"].max()]
    label = METRICS[metric].label
    is_chosen = rows["number"] == search.chosen["number"]
    subjects = {"tried": rows, "chosen": rows[is_chosen]}
    styles = {
        "tried": CurveStyle(COLORS[0], MARKERS[0], "", dot=4.0),
        "chosen": CurveStyle(COLORS[4], "*", "", dot=9.0),
    }

    def panel(column: str, x_label: str, scale: str) -> ComparisonPanel:
        x = {name: part[column].to_numpy(float) for name, part in subjects.items()}
        y = {name: part[metric].to_numpy(float) for name, part in subjects.items()}
        return ComparisonPanel("", x_label, label, x, y, x_scale=scale)

    panels = [panel("number", "Configuration, in the order tried", "linear")]
    panels += [panel(name, title, scale) for name, (title, scale) in _PARAMETERS.items()]
    return comparison_panels(panels, styles, columns=3)


def _table(search: Search) -> PrintedTable:
    headings = ("", "Settings", *(METRICS[name].label.split(" (")[0] for name in _SHOWN))
    rows = []
    for name, judged in search.judged.items():
        settings = settings_of(search.chosen) if name == "chosen" else ""
        means = judged.groupby("fold")[list(_SHOWN)].mean()
        rows.append((_NAMES[name], settings, *(_mean(means[metric]) for metric in _SHOWN)))
    differences = [judgement(search, metric) for metric in _SHOWN]
    rows.append(("chosen less given", "95% interval", *(interval(d.mean, d.low, d.high, 4) for d in differences)))
    n, n_folds = len(search.judged["chosen"]), search.judged["chosen"]["fold"].nunique()
    n_tried = len(search.configurations)
    caption = (
        f"Mean and standard deviation over {n_folds} folds with {n} perturbations that the search of {n_tried}"
        f" configurations did not see; it chose by {', '.join(search.objectives)} in a cross-validation over the"
        " others. Last row: mean difference over these perturbations and Student's interval; perturbations of a fold"
        " share a model, which the interval does not know."
    )
    return PrintedTable(headings, rows, caption, n_labels=2)


def _mean(folds: pd.Series) -> str:
    if folds.isna().all():
        return DASH
    return f"{folds.mean():.4f}" + (f" ± {folds.std():.4f}" if len(folds) > 1 else "")


def settings_of(chosen: Mapping[str, Any]) -> str:
    """A configuration in words."""
    hidden = " ".join([str(chosen["width"])] * chosen["n_layers"])
    return (
        f"{chosen['n_bins']} bins, weights {chosen['weights']}, hidden {hidden}, dropout {chosen['dropout']:.2f}, "
        f"learning rate {chosen['learning_rate']:.1e}, weight decay {chosen['weight_decay']:.1e}"
    )


@dataclass(frozen=True)
class Options:
    """Draw what a search tried and chose from the tables in its folder."""

    folder: tyro.conf.Positional[Path]
    """Folder of a search, with choice.json and its tables."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""

    def draw(given: Options) -> list[Path]:
        return draw_search(given.folder)

    return draw_again("search", Options, arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
