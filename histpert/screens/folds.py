"""Cross-validation folds over perturbations: a held-out perturbation is seen by nothing that is fitted or chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from histpert.errors import InputError
from histpert.multi_hot import genes_of
from histpert.wording import some

__all__ = ["assign_cluster_folds", "assign_folds", "assign_pair_folds"]

CLUSTERS_PER_FOLD = 3
"""More of them, and folds are of more equal size, but less far from one another."""


def assign_folds(perturbations: Sequence[str], n_folds: int, seed: int) -> Int[np.ndarray, "perturbation"]:
    """Number of the fold that holds out each perturbation; fold sizes differ by one at most.

    Args:
        perturbations: Names, in the screen's order.
        n_folds: Number of folds, 2 or more.
        seed: The same seed and names give the same folds.

    Raises:
        InputError: Fewer than 2 folds, or fewer perturbations than folds.
    """
    _check(len(perturbations), n_folds)
    order = np.random.default_rng(seed).permutation(len(perturbations))
    folds = np.empty(len(perturbations), dtype=np.int64)
    folds[order] = np.arange(len(perturbations)) % n_folds
    return folds


def assign_cluster_folds(
    embeddings: Float[np.ndarray, "perturbation feature"], n_folds: int, seed: int
) -> Int[np.ndarray, "perturbation"]:
    """The same where a fold holds out whole clusters of embeddings: nothing like what is predicted is trained on.

    Clusters are those of k-means on directions of centred embeddings, several for each fold; the largest are dealt out
    first, each to the smallest fold.

    Args:
        embeddings: Of the perturbations.
        n_folds: Number of folds, 2 or more.
        seed: The same seed and embeddings give the same folds.

    Raises:
        InputError: Fewer than 2 folds, fewer perturbations than folds, or fewer different embeddings.
    """
    _check(len(embeddings), n_folds)
    directions = np.asarray(normalize(embeddings - embeddings.mean(axis=0)))
    n_different = len(np.unique(directions, axis=0))
    if n_different < n_folds:
        raise InputError(
            f"--hold-out clusters: {n_different} different embeddings cannot fill {n_folds} folds, lower --folds"
        )
    n_clusters = min(CLUSTERS_PER_FOLD * n_folds, n_different)
    cluster = KMeans(n_clusters, random_state=seed).fit_predict(directions)
    sizes, fold_of, filled = np.bincount(cluster), np.empty(n_clusters, dtype=np.int64), np.zeros(n_folds, dtype=int)
    for number in np.argsort(-sizes, kind="stable"):
        fold_of[number] = filled.argmin()
        filled[fold_of[number]] += sizes[number]
    return fold_of[cluster]


def assign_pair_folds(
    perturbations: Sequence[str], n_folds: int, seed: int, any_pair: bool = False
) -> Int[np.ndarray, "perturbation"]:
    """The fold that holds out each pair; all else has the number after the last fold, and is trained on in every one.

    Args:
        perturbations: Names, in the screen's order.
        n_folds: Number of folds, 2 or more.
        seed: The same seed and names give the same folds.
        any_pair: Hold out all pairs, not only those of which both genes were perturbed alone.

    Raises:
        InputError: Fewer than 2 folds, or fewer such pairs than folds.
    """
    known = set(perturbations)
    pairs = [number for number, name in enumerate(perturbations) if len(genes_of(name)) == 2]
    held_out = [n for n in pairs if any_pair or known.issuperset(genes_of(perturbations[n]))]
    if len(held_out) < n_folds:
        lacking = sorted({gene for n in pairs for gene in genes_of(perturbations[n])} - known)
        without = f"; of the others these genes were not perturbed alone: {some(lacking)}" if lacking else ""
        raise InputError(
            f"--folds {n_folds}: the screen has {len(pairs)} pairs, of which {len(held_out)} can be held out{without}"
        )
    folds = np.full(len(perturbations), n_folds, dtype=np.int64)
    folds[held_out] = assign_folds([perturbations[n] for n in held_out], n_folds, seed)
    return folds


def _check(n_perturbations: int, n_folds: int) -> None:
    if n_folds < 2:
        raise InputError(f"--folds {n_folds}: cross-validation needs at least 2 folds")
    if n_perturbations < n_folds:
        raise InputError(
            f"{n_perturbations} perturbations cannot fill {n_folds} folds: "
            "lower --folds, or check which perturbations the screen's notes say were left out"
        )
