"""The same quantities of many subjects: a row per subject, a panel per quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from histpert.plots.style import SMALL, TINY, WIDTH, CurveStyle, draw_key

__all__ = ["DotPanel", "dot_panels"]

_FAR = 2.5  # times the range of the middle half of the means: beyond it a mean is written at the edge
_TITLES = 84  # letters of titles that lie side by side in all panels, beside the names of long rows
_BETTER = {True: "better \u2192", False: "\u2190 better"}


@dataclass(frozen=True)
class DotPanel:
    """One quantity.

    Attributes:
        title: What it is.
        values: Per row the values whose mean is the large dot, one per fold; a row without values stays empty.
        higher_is_better: Which way is better.
        lines: Values to be drawn as vertical lines, by the name of their style.
        limits: Ends of the axis; by default those of what is drawn.
    """

    title: str
    values: Mapping[str, np.ndarray]
    higher_is_better: bool
    lines: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[float, float] | None = None


def dot_panels(
    panels: Sequence[DotPanel],
    rows: Mapping[str, CurveStyle],
    lines: Mapping[str, CurveStyle],
    *,
    columns: int,
    title: str = "",
    dot: str = "fold",
) -> Figure:
    """Small dots for values and a large one for their mean, in panels that share their rows.

    A mean far outside the others is written at the edge of its panel, so that the others can be told apart.

    Args:
        panels: Quantities, in reading order.
        rows: Subjects from top to bottom, and how their dots look.
        lines: How vertical lines look, by name; named in a key below.
        columns: Panels side by side.
        title: Heading of the whole figure.
        dot: What each value is of.
    """
    n_down = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + n_down * (0.75 + 0.155 * len(rows))), layout="constrained")
    grid = figure.subplots(n_down, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_title(fill(panel.title, _TITLES // columns), fontsize=SMALL)
        _draw_panel(axes, panel, rows, lines)
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(rows)), list(rows), fontsize=TINY)
        axes.set_ylim(len(rows) - 0.4, -0.6)
    if title:
        figure.suptitle(title, fontsize=SMALL + 1)
    drawn = {name for panel in panels for name, value in panel.lines.items() if np.isfinite(value)}
    key = {
        f"mean over {dot}s": CurveStyle(marker="o", line=""),
        f"one {dot}": CurveStyle("#999999", ".", ""),
        **{name: style for name, style in lines.items() if name in drawn},
    }
    draw_key(figure, "lower", key)
    return figure


def _draw_panel(axes: Axes, panel: DotPanel, rows: Mapping[str, CurveStyle], lines: Mapping[str, CurveStyle]) -> None:
    axes.set_xlabel(_BETTER[panel.higher_is_better], fontsize=TINY, color="0.35")
    axes.tick_params(labelsize=TINY)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    for place in range(len(rows)):
        axes.axhline(place, color="0.92", linewidth=0.6, zorder=0)
    for name, value in panel.lines.items():
        if np.isfinite(value):
            style = lines[name]
            axes.axvline(value, color=style.color, linestyle=style.line, linewidth=0.9, zorder=1)
    means = {row: float(np.nanmean(panel.values[row])) for row in rows if np.isfinite(panel.values[row]).any()}
    if not means:
        axes.text(0.5, 0.5, "undefined", ha="center", va="center", fontsize=TINY, transform=axes.transAxes)
        return
    low, high = panel.limits or _range(np.array(list(means.values())), panel)
    axes.set_xlim(low, high)
    for place, (row, style) in enumerate(rows.items()):
        if row in means:
            _draw_row(axes, place, panel.values[row], means[row], style)


def _range(means: np.ndarray, panel: DotPanel) -> tuple[float, float]:
    """From the lowest to the highest mean that is not far from the others, with its values and lines not far off."""
    quarters = np.quantile(means, [0.25, 0.75])
    reach = _FAR * max(float(np.ptp(quarters)), 0.02 * float(np.abs(means).max()), 1e-12)
    near = means[(means >= quarters[0] - reach) & (means <= quarters[1] + reach)]
    low, high = near.min(), near.max()
    values = np.concatenate([folds[np.isfinite(folds)] for folds in panel.values.values()])
    values = values[(values >= low - reach) & (values <= high + reach)]
    low, high = min([low, *values]), max([high, *values])
    reach = _FAR / 2 * (high - low)
    lines = [value for value in panel.lines.values() if low - reach <= value <= high + reach]
    low, high = min([low, *lines]), max([high, *lines])
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + margin


def _draw_row(axes: Axes, place: int, values: np.ndarray, mean: float, style: CurveStyle) -> None:
    low, high = axes.get_xlim()
    if not low <= mean <= high:
        number = f"{mean:.3g}".replace("-", "\u2212")
        at, text, side = (high, f"{number} \u25b6", "right") if mean > high else (low, f"\u25c0 {number}", "left")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(at, place, text, ha=side, va="center", fontsize=TINY - 1, color=style.color, bbox=box, zorder=4)
        return
    axes.plot(values, np.full(len(values), place), "o", color=style.color, markersize=2, alpha=0.4, markeredgewidth=0)
    face = "white" if style.thin else style.color
    look = {"markersize": 5, "markerfacecolor": face, "markeredgewidth": 0.9}
    axes.plot(mean, place, style.marker, color=style.color, zorder=3, **look)
