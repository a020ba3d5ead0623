"""How far to trust intervals: how many held-out values they hold, and how large errors are beside what was said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from histpert.plots.style import COLORS, MARKERS, SMALL, TINY, WIDTH

__all__ = ["calibration_panels"]


def calibration_panels(
    levels: Float[np.ndarray, "level"],
    coverage: Mapping[str, Float[np.ndarray, "level"]],
    predicted: Float[np.ndarray, "group"],
    observed: Float[np.ndarray, "group"],
    distance: Float[np.ndarray, "perturbation"],
    ratio: Float[np.ndarray, "perturbation"],
    title: str = "",
) -> Figure:
    """Three panels: coverage by level, error by its predicted size, and error of each perturbation by its distance.

    Args:
        levels: Of intervals.
        coverage: Share of held-out means that intervals of each level hold, by what is shown.
        predicted: Root mean square of predicted standard deviations, in groups by their size.
        observed: Root mean square of the errors in these.
        distance: Of each held-out perturbation from what was trained on.
        ratio: Root mean square of its errors, in predicted standard deviations.
        title: Above all.
    """
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    figure.suptitle(title, fontsize=SMALL + 1)
    first, second, third = figure.subplots(1, 3)
    for number, (name, shares) in enumerate(coverage.items()):
        look = {"color": COLORS[number], "marker": MARKERS[number], "markersize": 3, "linewidth": 1.2}
        first.plot([0, *levels, 1], [0, *shares, 1], label=name, markevery=4, **look)
    _diagonal(first, 0, 1)
    _named(first, "level of the interval", "share of held-out means inside")
    kept = (predicted > 0) & (observed > 0)
    second.loglog(predicted[kept], observed[kept], "o-", color=COLORS[0], markersize=3.4, linewidth=1)
    for axis in (second.xaxis, second.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    both = np.concatenate([predicted[kept], observed[kept]])
    _diagonal(second, float(both.min()) / 1.3, float(both.max()) * 1.3)
    _named(second, "predicted error (standard deviation)", "error of held-out means (RMS)")
    third.plot(distance, ratio, "o", color=COLORS[0], markersize=3, alpha=0.6, mew=0)
    third.axhline(1, color="0.6", linewidth=0.8)
    third.set(ylim=(0, 1.12 * float(ratio.max())), xlim=(0, 1.08 * float(distance.max()) or 1.0), box_aspect=1)
    place: Any = "outside lower center"  # matplotlib's types do not know places outside the axes
    handles = first.get_legend_handles_labels()
    figure.legend(*handles, loc=place, ncols=len(coverage), fontsize=SMALL, frameon=False, handlelength=1.6)
    _named(third, "cosine distance to the nearest\nembedding trained on", "error / predicted error (RMS)")
    return figure


def _diagonal(axes: Axes, low: float, high: float) -> None:
    axes.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=1)
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1)


def _named(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=SMALL)
    axes.set_ylabel(y, fontsize=SMALL)
    axes.tick_params(labelsize=TINY)
    axes.spines[["top", "right"]].set_visible(False)
