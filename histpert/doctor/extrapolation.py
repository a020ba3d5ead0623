"""From what a few steps took to what a whole study takes: sums on known numbers, no machine in them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import NamedTuple

__all__ = ["TrialCost", "at_bins", "grown", "makespan"]


class TrialCost(NamedTuple):
    """Seconds of a trial."""

    setup: float
    """Before and after its epochs."""
    epoch: float
    """Of each epoch."""
    score: float
    """To score what it predicts of all that a fold holds out."""

    def seconds(self, epochs: int, training: float = 1.0, held_out: float = 1.0) -> float:
        """Of a whole trial.

        Args:
            epochs: Of its training.
            training: Its training perturbations, to those that were timed.
            held_out: What it scores, to what was timed.
        """
        return self.setup + epochs * self.epoch * training + self.score * held_out


def at_bins(costs: Mapping[int, TrialCost], n_bins: int) -> TrialCost:
    """What a trial takes at a number of bins: on the line through the two that were timed, and not less than nothing.

    Args:
        costs: By number of bins; of one alone, it holds for all.
        n_bins: Number of bins.
    """
    if n_bins in costs or len(costs) == 1:
        return costs.get(n_bins) or next(iter(costs.values()))
    (few, of_few), (many, of_many) = min(costs.items()), max(costs.items())
    share = (n_bins - few) / (many - few)
    return TrialCost(*(max(0.0, (1 - share) * one + share * other) for one, other in zip(of_few, of_many, strict=True)))


def grown(n: int, few: tuple[int, float], many: tuple[int, float]) -> float:
    """Seconds at `n` of a work that goes with the square and the cube of n, by those at two smaller numbers.

    Where such a sum does not go through both, as of work that goes with n itself, their power law is gone on with.
    """
    (n1, t1), (n2, t2) = few, many
    if n1 == n2:
        return t2
    cube = (t2 / n2**2 - t1 / n1**2) / (n2 - n1)
    square = t1 / n1**2 - cube * n1
    if cube >= 0 and square >= 0:
        return square * n**2 + cube * n**3
    power = log(max(t2, 1e-9) / max(t1, 1e-9)) / log(n2 / n1)
    return t2 * (n / n2) ** min(3.0, max(0.0, power))


def makespan(durations: Iterable[float], at_once: int) -> float:
    """Seconds until all have ended that are started in this order, each as soon as one of so many places is free."""
    free: Sequence[float] = [0.0] * at_once
    places = list(free)
    heapq.heapify(places)
    for duration in durations:
        heapq.heappush(places, heapq.heappop(places) + duration)
    return max(places)
