"""What a perfect prediction would score, given that only so many cells were observed.

By the bootstrap principle observed cells are to the truth as cells drawn from them are to the observed ones: the
observed cells' own distribution is scored against bootstrap replicates of control and of the held-out perturbations.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from histpert.histograms import FoldCounts, HistogramStore
from histpert.metrics import HeldOut, evaluate_in_batches
from histpert.metrics.evaluation import Scores
from histpert.metrics.held_out import WholeCells
from histpert.moments import Moments
from histpert.predictions import Prediction
from histpert.targets import resampled_targets

__all__ = ["ceiling_scores"]

PREDICTED, OBSERVED = 0, 1
"""Draws of whole cells."""


def ceiling_scores(
    store: HistogramStore, counts: FoldCounts, device: torch.device, held_out: HeldOut, n_replicates: int, seed: int
) -> Scores:
    """Every metric for the observed distributions against replicates, averaged over those in which it is defined.

    Moments are those of the cells; likelihood, W1, CRPS and coverage are those of the cells' histogram, so that they
    include what binning costs; scores of whole cells compare two samples that are drawn from the observed cells. What
    a perfect prediction does not know either, the noise of control, enters as it does for a method: shifts of
    prediction and replicate are both from the replicate's control.

    The observed shift stands for the true one and is larger by its own noise. With a reliability q of the mean shift a
    perfect prediction correlates by `sqrt(q)`, here by about `1 / sqrt(2 - q)`: 0.91 for 0.89 at q = 0.8, but 0.77 for
    0.55 at 0.3 and 0.71 for nothing at 0. Ceilings of correlations are to be read where reliability is high.

    Args:
        store: Of the screen.
        counts: Counts of the fold.
        device: Where to compare.
        held_out: The held-out perturbations of the fold.
        n_replicates: Bootstrap replicates that the store has, 2 or more.
        seed: Of the draws of histograms.

    Raises:
        ValueError: Too few replicates.
    """
    if n_replicates < 2:
        raise ValueError(f"{n_replicates} bootstrap replicates: a ceiling needs 2 or more")

    def predict(batch: HeldOut, number: int) -> Prediction:
        moments = Moments(*(values[batch.rows] for values in held_out.moments))
        found = Prediction(moments, batch.control_mean, held_out.cells.masses(batch.rows))
        if held_out.whole_cells is None:
            return found
        drawn = _Resampled(held_out.whole_cells, seed, number, PREDICTED)
        return found._replace(cells=lambda n_cells: torch.stack([drawn.some(int(row), n_cells) for row in batch.rows]))

    def replicate(number: int) -> HeldOut:
        found = resampled_targets(store, counts, device, n_replicates, number, seed)
        if held_out.whole_cells is None:
            return found
        return replace(found, whole_cells=_Resampled(held_out.whole_cells, seed, number, OBSERVED))

    found = [evaluate_in_batches(partial(predict, number=number), replicate(number)) for number in range(n_replicates)]
    return {name: _mean_of_defined(np.stack([scores[name] for scores in found])) for name in found[0]}


def _mean_of_defined(values: Float[np.ndarray, "replicate perturbation"]) -> Float[np.ndarray, "perturbation"]:
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(0) / defined.sum(0)


class _Resampled:
    """As many cells drawn with replacement from those of each group, the same ones whenever they are asked for.

    Args:
        of: What they are drawn from.
        seeds: Of the draws.
    """

    def __init__(self, of: WholeCells, *seeds: int):
        self._of, self._seeds = of, seeds

    def of_control(self) -> Float[Tensor, "cell gene"]:
        """The control cells."""
        cells = self._of.of_control()
        return self._drawn(cells, len(cells), 0)

    def of(self, number: int) -> Float[Tensor, "cell gene"]:
        """The cells of a perturbation."""
        cells = self._of.of(number)
        return self._drawn(cells, len(cells), number + 1)

    def some(self, number: int, n_cells: int) -> Float[Tensor, "some gene"]:
        """So many cells of a perturbation."""
        return self._drawn(self._of.of(number), n_cells, number + 1)

    def _drawn(self, cells: Float[Tensor, "cell gene"], n_cells: int, group: int) -> Float[Tensor, "some gene"]:
        chosen = np.random.default_rng([*self._seeds, group]).integers(len(cells), size=n_cells)
        return cells[torch.from_numpy(chosen).to(cells.device)]
