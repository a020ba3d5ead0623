"""Simulated screens whose true distributions are known."""

from histpert.screens.simulation.cells import SimulatedCells
from histpert.screens.simulation.gene_sets import simulated_gene_sets
from histpert.screens.simulation.screens import SimulatedScreen, simulate_screen, write_screen
from histpert.screens.simulation.settings import PRESETS, Preset, Simulation
from histpert.screens.simulation.truth import ScreenTruth

__all__ = [
    "PRESETS",
    "Preset",
    "ScreenTruth",
    "SimulatedCells",
    "SimulatedScreen",
    "Simulation",
    "simulate_screen",
    "simulated_gene_sets",
    "write_screen",
]
