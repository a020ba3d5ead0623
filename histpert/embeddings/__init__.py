"""Gene embeddings: read from files of many layouts, joined, and matched with the perturbed genes of a screen."""

from histpert.embeddings.gene_embeddings import GeneEmbeddings
from histpert.embeddings.matching import Matched, combined_embeddings, match_genes, match_perturbations
from histpert.embeddings.options import EmbeddingOptions
from histpert.embeddings.reading import read_embeddings

__all__ = [
    "EmbeddingOptions",
    "GeneEmbeddings",
    "Matched",
    "combined_embeddings",
    "match_genes",
    "match_perturbations",
    "read_embeddings",
]
