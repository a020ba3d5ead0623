"""Figures on plain arrays, with matplotlib's objects only: no global state, no screen, no torch."""

from histpert.plots.comparisons import ComparisonPanel, comparison_panels
from histpert.plots.curves import Curve, curve_panels
from histpert.plots.dots import DotPanel, dot_panels
from histpert.plots.gene_maps import GeneMap, gene_maps
from histpert.plots.histograms import Histogram, HistogramPanel, histogram_panels
from histpert.plots.shifts import shift_scatter
from histpert.plots.splits import split_differences
from histpert.plots.style import COLORS, MARKERS, CurveStyle, save_figure
from histpert.plots.ternary import TernaryPanel, ternary_panels

__all__ = [
    "COLORS",
    "MARKERS",
    "ComparisonPanel",
    "Curve",
    "CurveStyle",
    "DotPanel",
    "GeneMap",
    "Histogram",
    "HistogramPanel",
    "TernaryPanel",
    "comparison_panels",
    "curve_panels",
    "dot_panels",
    "gene_maps",
    "histogram_panels",
    "save_figure",
    "shift_scatter",
    "split_differences",
    "ternary_panels",
]
