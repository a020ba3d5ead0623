"""Curves with bands against a number, as small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from histpert.plots.style import SMALL, TINY, WIDTH, CurveStyle, draw_key, line_settings

__all__ = ["Curve", "curve_panels"]

_MOST_TICKS = 12


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
        x_label: What every x axis shows. Ticks are the x that occur in any panel, where they are not many.
        title: Heading of the whole figure; leave it empty where `key_above` is given.
        key_above: Names and styles of a key above the panels.
        key_below: The same for a key below them.
    """
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    ticks = sorted({float(x) for curves in panels.values() for curve in curves for x in curve.x})
    for axes, (heading, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.set_title(heading, fontsize=SMALL)
        axes.set_xlabel(x_label, fontsize=SMALL)
        axes.tick_params(labelsize=TINY)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        for curve in curves:
            _draw_curve(axes, curve)
        if not curves:
            axes.text(0.5, 0.5, "undefined", ha="center", va="center", fontsize=SMALL, transform=axes.transAxes)
        _set_ticks(axes, ticks)
    if title:
        figure.suptitle(title, fontsize=SMALL + 1)
    draw_key(figure, "upper", key_above or {})
    draw_key(figure, "lower", key_below or {})
    return figure


def _draw_curve(axes: Axes, curve: Curve) -> None:
    settings = line_settings(curve.style)
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
    if len(ticks) > _MOST_TICKS:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    if len(ticks) > 1 and min(np.diff(ticks)) < 0.08 * (ticks[-1] - ticks[0]) and ticks[0] > 0:
        axes.set_xscale("log")  # labels would overlap on a linear axis
        axes.tick_params(axis="x", labelrotation=90)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    if len(ticks) == 1:
        axes.set_xlim(ticks[0] - 1, ticks[0] + 1)
