"""Colours, sizes and keys that all figures share, and how a figure is written.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; every style also has its own marker or line,
so that a figure can be read in grey. A figure is as wide as a pair of columns in print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from histpert.results import write_atomically

__all__ = ["COLORS", "MARKERS", "SMALL", "TINY", "WIDTH", "CurveStyle", "draw_key", "line_settings", "save_figure"]

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 7.0  # inches
SMALL, TINY = 8, 7  # points


@dataclass(frozen=True)
class CurveStyle:
    """How a curve looks. A thin curve is a reference: hollow markers, drawn behind the others.

    `dot` is the size of the points of a cloud.
    """

    color: str = "#333333"
    marker: str = ""
    line: str | tuple[int, tuple[int, ...]] = "-"
    thin: bool = False
    dot: float = 2.2


def line_settings(style: CurveStyle) -> dict[str, Any]:
    """What matplotlib calls the parts of a style."""
    return {
        "color": style.color,
        "marker": style.marker or "none",
        "linestyle": style.line,
        "linewidth": 0.9 if style.thin else 1.4,
        "markersize": 3.0 if style.thin else 3.8,
        "markerfacecolor": "white" if style.thin else style.color,
        "markeredgewidth": 0.7,
    }


def draw_key(figure: Figure, side: str, styles: Mapping[str, CurveStyle]) -> None:
    """Names and styles above (`upper`) or below (`lower`) the panels, in as many columns as fit."""
    if not styles:
        return
    handles = [_key_entry(label, style) for label, style in styles.items()]
    inches = 0.75 + 0.065 * max(map(len, styles))  # of one entry: sample, gap and about 0.065 for a letter of 8 points
    columns = max(1, min(len(styles), int(WIDTH / inches)))
    place: Any = f"outside {side} center"  # matplotlib's types do not know places outside the axes
    figure.legend(handles=handles, loc=place, ncols=columns, fontsize=SMALL, frameon=False, handlelength=3.2)


def _key_entry(label: str, style: CurveStyle) -> Line2D:
    return Line2D([], [], label=label, **line_settings(style))


def save_figure(figure: Figure, path_without_suffix: Path) -> list[Path]:
    """Write `<path>.png` and `<path>.svg`, each atomically, the same bytes for the same figure; return both paths."""
    path_without_suffix.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, settings in {"png": {"dpi": 200}, "svg": {"metadata": {"Date": None}}}.items():
        path = path_without_suffix.with_name(f"{path_without_suffix.name}.{kind}")
        # Without a fixed salt, names inside the file are random.
        with mpl.rc_context({"svg.hashsalt": "histpert"}):
            write_atomically(
                path, lambda beside, kind=kind, settings=settings: figure.savefig(beside, format=kind, **settings)
            )
        paths.append(path)
    return paths
