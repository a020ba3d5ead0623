"""Two screens beside each other, as a figure and as a table: does a simulated one look like a measured one?

`python -m analysis.screens FOLDER` redraws them from the tables in the folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis.output import draw_again
from analysis.tables import PrintedTable, write_tables
from histpert.errors import InputError
from histpert.plots import COLORS, MARKERS, ComparisonPanel, CurveStyle, comparison_panels, save_figure
from histpert.results import SCREEN_SCHEMAS, read_table

__all__ = ["comparison_figure", "comparison_table", "draw_comparison", "main"]

_STATISTICS = {
    "zeros": ("genes", "Fraction of zeros"),
    "mean": ("genes", "Mean"),
    "ratio": ("genes", "Variance / mean"),
    "skewness": ("genes", "Skewness"),
    "kurtosis": ("genes", "Excess kurtosis"),
    "correlation": ("gene_pairs", "Gene-gene correlation"),
    "n_cells": ("perturbations", "Cells per perturbation"),
    "n_significant": ("perturbations", "Significant genes"),
    "shift": ("perturbations", "Size of the shift"),
}
"""Column, its table, and what it is called. `ratio` is made here."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_CAPTION = (
    "Median over genes, pairs of genes or perturbations, and in brackets the 5% and 95% quantiles. Distance:"
    " Kolmogorov-Smirnov, the largest gap between the two cumulative distributions. Statistics of genes are those of"
    " log-normalized expression in control cells, of genes seen in at least one; correlations are those of genes seen"
    " in more than 10% of them. Significant: Welch's t-test, false discovery rate 5%. Size of the shift: root mean"
    " square over genes of the mean shift from control, without sampling noise."
)


def draw_comparison(folder: Path) -> list[Path]:
    """Write `figures/screens.*` and `tables/screens.*` into a folder that holds the three tables of screens.

    Raises:
        InputError: A table is missing, or does not hold two screens; or the folder cannot be written.
    """
    tables = {name: read_table(folder / f"{name}.parquet").to_pandas() for name in SCREEN_SCHEMAS}
    for name, schema in SCREEN_SCHEMAS.items():
        lacking = set(schema.names) - set(tables[name].columns)
        if lacking:
            raise InputError(f"{folder / name}.parquet has no column {', '.join(sorted(lacking))}: give another folder")
    screens = list(tables["genes"]["screen"].unique())
    if len(screens) != 2:
        raise InputError(f"{folder} holds {len(screens)} screens: two are set beside each other")
    genes = tables["genes"]
    tables["genes"] = genes[genes["mean"] > 0].assign(ratio=genes["variance"] / genes["mean"])
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        table = comparison_table(tables, screens)
        return [
            *save_figure(comparison_figure(tables, screens), folder / "figures" / "screens"),
            *write_tables(folder / "tables" / "screens", table, [_printed(table, screens)]),
        ]
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error}): give another folder") from error


def comparison_table(tables: dict[str, pd.DataFrame], screens: Sequence[str]) -> pd.DataFrame:
    """A row per statistic: number of values and quantiles in each screen, and the distance of their distributions."""
    rows = []
    for statistic, (name, label) in _STATISTICS.items():
        row: dict[str, object] = {"statistic": label}
        values = [_defined(_values(tables[name], screen, statistic)) for screen in screens]
        for place, found in enumerate(values, start=1):
            quantiles = np.quantile(found, _QUANTILES) if len(found) else np.full(len(_QUANTILES), np.nan)
            row |= {f"screen_{place}": screens[place - 1], f"n_{place}": len(found)}
            row |= {f"q{round(100 * q):02d}_{place}": value for q, value in zip(_QUANTILES, quantiles, strict=True)}
        rows.append(row | {"distance": _distance(*values)})
    return pd.DataFrame(rows)


def _values(table: pd.DataFrame, screen: str, column: str) -> np.ndarray:
    return table.loc[table["screen"] == screen, column].to_numpy(float)


def _defined(values: np.ndarray) -> np.ndarray:
    return np.sort(values[~np.isnan(values)])


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two sorted samples."""
    if not len(first) or not len(second):
        return np.nan
    both = np.concatenate([first, second])
    gaps = [np.searchsorted(sample, both, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(gaps[0] - gaps[1]).max())


def _printed(table: pd.DataFrame, screens: Sequence[str]) -> PrintedTable:
    rows = []
    for row in table.to_dict("records"):
        cells = [
            f"{row[f'q50_{place}']:.3g} ({row[f'q05_{place}']:.3g} to {row[f'q95_{place}']:.3g})" for place in (1, 2)
        ]
        rows.append((str(row["statistic"]), *cells, f"{row['distance']:.2f}"))
    return PrintedTable(("Statistic", *screens, "Distance"), rows, _CAPTION)


def comparison_figure(tables: dict[str, pd.DataFrame], screens: Sequence[str]) -> Figure:
    """Eight panels: genes in control cells above; perturbations and pairs of genes below."""

    def of(name: str, column: str) -> dict[str, np.ndarray]:
        return {screen: _values(tables[name], screen, column) for screen in screens}

    mean, share = of("genes", "mean"), "Share"
    pairs = {screen: _middle(values) for screen, values in of("gene_pairs", "correlation").items()}
    panels = [
        ComparisonPanel("Zeros per gene", "fraction of control cells", f"{share} of genes", of("genes", "zeros")),
        *(
            ComparisonPanel(title, "mean", title.split()[-1].lower(), mean, of("genes", column), "log", scale)
            for title, column, scale in (
                ("Variance", "variance", "log"),
                ("Skewness", "skewness", "symlog"),
                ("Excess kurtosis", "kurtosis", "symlog"),
            )
        ),
        ComparisonPanel("Gene-gene correlation", "Pearson, the middle 99%", f"{share} of gene pairs", pairs),
        *(
            ComparisonPanel(title, label, f"{share} of perturbations", of("perturbations", column), x_scale=scale)
            for title, label, column, scale in (
                ("Cells", "cells per perturbation", "n_cells", "linear"),
                ("Significant genes", "genes, 5% FDR", "n_significant", "symlog"),
                ("Shift from control", "RMS over genes", "shift", "linear"),
            )
        ),
    ]
    lines = ("-", "--")
    styles = {screen: CurveStyle(COLORS[i], MARKERS[i], lines[i]) for i, screen in enumerate(screens)}
    return comparison_panels(panels, styles, columns=4)


def _middle(values: np.ndarray) -> np.ndarray:
    """Without the outer half percent on each side, so that a few extremes do not stretch the axis."""
    values = _defined(values)
    return values[len(values) // 200 : len(values) - len(values) // 200]


@dataclass(frozen=True)
class Options:
    """Set two screens beside each other, from the tables that describe them."""

    folder: tyro.conf.Positional[Path]
    """Folder with genes.parquet, perturbations.parquet and gene_pairs.parquet; figures and tables are written there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""

    def draw(given: Options) -> list[Path]:
        return draw_comparison(given.folder)

    return draw_again("screens", Options, arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
