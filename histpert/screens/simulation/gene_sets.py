"""Gene sets of a simulated screen: genes that embeddings place near each other."""

from __future__ import annotations

import numpy as np

from histpert.embeddings import GeneEmbeddings

__all__ = ["SETS_PER_GENE", "simulated_gene_sets"]

SETS_PER_GENE = 2
"""Sets to genes."""

SMALLEST, LARGEST = 3, 15
"""Genes of a set."""


def simulated_gene_sets(embeddings: GeneEmbeddings, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Sets of a gene drawn at random and of the genes of largest cosine with it; what embeddings tell, these tell.

    Args:
        embeddings: Of the perturbed genes.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    vectors = embeddings.vectors - embeddings.vectors.mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    n_genes = len(vectors)
    sets = {}
    for number in range(SETS_PER_GENE * n_genes):
        size, center = random.integers(SMALLEST, LARGEST + 1), random.integers(n_genes)
        nearest = np.argsort(-(vectors @ vectors[center]), kind="stable")[:size]
        sets[f"SET{number + 1}"] = tuple(embeddings.genes[gene] for gene in nearest)
    return sets
