"""Gene sets, such as biological processes of the Gene Ontology, and what they say about how alike genes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from histpert.errors import InputError
from histpert.wording import reason

__all__ = ["GeneSets", "gene_graph", "read_gene_sets", "write_gene_sets"]

GeneSets = Mapping[str, Sequence[str]]
"""Genes by the name of their set."""

N_SIMILAR = 20
"""Neighbours of a gene in the graph, beside itself, as GEARS takes them."""


def read_gene_sets(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a `.gmt` file: a set a line, its name, a description and its genes, separated by tabs.

    A weight after a gene's name and a comma, as Enrichr writes it, is passed over.

    Raises:
        InputError: The file is missing, no text, or a line has no genes.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"gene sets {path} cannot be read: {reason(error)}") from error
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = line.split("\t")
        genes = [gene.split(",")[0].strip() for gene in rest[1:]]
        genes = tuple(dict.fromkeys(gene for gene in genes if gene))
        if not genes:
            raise InputError(
                f"gene sets {path}, line {number}: no genes; a .gmt has a set a line: name, description and genes, "
                "separated by tabs"
            )
        if name in sets:
            raise InputError(f"gene sets {path}, line {number}: a second set named {name}; rename one")
        sets[name] = genes
    if not sets:
        raise InputError(f"gene sets {path}: the file is empty")
    return sets


def write_gene_sets(path: Path, sets: GeneSets) -> None:
    """Write a `.gmt` file without descriptions."""
    lines = ("\t".join([name, "", *genes]) for name, genes in sets.items())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def gene_graph(sets: GeneSets, genes: Sequence[str]) -> Float[np.ndarray, "gene gene"]:
    """What each gene takes in from each in a graph of those that are in the same sets.

    A gene's neighbours are the `N_SIMILAR` others of the largest Jaccard index of their sets, and itself. With W their
    indices, a row per gene, and d the sums of its rows, this is `d^-1/2 W d^-1/2` (Kipf and Welling 2017, as GEARS has
    it, Roohani et al. 2023). The row of a gene that is in no set is 0.

    Args:
        sets: Gene sets.
        genes: Names.
    """
    place = {gene: number for number, gene in enumerate(genes)}
    pairs = [(place[gene], number) for number, names in enumerate(sets.values()) for gene in names if gene in place]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    member = sp.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), (len(genes), len(sets)))
    both, n_sets = (member @ member.T).toarray(), np.asarray(member.sum(axis=1)).reshape(-1)
    union = n_sets[:, None] + n_sets - both
    index = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    # Ties are broken by the genes' order, so that the graph is the same everywhere.
    nearest = np.argsort(-index, axis=1, kind="stable")[:, : N_SIMILAR + 1]
    weights = np.zeros_like(index)
    np.put_along_axis(weights, nearest, np.take_along_axis(index, nearest, axis=1), axis=1)
    np.fill_diagonal(weights, np.diag(index))
    degree = weights.sum(axis=1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    return (scale[:, None] * weights * scale).astype(np.float32)
