"""Predictions that were made elsewhere: cells in a file, scored like the predictions of our methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from histpert.errors import InputError
from histpert.histograms import BinEdges, group_moments
from histpert.moments import Moments, moments_from_sums
from histpert.predictions import Prediction
from histpert.screens import Screen, read_screen
from histpert.wording import some

__all__ = ["ExternalPredictions", "read_external"]

MOST_DIFFERENCE = 0.1
"""Between mean expression of control cells in the file and in the screen, of the latter: else the scale is another."""


@dataclass(frozen=True)
class ExternalPredictions:
    """Predicted cells of perturbations, log-normalized, genes in the screen's order.

    Attributes:
        cells: Control and predicted cells, grouped.
        columns: Column of each of the screen's genes.
    """

    cells: Screen
    columns: Int[np.ndarray, "gene"]

    @property
    def is_means(self) -> bool:
        """Whether each perturbation has one cell: its predicted mean."""
        return bool((self.cells.n_cells[1:] == 1).all())

    def predict(
        self,
        perturbations: Sequence[str],
        edges: BinEdges,
        control_mean: Float[Tensor, "gene"],
        control: Float[Tensor, "gene bin"],
    ) -> Prediction:
        """What the file says of these perturbations, float64.

        Statistics are those of the predicted cells. Shifts are from the screen's control cells, since those in the file
        are theirs.

        Args:
            perturbations: Names; of one that is not in the file all is NaN.
            edges: Of the bins, from training cells; predicted cells beyond them count in the bins at the end.
            control_mean: Mean of the screen's control cells.
            control: Their bin masses.
        """
        number = {name: number for number, name in enumerate(self.cells.perturbations, start=1)}
        groups = [number[name] for name in perturbations if name in number]
        rows = [row for row, name in enumerate(perturbations) if name in number]
        starts = self.cells.group_start
        parts = [self.cells.expression[starts[group] : starts[group + 1]][:, self.columns] for group in groups]

        def among_all(found: np.ndarray) -> Tensor:
            every = np.full((len(perturbations), *found.shape[1:]), np.nan)
            every[rows] = found
            return torch.from_numpy(every).to(control_mean.device)

        def stacked(arrays: list[np.ndarray], *shape: int) -> np.ndarray:
            return np.stack(arrays) if arrays else np.zeros((0, *shape))

        n_genes = len(self.columns)
        if self.is_means:
            mean = among_all(stacked([part.toarray()[0] for part in parts], n_genes))
            return Prediction(Moments(mean, *([torch.full_like(mean, torch.nan)] * 3)), control_mean, None)
        ends = np.cumsum([0, *(part.shape[0] for part in parts)])
        cells = sp.csr_matrix(sp.vstack(parts)) if parts else sp.csr_matrix((0, n_genes), dtype=np.float32)
        sums = group_moments(cells, ends)
        arrays = np.stack(sums.power_sums), np.diff(ends)[:, None].astype(float), sums.minimum, sums.maximum
        moments = moments_from_sums(*map(torch.from_numpy, arrays))
        masses = stacked([_masses(part.toarray(), edges) for part in parts], n_genes, edges.n_bins)
        moments = Moments(*(among_all(values.numpy()) for values in moments))
        return Prediction(moments, control_mean, among_all(masses), control)


def read_external(
    path: Path,
    genes: Sequence[str],
    perturbations: Sequence[str],
    control_mean: Float[np.ndarray, "gene"],
) -> ExternalPredictions:
    """Read predicted cells, labelled as a screen is: control cells, and cells or one mean of each perturbation.

    Args:
        path: An .h5ad, as `cell-eval` takes it, or any other file that screens are read from.
        genes: Of the screen.
        perturbations: Of the screen; one that is not predicted has no scores.
        control_mean: Mean expression of the screen's control cells.

    Raises:
        InputError: It cannot be read, lacks genes or all perturbations, or is on another scale.
    """
    cells = read_screen(path)
    place = {gene: number for number, gene in enumerate(cells.genes)}
    if lacking := [gene for gene in genes if gene not in place]:
        raise InputError(f"{path} lacks {len(lacking)} of the screen's {len(genes)} genes: {some(lacking)}; add them")
    if {*perturbations}.isdisjoint(cells.perturbations):
        raise InputError(
            f"{path} predicts none of the screen's perturbations: it has {some(cells.perturbations)}, the screen "
            f"{some(perturbations)}; label them as the screen does"
        )
    columns = np.array([place[gene] for gene in genes])
    found = np.asarray(cells.control.mean(axis=0)).reshape(-1)[columns]
    difference = np.abs(found - control_mean).sum() / control_mean.sum()
    if not difference <= MOST_DIFFERENCE:
        raise InputError(
            f"control cells in {path} differ from the screen's by {difference:.0%} in mean expression: predictions must"
            " be on its scale, log1p of counts per 10,000 where its counts are raw, and have its control cells"
        )
    return ExternalPredictions(cells, columns)


def _masses(cells: np.ndarray, edges: BinEdges) -> Float[np.ndarray, "gene bin"]:
    masses = np.empty((cells.shape[1], edges.n_bins))
    for gene, ends in enumerate(edges.edges):
        bins = np.searchsorted(ends, cells[:, gene], side="right") - 1
        masses[gene] = np.bincount(np.clip(bins, 0, edges.n_bins - 1), minlength=edges.n_bins)
    return masses / len(cells)
