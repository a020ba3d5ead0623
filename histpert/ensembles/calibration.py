"""How often intervals held the means of perturbations that were held out: overall, and where it may be otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from histpert.ensembles.uncertainty import LEVELS, Circumstances, ErrorModel, covered

__all__ = ["Calibration", "calibration_of"]

ALL, NEAR, FAR, LARGE = "all", "nearest third", "farthest third", "largest 5% of predicted shifts"
_LARGE = 0.95
_GROUPS = 12
"""Of predicted means, by their standard deviation, whose errors are averaged."""


@dataclass(frozen=True)
class Calibration:
    """Coverage of held-out means, and the size of errors beside what was said of it.

    Attributes:
        levels: Of intervals.
        coverage: Share of held-out means, a perturbation and a gene each, that intervals of each level hold: of all; of
            perturbations whose embedding is nearest to and farthest from those trained on; of the genes that were
            predicted to shift most.
        predicted: Root mean square of the standard deviations that were predicted, in groups by their size.
        observed: Root mean square of the errors in these.
        distance: Of each held-out perturbation's embedding from the nearest one trained on.
        ratio: Root mean square over genes of each perturbation's errors, in standard deviations.
        perturbations: Their names.
    """

    levels: Float[np.ndarray, "level"]
    coverage: dict[str, Float[np.ndarray, "level"]]
    predicted: Float[np.ndarray, "group"]
    observed: Float[np.ndarray, "group"]
    distance: Float[np.ndarray, "perturbation"]
    ratio: Float[np.ndarray, "perturbation"]
    perturbations: tuple[str, ...]

    def at(self, level: float, of: str = ALL) -> float:
        """Coverage of a level, linear between those that are kept."""
        return float(np.interp(level, [0, *self.levels, 1], [0, *self.coverage[of], 1]))


def calibration_of(
    error: Float[np.ndarray, "perturbation gene"],
    at: Circumstances,
    folds: Int[np.ndarray, "perturbation"],
    perturbations: tuple[str, ...],
) -> Calibration:
    """Coverage where the errors of a fold are told from those of the others; arguments are as in `covered`."""
    needed = covered(error, at, folds)
    size = np.abs(at.shift)
    near, far = np.quantile(at.distance, [1 / 3, 2 / 3])
    parts = {
        ALL: np.ones(needed.shape, bool),
        NEAR: np.broadcast_to((at.distance <= near)[:, None], needed.shape),
        FAR: np.broadcast_to((at.distance >= far)[:, None], needed.shape),
        LARGE: size >= np.quantile(size, _LARGE),
    }
    deviation = ErrorModel.fitted(error, at).deviation(at)
    groups = np.array_split(np.argsort(deviation, axis=None, kind="stable"), _GROUPS)
    squares = np.square(error).reshape(-1), np.square(deviation).reshape(-1)
    observed, predicted = (np.array([np.sqrt(values[group].mean()) for group in groups]) for values in squares)
    return Calibration(
        levels=LEVELS,
        coverage={name: np.array([(needed[part] <= level).mean() for level in LEVELS]) for name, part in parts.items()},
        predicted=predicted,
        observed=observed,
        distance=at.distance,
        ratio=np.sqrt(np.square(error / deviation).mean(axis=1)),
        perturbations=perturbations,
    )
