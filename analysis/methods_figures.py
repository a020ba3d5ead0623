"""All methods at a glance, and whether predicted intervals hold as many cells as they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.averages import CEILING, OBSERVED, TARGETS
from analysis.methods_tables import FLOORS, SUBJECT, kind_of, label_of, method_rank
from analysis.tables import SHORT
from histpert.plots import COLORS, MARKERS, Curve, CurveStyle, DotPanel, curve_panels, dot_panels
from histpert.results import METRICS

__all__ = ["calibration_figure", "methods_figure"]

_PANELS = ("rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt", "nll", "crps", "pearson_top20", "pds")
_LINES: dict[str, str | tuple[int, tuple[int, ...]]] = dict(
    zip((*FLOORS, OBSERVED, CEILING), ("--", "-.", (0, (6, 1, 1, 1)), ":", "-"), strict=True)
)
_COLOR = {"floor": "#777777", "method": "#333333", "reference": COLORS[2]}
_LOOKS = [(color, marker) for color, marker in zip(COLORS, MARKERS, strict=True) if color not in (COLORS[0], COLORS[2])]
_COVERAGE = {name: int(share[1]) / 100 for name in METRICS if (share := re.fullmatch(r"coverage(\d+)", name))}


def methods_figure(per_fold: pd.DataFrame, targets: str) -> Figure:
    """A row per method, a panel per metric; floors and what is no method also as vertical lines.

    Args:
        per_fold: A row per method and fold with the fold's averages.
        targets: Which targets they are of: all, apart or rest.
    """
    methods = sorted(per_fold["method"].unique(), key=method_rank)
    values = dict(list(per_fold.groupby("method")))
    panels = []
    for metric in _PANELS:
        folds = {method: rows[metric].to_numpy(float) for method, rows in values.items()}
        lines = {name: _mean(folds[name]) for name in _LINES if name in folds}
        rows = {label_of(method): folds[method] for method in methods}
        panels.append(DotPanel(SHORT[metric], rows, METRICS[metric].higher_is_better, lines))
    title = "" if targets == "all" else TARGETS[targets].capitalize()
    styles = {label_of(method): _row_style(method) for method in methods}
    return dot_panels(panels, styles, {name: _line_style(name) for name in _LINES}, columns=4, title=title)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _row_style(method: str) -> CurveStyle:
    if method == SUBJECT:
        return CurveStyle(COLORS[0], "o")
    return CurveStyle(
        _COLOR[kind_of(method)], "o" if kind_of(method) == "method" else "D", thin=kind_of(method) != "method"
    )


def _line_style(method: str) -> CurveStyle:
    if method == SUBJECT:
        return CurveStyle(COLORS[0], MARKERS[0])
    return CurveStyle(_COLOR[kind_of(method)], line=_LINES[method], thin=True)


def calibration_figure(per_fold: pd.DataFrame, targets: str) -> Figure | None:
    """Share of cells inside central predicted intervals against their nominal share; None where none was measured."""
    per_fold = per_fold[per_fold[list(_COVERAGE)].notna().any(axis=1)]
    methods = sorted(per_fold["method"].unique(), key=method_rank)
    if not methods:
        return None
    others = [method for method in methods if kind_of(method) == "method" and method != SUBJECT]
    looks = dict(zip(others, cycle(_LOOKS), strict=False))
    styles = {method: CurveStyle(*looks[method]) if method in looks else _line_style(method) for method in methods}
    nominal = np.array(sorted(_COVERAGE.values()))
    ideal = Curve(nominal, nominal, None, "calibrated", CurveStyle("#bbbbbb"))
    curves = list(_coverage_curves(per_fold, styles))
    panels = {
        "Measured coverage": [ideal, *curves],
        "Measured less nominal coverage": [
            Curve(curve.x, curve.mean - curve.x, curve.deviation, curve.label, curve.style)
            for curve in (ideal, *curves)
        ],
    }
    title = "" if targets == "all" else TARGETS[targets].capitalize()
    key = {"calibrated": ideal.style, **styles}
    return curve_panels(panels, "Nominal coverage of the central interval", title=title, key_below=key)


def _coverage_curves(per_fold: pd.DataFrame, styles: dict[str, CurveStyle]) -> Iterator[Curve]:
    names = sorted(_COVERAGE, key=lambda name: _COVERAGE[name])
    nominal = np.array([_COVERAGE[name] for name in names])
    for method, style in styles.items():
        folds = per_fold.loc[per_fold["method"] == method, names]
        yield Curve(nominal, folds.mean().to_numpy(float), folds.std().to_numpy(float), method, style)
