"""Embeddings of the genes that a screen perturbed, also where both name them differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from histpert.embeddings.aliases import AliasTable
from histpert.embeddings.gene_embeddings import GeneEmbeddings
from histpert.embeddings.proposals import propose
from histpert.multi_hot import genes_of
from histpert.wording import some

__all__ = ["Matched", "combined_embeddings", "match_genes", "match_perturbations"]


class Matched(NamedTuple):
    """Embeddings of wanted genes.

    Attributes:
        embeddings: Of those found, by the names that were wanted, in that order.
        missing: Those without.
        notes: Which were found under another name, which names are ambiguous, and likely names of missing genes.
    """

    embeddings: GeneEmbeddings
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def match_perturbations(
    embeddings: GeneEmbeddings, perturbations: Sequence[str], aliases: Path | None = None
) -> Matched:
    """Embeddings of perturbations; that of a combination is the average over its genes, of which none may lack one.

    Raises:
        InputError: The table of aliases is missing or laid out otherwise.
    """
    found = match_genes(embeddings, [gene for name in perturbations for gene in genes_of(name)], aliases)
    combined = combined_embeddings(found.embeddings, perturbations)
    known = set(combined.genes)
    return found._replace(embeddings=combined, missing=tuple(name for name in perturbations if name not in known))


def combined_embeddings(embeddings: GeneEmbeddings, perturbations: Sequence[str]) -> GeneEmbeddings:
    """Of the perturbations of which all genes have one: averages over those genes."""
    known = set(embeddings.genes)
    names = tuple(name for name in perturbations if known.issuperset(genes_of(name)))
    if not names:
        return replace(embeddings, genes=(), vectors=embeddings.vectors[:0])
    vectors = np.stack([embeddings.lookup(genes_of(name)).mean(axis=0) for name in names])
    return replace(embeddings, genes=names, vectors=vectors)


def match_genes(embeddings: GeneEmbeddings, wanted: Sequence[str], aliases: Path | None = None) -> Matched:
    """The vectors of wanted genes.

    A gene is taken under its own name where the embeddings have it. Otherwise, with a table of aliases, under the one
    symbol that stands for it and for no other gene. Two wanted genes never get one vector: it would be one gene under
    two names, and a model would be tested on a gene that it was trained on. Nothing is taken by likeness: likely names
    are proposed in a note.

    Raises:
        InputError: The table of aliases is missing or laid out otherwise.
    """
    genes = list(dict.fromkeys(wanted))
    known = set(embeddings.genes)
    source_of = {gene: gene for gene in genes if gene in known}
    without = [gene for gene in genes if gene not in known]
    notes: list[str] = []
    if aliases is not None:  # read also where nothing is missing: a path that is wrong is told
        source_of |= _replacements(AliasTable.read(aliases), without, known, set(source_of), notes)
    missing = tuple(gene for gene in without if gene not in source_of)
    found = [gene for gene in genes if gene in source_of]
    vectors = embeddings.lookup([source_of[gene] for gene in found])
    return Matched(
        GeneEmbeddings(name=embeddings.name, genes=tuple(found), vectors=vectors, notes=embeddings.notes),
        missing,
        (*notes, *_alike(found, vectors), *propose(missing, embeddings.genes)),
    )


def _alike(genes: Sequence[str], vectors: Float[np.ndarray, "gene feature"]) -> tuple[str, ...]:
    """A note on genes of one and the same vector, such as those of one protein: held out or not, the other tells it."""
    genes_of: dict[bytes, list[str]] = {}
    for gene, vector in zip(genes, vectors, strict=True):
        genes_of.setdefault((vector + 0.0).tobytes(), []).append(gene)
    alike = [" = ".join(names) for names in genes_of.values() if len(names) > 1]
    if not alike:
        return ()
    return (f"{len(alike)} vectors stand for several perturbations, which may be in unlike folds: {some(alike)}",)


def _replacements(
    table: AliasTable, without: Sequence[str], known: set[str], taken: set[str], notes: list[str]
) -> dict[str, str]:
    """The names to use for genes without a vector; what was replaced, and what was not, is added to notes."""
    candidates = {gene: _candidates(table, gene, known) for gene in without}
    ambiguous = [f"{gene} ({' or '.join(names)})" for gene, names in candidates.items() if len(names) > 1]
    chosen = {gene: names[0] for gene, names in candidates.items() if len(names) == 1}
    claims = Counter(chosen.values())
    shared = [gene for gene, name in chosen.items() if name in taken or claims[name] > 1]
    replaced = {gene: name for gene, name in chosen.items() if gene not in shared}
    if replaced:
        listed = ", ".join(f"{gene} -> {name}" for gene, name in replaced.items())
        notes.append(f"{len(replaced)} perturbations have their embedding under another symbol: {listed}")
    if ambiguous:
        notes.append(
            f"{len(ambiguous)} perturbations may stand for several genes and were left without an embedding: "
            f"{', '.join(ambiguous)}"
        )
    if shared:
        listed = ", ".join(f"{gene} ({chosen[gene]})" for gene in shared)
        notes.append(f"another perturbation has the same gene: {some(shared, len(shared))} left out: {listed}")
    return replaced


def _candidates(table: AliasTable, gene: str, known: set[str]) -> tuple[str, ...]:
    """Names in the embeddings that may be meant: one where it is certain, none where no meaning has a vector.

    Of two names of one gene in the embeddings, the approved one is meant. A gene that could be two genes is
    ambiguous even where one of them only has a vector: both are listed.
    """
    meanings = table.genes(gene)
    found = {symbol: [name for name in table.names(symbol) if name in known] for symbol in meanings}
    if len(meanings) > 1:
        return meanings if any(found.values()) else ()
    return tuple(names for symbol in meanings for names in (found[symbol][:1] if symbol in known else found[symbol]))
