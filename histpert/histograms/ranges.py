"""The ranges that genes are counted on: over all cells, and in each fold's training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from histpert.histograms.counting import GroupMoments

__all__ = ["NO_FOLD", "Ranges"]

NO_FOLD = -1


class Ranges(NamedTuple):
    """What counts are taken on: genes' ranges over all cells, and those of folds in which a gene has another."""

    gene: Int[np.ndarray, "range"]
    """All genes in order, then those of the folds."""
    fold: Int[np.ndarray, "range"]
    """The fold, in order; `NO_FOLD` for all cells."""
    minimum: Float[np.ndarray, "range"]
    maximum: Float[np.ndarray, "range"]

    @staticmethod
    def of(moments: GroupMoments, folds: Int[np.ndarray, "perturbation"]) -> Ranges:
        """The ranges of a screen."""
        # Extremes of control and of what each fold holds out; all moments may not fit into memory.
        names = np.unique(folds).tolist()
        parts = [np.array([0]), *(np.flatnonzero(folds == fold) + 1 for fold in names)]
        low = np.stack([moments.minimum[groups].min(axis=0) for groups in parts])
        high = np.stack([moments.maximum[groups].max(axis=0) for groups in parts])
        minimum, maximum = low.min(axis=0), high.max(axis=0)
        ranges = [Ranges(np.arange(len(minimum)), np.full(len(minimum), NO_FOLD), minimum, maximum)]
        for number, fold in enumerate(names, start=1):
            least, most = np.delete(low, number, axis=0).min(axis=0), np.delete(high, number, axis=0).max(axis=0)
            genes = np.flatnonzero((least != minimum) | (most != maximum))
            ranges.append(Ranges(genes, np.full(len(genes), fold), least[genes], most[genes]))
        return Ranges(*(np.concatenate(arrays) for arrays in zip(*ranges, strict=True)))

    def of_fold(self, fold: int) -> tuple[Float[np.ndarray, "gene"], Float[np.ndarray, "gene"]]:
        """Smallest and largest value of each gene in a fold's training, or over all cells."""
        every, own = self.fold == NO_FOLD, self.fold == fold
        minimum, maximum = self.minimum[every], self.maximum[every]
        minimum[self.gene[own]], maximum[self.gene[own]] = self.minimum[own], self.maximum[own]
        return minimum, maximum
