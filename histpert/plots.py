"""Figures on plain arrays, with matplotlib's objects only: no global state, no screen, no torch.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; every style also has its own marker or line,
so that a figure can be read in grey. A figure is as wide as a pair of columns in print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from histpert.results import write_atomically

__all__ = [
    "COLORS",
    "MARKERS",
    "ComparisonPanel",
    "Curve",
    "CurveStyle",
    "comparison_panels",
    "curve_panels",
    "save_figure",
]

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_WIDTH = 7.0  # inches
_SMALL, _TINY = 8, 7  # points


@dataclass(frozen=True)
class CurveStyle:
    """How a curve looks. A thin curve is a reference: hollow markers, drawn behind the others.

    `dot` is the size of the points of a cloud.
    """

    color: str = "#333333"
    marker: str = ""
    line: str | tuple[int, tuple[int, ...]] = "-"
    thin: bool = False
    dot: float = 2.2


@dataclass(frozen=True)
class Curve:
    """Means at `x` with a band of one `deviation` to each side; no band where it is None or NaN."""

    x: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray | None
    label: str
    style: CurveStyle


def curve_panels(
    panels: Mapping[str, Sequence[Curve]],
    x_label: str,
    *,
    title: str = "",
    key_above: Mapping[str, CurveStyle] | None = None,
    key_below: Mapping[str, CurveStyle] | None = None,
) -> Figure:
    """Small multiples of curves with bands, side by side, under shared keys.

    Args:
        panels: Title of each panel, and its curves.
        x_label: What every x axis shows. Ticks are the x that occur in any panel.
        title: Heading of the whole figure; leave it empty where `key_above` is given.
        key_above: Names and styles of a key above the panels.
        key_below: The same for a key below them.
    """
    figure = Figure(figsize=(_WIDTH, 2.7), layout="constrained")
    ticks = sorted({float(x) for curves in panels.values() for curve in curves for x in curve.x})
    for axes, (heading, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.set_title(heading, fontsize=_SMALL)
        axes.set_xlabel(x_label, fontsize=_SMALL)
        axes.tick_params(labelsize=_TINY)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        for curve in curves:
            _draw_curve(axes, curve)
        if not curves:
            axes.text(0.5, 0.5, "undefined", ha="center", va="center", fontsize=_SMALL, transform=axes.transAxes)
        _set_ticks(axes, ticks)
    if title:
        figure.suptitle(title, fontsize=_SMALL + 1)
    _draw_key(figure, "upper", key_above or {})
    _draw_key(figure, "lower", key_below or {})
    return figure


@dataclass(frozen=True)
class ComparisonPanel:
    """The same quantity of several subjects: points of y against x, or, without y, cumulative distributions of x."""

    title: str
    x_label: str
    y_label: str
    x: Mapping[str, np.ndarray]
    y: Mapping[str, np.ndarray] | None = None
    x_scale: str = "linear"
    y_scale: str = "linear"


def comparison_panels(panels: Sequence[ComparisonPanel], styles: Mapping[str, CurveStyle], columns: int) -> Figure:
    """Panels that set subjects beside each other, in rows of `columns`, under one key. NaN is left out."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(_WIDTH, 0.5 + 2.0 * rows), layout="constrained")
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        axes.set_title(panel.title, fontsize=_SMALL)
        axes.set_xlabel(panel.x_label, fontsize=_TINY)
        axes.set_ylabel(panel.y_label, fontsize=_TINY)
        axes.tick_params(labelsize=_TINY)
        axes.spines[["top", "right"]].set_visible(False)
        for subject, style in styles.items():
            _draw_subject(axes, panel, subject, style)
        axes.set_xscale(panel.x_scale)
        axes.set_yscale(panel.y_scale)
        axes.minorticks_off()
    _draw_key(figure, "upper", styles)
    return figure


def _draw_subject(axes: Axes, panel: ComparisonPanel, subject: str, style: CurveStyle) -> None:
    x = np.asarray(panel.x[subject], dtype=float)
    if panel.y is None:
        if not np.isfinite(x).any():
            return
        axes.ecdf(x[np.isfinite(x)], color=style.color, linestyle=style.line, linewidth=1.2)
    else:
        settings: dict[str, Any] = {"color": style.color, "markersize": style.dot, "markeredgewidth": 0}
        axes.plot(x, panel.y[subject], style.marker, alpha=0.5 if style.dot < 5 else 1.0, **settings)


def _line_settings(style: CurveStyle) -> dict[str, Any]:
    return {
        "color": style.color,
        "marker": style.marker or "none",
        "linestyle": style.line,
        "linewidth": 0.9 if style.thin else 1.4,
        "markersize": 3.0 if style.thin else 3.8,
        "markerfacecolor": "white" if style.thin else style.color,
        "markeredgewidth": 0.7,
    }


def _draw_curve(axes: Axes, curve: Curve) -> None:
    settings = _line_settings(curve.style)
    axes.plot(curve.x, curve.mean, label=curve.label, zorder=2 if curve.style.thin else 3, **settings)
    if curve.deviation is None or np.isnan(curve.deviation).all():
        return
    if len(curve.x) == 1:  # a band over one point has no area
        bar = {"fmt": "none", "ecolor": curve.style.color, "elinewidth": 1.0, "capsize": 3}
        axes.errorbar(curve.x, curve.mean, curve.deviation, **bar)
        return
    low, high = curve.mean - curve.deviation, curve.mean + curve.deviation
    axes.fill_between(curve.x, low, high, color=curve.style.color, alpha=0.18, linewidth=0, zorder=1)


def _set_ticks(axes: Axes, ticks: Sequence[float]) -> None:
    if not ticks:
        return
    if len(ticks) > 1 and min(np.diff(ticks)) < 0.08 * (ticks[-1] - ticks[0]) and ticks[0] > 0:
        axes.set_xscale("log")  # labels would overlap on a linear axis
        axes.tick_params(axis="x", labelrotation=90)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    if len(ticks) == 1:
        axes.set_xlim(ticks[0] - 1, ticks[0] + 1)


def _draw_key(figure: Figure, side: str, styles: Mapping[str, CurveStyle]) -> None:
    if not styles:
        return
    handles = [_key_entry(label, style) for label, style in styles.items()]
    inches = 0.75 + 0.065 * max(map(len, styles))  # of one entry: sample, gap and about 0.065 for a letter of 8 points
    columns = max(1, min(len(styles), int(_WIDTH / inches)))
    place: Any = f"outside {side} center"  # matplotlib's types do not know places outside the axes
    figure.legend(handles=handles, loc=place, ncols=columns, fontsize=_SMALL, frameon=False, handlelength=3.2)


def _key_entry(label: str, style: CurveStyle) -> Line2D:
    return Line2D([], [], label=label, **_line_settings(style))


def save_figure(figure: Figure, path_without_suffix: Path) -> list[Path]:
    """Write `<path>.png` and `<path>.svg`, each atomically, the same bytes for the same figure; return both paths."""
    path_without_suffix.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, settings in {"png": {"dpi": 200}, "svg": {"metadata": {"Date": None}}}.items():
        path = path_without_suffix.with_name(f"{path_without_suffix.name}.{kind}")
        # Without a fixed salt, names inside the file are random.
        with mpl.rc_context({"svg.hashsalt": "histpert"}):
            write_atomically(
                path, lambda beside, kind=kind, settings=settings: figure.savefig(beside, format=kind, **settings)
            )
        paths.append(path)
    return paths
