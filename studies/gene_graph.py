"""What methods on a graph of perturbed genes take in the place of embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from histpert.embeddings import GeneEmbeddings, match_genes
from histpert.errors import InputError
from histpert.gene_sets import gene_graph, read_gene_sets
from histpert.screens import simulated_gene_sets
from histpert.study_defaults import ON_GRAPH
from histpert.wording import some
from studies.data import StudyData, with_permuted_embeddings
from studies.options import SIMULATED, StudyOptions

__all__ = ["say_absent", "with_gene_graph"]


def with_gene_graph(data: StudyData, gene_sets: Path | None, options: StudyOptions) -> StudyData:
    """The same data, the embedding of each perturbation being its row of the graph; says what the graph lacks.

    Args:
        data: Of the study; of the simulated screen the embeddings give the gene sets.
        gene_sets: A `.gmt` file.
        options: Of the study.

    Raises:
        InputError: The file cannot be read, or has none of the perturbed genes.
    """
    members = [name.split("+") for name in data.perturbations]
    perturbed = list(dict.fromkeys(gene for genes in members for gene in genes))
    own = {gene: gene for gene in perturbed}
    if gene_sets is None:
        sets = simulated_gene_sets(GeneEmbeddings("", data.perturbations, data.vectors))
        name = f"gene sets of {data.embeddings}"
    else:
        sets, name = read_gene_sets(gene_sets), gene_sets.name
        genes = tuple(sorted({gene for names in sets.values() for gene in names}))
        number = np.arange(len(genes), dtype=np.float32)[:, None]
        found = match_genes(GeneEmbeddings(name, genes, number), perturbed, options.names.aliases).embeddings
        own |= {gene: genes[int(row)] for gene, (row,) in zip(found.genes, found.vectors, strict=True)}
    rows = gene_graph(sets, list(own.values()))
    row_of = dict(zip(own, rows, strict=True))
    if not rows.any():
        raise InputError(
            f"--gene-sets {gene_sets}: no set has any of the perturbed genes {some(perturbed)}; give sets of symbols"
        )
    vectors = np.stack(
        [
            np.sum([row_of[gene] for gene in genes], axis=0) * all(row_of[gene].any() for gene in genes)
            for genes in members
        ]
    ).astype(np.float32)
    print(f"{', '.join(ON_GRAPH)}: graph of {int(rows.any(1).sum())} perturbed genes, {name}", flush=True)
    say_absent(name for name, row in zip(data.perturbations, vectors, strict=True) if not row.any())
    graph = data.with_embeddings(name, vectors)
    permuted = options.permute_embeddings and options.screen != SIMULATED
    return with_permuted_embeddings(graph, options.model.seed) if permuted else graph


def say_absent(perturbations: Iterable[str]) -> None:
    """Name the perturbations of which a method predicts nothing, where there are any."""
    if absent := sorted(perturbations):
        print(
            f"  nothing is predicted of {len(absent)} perturbations, which the averages of all methods leave out: "
            f"{', '.join(absent)}",
            flush=True,
        )
