"""Cells whose likelihood sums of powers do not tell: near zero, and beyond a range of training. Kept one by one.

A spike around zero has the half-width of a bin (Eq. 10): which cells are inside depends on the bin count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from histpert.histograms.edges import BinEdges

__all__ = ["CellsApart", "Limits", "apart_file", "limits"]


class CellsApart(NamedTuple):
    """Cells that are kept one by one, group after group."""

    first: Int[np.ndarray, "bound"]
    """Place of each group's first one, and their number at the end."""
    gene: Int[np.ndarray, "apart"]
    value: Float[np.ndarray, "apart"]

    def of(self, groups: Int[np.ndarray, "chosen"]) -> CellsApart:
        """Of these groups alone, copied out of a mapped file."""
        first, last = self.first[groups], self.first[groups + 1]
        place = np.concatenate([np.arange(*bounds) for bounds in zip(first, last, strict=True)])
        return CellsApart(np.append(0, np.cumsum(last - first)), self.gene[place], self.value[place])


@dataclass(frozen=True)
class Limits:
    """Which cells are kept: not 0, and at most `near` from it, or below `low`, or above `high`; float64."""

    near: Float[np.ndarray, "gene"]
    low: Float[np.ndarray, "gene"]
    high: Float[np.ndarray, "gene"]

    def __call__(self, cells: sp.csr_matrix) -> tuple[Int[np.ndarray, "apart"], Float[np.ndarray, "apart"]]:
        """Genes and values of the cells of one group that are kept, in the order of the cells."""
        kept = self.keeps(cells.data, cells.indices)
        return cells.indices[kept].astype(np.int32), cells.data[kept].astype(np.float32)

    def keeps(self, value: Float[np.ndarray, "cell"], gene: Int[np.ndarray, "cell"]) -> Bool[np.ndarray, "cell"]:
        """Which of these values of genes are kept."""
        beyond = (value < self.low[gene]) | (value > self.high[gene])
        return ((np.abs(value) <= self.near[gene]) | beyond) & (value != 0)


def limits(edges: BinEdges, genes: Int[np.ndarray, "range"], n_genes: int) -> Limits:
    """What is kept for all ranges of a gene, of which a fold reads what concerns its own.

    Args:
        edges: Edges of each range.
        genes: The gene of each range.
        n_genes: Number of genes.
    """
    near, low, high = np.zeros(n_genes), np.full(n_genes, -np.inf), np.full(n_genes, np.inf)
    np.maximum.at(near, genes, edges.width / 2)
    np.maximum.at(low, genes, edges.lower)
    np.minimum.at(high, genes, edges.lower + edges.n_bins * edges.width)
    return Limits(near, low, high)


def apart_file(n_bins: int) -> str:
    """The file of the cells apart at so many bins."""
    return f"apart_B{n_bins}.arrow"
