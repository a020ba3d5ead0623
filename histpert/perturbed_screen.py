"""A screen's perturbations and their embeddings, found in two files that may name genes differently."""

from __future__ import annotations

from pathlib import Path

from histpert.embeddings import GeneEmbeddings, Matched, match_perturbations
from histpert.errors import InputError
from histpert.screens import GroupedCells
from histpert.screens.opened import OpenScreen

__all__ = ["check_any", "notes_on", "with_embeddings"]


def with_embeddings(
    opened: OpenScreen, embeddings: GeneEmbeddings, aliases: Path | None = None
) -> tuple[OpenScreen, Matched]:
    """The control cells and those of the perturbations that have an embedding, yet to be read; and their embeddings.

    Raises:
        InputError: None has one, or the table of aliases cannot be used.
    """
    found = match_perturbations(embeddings, opened.perturbations, aliases)
    check_any(found, embeddings)
    return opened.with_perturbations(found.embeddings.genes), found


def check_any(found: Matched, embeddings: GeneEmbeddings) -> None:
    """See that some perturbation has an embedding.

    Raises:
        InputError: None has one.
    """
    if not found.embeddings.genes:
        raise InputError(
            f"none of the {len(found.missing)} perturbations has an embedding in {embeddings.name}: the screen has "
            f"{', '.join(found.missing[:3])}, ..., the embeddings {', '.join(embeddings.genes[:3])}, ..."
        )


def notes_on(screen: GroupedCells, n_perturbations: int, found: Matched) -> tuple[str, ...]:
    """For the user: what reading the screen, of so many perturbations, and its embeddings guessed and left out."""
    notes = (
        *screen.notes,
        f"{n_perturbations} perturbations, {screen.n_cells[0]:,} control cells, {len(screen.genes):,} genes",
        *found.embeddings.notes,
        *found.notes,
    )
    if not found.missing:
        return notes
    left_out = f"left out {len(found.missing)} perturbations without an embedding: "
    return (*notes, left_out + ", ".join(found.missing))
