"""A simulated corpus of known truth: genes in modules that perturbations move together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from histpert.perturbert.corpus import Signatures, SignatureSource

__all__ = ["gene_modules", "simulate_signatures"]


def gene_modules(n_genes: int, n_modules: int, seed: int) -> Int[np.ndarray, "gene"]:
    """The module of each gene, of about the same size."""
    return np.random.default_rng([seed, 1]).permutation(np.arange(n_genes) % n_modules)


def simulate_signatures(
    genes: Sequence[str],
    factors: Float[np.ndarray, "gene factor"],
    *,
    n_perturbations: int,
    cell_lines: Sequence[str] = ("A", "B"),
    noise: float = 1.0,
    seed: int = 0,
) -> SignatureSource:
    """Signatures `z = strength * factors @ effect + noise` of perturbations of the genes, in each cell line.

    A perturbation moves a few programs, those that its own gene is in and one at random, up or down; a cell line
    changes how much. Perturbations are named by genes, in turn.

    Args:
        genes: Names; those of the perturbations, in turn, too.
        factors: How each gene follows each program.
        n_perturbations: In each cell line.
        cell_lines: Names.
        noise: Standard deviation of what no program tells, in standard errors.
        seed: The same seed gives the same signatures.
    """
    random = np.random.default_rng([seed, 2])
    n_factors = factors.shape[1]
    number = np.arange(n_perturbations)
    own = factors[number % len(genes)]
    other = np.zeros((n_perturbations, n_factors))
    other[number, random.integers(n_factors, size=n_perturbations)] = random.choice([-1.0, 1.0], n_perturbations)
    sign = random.choice([-1.0, 1.0], (n_perturbations, 1))
    parts = []
    for cell_line in cell_lines:
        strength = random.gamma(4.0, 0.75, (n_perturbations, 1))
        effect = strength * (sign * own + other)
        z = effect @ factors.T + noise * random.standard_normal((n_perturbations, len(genes)))
        names = [genes[one % len(genes)] for one in number.tolist()]
        parts.append(Signatures(names, [cell_line] * n_perturbations, z.astype(np.float32)))
    return SignatureSource("simulated", tuple(genes), lambda: iter(parts))
