"""Histograms of one gene under several conditions, with their means; one gene a panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from histpert.plots.style import COLORS, SMALL, TINY

__all__ = ["Histogram", "HistogramPanel", "histogram_panels"]

_LOOKS = {
    "control": {"color": "#8A8A8A", "fill": 0.45, "line": 0.0},
    "observed": {"color": COLORS[0], "fill": 0.16, "line": 1.2},
    "predicted": {"color": COLORS[4], "fill": 0.0, "line": 1.4},
}
"""Control is a grey ground; what was observed and what was predicted of it are outlines that differ in lightness."""

_LEAST_SHOWN = 0.002
"""Bins above the last one in which a histogram has this share are cut off."""

_ROOM = 1.15
"""What is above the tallest bin, to that."""

_TALL = 2.0
"""An axis is broken where the first bin is so many times taller than what the others need."""

_LOWER, _GAP = 0.68, 0.06
"""Of the height of a broken axis: its lower part, and the break."""


@dataclass(frozen=True)
class Histogram:
    """Bin masses, adding to 1, and the mean to mark, which is not always that of the masses."""

    masses: Float[np.ndarray, "bin"]
    mean: float


@dataclass(frozen=True)
class HistogramPanel:
    """One gene: histograms by condition (control, observed, predicted; any may lack), on the same bins.

    Where the first bin, that of zeros, is so tall that the others could hardly be seen, the axis is broken below its
    tops; the parts above and below the break have scales of their own.
    """

    title: str
    histograms: Mapping[str, Histogram]
    lower: float
    width: float
    note: str = ""


def histogram_panels(figure: FigureBase, panels: Sequence[HistogramPanel], columns: int) -> None:
    """Draw panels in rows of `columns` into a figure or a part of one, under one key.

    Fills are control, outlines what was observed and predicted, dashed lines the means.
    """
    rows = -(-len(panels) // columns)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    figure.supxlabel("log-normalized expression", fontsize=SMALL)
    figure.supylabel("share of cells", fontsize=SMALL)
    shown = [name for name in _LOOKS if any(name in panel.histograms for panel in panels)]
    handles = [_key_entry(name) for name in shown]
    place: Any = "outside upper center"  # matplotlib's types do not know places outside the axes
    figure.legend(handles=handles, loc=place, ncols=len(handles), fontsize=SMALL, frameon=False, handlelength=1.6)


def _key_entry(name: str) -> Patch:
    look = _LOOKS[name]
    return Patch(
        facecolor=(look["color"], look["fill"]), edgecolor=look["color"], linewidth=look["line"] or 0.6, label=name
    )


def _draw_panel(axes: Axes, panel: HistogramPanel) -> None:
    axes.set_title(panel.title, fontsize=SMALL, fontweight="bold", loc="left", pad=3)
    axes.set_title(panel.note, fontsize=TINY - 1, color="0.35", loc="right", pad=3)
    axes.tick_params(labelsize=TINY)
    axes.spines[["top", "right"]].set_visible(False)
    masses = {name: panel.histograms[name].masses for name in _LOOKS if name in panel.histograms}
    n_bins = len(next(iter(masses.values())))
    edges = panel.lower + panel.width * np.arange(n_bins + 1)
    for place, (name, heights) in enumerate(masses.items()):
        look = _LOOKS[name]
        if look["fill"]:
            axes.stairs(heights, edges, fill=True, color=look["color"], alpha=look["fill"], linewidth=0, zorder=place)
        if look["line"]:
            axes.stairs(heights, edges, color=look["color"], linewidth=look["line"], zorder=3 + place)
        mean = panel.histograms[name].mean
        axes.axvline(mean, color=look["color"], linestyle=(0, (4, 2)), linewidth=1.0, zorder=6)
    tall = np.stack(list(masses.values()))
    last = np.flatnonzero((tall >= _LEAST_SHOWN).any(axis=0)).max(initial=1)
    axes.set_xlim(float(edges[0]), float(edges[min(last + 2, n_bins)]))
    _set_heights(axes, tall[:, 0], float(tall[:, 1:].max()))


def _set_heights(axes: Axes, first: np.ndarray, rest: float) -> None:
    """Limits and ticks of the shares, the axis broken where the first bin would press the others flat."""
    top = _ROOM * rest
    if first.max() < _TALL * top:
        axes.set_ylim(0, max(top, _ROOM * float(first.max())))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        return
    tall = first[first > top]
    room = 0.4 * max(float(np.ptp(tall)), 0.04)
    low, high = max(float(tall.min()) - room, 1.1 * top), float(tall.max()) + room
    known = np.array([0.0, top, low, high])
    places = np.array([0.0, _LOWER, _LOWER + _GAP, 1.0])
    there, back = (lambda y: np.interp(y, known, places)), (lambda y: np.interp(y, places, known))
    axes.set_yscale("function", functions=(there, back))
    axes.set_ylim(0, high)
    above = _round_ticks(low, high, 2)
    ticks = [*_round_ticks(0.0, top, 3), *above[:: 2 if len(above) > 2 else 1]]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    _mark_break(axes)


def _round_ticks(low: float, high: float, most: int) -> list[float]:
    ticks = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(tick), 10) for tick in ticks if low <= tick <= high]


def _mark_break(axes: Axes) -> None:
    """A white band across the axes where nothing is drawn to scale, and two strokes at the axis."""
    bottom, top = _LOWER + 0.01, _LOWER + _GAP - 0.01
    axes.axhspan(bottom, top, color="white", linewidth=0, zorder=7, transform=axes.transAxes)
    for height in (bottom, top):
        line = [height - 0.015, height + 0.015]
        axes.plot([-0.02, 0.02], line, color="black", linewidth=0.7, clip_on=False, zorder=8, transform=axes.transAxes)
