"""How far to trust a predicted mean: intervals from the errors that were made on perturbations held out.

Every training perturbation was held out by some members of the ensemble. What these predicted of it is held against its
cells. The mean squared error, less the sampling of the cells, is taken for a sum of four parts: the gene's own error
over held-out perturbations, that times the distance of the embedding from those trained on, the variance over members,
and the squared predicted shift. No part is negative (non-negative least squares, weighted by what they predict). The
ratios of errors to the standard deviations that come of it have quantiles, which make intervals of any level: split
conformal prediction with normalized residuals (Lei et al., JASA 2018), held-out members in the place of a split
(jackknife+-after-bootstrap: Kim, Xu and Barber, NeurIPS 2020).

An interval is for the mean over as many cells of a perturbation as an experiment has: it holds sampling too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls

from histpert.errors import InputError

__all__ = ["LEVELS", "Circumstances", "ErrorModel", "covered"]

LEVELS = np.round(np.arange(0.05, 1, 0.05), 2)
"""Those that coverage is told of."""

_PROBABILITIES = np.linspace(0, 1, 1_001)
_REPEATED = 6
_LEAST = 1e-3
"""Of the average gene's error, the least that a gene is taken to have."""


class Circumstances(NamedTuple):
    """What is known of predicted means, and tells how large their errors are; log-normalized expression.

    Attributes:
        sampling: Variance of the mean over the cells, by sampling: what is predicted of theirs, over their number.
        spread: Variance of the predicted mean over members.
        shift: Predicted shift of the mean from control.
        distance: Of the perturbation's embedding from the nearest that these members were trained on.
    """

    sampling: Float[np.ndarray, "perturbation gene"]
    spread: Float[np.ndarray, "perturbation gene"]
    shift: Float[np.ndarray, "perturbation gene"]
    distance: Float[np.ndarray, "perturbation"]

    def of(self, chosen: Int[np.ndarray, "chosen"] | Bool[np.ndarray, "perturbation"]) -> Circumstances:
        """Of these perturbations alone."""
        return Circumstances(*(values[chosen] for values in self))


@dataclass(frozen=True)
class ErrorModel:
    """Standard deviations of errors, and quantiles of errors in their units.

    Attributes:
        of_gene: Mean squared error of each gene over held-out perturbations, less sampling.
        weights: Of that, of that times the distance, of the variance over members, of the squared shift.
        quantiles: Of absolute errors over standard deviations, at equally spaced probabilities from 0 to 1.
    """

    of_gene: Float[np.ndarray, "gene"]
    weights: Float[np.ndarray, "4"]
    quantiles: Float[np.ndarray, "probability"]

    @classmethod
    def fitted(cls, error: Float[np.ndarray, "perturbation gene"], at: Circumstances) -> ErrorModel:
        """What the errors of held-out perturbations say of those to come.

        Args:
            error: Mean over the cells of a held-out perturbation, less what members that had not seen it predicted.
            at: The same members' circumstances.
        """
        excess = np.square(error) - at.sampling
        least = _LEAST * max(float(excess.mean()), float(at.sampling.mean()), np.finfo(float).tiny)
        of_gene, weights = np.maximum(excess.mean(axis=0), least), np.array([1.0, 0.0, 0.0, 0.0])
        for _ in range(_REPEATED):
            parts = _parts(of_gene, at)
            # The variance of a squared error is as its expectation squared.
            expected = (parts @ weights + at.sampling).reshape(-1)
            weights = nnls(parts.reshape(-1, 4) / expected[:, None], excess.reshape(-1) / expected)[0]
            if not weights.any():  # sampling explains all errors
                weights = np.array([_LEAST, 0.0, 0.0, 0.0])
            # What is left of a gene's errors, its spread and its shifts explained.
            of_gene = np.maximum((excess - parts[..., 2:] @ weights[2:]).mean(axis=0), least)
        parts = _parts(of_gene, at)
        ratios = np.abs(error) / np.sqrt(parts @ weights + at.sampling)
        return cls(of_gene, weights, np.quantile(ratios, _PROBABILITIES))

    def deviation(self, at: Circumstances) -> Float[np.ndarray, "perturbation gene"]:
        """Standard deviation of the error of each predicted mean."""
        return np.sqrt((_parts(self.of_gene, at) * self.weights).sum(axis=-1) + at.sampling)

    def quantile(self, level: float) -> float:
        """Standard deviations to each side that hold a share `level` of the errors.

        Raises:
            InputError: No such share.
        """
        if not 0 < level < 1:
            raise InputError(f"--level {level}: give the share of intervals that hold the truth, between 0 and 1")
        return float(np.interp(level, _PROBABILITIES, self.quantiles))


def _parts(of_gene: Float[np.ndarray, "gene"], at: Circumstances) -> Float[np.ndarray, "perturbation gene 4"]:
    own = np.broadcast_to(of_gene, at.spread.shape)
    return np.stack([own, own * at.distance[:, None], at.spread, np.square(at.shift)], axis=-1)


def covered(
    error: Float[np.ndarray, "perturbation gene"], at: Circumstances, folds: Int[np.ndarray, "perturbation"]
) -> Float[np.ndarray, "perturbation gene"]:
    """The least level whose interval holds each held-out mean: of a fold, by what the errors of the others say.

    Where intervals hold what they say, a share `level` of these is below `level`.

    Args:
        error: As in `ErrorModel.fitted`.
        at: Likewise.
        folds: Of each perturbation, to leave it out with the rest of its fold.
    """
    needed = np.empty(error.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        model = ErrorModel.fitted(error[~inside], at.of(~inside))
        ratio = np.abs(error[inside]) / model.deviation(at.of(inside))
        needed[inside] = np.interp(ratio, model.quantiles, _PROBABILITIES)
    return needed
