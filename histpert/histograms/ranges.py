"""The ranges that genes are counted on: over all cells, and in each fold's training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from histpert.histograms.counting import GroupMoments

__all__ = ["NO_FOLD", "Ranges", "overall_range", "training_range"]

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
        minimum, maximum = overall_range(moments)
        parts = [Ranges(np.arange(len(minimum)), np.full(len(minimum), NO_FOLD), minimum, maximum)]
        for fold in np.unique(folds).tolist():
            low, high = training_range(moments, folds, fold)
            genes = np.flatnonzero((low != minimum) | (high != maximum))
            parts.append(Ranges(genes, np.full(len(genes), fold), low[genes], high[genes]))
        return Ranges(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def of_fold(self, fold: int) -> tuple[Float[np.ndarray, "gene"], Float[np.ndarray, "gene"]]:
        """Smallest and largest value of each gene in a fold's training, or over all cells."""
        every, own = self.fold == NO_FOLD, self.fold == fold
        minimum, maximum = self.minimum[every], self.maximum[every]
        minimum[self.gene[own]], maximum[self.gene[own]] = self.minimum[own], self.maximum[own]
        return minimum, maximum


def overall_range(moments: GroupMoments) -> tuple[Float[np.ndarray, "gene"], Float[np.ndarray, "gene"]]:
    """Smallest and largest value of each gene over all cells."""
    return moments.minimum.min(axis=0), moments.maximum.max(axis=0)


def training_range(
    moments: GroupMoments, folds: Int[np.ndarray, "perturbation"], fold: int
) -> tuple[Float[np.ndarray, "gene"], Float[np.ndarray, "gene"]]:
    """Smallest and largest value of each gene over control and the training perturbations of a fold."""
    seen = np.concatenate([[True], folds != fold])
    return moments.minimum[seen].min(axis=0), moments.maximum[seen].max(axis=0)
