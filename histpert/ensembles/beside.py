"""Predicted responses beside the cells of a screen that has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from histpert.ensembles.ensemble import Ensemble
from histpert.ensembles.predicting import distributions
from histpert.ensembles.responses import Responses
from histpert.errors import InputError
from histpert.histograms import BinEdges, count_shard
from histpert.screens import Screen
from histpert.wording import some

__all__ = ["beside"]


def beside(responses: Responses, ensemble: Ensemble, screen: Screen) -> Responses:
    """The responses, with what was observed of those perturbations that a screen has.

    Cells beyond the range that the ensemble was trained on are in its edge bins; observed means are those of the cells,
    all else is of the histograms, as what is predicted is.

    Raises:
        InputError: The screen has none of the perturbations, or lacks genes of the ensemble.
    """
    place = {gene: number for number, gene in enumerate(screen.genes)}
    lacking = [gene for gene in ensemble.genes if gene not in place]
    if lacking:
        raise InputError(
            f"{screen.name} lacks {len(lacking):,} of the {len(ensemble.genes):,} genes that the model predicts: "
            f"{some(lacking)}; read it as the screen that the model was trained on"
        )
    number_of = {name: number for number, name in enumerate(screen.perturbations)}
    there = [name for name in responses.perturbations if name in number_of]
    if not there:
        raise InputError(
            f"{screen.name} has none of {some(responses.perturbations)}: it has {some(screen.perturbations)}"
        )
    expression = screen.expression[:, [place[gene] for gene in ensemble.genes]].tocsr()
    expression.sort_indices()
    edges = BinEdges(ensemble.lower, ensemble.width, ensemble.n_bins, ensemble.constant)
    shape = len(responses), len(ensemble.genes)
    masses, means, n_cells = np.full((*shape, ensemble.n_bins), np.nan), np.full(shape, np.nan), [0] * len(responses)
    for row, name in enumerate(responses.perturbations):
        if name in number_of:
            start, end = screen.group_start[number_of[name] + 1 : number_of[name] + 3].tolist()
            masses[row] = count_shard(expression, np.array([start, end]), edges).in_bin[0] / (end - start)
            means[row] = np.asarray(expression[start:end].mean(axis=0)).reshape(-1)
            n_cells[row] = end - start
    return replace(responses, observed=distributions(ensemble, masses)._replace(mean=means), n_observed=tuple(n_cells))
