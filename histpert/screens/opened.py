"""A screen whose cells are known and whose values are yet to be read: all of them here, or shares in several places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from histpert.errors import InputError
from histpert.multi_hot import genes_of
from histpert.screens.labels import Labels
from histpert.screens.matrices import CellMatrix
from histpert.screens.normalization import CellValues, Facts, Scale, note_on, scale_of
from histpert.screens.screen import Groups, Screen
from histpert.screens.working_space import WorkingSpace
from histpert.threads import Progress
from histpert.wording import some

__all__ = ["Decision", "OpenScreen", "Share", "ShareFacts"]

FEW_CELLS = 10
"""Perturbations with fewer cells are named in a note."""


class ShareFacts(NamedTuple):
    """What a share of the cells says about all."""

    values: Facts
    n_control_detected: Int[np.ndarray, "gene"]
    """Control cells of the share in which each gene is seen; counted where genes are left out by it."""

    @staticmethod
    def joined(facts: Iterable[ShareFacts]) -> ShareFacts:
        """What all shares say."""
        return reduce(
            lambda one, other: ShareFacts(
                Facts.joined([one.values, other.values]),
                one.n_control_detected + other.n_control_detected,
            ),
            facts,
        )


class Decision(NamedTuple):
    """What holds for all cells."""

    scale: Scale
    genes: Bool[np.ndarray, "gene"]
    """Those that are kept."""


@dataclass(frozen=True)
class OpenScreen:
    """A screen whose values are yet to be read, while its file is open.

    Attributes:
        name: Short name.
        matrix: Its values.
        all_genes: Names of all columns.
        groups: The cells of control and each perturbation.
        library_size: Per row of the matrix.
        library_size_guessed: Nobody named a column for it.
        min_control_detection: Genes seen in more than this fraction of control cells are kept.
        obs: What the file, and a table of cells, say of each row of the matrix.
        labels: What is perturbed in each row that the cell filter keeps, where that was read, and what was left out.
        notes: For the user.
        space: Where values lie.
        progress: Told how much is read.
    """

    name: str
    matrix: CellMatrix
    all_genes: tuple[str, ...]
    groups: Groups
    library_size: Float[np.ndarray, "cell"] | None
    library_size_guessed: bool
    min_control_detection: float
    obs: pd.DataFrame
    labels: Labels
    notes: tuple[str, ...]
    space: WorkingSpace
    progress: Progress

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Sorted."""
        return self.groups.perturbations

    def with_perturbations(self, kept: Iterable[str]) -> OpenScreen:
        """The same with the control cells and the cells of the named perturbations only."""
        return replace(self, groups=self.groups.of(kept))

    def read(self) -> Screen:
        """Read all groups.

        Raises:
            InputError: The values are neither counts nor log-normalized, or no gene is left.
        """
        share = self.share(slice(0, len(self.perturbations) + 1))
        decision = self.decision(share.facts)
        expression, largest = share.on(decision)
        notes = self.notes_on(decision, largest)
        return Screen(self.name, expression, self.genes(decision), self.perturbations, self.groups.start, notes)

    def share(self, groups: slice) -> Share:
        """Read some groups, in what is mostly the scale; what all shares say settles it.

        Raises:
            InputError: The matrix cannot be read.
        """
        bounds = self.groups.start[groups.start : groups.stop + 1]
        rows = self.groups.rows[bounds[0] : bounds[-1]]
        sizes = None if self.library_size is None else self.library_size[rows]
        how = {"guessed": self.library_size_guessed, "space": self.space, "progress": self.progress}
        values = CellValues(self.matrix, sizes, rows=rows, **how)
        looked_at = self.groups.start[1].item() if groups.start == 0 and self.min_control_detection else 0
        return Share(values, bounds - bounds[0], groups.start, values.n_detected(looked_at))

    def decision(self, facts: ShareFacts) -> Decision:
        """What holds for all cells, by what all shares say.

        Raises:
            InputError: Values that cannot be used, or no gene is left.
        """
        scale = scale_of(facts.values, self.matrix, self._library_size_named)
        if not facts.values.n_values:
            raise InputError(
                f"{self.matrix.source}: all values are 0 in the cells that are used; name a layer with --layer"
            )
        least = self.min_control_detection * (self.groups.start[1] - self.groups.start[0])
        kept = facts.n_control_detected > least if self.min_control_detection else np.ones(self.matrix.n_genes, bool)
        if not kept.any():
            raise InputError(
                f"--min-control-detection {self.min_control_detection}: no gene is seen in that many control cells; "
                "lower it"
            )
        return Decision(scale, kept)

    def genes(self, decision: Decision) -> tuple[str, ...]:
        """Names of those that are kept."""
        return tuple(gene for gene, kept in zip(self.all_genes, decision.genes, strict=True) if kept)

    @property
    def _library_size_named(self) -> bool | None:
        return None if self.library_size is None else not self.library_size_guessed

    def notes_on(self, decision: Decision, largest: float) -> tuple[str, ...]:
        """All notes, with those on what is allowed, and yet is often a mistake; `largest` is the largest value.

        Raises:
            InputError: It is too large for what values were taken for.
        """
        scale = note_on(decision.scale, largest, self.matrix.source, self._library_size_named)
        notes = [*self.notes, scale]
        sizes = np.diff(self.groups.start)[1:]
        few = [name for name, n_cells in zip(self.perturbations, sizes, strict=True) if n_cells < FEW_CELLS]
        if few:
            notes.append(f"{len(few):,} perturbations have fewer than {FEW_CELLS} cells: {some(few)}")
        perturbed = {gene for name in self.perturbations for gene in genes_of(name)}
        unmeasured = sorted(perturbed - set(self.all_genes))
        if unmeasured:
            notes.append(
                f"{len(unmeasured):,} of {len(perturbed):,} perturbed genes are not among the genes "
                f"measured: {some(unmeasured)}"
            )
        if self.min_control_detection:
            notes.append(
                f"{decision.genes.sum():,} of {len(decision.genes):,} genes are seen in more than "
                f"{self.min_control_detection:.3g} of the control cells"
            )
        return tuple(notes)


class Share:
    """The cells of some groups, which follow each other.

    Args:
        values: Of the cells.
        group_start: First row of each group, and the number of rows.
        first: Number of the first group.
        n_control_detected: Control cells in which each gene is seen, where that matters.

    Attributes:
        facts: What it says about all cells.
        totals: Sum of the values of each cell, as the file has them.
    """

    def __init__(
        self,
        values: CellValues,
        group_start: Int[np.ndarray, "bound"],
        first: int,
        n_control_detected: Int[np.ndarray, "gene"],
    ):
        self._values = values
        self.group_start, self.first = group_start, first
        self.facts = ShareFacts(values.facts, n_control_detected)
        self.totals = values.totals

    def on(self, decision: Decision) -> tuple[sp.csr_matrix, float]:
        """The values, by what holds for all cells, and the largest of them before genes are left out."""
        return self._values.on(decision.scale, None if decision.genes.all() else decision.genes)
