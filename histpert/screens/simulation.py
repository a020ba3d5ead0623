"""A simulated Perturb-seq screen: counts of correlated genes, and perturbations whose effects embeddings tell in part.

Genes load on a few programs. A cell's log rates are its genes' base rates plus its programs' activities; a perturbation
shifts the activities in the cells whose guide works. The shift follows from the perturbed gene's embedding only in
part. Counts are negative binomial around rate times library size, and become a screen the way counts from a file do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from histpert.embeddings import GeneEmbeddings
from histpert.screens.normalization import TARGET_SUM, log_normalize
from histpert.screens.screen import Screen, group_cells

__all__ = ["Simulation", "simulate_screen"]


@dataclass(frozen=True)
class Simulation:
    """Sizes and effects of a simulated screen.

    The defaults are easy on purpose: every perturbation has an effect and the embeddings tell most of it, so that a
    study ends within minutes and shows what it is for. They say nothing about how well a method does on measured cells.
    """

    n_perturbations: int = 90
    n_genes: int = 200
    n_control: int = 1_000
    min_cells: int = 60
    """Fewest cells per perturbation."""
    max_cells: int = 140
    n_programs: int = 8
    n_features: int = 64
    """Length of the embeddings."""
    told_share: float = 0.9
    """Share of the variance of the program shifts that follows from the embeddings."""
    effect_size: float = 0.8
    """Median standard deviation of a perturbation's program shifts, in log rate per unit of loading."""
    guide_efficiency: float = 0.8
    """Share of a perturbation's cells that respond."""
    knockdown: float = 0.8
    """Share of the perturbed gene's own expression that is lost in responding cells."""


def simulate_screen(seed: int, simulation: Simulation | None = None) -> tuple[Screen, GeneEmbeddings]:
    """Simulate a screen and the embeddings of its perturbed genes.

    Args:
        seed: The same seed and sizes give the same screen.
        simulation: Sizes and effects.

    Returns:
        The screen, named `simulated`, and embeddings for every perturbation.
    """
    sizes = simulation or Simulation()
    random = np.random.default_rng(seed)
    genes = [f"GENE{number:03d}" for number in range(1, sizes.n_genes + 1)]
    perturbed = np.sort(random.permutation(sizes.n_genes)[: sizes.n_perturbations])
    shifts, vectors = _program_shifts(sizes, random)
    loadings = random.normal(0, 0.6, (sizes.n_genes, sizes.n_programs)) * (
        random.random((sizes.n_genes, sizes.n_programs)) < 0.3
    )

    n_cells = random.integers(sizes.min_cells, sizes.max_cells + 1, sizes.n_perturbations)
    group = np.concatenate([np.full(sizes.n_control, -1), np.repeat(np.arange(sizes.n_perturbations), n_cells)])
    responds = (random.random(len(group)) < sizes.guide_efficiency) & (group >= 0)
    activity = random.normal(0, 0.4, (len(group), sizes.n_programs)) + shifts[group] * responds[:, None]
    log_rate = random.normal(-0.6, 1.3, sizes.n_genes) + activity @ loadings.T
    log_rate[np.flatnonzero(responds), perturbed[group[responds]]] += np.log1p(-sizes.knockdown)
    library_size = np.exp(random.normal(np.log(TARGET_SUM), 0.35, len(group)))
    counts = _negative_binomial(np.exp(log_rate) * library_size[:, None] / TARGET_SUM, sizes.n_genes, random)

    total = np.maximum(library_size, counts.sum(axis=1))  # a cell has no more counts of these genes than of all
    expression, _ = log_normalize(sp.csr_matrix(counts), total, "simulated counts")
    names = [genes[gene] for gene in perturbed]
    labels = ["" if number < 0 else names[number] for number in group]
    note = (
        f"SIMULATED, not measured: {sizes.n_perturbations} perturbations x {sizes.n_genes} genes, seed {seed}; "
        "use --screen and --embeddings for your own"
    )
    screen = group_cells(expression, labels, genes, "simulated", (note,))
    return screen, GeneEmbeddings("simulated", tuple(names), vectors)


def _program_shifts(
    sizes: Simulation, random: np.random.Generator
) -> tuple[Float[np.ndarray, "perturbation program"], Float[np.ndarray, "perturbation feature"]]:
    """Shift of each program by each perturbation, and the embeddings that tell a part of it."""
    shape = (sizes.n_perturbations, sizes.n_programs)
    function = random.normal(size=shape)
    told = function @ random.normal(0, sizes.n_programs**-0.5, (sizes.n_programs, sizes.n_programs))
    mixed = np.sqrt(sizes.told_share) * told + np.sqrt(1 - sizes.told_share) * random.normal(size=shape)
    strength = np.exp(random.normal(np.log(sizes.effect_size), 0.3, sizes.n_perturbations))
    common = random.normal(0, 0.3, sizes.n_programs)
    vectors = function @ random.normal(0, 1, (sizes.n_programs, sizes.n_features))
    vectors += random.normal(0, 0.5, vectors.shape)
    return strength[:, None] * (mixed + common), vectors.astype(np.float32)


def _negative_binomial(mean: Float[np.ndarray, "cell gene"], n_genes: int, random: np.random.Generator) -> np.ndarray:
    """Counts with variance `mean + mean^2 / size`, a size per gene."""
    size = np.exp(random.normal(np.log(4.0), 0.5, n_genes))
    return random.poisson(mean * random.gamma(size, 1 / size, mean.shape)).astype(np.float32)
