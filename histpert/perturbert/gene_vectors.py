"""Gene embeddings out of a trained network, and out of the same signatures without one."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from histpert.perturbert.corpus import Corpus
from histpert.perturbert.masking import uniform
from histpert.perturbert.network import PerturBERT
from histpert.perturbert.settings import BertSettings
from histpert.perturbert.tokens import ABSENT, Tokens

__all__ = ["contextual_embeddings", "gene_table", "principal_components"]

_AT_ONCE = 64
_LARGEST_Z = 10.0


def gene_table(network: PerturBERT) -> Float[np.ndarray, "gene width"]:
    """The learned embedding of each gene of the vocabulary."""
    return network.genes.weight.detach().float().cpu().numpy()


@torch.no_grad()
def contextual_embeddings(
    network: PerturBERT, tokens: Tokens, settings: BertSettings
) -> Float[np.ndarray, "gene width"]:
    """What each gene's token becomes, without masks, averaged over the signatures in which the gene is present.

    Where a step takes some genes of a signature, the genes are dealt out to as many groups of that size, each in the
    context of its group. A gene that is in none keeps 0.
    """
    device = network.head.weight.device
    network.eval()
    n_genes = tokens.responses.shape[1]
    size = settings.genes_per_signature or n_genes
    responses = torch.from_numpy(tokens.responses).to(device)
    lines = torch.from_numpy(tokens.cell_lines).to(device)
    total = torch.zeros(n_genes, network.head.in_features, dtype=torch.float64, device=device)
    number = torch.zeros(n_genes, dtype=torch.float64, device=device)
    every = torch.arange(n_genes, device=device)[None]
    for rows in torch.arange(len(tokens), device=device).split(_AT_ONCE):
        order = uniform(rows[:, None], every, (settings.seed, 0, 0))
        order = order.masked_fill(responses[rows] == ABSENT, 2.0).argsort(dim=1)  # absent genes last
        for genes in order.split(size, dim=1):
            found = responses[rows].gather(1, genes).long()
            present = found != ABSENT
            if not present.any():
                break
            hidden = network.hidden(genes, found.masked_fill(~present, 0), lines[rows], present)
            total.index_add_(0, genes[present], hidden[present].double())
            number.index_add_(0, genes[present], torch.ones_like(genes[present], dtype=torch.float64))
    return (total / number.clamp_min(1)[:, None]).float().cpu().numpy()


def principal_components(
    corpus: Corpus, rows: Int[np.ndarray, "row"], n_components: int
) -> Float[np.ndarray, "gene component"]:
    """Loadings of genes on the principal components of the same signatures, times the components' deviations.

    Signatures are centered gene by gene; absent genes count as 0, and responses beyond 10 standard errors as 10.
    """
    z = np.clip(np.nan_to_num(corpus.z(rows)), -_LARGEST_Z, _LARGEST_Z).astype(np.float64)
    z -= z.mean(axis=0)
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    largest = np.argsort(-values)[:n_components]
    loadings = vectors[:, largest] * np.sqrt(np.maximum(values[largest], 0))
    return (loadings * np.sign(loadings.sum(axis=0))).astype(np.float32)  # eigenvectors have no sign of their own
