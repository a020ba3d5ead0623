"""What an ensemble predicts of perturbations, those that nobody has measured among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from histpert.embeddings import match_genes
from histpert.ensembles.ensemble import Ensemble, aligned
from histpert.ensembles.responses import Distributions, Responses
from histpert.errors import InputError
from histpert.losses import wasserstein1
from histpert.moments import histogram_moments
from histpert.multi_hot import genes_of
from histpert.study_defaults import INTERVAL_LEVEL
from histpert.wording import some

__all__ = ["distributions", "predict"]


def predict(
    ensemble: Ensemble,
    perturbations: Sequence[str],
    *,
    level: float = INTERVAL_LEVEL,
    n_cells: int | None = None,
    aliases: Path | None = None,
) -> Responses:
    """Distributions of all genes after each perturbation, and how far to trust their means.

    A perturbation that the ensemble was trained on, under whatever name, is predicted by those members alone that had
    not seen it. The embedding of a combination, `A+B`, is the average over its genes.

    Args:
        ensemble: From `fit` or `read_ensemble`.
        perturbations: Genes, or combinations of genes.
        level: Share of the intervals that hold the mean.
        n_cells: Of the experiment that the intervals are for; default: the median of the screen's perturbations.
        aliases: Table of gene symbols, as studies take it, to find genes under other names.

    Raises:
        InputError: No perturbation is named, or none of them has an embedding.
    """
    if not perturbations:
        raise InputError("no perturbation is named: give genes, or combinations as A+B")
    if n_cells is not None and n_cells < 1:
        raise InputError(f"--cells {n_cells}: must be 1 or more")
    names = list(dict.fromkeys(map(_canonical, perturbations)))
    number_of = {name: number for number, name in enumerate(ensemble.perturbations)}
    wanted = [gene for name in names if name not in number_of for gene in genes_of(name)]
    found = match_genes(ensemble.embeddings, wanted, aliases)
    vectors = dict(zip(found.embeddings.genes, found.embeddings.vectors, strict=True))
    known = [name for name in names if name in number_of or set(genes_of(name)) <= vectors.keys()]
    missing = tuple(name for name in names if name not in known)
    if not known:
        likely = "".join(f"; {note}" for note in found.notes)
        raise InputError(f"no embedding of {some(missing)} in {ensemble.embeddings.name}, which the model has{likely}")
    rows = np.stack(
        [
            ensemble.vectors[number_of[name]]
            if name in number_of
            else np.mean([vectors[gene] for gene in genes_of(name)], axis=0, dtype=np.float32)
            for name in known
        ]
    )
    trained = [number_of.get(name, _same(row, ensemble.vectors)) for name, row in zip(known, rows, strict=True)]
    sample = int(np.median(ensemble.n_cells)) if n_cells is None else n_cells
    return _responses(ensemble, known, rows, trained, sample, level, missing, found.notes)


def _same(vector: Float[np.ndarray, "feature"], others: Float[np.ndarray, "perturbation feature"]) -> int | None:
    """The perturbation of the very same embedding, which is the gene under another name, or tells all about it."""
    same = np.flatnonzero((others == vector).all(axis=1))
    return int(same[0]) if len(same) else None


def _canonical(perturbation: str) -> str:
    """A combination with its genes in order, as screens have them."""
    return "+".join(sorted(gene.strip() for gene in genes_of(perturbation)))


def _responses(
    ensemble: Ensemble,
    names: Sequence[str],
    vectors: Float[np.ndarray, "perturbation feature"],
    trained: Sequence[int | None],
    n_cells: int,
    level: float,
    missing: tuple[str, ...],
    notes: tuple[str, ...],
) -> Responses:
    assert ensemble.errors is not None
    every = np.ones(len(ensemble.networks), bool)
    asked = np.stack([every if number is None else ensemble.held_out[:, number] for number in trained], axis=1)
    averaged = ensemble.averaged(vectors, asked, np.full(len(names), n_cells))
    assert averaged.masses is not None
    reach = ensemble.errors.quantile(level) * ensemble.errors.deviation(averaged.circumstances)
    return Responses(
        screen=ensemble.screen,
        genes=ensemble.genes,
        perturbations=tuple(names),
        lower=ensemble.lower,
        width=ensemble.width,
        constant=ensemble.constant,
        control=distributions(ensemble, ensemble.control[None]),
        predicted=distributions(ensemble, averaged.masses),
        mean_low=averaged.mean - reach,
        mean_high=averaged.mean + reach,
        spread=np.sqrt(averaged.circumstances.spread),
        level=level,
        n_cells=n_cells,
        trust=_trust(ensemble, names, vectors, trained, asked, averaged.circumstances.distance),
        missing=missing,
        notes=notes,
    )


def _trust(
    ensemble: Ensemble,
    names: Sequence[str],
    vectors: Float[np.ndarray, "perturbation feature"],
    trained: Sequence[int | None],
    asked: Bool[np.ndarray, "member perturbation"],
    distance: Float[np.ndarray, "perturbation"],
) -> pd.DataFrame:
    """How far each perturbation is from what was trained on."""
    distances = ensemble.distances(vectors)
    for row, number in enumerate(trained):
        if number is not None:
            distances[row, number] = np.inf
    nearest = distances.argmin(axis=1)
    assert ensemble.calibration is not None
    return pd.DataFrame(
        {
            "perturbation": names,
            "trained_on": [number is not None for number in trained],
            "n_members": asked.sum(axis=0),
            "nearest": [ensemble.perturbations[number] for number in nearest],
            "distance": distance,
            "farther_than": [(ensemble.calibration.distance < each).mean() for each in distance],
        }
    )


def distributions(ensemble: Ensemble, masses: Float[np.ndarray, "perturbation gene bin"]) -> Distributions:
    """Statistics of histograms on the bins of an ensemble, and their distances from control."""
    given, lower, width = (aligned(values) for values in (masses, ensemble.lower, ensemble.width))
    control = aligned(ensemble.control)
    mean, variance, skewness, kurtosis = (values.numpy() for values in histogram_moments(given, lower, width))
    w1 = wasserstein1(given, control.expand_as(given), width).numpy()
    is_zero = np.isclose(ensemble.lower + ensemble.width / 2, 0, atol=1e-9)
    return Distributions(masses, mean, variance, skewness, kurtosis, w1, np.where(is_zero, masses[..., 0], np.nan))
