"""A screen in memory: log-normalized expression, cells grouped by perturbation, control cells first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int

from histpert.errors import InputError
from histpert.threads import in_order

__all__ = ["Groups", "Screen", "group_cells", "group_rows"]


@dataclass(frozen=True)
class Screen:
    """Log-normalized expression of the control cells and of the cells of each single perturbation.

    Attributes:
        name: Short name, used in tables and figures.
        expression: Cells x genes, CSR float32, rows grouped: control first, then one block per perturbation.
        genes: Gene names, one per column.
        perturbations: Perturbed genes, sorted; group `p + 1` holds the cells of `perturbations[p]`, group 0 control.
        group_start: First row of each group, and the number of cells at the end.
        notes: What was guessed and left out on the way here, a line each, for the user.
    """

    name: str
    expression: sp.csr_matrix
    genes: tuple[str, ...]
    perturbations: tuple[str, ...]
    group_start: Int[np.ndarray, "bound"]
    notes: tuple[str, ...] = ()

    @property
    def n_cells(self) -> Int[np.ndarray, "group"]:
        """Cells per group, control first."""
        return np.diff(self.group_start)

    @property
    def control(self) -> sp.csr_matrix:
        """Expression of the control cells."""
        return self.expression[: self.group_start[1]]

    def fingerprint(self) -> str:
        """SHA-256 of everything that a result depends on: expression, genes, perturbations and groups."""
        matrix = self.expression
        arrays = (
            (self.group_start, np.int64),
            (matrix.indptr, np.int64),
            (matrix.indices, np.int32),
            (matrix.data, None),
        )
        digest = hashlib.sha256()
        for words in (self.genes, self.perturbations):
            digest.update("\0".join(words).encode() + b"\1")
        for one in in_order(lambda array: _digest(*array), arrays):
            digest.update(one)
        return digest.hexdigest()

    def with_perturbations(self, kept: Iterable[str]) -> Screen:
        """The same screen with the control cells and the cells of the named perturbations only."""
        wanted = set(kept)
        groups = [0, *(group for group, name in enumerate(self.perturbations, start=1) if name in wanted)]
        rows = np.concatenate([np.arange(self.group_start[group], self.group_start[group + 1]) for group in groups])
        return replace(
            self,
            expression=self.expression[rows],
            perturbations=tuple(self.perturbations[group - 1] for group in groups[1:]),
            group_start=np.concatenate([[0], np.cumsum(self.n_cells[groups])]),
        )

    def with_genes(self, kept: Bool[np.ndarray, "gene"]) -> Screen:
        """The same screen with the marked genes only."""
        return replace(
            self,
            expression=sp.csr_matrix(self.expression[:, np.flatnonzero(kept)]),
            genes=tuple(gene for gene, keep in zip(self.genes, kept, strict=True) if keep),
        )

    def with_notes(self, *notes: str) -> Screen:
        """The same screen with further notes for the user."""
        return replace(self, notes=(*self.notes, *notes))


def _digest(array: np.ndarray, dtype: type[np.generic] | None) -> bytes:
    """SHA-256 of an array, a part at a time where it has another type."""
    digest = hashlib.sha256()
    for first in range(0, len(array), 2**20):
        digest.update(np.ascontiguousarray(array[first : first + 2**20], dtype=dtype).data)
    return digest.digest()


class Groups(NamedTuple):
    """Cells in groups: control first, then the perturbations by name."""

    perturbations: tuple[str, ...]
    rows: Int[np.ndarray, "cell"]
    """Cells in the order of their groups, and in their own order inside each."""
    start: Int[np.ndarray, "bound"]
    """Where each group starts in `rows`, and its end."""


def group_rows(labels: Sequence[str | None], name: str) -> Groups:
    """Sort cells into groups.

    Args:
        labels: Per cell the perturbed gene, `""` for control, `None` for a cell to leave out.
        name: Name of the screen.

    Raises:
        InputError: No control cell, or no perturbed cell.
    """
    perturbations = sorted({label for label in labels if label})
    group_of = {None: -1, "": 0} | {label: group for group, label in enumerate(perturbations, start=1)}
    groups = np.array([group_of[label] for label in labels], dtype=np.int64)
    sizes = np.bincount(groups[groups >= 0], minlength=len(perturbations) + 1)
    if sizes[0] == 0:
        raise InputError(f"{name}: no control cells are left after the cell filters")
    if not perturbations:
        raise InputError(f"{name}: no cell with a single perturbation is left after the cell filters")
    rows = np.argsort(groups, kind="stable")[np.count_nonzero(groups < 0) :]
    return Groups(tuple(perturbations), rows, np.concatenate([[0], np.cumsum(sizes)]))


def group_cells(
    expression: sp.csr_matrix,
    labels: Sequence[str | None],
    genes: Sequence[str],
    name: str,
    notes: tuple[str, ...] = (),
) -> Screen:
    """Sort cells into groups, keeping their order inside each group.

    Args:
        expression: Cells x genes, log-normalized.
        labels: Per cell the perturbed gene, `""` for control, `None` for a cell to leave out.
        genes: Gene names.
        name: Name of the screen.
        notes: Carried over to the screen.

    Raises:
        InputError: No control cell, or no perturbed cell.
    """
    groups = group_rows(labels, name)
    grouped = sp.csr_matrix(expression[groups.rows], dtype=np.float32)
    grouped.sum_duplicates()
    return Screen(name, grouped, tuple(genes), groups.perturbations, groups.start, notes)
