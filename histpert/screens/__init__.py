"""Perturb-seq screens: read from a file or simulated, and split into folds."""

from histpert.screens.folds import assign_cluster_folds, assign_folds, assign_pair_folds
from histpert.screens.reading import ReadOptions, open_screen, read_screen
from histpert.screens.screen import GroupedCells, Screen, group_cells
from histpert.screens.simulation import PRESETS, ScreenTruth, Simulation, simulate_screen, simulated_gene_sets
from histpert.screens.working_space import WorkingSpace

__all__ = [
    "PRESETS",
    "GroupedCells",
    "ReadOptions",
    "Screen",
    "ScreenTruth",
    "Simulation",
    "WorkingSpace",
    "assign_cluster_folds",
    "assign_folds",
    "assign_pair_folds",
    "group_cells",
    "open_screen",
    "read_screen",
    "simulate_screen",
    "simulated_gene_sets",
]
