"""What expression itself tells of a screen: genes that are hardly seen, targets in their own cells, depth."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from histpert.screens import Screen
from histpert.screens.matrices import csr_of

__all__ = ["hardly_seen", "largest_depth", "target_fold_changes"]

SEEN_TARGET = 0.05
"""Share of control cells in which a target is to be seen, so that its fold change tells anything."""

LEAST = 0.01
"""Counts per 10,000 that are added to both sides of a fold change."""


def hardly_seen(screen: Screen, share: float) -> int:
    """Genes seen in this share of control cells or fewer."""
    return int((_detected(screen) <= share).sum())


def largest_depth(screen: Screen) -> float:
    """The most that the values of a cell stand for, before `log1p`."""
    depths: list[float] = []

    def of_group(cells: sp.csr_matrix) -> float:
        counts = csr_of(np.expm1(cells.data), cells.indices, cells.indptr, cells.shape)  # pyright: ignore[reportArgumentType]
        return np.max(counts @ np.ones(len(screen.genes)), initial=0.0).item()

    screen.for_each_group(of_group, lambda _, depth: depths.append(depth))
    return max(depths)


def target_fold_changes(screen: Screen) -> dict[str, float]:
    """log2 fold change of each perturbed gene in its own cells, of means of normalized counts; no combinations.

    Only of genes that are seen in enough control cells.
    """
    column = {gene: number for number, gene in enumerate(screen.genes)}
    seen, control = _detected(screen), _mean_counts(screen)
    changes = {}
    for group, name in enumerate(screen.perturbations, start=1):
        gene = column.get(name)
        if gene is None or seen[gene] < SEEN_TARGET:
            continue
        rows = slice(*screen.group_start[group : group + 2].tolist())
        values = slice(*screen.expression.indptr[[rows.start, rows.stop]].tolist())
        own = screen.expression.data[values][screen.expression.indices[values] == gene].astype(np.float64)
        mean = np.expm1(own).sum() / (rows.stop - rows.start)
        changes[name] = float(np.log2((mean + LEAST) / (control[gene] + LEAST)))
    return changes


def _detected(screen: Screen) -> Float[np.ndarray, "gene"]:
    """Share of control cells in which each gene is seen."""
    end = screen.expression.indptr[screen.group_start[1]]
    return np.bincount(screen.expression.indices[:end], minlength=len(screen.genes)) / screen.group_start[1]


def _mean_counts(screen: Screen) -> Float[np.ndarray, "gene"]:
    """Mean over control cells of normalized counts."""
    end = screen.expression.indptr[screen.group_start[1]]
    values = np.expm1(screen.expression.data[:end].astype(np.float64))
    sums = np.bincount(screen.expression.indices[:end], weights=values, minlength=len(screen.genes))
    return sums / screen.group_start[1]
