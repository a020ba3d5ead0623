"""Predicted histograms as cells, for tools that score cells: what they draw from them is what was predicted."""

from __future__ import annotations

from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float

from histpert.prediction_files import SavedPredictions

__all__ = ["CONTROL_LABEL", "LABEL_COLUMN", "sampled_cells", "sampled_screen"]

LABEL_COLUMN, CONTROL_LABEL = "target_gene", "non-targeting"
"""Those that cell-eval takes by default."""


def sampled_cells(
    masses: Float[np.ndarray, "gene bin"],
    lower: Float[np.ndarray, "gene"],
    width: Float[np.ndarray, "gene"],
    n_cells: int,
    random: np.random.Generator,
) -> Float[np.ndarray, "cell gene"]:
    """Cells of histograms that are uniform inside each bin; genes are drawn apart, since nothing is predicted of both.

    Of each gene, one cell comes from every n-th part of the distribution, so that means and shares of bins are those
    predicted, to within a cell. What falls into the bin around zero is 0.

    Args:
        masses: Bin masses, each row adding to 1.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        n_cells: Cells to draw.
        random: Draws places inside the parts, and which part a cell has of each gene.
    """
    n_genes, n_bins = masses.shape
    parts = random.permuted(np.tile(np.arange(n_cells), (n_genes, 1)), axis=1)
    places = (parts + random.random((n_genes, n_cells))) / n_cells
    ends = np.concatenate([np.zeros((n_genes, 1)), masses.astype(float).cumsum(1)], axis=1)
    ends /= ends[:, -1:]
    cells = np.empty((n_genes, n_cells))
    for gene in range(n_genes):  # bins without mass share their ends, which no place falls between
        cells[gene] = np.interp(places[gene], ends[gene], np.arange(n_bins + 1))
    is_zero = np.floor(cells) == np.floor(-lower / width)[:, None]
    cells = lower[:, None] + width[:, None] * cells
    cells[is_zero] = 0
    return np.maximum(cells, 0).T


def sampled_screen(saved: Sequence[SavedPredictions], n_cells: int | None, seed: int) -> anndata.AnnData:
    """Predicted cells of all held-out perturbations of some folds, and of the method's own view of control.

    Args:
        saved: Predictions of histograms, of one method, one number of bins, other folds.
        n_cells: Cells of each perturbation; as many as were observed by default.
        seed: Of the draws, which for a perturbation do not depend on the others.

    Returns:
        Log-normalized expression, a row per cell, labelled as cell-eval expects it.
    """
    labels, parts = [], []
    for number, fold in enumerate(saved):
        assert fold.predicted is not None
        assert fold.predicted_control is not None
        groups = [(name, masses, n) for name, masses, n in zip(fold.perturbations, fold.predicted, fold.n_cells)]  # noqa: B905
        if number == 0:
            groups.insert(0, (CONTROL_LABEL, fold.predicted_control, fold.n_control))
        for name, masses, n_observed in groups:
            n_drawn = int(n_observed) if n_cells is None or name == CONTROL_LABEL else n_cells
            random = np.random.default_rng([seed, *name.encode()])
            cells = sampled_cells(masses, fold.lower, fold.width, n_drawn, random)
            parts.append(sp.csr_matrix(cells.astype(np.float32)))
            labels += [name] * n_drawn
    names = [f"cell{number}" for number in range(len(labels))]
    obs = pd.DataFrame({LABEL_COLUMN: pd.Categorical(labels)}, index=names)
    return anndata.AnnData(sp.vstack(parts, format="csr"), obs=obs, var=pd.DataFrame(index=list(saved[0].genes)))
