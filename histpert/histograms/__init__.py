"""Histograms of expression: bin edges from training cells, integer counts, and the store that all trials share."""

from histpert.histograms.building import open_or_build
from histpert.histograms.counting import GroupMoments, count_shard, group_moments, merge
from histpert.histograms.edges import BinEdges, bin_edges
from histpert.histograms.store import FoldCounts, HistogramStore

__all__ = [
    "BinEdges",
    "FoldCounts",
    "GroupMoments",
    "HistogramStore",
    "bin_edges",
    "count_shard",
    "group_moments",
    "merge",
    "open_or_build",
]
