"""A difference split into parts: each part of every gene against what may explain it, and what the parts add up to."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from histpert.plots.style import COLORS, SMALL, TINY, WIDTH

__all__ = ["split_differences"]

_N_GROUPS = 10
"""Groups of equally many genes whose means are drawn over the dots."""

_MIDDLE = 0.99
"""Share of the dots that the axis shows; the few others lie at its ends."""


def split_differences(
    x: Float[np.ndarray, "gene"],
    parts: Mapping[str, Float[np.ndarray, "gene"]],
    totals: Mapping[str, Float[np.ndarray, "fold"]],
    *,
    x_label: str,
    y_label: str,
    title: str,
) -> Figure:
    """A panel for each part but the last one, which is their sum, and a panel of means over genes.

    Dots are genes, the line means of tenths of the genes by `x`; the panels share their axis, on which the 1% of the
    dots that reach furthest lie at its ends. Bars are means over folds, dots the folds.

    Args:
        x: What may explain the differences.
        parts: By label, a difference per gene; the last is the sum of the others.
        totals: By label, a mean difference per fold.
        x_label: What x is.
        y_label: What differs.
        title: Heading of the whole figure.
    """
    n_groups = min(_N_GROUPS, len(x))
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    *panels, bars = figure.subplots(1, len(parts), width_ratios=[*[1.0] * (len(parts) - 1), 0.9])
    shown = list(parts)[:-1]
    reach = max(float(np.quantile(np.abs(parts[label]), _MIDDLE)) for label in shown) or 1.0
    for axes, label, color in zip(panels, shown, COLORS, strict=False):
        axes.plot(x, np.clip(parts[label], -reach, reach), "o", color=color, markersize=2.2, alpha=0.35, mew=0)
        middle = [(x[group].mean(), parts[label][group].mean()) for group in np.array_split(np.argsort(x), n_groups)]
        axes.plot(*zip(*middle, strict=True), color="black", linewidth=1.2, marker="o", markersize=2.5)
        axes.set_ylim(-1.05 * reach, 1.05 * reach)
        axes.set_title(label, fontsize=SMALL)
        axes.set_xlabel(x_label, fontsize=SMALL)
    panels[0].set_ylabel(y_label, fontsize=SMALL)
    bars.set_title("mean over genes", fontsize=SMALL)
    for place, (values, color) in enumerate(zip(totals.values(), [*COLORS[: len(shown)], "0.5"], strict=True)):
        bars.bar(place, values.mean(), color=color, alpha=0.6, width=0.6)
        bars.plot(np.full(len(values), place), values, "o", color="black", markersize=2.2)
    bars.set_xticks(range(len(totals)), [fill(label, 10) for label in totals])
    for axes in (*panels, bars):
        axes.axhline(0, color="0.4", linewidth=0.7, zorder=0)
        axes.tick_params(labelsize=TINY)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=SMALL + 1)
    return figure
