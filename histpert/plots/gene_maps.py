"""A class of genes among others: where a map puts them, and their cosines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from histpert.plots.style import COLORS, SMALL, TINY, WIDTH, CurveStyle, draw_key

__all__ = ["GeneMap", "gene_maps"]

_AT_MOST = 5


@dataclass(frozen=True)
class GeneMap:
    """What one source of embeddings says.

    Attributes:
        xy: Place of each gene; none where there is no map.
        is_member: Whether it is in the class.
        cosines: Of some genes, those of the class first.
        n_members: How many these are.
    """

    xy: Float[np.ndarray, "gene 2"]
    is_member: Bool[np.ndarray, "gene"]
    cosines: Float[np.ndarray, "shown shown"]
    n_members: int


def gene_maps(maps: Mapping[str, GeneMap], title: str) -> Figure:
    """A column per source: the map above, cosines below, with lines around those of the class; five at the most."""
    shown = dict(list(maps.items())[:_AT_MOST])
    figure = Figure(figsize=(WIDTH, 0.7 + 2 * WIDTH / max(3, len(shown))), layout="constrained")
    grid = figure.subplots(2, len(shown), squeeze=False)
    off_diagonal = [np.abs(one.cosines[~np.eye(len(one.cosines), dtype=bool)]) for one in shown.values()]
    limit = max([0.05, *(float(np.quantile(values, 0.98)) for values in off_diagonal if len(values))])
    image = None
    for (name, one), (above, below) in zip(shown.items(), grid.T, strict=True):
        above.set_title(name, fontsize=SMALL)
        for is_member, color in ((False, "#bbbbbb"), (True, COLORS[4])):
            above.plot(*one.xy[one.is_member == is_member].T, "o", color=color, markersize=2.2, markeredgewidth=0)
        image = below.imshow(one.cosines, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        for line in (below.axhline, below.axvline):
            line(one.n_members - 0.5, color="0.2", linewidth=0.7)
        for axes in (above, below):
            axes.set_xticks([])
            axes.set_yticks([])
    grid[0, 0].set_ylabel("UMAP", fontsize=SMALL)
    grid[1, 0].set_ylabel("cosines", fontsize=SMALL)
    if image is not None:
        bar = figure.colorbar(image, ax=grid[1].tolist(), shrink=0.8, aspect=15)
        bar.ax.tick_params(labelsize=TINY)
    figure.suptitle(title, fontsize=SMALL + 1)
    draw_key(
        figure, "lower", {"in the class": CurveStyle(COLORS[4], "o", ""), "others": CurveStyle("#bbbbbb", "o", "")}
    )
    return figure
