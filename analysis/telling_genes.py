"""Rules that choose genes whose response is worth looking at, by what was observed alone: no prediction has a say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.distances import histogram_mean
from analysis.predicted import Response

__all__ = ["LARGEST_SHIFT", "SHAPE", "rules", "telling_genes"]

LARGEST_SHIFT = "largest shift"
"""Genes by falling distance from control."""

SHAPE = "shape, not mean"
"""Genes by falling distance from control once both means are the same, where the mean itself has moved by less than
`MEAN_SHARE` of that."""

MEAN_SHARE = 0.25

LEAST_DETECTED = 0.05
"""Both rules leave out genes seen in a smaller share of the perturbed and of the control cells."""

ABOVE_NOISE = 4.0
"""Both leave out distances below so many times the mean distance of samples of one distribution. Of a gene that is
mostly zeros, whose distance is about the size of one normal variable, a chance of 0.14% (3.2 standard deviations)."""


def rules(response: Response) -> Mapping[str, np.ndarray]:
    """By rule, gene numbers, the most telling first. The perturbed genes themselves are left out of both."""
    saved = response.saved
    perturbed = np.isin(saved.genes, [response.perturbation, *response.perturbation.split("+")])
    seen = (response.detected >= LEAST_DETECTED) & ~saved.constant & ~perturbed
    means = (histogram_mean(masses, saved.lower, saved.width) for masses in (response.observed, saved.control))
    mean_shift = np.abs(next(means) - next(means))
    shifted = seen & (response.observed_shift > ABOVE_NOISE * response.noise)
    reshaped = seen & (response.shape_shift > ABOVE_NOISE * response.noise)
    reshaped &= mean_shift < MEAN_SHARE * response.shape_shift
    return {
        LARGEST_SHIFT: _falling(response.observed_shift, shifted),
        SHAPE: _falling(response.shape_shift, reshaped),
    }


def telling_genes(response: Response, n_genes: int) -> Mapping[str, str]:
    """So many genes and the rule that chose each: half by each rule; where one has too few, more by the other.

    Fewer where both rules together have fewer: sampling noise is no response.
    """
    by_rule = {rule: [response.saved.genes[gene] for gene in genes] for rule, genes in rules(response).items()}
    reshaped = by_rule[SHAPE][: max(n_genes // 2, n_genes - len(by_rule[LARGEST_SHIFT]))]
    shifted = [gene for gene in by_rule[LARGEST_SHIFT] if gene not in reshaped][: n_genes - len(reshaped)]
    return dict.fromkeys(shifted, LARGEST_SHIFT) | dict.fromkeys(reshaped, SHAPE)


def _falling(values: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    order = np.argsort(-values, kind="stable")
    return order[allowed[order]]
