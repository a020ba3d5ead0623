"""The same quantity of several subjects beside each other: clouds of points, or cumulative distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histpert.plots.style import SMALL, TINY, WIDTH, CurveStyle, draw_key

__all__ = ["ComparisonPanel", "comparison_panels"]


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
    figure = Figure(figsize=(WIDTH, 0.5 + 2.0 * rows), layout="constrained")
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        axes.set_title(panel.title, fontsize=SMALL)
        axes.set_xlabel(panel.x_label, fontsize=TINY)
        axes.set_ylabel(panel.y_label, fontsize=TINY)
        axes.tick_params(labelsize=TINY)
        axes.spines[["top", "right"]].set_visible(False)
        for subject, style in styles.items():
            _draw_subject(axes, panel, subject, style)
        axes.set_xscale(panel.x_scale)
        axes.set_yscale(panel.y_scale)
        axes.minorticks_off()
    draw_key(figure, "upper", styles)
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
