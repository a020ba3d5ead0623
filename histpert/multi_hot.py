"""Perturbations as the genes that they perturb: a place for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["genes_of", "multi_hot"]


def genes_of(perturbation: str) -> tuple[str, ...]:
    """The perturbed genes; those of a combination stand in its name, between `+`."""
    return tuple(perturbation.split("+"))


def multi_hot(perturbations: Sequence[str]) -> Float[np.ndarray, "perturbation gene"]:
    """1 where a gene, in the order of their names, is perturbed."""
    place = {name: number for number, name in enumerate(sorted({g for one in perturbations for g in genes_of(one)}))}
    rows = np.zeros((len(perturbations), len(place)), dtype=np.float32)
    for row, perturbation in enumerate(perturbations):
        rows[row, [place[gene] for gene in genes_of(perturbation)]] = 1
    return rows
