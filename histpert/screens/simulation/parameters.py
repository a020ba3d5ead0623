"""The parameters of a simulated screen: what each gene does in control, and what each perturbation does to it.

A cell of library size L counts gene g negative-binomially around `L / 10,000 * rate`. Its log rate is the gene's own,
plus loadings times the cell's program activities, which are normal. Where a perturbation acts, it shifts the
activities; the shifted activities also change dispersions and silence genes, through loadings of their own, and the
perturbed gene's own rate is multiplied by a constant. It acts in a share of its cells; the others are as control.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from histpert.errors import InputError
from histpert.screens.gathering import TARGET_SUM
from histpert.screens.simulation.settings import Simulation

__all__ = ["CONTROL", "Effects", "ScreenParameters"]

CONTROL = "control"
"""What control cells are called."""
LARGEST_SHARE = 0.8
"""Of the counts of a cell, for the genes that are measured."""
LARGEST_LOG_FOLD = 3.0
"""Log fold changes through programs saturate here; those of dispersions at half of it."""


class Effects(NamedTuple):
    """What perturbations do to genes in the cells in which they act."""

    log_rate: Float[np.ndarray, "cell gene"]
    """Added to the log rate."""
    log_dispersion: Float[np.ndarray, "cell gene"]
    """Added to the log dispersion."""
    silenced: Float[np.ndarray, "cell gene"]
    """Probability that a cell does not express the gene at all."""


@dataclass(frozen=True, eq=False)
class ScreenParameters:
    """Parameters of a simulated screen. A *response* is what acts in a cell: a single perturbation, or a whole pair.

    Attributes:
        simulation: The settings that it was drawn with.
        seed: And their seed.
        genes: Names.
        perturbations: The perturbed genes, then the pairs, as `A+B`.
        log_rate: Natural logarithm of the counts per 10,000, in control at average program activity.
        log_dispersion: Logarithm of the negative-binomial dispersion, in control.
        activity_spread: Standard deviation of each program's activity over cells.
        loadings: What a program's activity adds to log rates.
        dispersion_loadings: What a shift of a program's activity adds to log dispersions.
        silencing_loadings: What it adds to the rate of silencing; below 0 counts as 0.
        library_sizes: Total counts that cells have, all equally frequent.
        targets: Number of the perturbed gene, for each single perturbation.
        efficiency: Share of cells in which it acts.
        activity: Shift of program activities, per response: singles, then pairs in cells where both act.
        pairs: Numbers of the two single perturbations of each pair; they act independently of each other.
        interactions: How the joint effect of each pair relates to the single ones.
    """

    simulation: Simulation
    seed: int
    genes: tuple[str, ...]
    perturbations: tuple[str, ...]
    log_rate: Float[np.ndarray, "gene"]
    log_dispersion: Float[np.ndarray, "gene"]
    activity_spread: Float[np.ndarray, "program"]
    loadings: Float[np.ndarray, "gene program"]
    dispersion_loadings: Float[np.ndarray, "gene program"]
    silencing_loadings: Float[np.ndarray, "gene program"]
    library_sizes: Int[np.ndarray, "size"]
    targets: Int[np.ndarray, "single"]
    efficiency: Float[np.ndarray, "single"]
    activity: Float[np.ndarray, "response program"]
    pairs: Int[np.ndarray, "pair 2"]
    interactions: tuple[str, ...]

    @cached_property
    def log_variance(self) -> Float[np.ndarray, "gene"]:
        """Variance over cells of each gene's log rate, through its programs."""
        return self.loadings**2 @ self.activity_spread**2

    @cached_property
    def control_counts(self) -> Float[np.ndarray, "gene"]:
        """Counts of each gene that are expected per 10,000 counts of a control cell."""
        return np.exp(self.log_rate + self.log_variance / 2)

    def effects(self, responses: Int[np.ndarray, "cell"]) -> Effects:
        """What the given responses do to each gene.

        All genes together take no more than `LARGEST_SHARE` of a cell's counts, or their share in control where that is
        larger: beyond it, all rates are lowered alike.
        """
        shift = self.activity[responses]
        log_rate = _saturated(shift @ self.loadings.T, LARGEST_LOG_FOLD)
        rows = np.arange(len(responses))
        for member in self.members(responses).T:
            row = rows[member >= 0]
            log_rate[row, self.targets[member[row]]] += np.log(self.simulation.own_gene_fold)
        silenced = -np.expm1(-np.maximum(shift @ self.silencing_loadings.T, 0))
        dispersion = _saturated(shift @ self.dispersion_loadings.T, LARGEST_LOG_FOLD / 2)
        counts = (np.exp(log_rate) * (1 - silenced)) @ self.control_counts
        largest = max(LARGEST_SHARE * TARGET_SUM, self.control_counts.sum())
        log_rate -= np.log(np.maximum(counts / largest, 1))[:, None]
        return Effects(log_rate, dispersion, silenced)

    def members(self, responses: Int[np.ndarray, "cell"]) -> Int[np.ndarray, "cell 2"]:
        """The single perturbations in each response, -1 in second place where there is only one."""
        n_singles = len(self.targets)
        singles = np.column_stack([np.arange(n_singles), np.full(n_singles, -1)])
        return np.concatenate([singles, self.pairs])[responses]

    def mixture(self, perturbation: str) -> dict[int, float]:
        """Responses of a perturbation's cells and their shares; -1 stands for cells as in control."""
        if perturbation == CONTROL:
            return {-1: 1.0}
        response = self.number(perturbation)
        acting = [int(member) for member in self.members(np.array([response]))[0] if member >= 0]
        shares = dict.fromkeys([-1, *acting, response], 0.0)
        for n_working in range(len(acting) + 1):
            for working in combinations(acting, n_working):
                chances = [self.efficiency[one] if one in working else 1 - self.efficiency[one] for one in acting]
                both = n_working == len(acting)
                shares[response if both else working[0] if working else -1] += float(np.prod(chances))
        return shares

    def number(self, perturbation: str) -> int:
        """Place of a perturbation among `perturbations`; a pair is named in either order."""
        names = [perturbation, "+".join(reversed(perturbation.split("+")))]
        for name in names:
            if name in self.perturbations:
                return self.perturbations.index(name)
        raise InputError(f"the simulated screen has no perturbation {perturbation!r}; it has {self.perturbations[0]!r}")


def _saturated(change: Float[np.ndarray, "cell gene"], largest: float) -> Float[np.ndarray, "cell gene"]:
    return largest * np.tanh(change / largest)
