"""How many histogram bins are enough: error and correlation against the number of bins, as figures and as a table.

`python -m analysis.resolution FOLDER [FOLDER ...] [--out DIR] [--apart GENE ...]` redraws them from result tables.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, product
from pathlib import Path

import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis.averages import OBSERVED, TARGETS
from analysis.output import draw_again
from analysis.reading import Study, left_out
from analysis.summary import read_sweeps, summarize
from analysis.tables import SHORT, PrintedTable, best_of, in_bold, means, write_tables
from histpert.errors import InputError
from histpert.plots import COLORS, MARKERS, Curve, CurveStyle, curve_panels, save_figure
from histpert.results import METRICS

__all__ = ["FIGURES", "draw_resolution", "main", "resolution_figure"]

FIGURES = {
    "rmae_by_bins": ("rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt"),
    "pearson_by_bins": ("pearson_top20", "pearson_top50", "pearson_top100"),
}
"""File name of each figure, and the metrics in its panels."""

_PRINTED = ("nll", *(metric for metrics in FIGURES.values() for metric in metrics))
_SUBJECT = "MLP+Hist"
_REFERENCES = {"Ctrl Hist": "--", "Non-Ctrl Hist": "-.", OBSERVED: ":"}
_OTHER_LINES = ((0, (4, 1)), (0, (1, 1)), (0, (6, 1, 1, 1)), (0, (6, 1, 1, 1, 1, 1)))


def draw_resolution(folders: Sequence[Path], out: Path, apart: Sequence[str] = ()) -> list[Path]:
    """Write `figures/` and `tables/` of bin sweeps into `out`.

    Args:
        folders: Study folders, each with trials.parquet and perturbations.parquet.
        out: Where to write.
        apart: Genes whose perturbations are also shown apart from the rest.

    Returns:
        The files written.

    Raises:
        InputError: The tables cannot be drawn, or `out` cannot be written.
    """
    sweep = read_sweeps(folders)
    table = _in_order(summarize(sweep.rows, apart))
    out = Path(out).resolve()
    try:
        (out / "tables").mkdir(parents=True, exist_ok=True)
        printed = _printed(table, sweep, apart)
        paths = [
            *_write_figures(table, out / "figures"),
            *write_tables(out / "tables" / "resolution", table, printed),
        ]
    except OSError as error:
        raise InputError(f"cannot write into {out} ({error}): give another folder") from error
    if sweep.n_left_out:
        print(left_out(sweep))
    return paths


def _method_rank(method: str) -> tuple[int, str]:
    """The subject first, then other methods by name, then the references."""
    if method in _REFERENCES:
        return 2 + list(_REFERENCES).index(method), method
    return int(method != _SUBJECT), method


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    rank = {
        "screen": {name: place for place, name in enumerate(table["screen"].unique())},
        "targets": {name: place for place, name in enumerate(TARGETS)},
        "method": {name: place for place, name in enumerate(sorted(table["method"].unique(), key=_method_rank))},
    }
    keys = ["screen", "targets", "n_bins", "method"]
    return table.sort_values(
        keys, key=lambda column: column.map(rank.get(str(column.name), lambda n: n)), ignore_index=True
    )


def _printed(table: pd.DataFrame, sweep: Study, apart: Sequence[str]) -> list[PrintedTable]:
    """A table per screen and targets, in bold the best predictive method of each number of bins."""
    tables = []
    for (screen, targets), part in table.groupby(["screen", "targets"], sort=False):
        columns = [part["n_bins"].astype(str), part["method"]]
        for metric in _PRINTED:
            best = best_of(metric, part[metric].where(part["method"] != OBSERVED), part["n_bins"])
            columns.append(in_bold(means(part[metric], part[f"{metric}_sd"]), best))
        rows = list(zip(*columns, strict=True))
        headings = ("Bins", "Method", *(SHORT[metric] for metric in _PRINTED))
        tables.append(PrintedTable(headings, rows, _caption(str(screen), str(targets), sweep, apart), n_labels=2))
    return tables


def _caption(screen: str, targets: str, sweep: Study, apart: Sequence[str]) -> str:
    named = f" ({', '.join(apart)})" if targets == "apart" else ""
    failed = f" {left_out(sweep)}" if sweep.n_left_out else ""
    return (
        f"{screen}, {TARGETS[targets]}{named}: mean ± standard deviation over folds of the average over held-out"
        " perturbations. Bold: the best method with this number of bins. Observed Hist is not a method but the observed"
        " cells, binned: what binning alone costs; resolution.csv has the excess over it. NLL depends on the number of"
        f" bins and must not be compared across numbers of bins.{failed}"
    )


def _write_figures(table: pd.DataFrame, folder: Path) -> Iterator[Path]:
    for targets in table["targets"].unique():
        suffix = "" if targets == "all" else f"_{targets}"
        for name, metrics in FIGURES.items():
            yield from save_figure(resolution_figure(table, targets, metrics), folder / f"{name}{suffix}")


def resolution_figure(table: pd.DataFrame, targets: str, metrics: Sequence[str]) -> Figure:
    """Draw one panel per metric against the number of bins, a line per screen and method.

    Colour and marker tell screens apart, the line their methods; with one screen all three tell the methods apart.

    Args:
        table: What `analysis.summary.summarize` returns.
        targets: Which of its targets: all, apart or rest.
        metrics: Metric columns, one panel each.
    """
    styles = _styles(table)
    table = table[table["targets"] == targets].dropna(subset=list(metrics), how="all")
    screens = list(table["screen"].unique())
    methods = sorted(table["method"].unique(), key=_method_rank)
    panels = {
        re.sub("(,| of the) ", r"\1\n", METRICS[name].label): list(_curves(table, name, styles)) for name in metrics
    }
    part = "" if targets == "all" else f", {TARGETS[targets]}"
    if len(screens) < 2:
        key = {method: styles[screens[0], method] for method in methods}
        return curve_panels(panels, "Number of bins", title="".join(screens) + part, key_below=key)
    above = {screen + part: replace(styles[screen, methods[0]], line="-", thin=False) for screen in screens}
    below = {method: replace(styles[screens[0], method], color="#333333", marker="") for method in methods}
    return curve_panels(panels, "Number of bins", key_above=above, key_below=below)


def _styles(table: pd.DataFrame) -> dict[tuple[str, str], CurveStyle]:
    """One style per screen and method, from the whole table, so that all figures of a sweep agree."""
    screens, methods = table["screen"].unique(), sorted(table["method"].unique(), key=_method_rank)
    others = [method for method in methods if method not in {_SUBJECT, *_REFERENCES}]
    lines = {_SUBJECT: "-", **_REFERENCES, **dict(zip(others, cycle(_OTHER_LINES), strict=False))}
    styles = {}
    for (i, screen), (j, method) in product(enumerate(screens), enumerate(methods)):
        look = (i if len(screens) > 1 else j) % len(COLORS)
        styles[screen, method] = CurveStyle(COLORS[look], MARKERS[look], lines[method], method in _REFERENCES)
    return styles


def _curves(table: pd.DataFrame, metric: str, styles: Mapping[tuple[str, str], CurveStyle]) -> Iterator[Curve]:
    for key, points in table.dropna(subset=[metric]).groupby(["screen", "method"], sort=False):
        screen, method = map(str, key)
        columns = [points[name].to_numpy(float) for name in ("n_bins", metric, f"{metric}_sd")]
        deviation = None if method in _REFERENCES else columns[2]
        yield Curve(columns[0], columns[1], deviation, f"{screen}, {method}", styles[screen, method])


@dataclass(frozen=True)
class Options:
    """Draw error and correlation against the number of bins from the result tables of bin sweeps."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Study folders, each with trials.parquet and perturbations.parquet."""
    out: Path | None = None
    """Where figures/ and tables/ are written; the first study folder by default."""
    apart: tuple[str, ...] = ()
    """Genes whose perturbations are also shown apart from the rest."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""

    def draw(given: Options) -> list[Path]:
        return draw_resolution(given.folders, given.out or Path(*given.folders[:1]), given.apart)

    return draw_again("resolution", Options, arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
