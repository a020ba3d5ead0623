"""Drawing the parameters of a simulated screen: genes, programs, effects, and embeddings that tell a part of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from histpert.embeddings import GeneEmbeddings
from histpert.errors import InputError
from histpert.screens.gathering import TARGET_SUM
from histpert.screens.simulation.cells import PARAMETERS
from histpert.screens.simulation.settings import Simulation
from histpert.screens.simulation.truth import ScreenTruth

__all__ = ["INTERACTIONS", "SOURCES", "draw_screen"]

SOURCES = ("good", "poor", "permuted")
"""Embeddings that come with a screen."""

INTERACTIONS: Mapping[str, tuple[float, float, float]] = {
    "additive": (1, 1, 0),
    "synergy": (1.5, 1.5, 0),
    "suppression": (0.5, 0.5, 0),
    "epistasis": (1, 0, 0),
    "neomorphism": (1, 1, 1),
}
"""Effect of a pair: multiples of the stronger one's, of the weaker one's, and of a new one as strong as the first."""

N_LIBRARY_SIZES = 256
N_FUNCTIONS = 16
"""Dimensions of gene function: what embeddings can tell of a gene."""
PATHWAY_SIZE = 8
"""Perturbed genes per pathway, on average."""
PATHWAY_SHARE = 0.6
"""Share of the variance of gene function that is between pathways."""
COMMON_SHARE = 0.15
"""Share of the variance of effects that all perturbations have in common, as responses to stress have."""
LOADING_POWER = 2.0
"""Loadings are exponential, raised to this power: many genes load on a program a little, and few a lot."""
RISING_SHARE = 0.7
"""Share of a program's genes that rise with its activity; the others fall."""
SILENCEABLE_SHARE = 0.2
"""Share of the genes that can be silenced."""
EFFICIENCY_CONCENTRATION = 12.0
"""Of the beta distribution of guide efficiencies: standard deviation 0.11 around 0.8."""
SPREAD_LIMIT = 0.8
"""Largest standard deviation of a gene's log rate through its programs."""
LEAST_LOG_RATE = -15.0
"""Log rates are not lower: such genes are never seen, and their moments would be lost in rounding."""
RATE_LIMIT = 3.0
"""Log rates lie within so many spreads of their mean, so that no gene takes most of a cell's counts."""


def draw_screen(seed: int, simulation: Simulation) -> tuple[ScreenTruth, dict[str, GeneEmbeddings]]:
    """Draw a screen's parameters, and embeddings of its perturbed genes.

    Args:
        seed: The same seed and settings give the same screen.
        simulation: Settings.

    Returns:
        The parameters, and embeddings from two sources of unlike quality, `good` and `poor`, beside `permuted`: the
        vectors of `good`, dealt out to genes anew.
    """
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PARAMETERS,)))
    n_singles, n_genes = simulation.n_perturbations, simulation.n_genes
    genes = tuple(f"GENE{number:0{len(str(n_genes))}d}" for number in range(1, n_genes + 1))
    targets = np.sort(random.permutation(n_genes)[:n_singles])
    names = tuple(genes[target] for target in targets)

    within = random.uniform(norm.cdf(-RATE_LIMIT), norm.cdf(RATE_LIMIT), n_genes)
    log_rate = np.maximum(simulation.log_rate_mean + simulation.log_rate_spread * norm.ppf(within), LEAST_LOG_RATE)
    # Few programs make up most of what control cells vary in.
    variances = 1 / np.arange(1.0, simulation.n_programs + 1)
    activity_spread = simulation.program_spread * np.sqrt(variances / variances.mean())
    loadings, dispersion_loadings, silencing_loadings = _loadings(simulation, activity_spread, random)
    functions = _functions(n_singles, random)
    single = _activity(simulation, functions, loadings, random)
    pairs, interactions, joint = _pairs(simulation, single, loadings, random)
    quantiles = (np.arange(N_LIBRARY_SIZES) + 0.5) / N_LIBRARY_SIZES
    sizes = simulation.library_size * np.exp(simulation.library_spread * norm.ppf(quantiles))
    truth = ScreenTruth(
        simulation=simulation,
        seed=seed,
        genes=genes,
        perturbations=(*names, *(f"{names[a]}+{names[b]}" for a, b in pairs)),
        log_rate=log_rate,
        log_dispersion=np.log(simulation.dispersion + simulation.rare_dispersion * np.exp(-log_rate)),
        activity_spread=activity_spread,
        loadings=loadings,
        dispersion_loadings=dispersion_loadings,
        silencing_loadings=silencing_loadings,
        library_sizes=np.maximum(np.rint(sizes), 1).astype(np.int64),
        targets=targets,
        efficiency=_efficiency(simulation, random),
        activity=np.concatenate([single, joint]),
        pairs=pairs,
        interactions=interactions,
    )
    if (total := truth.control_counts.sum()) > TARGET_SUM:
        raise InputError(
            f"the genes would have {total:,.0f} of every {TARGET_SUM:,.0f} counts of a cell: "
            "lower --log-rate-mean or --log-rate-spread, or take fewer genes"
        )
    return truth, _embeddings(simulation, names, functions, random)


def _loadings(
    simulation: Simulation, activity_spread: Float[np.ndarray, "program"], random: np.random.Generator
) -> tuple[Float[np.ndarray, "gene program"], Float[np.ndarray, "gene program"], Float[np.ndarray, "gene program"]]:
    """Loadings for log rates, of root mean square 1 per gene, and in proportion for log dispersions and silencing."""
    shape = (simulation.n_genes, simulation.n_programs)
    rates = random.exponential(size=shape) ** LOADING_POWER * np.where(random.random(shape) < RISING_SHARE, 1, -1)
    dispersions = random.normal(size=shape)
    silencing = random.normal(size=shape) * (random.random((simulation.n_genes, 1)) < SILENCEABLE_SHARE)
    rates = _scaled(rates, 1.0)
    own_spread = np.sqrt(((rates * activity_spread) ** 2).sum(axis=1, keepdims=True))
    return (
        rates * np.minimum(1, SPREAD_LIMIT / np.maximum(own_spread, SPREAD_LIMIT)),
        _scaled(dispersions, simulation.dispersion_effect),
        _scaled(silencing, simulation.silencing_effect),
    )


def _scaled(loadings: Float[np.ndarray, "gene program"], size: float) -> Float[np.ndarray, "gene program"]:
    """Loadings through which shifts of all programs by 1 add `size`, root mean square over genes."""
    found = np.sqrt((loadings**2).sum(axis=1).mean())
    return loadings * (size / found if found else 0.0)


def _functions(n_genes: int, random: np.random.Generator) -> Float[np.ndarray, "single function"]:
    """Functions of the perturbed genes, alike within a pathway; variance 1."""
    n_pathways = max(1, round(n_genes / PATHWAY_SIZE))
    pathways = random.normal(size=(n_pathways, N_FUNCTIONS))[random.integers(n_pathways, size=n_genes)]
    return np.sqrt(PATHWAY_SHARE) * pathways + np.sqrt(1 - PATHWAY_SHARE) * random.normal(size=pathways.shape)


def _activity(
    simulation: Simulation,
    functions: Float[np.ndarray, "single function"],
    loadings: Float[np.ndarray, "gene program"],
    random: np.random.Generator,
) -> Float[np.ndarray, "single program"]:
    """Shift of program activities by each single perturbation: a direction and a size, both told in part."""
    n_singles = len(functions)

    def told_in_part(n_columns: int) -> Float[np.ndarray, "single column"]:
        told = functions @ random.normal(0, N_FUNCTIONS**-0.5, (N_FUNCTIONS, n_columns))
        share = simulation.told_share
        return np.sqrt(share) * told + np.sqrt(1 - share) * random.normal(size=told.shape)

    own = told_in_part(simulation.n_programs)
    common = random.normal(size=simulation.n_programs)
    direction = np.sqrt(1 - COMMON_SHARE) * own + np.sqrt(COMMON_SHARE) * common

    rank = told_in_part(1)[:, 0].argsort().argsort()
    n_null = round(simulation.null_share * n_singles)
    quantile = (rank - n_null + 0.5) / max(n_singles - n_null, 1)
    size = simulation.effect_size * np.exp(simulation.effect_spread * norm.ppf(np.clip(quantile, 0.5 / n_singles, 1)))
    return _of_size(direction, np.where(rank < n_null, 0.0, size), loadings)


def _of_size(
    direction: Float[np.ndarray, "response program"],
    size: Float[np.ndarray, "response"],
    loadings: Float[np.ndarray, "gene program"],
) -> Float[np.ndarray, "response program"]:
    """Activities in the given directions that change log rates by `size`, root mean square over genes."""
    found = np.sqrt(((direction @ loadings.T) ** 2).mean(axis=1))
    return direction * np.divide(size, found, out=np.zeros_like(found), where=found > 0)[:, None]


def _pairs(
    simulation: Simulation,
    single: Float[np.ndarray, "single program"],
    loadings: Float[np.ndarray, "gene program"],
    random: np.random.Generator,
) -> tuple[Int[np.ndarray, "pair 2"], tuple[str, ...], Float[np.ndarray, "pair program"]]:
    """Which genes are perturbed together, how they interact, and what both together do."""
    first, second = np.triu_indices(len(single), 1)
    chosen = np.sort(random.choice(len(first), simulation.n_pairs, replace=False))
    pairs = np.column_stack([first[chosen], second[chosen]]).astype(np.int64)
    kinds = np.array(list(INTERACTIONS))
    number = random.integers(1, len(kinds), simulation.n_pairs)
    number[random.random(simulation.n_pairs) >= simulation.epistatic_share] = 0
    size = np.sqrt(((single @ loadings.T) ** 2).mean(axis=1))
    by_size = np.take_along_axis(pairs, np.argsort(-size[pairs], axis=1, kind="stable"), axis=1)
    strong, weak = by_size.T
    new = _of_size(random.normal(size=(simulation.n_pairs, single.shape[1])), size[strong], loadings)
    parts = np.stack([single[strong], single[weak], new])
    joint = np.einsum("pc,cpj->pj", np.array(list(INTERACTIONS.values()), dtype=float)[number], parts)
    return pairs, tuple(str(kind) for kind in kinds[number]), joint


def _efficiency(simulation: Simulation, random: np.random.Generator) -> Float[np.ndarray, "single"]:
    mean = simulation.guide_efficiency
    if mean == 1:
        return np.ones(simulation.n_perturbations)
    concentration = EFFICIENCY_CONCENTRATION
    return random.beta(mean * concentration, (1 - mean) * concentration, simulation.n_perturbations)


def _embeddings(
    simulation: Simulation,
    names: tuple[str, ...],
    functions: Float[np.ndarray, "single function"],
    random: np.random.Generator,
) -> dict[str, GeneEmbeddings]:
    """Vectors that see the share `quality` of the variance of functions, from two sources; and the first permuted."""
    vectors = {}
    for source, n_features, quality in zip(
        SOURCES[:2], simulation.n_features, simulation.embedding_quality, strict=True
    ):
        seen = np.sqrt(quality) * functions + np.sqrt(1 - quality) * random.normal(size=functions.shape)
        mixing = random.normal(0, N_FUNCTIONS**-0.5, (N_FUNCTIONS, n_features))
        values = seen @ mixing
        deviation = (values - values.mean(axis=0)).std()
        vectors[source] = (values / (deviation or 1)).astype(np.float32)  # the scale that files are read to
    vectors["permuted"] = vectors["good"][random.permutation(len(names))]
    return {source: GeneEmbeddings(source, names, rows) for source, rows in vectors.items()}
