"""One vector per gene."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

__all__ = ["GeneEmbeddings"]


@dataclass(frozen=True)
class GeneEmbeddings:
    """One vector per gene.

    Attributes:
        name: Names of the sources, joined by `+`.
        genes: Gene names.
        vectors: Genes x features, float32.
        notes: What reading them chose and left out.
    """

    name: str
    genes: tuple[str, ...]
    vectors: Float[np.ndarray, "gene feature"]
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 of genes and vectors."""
        digest = hashlib.sha256("\0".join(self.genes).encode())
        digest.update(np.ascontiguousarray(self.vectors).data)
        return digest.hexdigest()

    def lookup(self, genes: Sequence[str]) -> Float[np.ndarray, "perturbation feature"]:
        """Vectors of these genes, in this order; KeyError for one without."""
        row = {gene: number for number, gene in enumerate(self.genes)}
        return self.vectors[[row[gene] for gene in genes]]

    def save(self, path: Path) -> None:
        """Write genes and vectors as `.npz`."""
        with path.open("wb") as file:
            np.savez(file, genes=np.array(self.genes), vectors=self.vectors)
