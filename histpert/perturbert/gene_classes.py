"""A class of genes in the space of their embeddings: how alike its genes are, and where they lie."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from histpert.errors import InputError

__all__ = ["ClassCosines", "class_cosines", "cosines", "map_of_genes", "require_umap"]

_AT_ONCE = 500


class ClassCosines(NamedTuple):
    """Mean cosines of pairs of genes, and how often labels dealt out at random set them as far apart.

    Attributes:
        within: Of two genes of the class.
        between: Of one of the class and another.
        p: Share of permutations, and of the labels as they are, whose `within - between` is at least as large.
    """

    within: float
    between: float
    p: float


def unit_vectors(vectors: Float[np.ndarray, "gene feature"]) -> Float[np.ndarray, "gene feature"]:
    """Vectors about their mean over genes, of length 1: what all genes share says nothing about any."""
    centered = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)


def cosines(vectors: Float[np.ndarray, "gene feature"]) -> Float[np.ndarray, "gene gene"]:
    """Cosines of all genes about their mean."""
    units = unit_vectors(vectors)
    return units @ units.T


def class_cosines(
    vectors: Float[np.ndarray, "gene feature"], is_member: Bool[np.ndarray, "gene"], n_permutations: int, seed: int
) -> ClassCosines:
    """Mean cosine within a class, and between it and the other genes (PerturBERT's paper, section 5.2).

    Args:
        vectors: Of all genes, about whose mean cosines are taken.
        is_member: Whether a gene is in the class, which has two genes or more, and not all.
        n_permutations: Random permutations of the labels.
        seed: Of these.
    """
    units, n_members = unit_vectors(vectors), int(is_member.sum())
    if not 2 <= n_members < len(units):
        raise InputError(f"a class of {n_members} of {len(units)} genes: it needs two, and another outside")
    whole = units.sum(axis=0)
    lengths = np.square(units).sum(axis=1)

    def means(members: Bool[np.ndarray, "draw gene"]) -> Float[np.ndarray, "draw 2"]:
        inside = members @ units
        squares = np.square(inside).sum(axis=1)
        within = (squares - members @ lengths) / (n_members * (n_members - 1))
        between = (inside @ whole - squares) / (n_members * (len(units) - n_members))
        return np.stack([within, between], axis=1)

    observed = means(is_member[None])[0]
    gap, n_as_large = observed[0] - observed[1], 1
    random = np.random.default_rng([seed, 9])
    for first in range(0, n_permutations, _AT_ONCE):
        drawn = random.permuted(np.tile(is_member, (min(_AT_ONCE, n_permutations - first), 1)), axis=1)
        found = means(drawn)
        n_as_large += int((found[:, 0] - found[:, 1] >= gap - 1e-12).sum())
    return ClassCosines(float(observed[0]), float(observed[1]), n_as_large / (n_permutations + 1))


def require_umap() -> Any:
    """The class; InputError where umap-learn is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TensorFlow, which nobody needs here
            from umap import UMAP  # noqa: PLC0415 (slow to load, and only this needs it)
    except ImportError as error:
        raise InputError("maps of genes need umap-learn: pip install 'histpert[genes]'") from error
    return UMAP


def map_of_genes(vectors: Float[np.ndarray, "gene feature"], seed: int) -> Float[np.ndarray, "gene 2"]:
    """Two dimensions of UMAP (McInnes, Healy and Melville 2018) by cosines about the mean.

    Raises:
        InputError: umap-learn is not installed.
    """
    umap = require_umap()
    model = umap(n_neighbors=min(15, len(vectors) - 1), metric="cosine", random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few genes have no spectral layout
        return np.asarray(model.fit_transform(unit_vectors(vectors)), np.float64)
