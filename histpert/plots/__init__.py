"""Figures on plain arrays, with matplotlib's objects only: no global state, no screen, no torch."""

from histpert.plots.comparisons import ComparisonPanel, comparison_panels
from histpert.plots.curves import Curve, curve_panels
from histpert.plots.style import COLORS, MARKERS, CurveStyle, save_figure

__all__ = [
    "COLORS",
    "MARKERS",
    "ComparisonPanel",
    "Curve",
    "CurveStyle",
    "comparison_panels",
    "curve_panels",
    "save_figure",
]
