"""Cells of a simulated screen, drawn in blocks of bounded size on all cores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from histpert.screens.gathering import TARGET_SUM
from histpert.screens.matrices import CellMatrix
from histpert.screens.normalization import log_normalize
from histpert.screens.simulation.parameters import ScreenParameters
from histpert.threads import in_order

__all__ = ["PARAMETERS", "SAMPLE", "SCREEN", "SimulatedCells", "assign_cells", "draw_cells"]

BLOCK_VALUES = 2**20
"""Cells times genes of a block: 8 MiB for each of some ten arrays. Part of what a seed means."""

PARAMETERS, ASSIGNMENT, SCREEN, SAMPLE = 0, 1, 2, 3
"""Streams of random numbers that a seed gives."""


class SimulatedCells(NamedTuple):
    """Cells and what is true of them."""

    counts: sp.csr_matrix
    """Cells x genes, float32 whole numbers."""
    library_size: Int[np.ndarray, "cell"]
    """Total counts over the whole transcriptome."""
    response: Int[np.ndarray, "cell"]
    """What acts in the cell: a row of the parameters' `activity`, or -1 where it is as in control."""

    def expression(self) -> sp.csr_matrix:
        """`log1p(count / library size * 10,000)`, float32."""
        return log_normalize(CellMatrix.of(self.counts), self.library_size.astype(np.float64))[0]

    @staticmethod
    def join(blocks: Iterable[SimulatedCells]) -> SimulatedCells:
        """One after the other."""
        counts, library_size, response = zip(*blocks, strict=True)
        stacked = sp.csr_matrix(sp.vstack(counts, format="csr"))
        return SimulatedCells(stacked, np.concatenate(library_size), np.concatenate(response))


def assign_cells(parameters: ScreenParameters) -> Int[np.ndarray, "cell"]:
    """Perturbation of each cell of the screen, -1 for control, in random order."""
    simulation = parameters.simulation
    random = np.random.default_rng(np.random.SeedSequence(parameters.seed, spawn_key=(ASSIGNMENT,)))
    weights = np.exp(simulation.cells_spread * random.normal(size=len(parameters.perturbations)))
    n_cells = _shared_out(
        simulation.n_cells - simulation.n_control, weights, simulation.min_cells, simulation.max_cells
    )
    group = np.repeat(np.arange(-1, len(n_cells)), [simulation.n_control, *n_cells])
    return random.permutation(group)


def _shared_out(total: int, weights: np.ndarray, least: int, most: int) -> Int[np.ndarray, "perturbation"]:
    """Whole numbers from `least` to `most` that add to `total`, as nearly in proportion to the weights as can be."""
    low, high = 0.0, 2.0 * total / weights.min()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(weights * middle, least, most).sum() < total else (low, middle)
    real = np.clip(weights * high, least, most)
    whole = np.floor(real).astype(np.int64)
    order = np.argsort(whole - real, kind="stable")
    order = order[whole[order] < most]
    whole[order[: total - whole.sum()]] += 1
    return whole


def draw_cells(
    parameters: ScreenParameters, group: Int[np.ndarray, "cell"], seeds: np.random.SeedSequence
) -> Iterator[SimulatedCells]:
    """Draw cells of the given perturbations, -1 for control, and yield them in order, a block at a time.

    Blocks are drawn by as many threads as there are cores; each has random numbers of its own, so that the cells do not
    depend on the number of threads.
    """
    n_rows = max(1, BLOCK_VALUES // len(parameters.genes))
    starts = range(0, len(group), n_rows)
    work = ((group[start : start + n_rows], np.random.default_rng(seeds.spawn(1)[0])) for start in starts)
    yield from in_order(lambda task: _draw_block(parameters, *task), work)


def _draw_block(
    parameters: ScreenParameters, group: Int[np.ndarray, "cell"], random: np.random.Generator
) -> SimulatedCells:
    response = _responses(parameters, group, random)
    library_size = random.choice(parameters.library_sizes, len(group))
    activity = random.normal(0, parameters.activity_spread, (len(group), len(parameters.activity_spread)))
    log_rate = activity @ parameters.loadings.T + parameters.log_rate
    size = np.tile(np.exp(-parameters.log_dispersion), (len(group), 1))
    acting = np.flatnonzero(response >= 0)
    effects = parameters.effects(response[acting])
    log_rate[acting] += effects.log_rate
    size[acting] *= np.exp(-effects.log_dispersion)
    mean = np.exp(log_rate, out=log_rate)
    mean *= (library_size / TARGET_SUM)[:, None]
    mean[acting] *= random.random(effects.silenced.shape) >= effects.silenced
    mean *= random.standard_gamma(size) / size
    counts = sp.csr_matrix(random.poisson(mean).astype(np.float32))
    return SimulatedCells(counts, library_size, response)


def _responses(
    parameters: ScreenParameters, group: Int[np.ndarray, "cell"], random: np.random.Generator
) -> Int[np.ndarray, "cell"]:
    """What acts in each cell; the guides of a pair work independently of each other."""
    members = parameters.members(group)
    works = (random.random(members.shape) < parameters.efficiency[members]) & (members >= 0)
    n_wanted = (members >= 0).sum(axis=1)
    one = np.where(works[:, 0], members[:, 0], members[:, 1])
    response = np.select([works.sum(axis=1) == n_wanted, works.any(axis=1)], [group, one], -1)
    return np.where(group < 0, -1, response)
