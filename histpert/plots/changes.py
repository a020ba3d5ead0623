"""How all genes change: the shift of each mean beside the distance of the whole distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from histpert.plots.shifts import name_dots
from histpert.plots.style import COLORS, SMALL, TINY

__all__ = ["change_scatter"]


def change_scatter(
    axes: Axes,
    shift: Float[np.ndarray, "gene"],
    w1: Float[np.ndarray, "gene"],
    low: Float[np.ndarray, "gene"],
    high: Float[np.ndarray, "gene"],
    names: Sequence[str],
    marked: Sequence[str],
    interval: str,
) -> None:
    """Draw a dot per gene. Call it when all else is drawn: names are placed by what lies there.

    Genes all of whose mass moves one way lie on the two lines, where the distance is the size of the shift; those above
    change their shape as well, and at the middle nothing but their shape.

    Args:
        axes: Where to draw.
        shift: Predicted shift of the mean from control.
        w1: Predicted distance from control.
        low: Lower end of the interval of the shift.
        high: Upper end.
        names: Of the genes.
        marked: Genes to stand out, with their names and intervals.
        interval: What intervals are.
    """
    stands_out = np.isin(names, marked)
    reach = 1.12 * max(float(np.abs(shift).max(initial=0)), float(w1.max(initial=0))) or 1.0
    axes.plot([-reach, 0, reach], [reach, 0, reach], color="0.6", linewidth=0.8, zorder=1)
    axes.plot(shift[~stands_out], w1[~stands_out], "o", color=COLORS[0], markersize=2.6, alpha=0.5, mew=0)
    axes.hlines(w1[stands_out], low[stands_out], high[stands_out], color=COLORS[4], linewidth=0.8, alpha=0.7)
    axes.plot(shift[stands_out], w1[stands_out], "o", color=COLORS[4], markersize=4.2, mew=0)
    sides = [-reach / 4, reach / 4, *low[stands_out], *high[stands_out], *shift]
    axes.set(xlim=(1.08 * min(sides), 1.08 * max(sides)), ylim=(0, 1.08 * float(w1.max(initial=0)) or 1.0))
    axes.axvline(0, color="0.85", linewidth=0.6, zorder=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"predicted shift of the mean\n({interval})", fontsize=SMALL)
    axes.set_ylabel("predicted distance, $W_1$(predicted, control)", fontsize=SMALL)
    axes.tick_params(labelsize=TINY)
    axes.spines[["top", "right"]].set_visible(False)
    order = [names.index(gene) for gene in marked if gene in names]
    name_dots(axes, shift, w1, names, order, set(order), low, high)
