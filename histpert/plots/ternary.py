"""A quantity over triples of weights that add to one: a heat map on a triangle, a hexagon per triple."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import RegularPolygon

from histpert.plots.style import SMALL, TINY, WIDTH

__all__ = ["TernaryPanel", "ternary_panels"]

_CORNERS = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])  # top, left, right
_MAP = mpl.colormaps["cividis"].resampled(256)  # even in lightness, and to colour-blind readers

_EDGES: Mapping[str, Any] = {"best": {"linewidth": 1.8}, "ties": {"linewidth": 1.0, "linestyle": (0, (2, 1))}}


@dataclass(frozen=True)
class TernaryPanel:
    """One quantity.

    Attributes:
        title: What it is.
        weights: Triples that add to one.
        values: A value per triple; NaN is drawn empty.
        higher_is_better: Which way is better; better is lighter.
        best: Which triples have a thick edge.
        ties: Which triples have a dashed edge.
    """

    title: str
    weights: Float[np.ndarray, "triple 3"]
    values: Float[np.ndarray, "triple"]
    higher_is_better: bool
    best: np.ndarray
    ties: np.ndarray


def ternary_panels(
    panels: Sequence[TernaryPanel],
    corners: Sequence[str],
    edges: Mapping[str, str],
    *,
    columns: int,
    title: str = "",
) -> Figure:
    """Triangles side by side, each on a scale of its own, the value printed in each hexagon.

    Args:
        panels: Quantities, in reading order.
        corners: What the three weights are of: top, left, right.
        edges: What a thick edge (`best`) and a dashed one (`ties`) mean, for the key.
        columns: Panels side by side.
        title: Heading of the whole figure.
    """
    n_down = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 0.4 + 2.35 * n_down), layout="constrained")
    grid = figure.subplots(n_down, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, corners)
    if title:
        figure.suptitle(title, fontsize=SMALL + 1)
    look = {"facecolor": "none", "edgecolor": "black"}
    handles = [RegularPolygon((0, 0), 6, label=edges[kind], **look, **edge) for kind, edge in _EDGES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    return figure


def _draw_panel(axes: Axes, panel: TernaryPanel, corners: Sequence[str]) -> None:
    axes.set_title(panel.title, fontsize=SMALL)
    axes.set_aspect("equal")
    radius = _spacing(panel.weights) / np.sqrt(3)
    shades, digits = _shades(panel.values, panel.higher_is_better), _digits(panel.values)
    for triple, (x, y) in enumerate(panel.weights @ _CORNERS):
        edge = "best" if panel.best[triple] else "ties" if panel.ties[triple] else ""
        inner = radius * (0.93 if edge else 0.97)  # edges of neighbours stay apart
        value, shade = panel.values[triple], shades[triple]
        look = {"facecolor": "none" if np.isnan(value) else _MAP(shade), "edgecolor": "black", **_EDGES.get(edge, {})}
        axes.add_patch(RegularPolygon((x, y), 6, radius=inner, zorder=2, **{"linewidth": 0, **look}))
        text = "\u2013" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "\u2212")
        ink = "black" if shade > 0.45 else "white"
        axes.text(x, y, text, ha="center", va="center", fontsize=5.5, color=ink, zorder=3)
    for (x, y), name, side in zip(_CORNERS, corners, (1, -1, -1), strict=True):
        above = "bottom" if side > 0 else "top"
        axes.text(x, y + 1.15 * radius * side, name, ha="center", va=above, fontsize=TINY)
    axes.set_xlim(-radius - 0.02, 1 + radius + 0.02)
    axes.set_ylim(-radius - 0.2, np.sqrt(0.75) + radius + 0.14)


def _spacing(weights: np.ndarray) -> float:
    """Smallest distance of two triples on the triangle, whose sides are 1."""
    places = weights @ _CORNERS
    gaps = np.linalg.norm(places[:, None] - places, axis=-1)
    return float(min(gaps[gaps > 1e-9], default=0.25))


def _shades(values: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """0 for the worst value, 1 for the best."""
    defined = values[~np.isnan(values)]
    span = np.ptp(defined) if len(defined) else 0.0
    if not span:
        return np.where(np.isnan(values), 1.0, 0.75)
    shades = (values - defined.min()) / span
    return np.nan_to_num(shades if higher_is_better else 1 - shades, nan=1.0)


def _digits(values: np.ndarray) -> int:
    size = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    return int(np.clip(2 - np.floor(np.log10(size or 1.0)), 0, 5))
