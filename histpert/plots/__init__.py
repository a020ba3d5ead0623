"""Figures on plain arrays, with matplotlib's objects only: no global state, no screen, no torch."""

from histpert.plots.comparisons import ComparisonPanel, comparison_panels
from histpert.plots.curves import Curve, curve_panels
from histpert.plots.dots import DotPanel, dot_panels
from histpert.plots.style import COLORS, MARKERS, CurveStyle, save_figure
from histpert.plots.ternary import TernaryPanel, ternary_panels

__all__ = [
    "COLORS",
    "MARKERS",
    "ComparisonPanel",
    "Curve",
    "CurveStyle",
    "DotPanel",
    "TernaryPanel",
    "comparison_panels",
    "curve_panels",
    "dot_panels",
    "save_figure",
    "ternary_panels",
]
