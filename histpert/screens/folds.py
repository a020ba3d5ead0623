"""Cross-validation folds over perturbations: a held-out perturbation is seen by nothing that is fitted or chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from histpert.errors import InputError

__all__ = ["assign_folds"]


def assign_folds(perturbations: Sequence[str], n_folds: int, seed: int) -> Int[np.ndarray, "perturbation"]:
    """Number of the fold that holds out each perturbation; fold sizes differ by one at most.

    Args:
        perturbations: Names, in the screen's order.
        n_folds: Number of folds, 2 or more.
        seed: The same seed and names give the same folds.

    Raises:
        InputError: Fewer than 2 folds, or fewer perturbations than folds.
    """
    if n_folds < 2:
        raise InputError(f"--folds {n_folds}: cross-validation needs at least 2 folds")
    if len(perturbations) < n_folds:
        raise InputError(
            f"{len(perturbations)} perturbations cannot fill {n_folds} folds: "
            "lower --folds, or check which perturbations the screen's notes say were left out"
        )
    order = np.random.default_rng(seed).permutation(len(perturbations))
    folds = np.empty(len(perturbations), dtype=np.int64)
    folds[order] = np.arange(len(perturbations)) % n_folds
    return folds
