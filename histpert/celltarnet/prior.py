"""Which genes a gene attends to: those correlated with it over training cells, or those of a network (paper 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from histpert.celltarnet.settings import FlowSettings
from histpert.errors import InputError
from histpert.name_tables import read_name_table
from histpert.wording import some

__all__ = ["attention_prior", "network_prior"]


def attention_prior(correlation: Float[Tensor, "gene gene"], settings: FlowSettings) -> Bool[Tensor, "gene gene"]:
    """Genes that each gene, a row, may attend to: the largest of its row, and of its row in the part of low rank.

    The sparse part S has a gene's `sparse_k` largest absolute correlations; the low-rank part L is made of the `rank`
    eigenvectors of largest eigenvalue, and gives `low_rank_k` more (Chang et al. 2015). With neither, all are attended
    to. A gene's own place is in no row: it would only take one.
    """
    n_genes = len(correlation)
    if not settings.sparse_k and not settings.low_rank_k:
        return torch.ones(n_genes, n_genes, dtype=torch.bool)
    values, vectors = torch.linalg.eigh(correlation)
    largest = values.abs().argsort(descending=True)[: settings.rank]
    low_rank = (vectors[:, largest] * values[largest]) @ vectors[:, largest].T
    attended = torch.zeros(n_genes, n_genes, dtype=torch.bool)
    for part, k in ((correlation, settings.sparse_k), (low_rank, settings.low_rank_k)):
        size = part.abs().fill_diagonal_(-1)
        chosen = size.argsort(dim=1, descending=True, stable=True)[:, : min(k, n_genes - 1)]
        attended.scatter_(1, chosen, True)
    return attended


def network_prior(path: Path, genes: Sequence[str]) -> Bool[Tensor, "gene gene"]:
    """The same from a table of edges (.csv, .tsv) whose first two columns name genes; edges have no direction.

    Raises:
        InputError: It cannot be read, or names none of the genes.
    """
    table = read_name_table(path, "--gene-network")
    place = {gene: number for number, gene in enumerate(genes)}
    first, second = (table.iloc[:, column].map(place) for column in (0, 1))
    known = (first.notna() & second.notna()).to_numpy()
    if not known.any():
        named = [*table.iloc[:, 0].head(3)]
        raise InputError(
            f"--gene-network {path}: no edge is between two of the screen's genes; it names {some(named)}, the screen "
            f"{some(genes, 3)}"
        )
    ends = np.stack([first[known].to_numpy(np.int64), second[known].to_numpy(np.int64)])
    attended = torch.zeros(len(genes), len(genes), dtype=torch.bool)
    attended[ends[0], ends[1]] = attended[ends[1], ends[0]] = True
    return attended.fill_diagonal_(False)
