"""Predicted against observed shifts from control, a point per gene, the most telling ones named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from histpert.plots.style import COLORS, SMALL, TINY

__all__ = ["name_dots", "shift_scatter"]

_REACH = 6.0
"""Points between the middle of a dot and its name."""

_HALO = 1.5
"""Points by which the white around a name makes it wider and higher."""

_NAME: Mapping[str, Any] = {
    "fontsize": TINY - 0.5,
    "ha": "center",
    "va": "center",
    "textcoords": "offset points",
    "path_effects": [withStroke(linewidth=_HALO, foreground="white")],
}


def shift_scatter(
    axes: Axes,
    observed: Float[np.ndarray, "gene"],
    predicted: Float[np.ndarray, "gene"],
    names: Sequence[str],
    marked: Sequence[str] = (),
    n_named: int = 10,
) -> None:
    """Draw shifts from control: distances of histograms, in log-normalized expression. Call it when all else is drawn.

    In a corner is Pearson's correlation over all genes. Named are those in `marked`, whose dots are filled, then
    genes by falling distance from the origin, in turn with genes by falling distance from the diagonal. A name that
    has no place beside its dot without lying over another one is left out.

    Args:
        axes: Where to draw.
        observed: Distance of the observed histogram from control.
        predicted: Distance of the predicted histogram from control.
        names: Of the genes.
        marked: Genes to stand out.
        n_named: The most names, `marked` included.
    """
    most = 1.12 * max(observed.max(initial=0), predicted.max(initial=0)) or 1.0
    axes.plot([0, most], [0, most], color="0.6", linewidth=0.8, zorder=1)
    stands_out = np.isin(names, marked)
    axes.plot(observed[~stands_out], predicted[~stands_out], "o", color=COLORS[0], markersize=2.6, alpha=0.5, mew=0)
    axes.plot(observed[stands_out], predicted[stands_out], "o", color=COLORS[4], markersize=4.2, mew=0)
    axes.set(xlim=(0, most), ylim=(0, most), box_aspect=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("observed shift, $W_1$(observed, control)", fontsize=SMALL)
    axes.set_ylabel("predicted shift, $W_1$(predicted, control)", fontsize=SMALL)
    axes.tick_params(labelsize=TINY)
    axes.spines[["top", "right"]].set_visible(False)
    # In the corner with fewer dots, upper left or lower right: a dot below the words would have no place for its name.
    high_left = (observed < most / 2) & (predicted > 0.8 * most)
    low_right = (observed > most / 2) & (predicted < 0.2 * most)
    corner: dict[str, Any] = {"x": 0.03, "y": 0.97, "va": "top", "ha": "left"}
    if high_left.sum() > low_right.sum():
        corner = {"x": 0.97, "y": 0.03, "va": "bottom", "ha": "right"}
    axes.text(s=_correlation(observed, predicted), fontsize=TINY, transform=axes.transAxes, **corner)
    named = list(_telling(observed, predicted, stands_out))[:n_named]
    name_dots(axes, observed, predicted, names, named, set(np.flatnonzero(stands_out).tolist()))


def _correlation(observed: np.ndarray, predicted: np.ndarray) -> str:
    varies = len(observed) > 1 and np.ptp(observed) > 0 and np.ptp(predicted) > 0
    r = f"{np.corrcoef(observed, predicted)[0, 1]:.2f}" if varies else "undefined"
    return f"Pearson $r$ = {r}\n{len(observed):,} genes"


def _telling(observed: np.ndarray, predicted: np.ndarray, first: np.ndarray) -> Iterator[int]:
    """Gene numbers, the most telling first."""
    seen = set()
    by_size = np.argsort(-np.hypot(observed, predicted), kind="stable")
    by_error = np.argsort(-np.abs(observed - predicted), kind="stable")
    in_turn = np.stack([by_size, by_error], axis=1).reshape(-1)
    for gene in [*by_size[first[by_size]].tolist(), *in_turn.tolist()]:
        if gene not in seen:
            seen.add(gene)
            yield gene


def name_dots(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    genes: Sequence[int],
    marked: Collection[int],
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
) -> None:
    """Write names beside dots, in turn; one that has no place without lying over another or a text is left out.

    Args:
        axes: Where the dots are, and all else but names.
        x: Of the dots.
        y: Of the dots.
        names: Of the dots.
        genes: Numbers of those that are named, the first ones first.
        marked: Those whose names may be further away.
        low: Left ends of lines through the dots that are named, over which no name is to lie.
        high: Their right ends.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()  # lays the axes out: names are placed by what they cover on the page
    unit = figure.dpi / 72
    dots = axes.transData.transform(np.stack([x, y], axis=1))
    inside = axes.get_window_extent()
    taken = [text.get_window_extent().padded(2 * unit) for text in axes.texts]
    taken += [_box(dots[gene], (0.0, 0.0), (4.0, 4.0), unit) for gene in genes]
    if low is not None and high is not None:
        ends = [axes.transData.transform(np.stack([x, y], axis=1)) for x in (low, high)]
        taken += [Bbox.from_extents(*ends[0][gene], *ends[1][gene]).padded(0.5 * unit) for gene in genes]
    for gene in genes:
        name = axes.annotate(names[gene], (x[gene], y[gene]), (0, 0), **_NAME)
        name.set_in_layout(False)
        extent = name.get_window_extent()
        size = extent.width / unit + _HALO, extent.height / unit + _HALO
        reaches = (_REACH, 2 * _REACH) if gene in marked else (_REACH,)
        for offset, box in _places(dots[gene], size, reaches, unit):
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if fits and not any(box.overlaps(other) for other in taken):
                name.set_position(offset)
                taken.append(box)
                break
        else:
            name.remove()


def _places(
    dot: np.ndarray, size: tuple[float, float], reaches: Sequence[float], unit: float
) -> Iterator[tuple[tuple[float, float], Bbox]]:
    """Where a name may lie around its dot: its middle in points from there, and its box in pixels."""
    width, height = size
    around = (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)
    for reach in reaches:
        for right, up in around:
            offset = right * (width / 2 + reach / (1 + abs(up))), up * (height / 2 + reach / (2 - (right == 0)))
            yield offset, _box(dot, offset, (width, height), unit)


def _box(dot: np.ndarray, offset: tuple[float, float], size: tuple[float, float], unit: float) -> Bbox:
    """A box around a place beside a dot, in pixels; offset and size are in points."""
    left, bottom = (float(dot[i] + unit * (offset[i] - size[i] / 2)) for i in range(2))
    return Bbox.from_bounds(left, bottom, size[0] * unit, size[1] * unit)
