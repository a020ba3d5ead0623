"""Settings of the simulated screens that several test files draw, and which of their perturbations to look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from histpert.screens.simulation import Simulation
from histpert.screens.simulation.cells import assign_cells

TINY = Simulation(n_perturbations=8, n_genes=30, n_cells=600, n_control=100, min_cells=20, max_cells=120)
PAIRED = replace(TINY, n_pairs=5, n_cells=900)

CHECKED = replace(
    PAIRED,
    n_genes=40,
    n_pairs=8,
    # Every gene is seen in thousands of a million cells, so that each standard error can be relied on.
    log_rate_mean=-1.0,
    log_rate_spread=1.0,
    # All that a perturbation does is strong enough to be missed where it is left out.
    effect_size=0.7,
    guide_efficiency=0.7,
    dispersion_effect=1.0,
    silencing_effect=1.0,
)
# Odd places, that no value falls on but for rounding.
EDGES = np.array([0.0, 0.3713, 0.7317, 1.0931, 1.4719, 1.8113, 2.2371, 2.7139, 3.1771, 4.1])


def strength(truth):
    """Root mean square log fold change, before it saturates, of every single perturbation and pair."""
    return np.sqrt(((truth.activity @ truth.loadings.T) ** 2).mean(axis=1))


def singles_and_pairs(truth):
    n_singles = len(truth.targets)
    return truth.perturbations[:n_singles], truth.perturbations[n_singles:]


def perturbation_of(truth, kind):
    """The strongest single perturbation, one without effects, or the strongest pair that is not additive."""
    singles, pairs = singles_and_pairs(truth)
    single, pair = np.split(strength(truth), [len(singles)])
    if kind == "control":
        return kind
    if kind == "pair":
        return pairs[int(np.argmax(pair * [name != "additive" for name in truth.interactions]))]
    return singles[int(np.argmax(single) if kind == "strong" else np.argmin(single))]


def group_sizes(truth):
    groups = assign_cells(truth)
    assert groups.min() == -1
    return np.bincount(groups + 1, minlength=len(truth.perturbations) + 1)
