"""Perturb-seq screens: read from a file or simulated, and split into folds."""

from histpert.screens.folds import assign_folds
from histpert.screens.reading import ReadOptions, read_screen
from histpert.screens.screen import Screen, group_cells
from histpert.screens.simulation import PRESETS, ScreenTruth, Simulation, simulate_screen

__all__ = [
    "PRESETS",
    "ReadOptions",
    "Screen",
    "ScreenTruth",
    "Simulation",
    "assign_folds",
    "group_cells",
    "read_screen",
    "simulate_screen",
]
