"""Which genes vary together over a fold's training cells: for each gene its most correlated ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from histpert.coexpression import Coexpression

__all__ = ["COEXPRESSION", "MOST_CELLS", "SampledCells", "coexpression"]

COEXPRESSION = "coexpression.arrow"

N_CORRELATED = 20
"""Genes that are kept for each gene, beside itself, as GEARS takes them."""

MOST_CELLS = 20_000
"""Cells that correlations are taken from; of a larger screen so many, drawn at random. Their standard error is then
0.007 at most."""

BLOCK = 2_048
"""Cells that are multiplied at a time."""


@dataclass(frozen=True)
class SampledCells:
    """The same share of each group's cells, drawn at random.

    The draws follow from the cells themselves, so that they are the same wherever groups are gone through.
    """

    share: float

    def __call__(self, cells: sp.csr_matrix) -> sp.csr_matrix:
        """Cells x genes of one group, fewer cells."""
        if self.share >= 1:
            return cells
        n_cells = cells.indptr.size - 1
        digest = hashlib.sha256(np.ascontiguousarray(cells.indptr, dtype=np.int64).data)
        digest.update(np.ascontiguousarray(cells.data).data)
        random = np.random.default_rng(int.from_bytes(digest.digest(), "little"))
        n_drawn = random.binomial(n_cells, self.share)
        return sp.csr_matrix(cells[np.sort(random.permutation(n_cells)[:n_drawn])])


def coexpression(
    control: sp.csr_matrix, perturbed: Sequence[sp.csr_matrix], folds: Int[np.ndarray, "perturbation"]
) -> Coexpression:
    """Correlations over the control cells and the cells of the perturbations that a fold trains on, for each fold.

    Args:
        control: Control cells x genes.
        perturbed: The same of each perturbation.
        folds: The fold that holds out each, numbered from 0.
    """
    n_genes, n_folds = control.shape[1], int(folds.max()) + 1  # pyright: ignore[reportOptionalSubscript]
    parts = [
        _sums([cells for cells, own in zip(perturbed, folds, strict=True) if own == fold], n_genes)
        for fold in range(n_folds)
    ]
    of_control, found = _sums([control], n_genes), []
    for fold in range(n_folds):
        # Added up, not taken off the sums over all cells: of what is held out not even the rounding is left.
        training = [of_control, *(part for number, part in enumerate(parts) if number != fold)]
        found.append(_nearest(*(sum(values) for values in zip(*training, strict=True))))
    return Coexpression(*(np.stack(arrays) for arrays in zip(*found, strict=True)))


class _Sums(NamedTuple):
    """Over cells."""

    n_cells: int
    first: Float[np.ndarray, "gene"]
    products: Float[np.ndarray, "gene gene"]


def _sums(parts: Sequence[sp.csr_matrix], n_genes: int) -> _Sums:
    first, products, n_cells = np.zeros(n_genes), np.zeros((n_genes, n_genes)), 0
    if parts:
        cells = sp.csr_matrix(sp.vstack(parts))
        n_cells = cells.indptr.size - 1
        for start in range(0, n_cells, BLOCK):
            block = cells[start : start + BLOCK].toarray()
            first += block.sum(axis=0, dtype=np.float64)
            products += block.T @ block
    return _Sums(n_cells, first, products.astype(np.float32))  # there are as many of these as folds


def _nearest(n_cells: Any, first: Any, products: Any) -> Coexpression:
    mean = first / n_cells
    covariance = products / n_cells - np.outer(mean, mean)
    # What float32 products leave of a gene that does not vary is no variance.
    variance = np.where(np.diag(covariance) > 1e-5 * np.diag(products) / n_cells, np.diag(covariance), np.inf)
    correlation = covariance / np.sqrt(variance) / np.sqrt(variance)[:, None]
    np.fill_diagonal(correlation, 1)
    size = np.abs(correlation)
    np.fill_diagonal(size, np.inf)
    nearest = np.argsort(-size, axis=1, kind="stable")[:, : N_CORRELATED + 1]
    return Coexpression(
        nearest.astype(np.int32),
        np.take_along_axis(correlation, nearest, axis=1).clip(-1, 1).astype(np.float32),
    )
