"""A screen in memory: log-normalized expression, cells grouped by perturbation, control cells first."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Int

from histpert.errors import UnfitError
from histpert.screens.matrices import csr_of
from histpert.threads import for_each

if TYPE_CHECKING:
    import anndata

__all__ = ["GroupedCells", "Groups", "Screen", "for_each_group", "group_cells", "group_rows"]

Result = TypeVar("Result")


class GroupedCells(ABC):
    """Cells in groups, control first, wherever they are.

    Attributes:
        name: Short name, used in tables and figures.
        genes: Gene names.
        perturbations: Perturbed genes, sorted; group `p + 1` holds the cells of `perturbations[p]`, group 0 control.
        notes: What was guessed and left out on the way here, a line each, for the user.
    """

    name: str
    genes: tuple[str, ...]
    perturbations: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    @abstractmethod
    def n_cells(self) -> Int[np.ndarray, "group"]:
        """Cells per group, control first."""

    @abstractmethod
    def for_each_group(self, work: Callable[[sp.csr_matrix], Result], done: Callable[[int, Result], object]) -> None:
        """Call `work` with the expression of each group, log-normalized, and `done` with its number and the result.

        Many at once: `work` may be called elsewhere, and `done` in any thread and order.
        """

    def fingerprint(self) -> str:
        """SHA-256 of everything that a result depends on: expression, genes, perturbations and groups."""
        digest = hashlib.sha256()
        for words in (self.genes, self.perturbations):
            digest.update("\0".join(words).encode() + b"\1")
        of_group: dict[int, bytes] = {}
        self.for_each_group(_digest, of_group.__setitem__)
        for group in range(len(self.n_cells)):
            digest.update(of_group[group])
        return digest.hexdigest()


def _digest(cells: sp.csr_matrix) -> bytes:
    """SHA-256 of the cells of a group."""
    digest = hashlib.sha256()
    for array, dtype in ((cells.indptr, np.int64), (cells.indices, np.int32), (cells.data, np.float32)):
        digest.update(np.ascontiguousarray(array, dtype=dtype).data)
    return digest.digest()


@dataclass(frozen=True)
class Screen(GroupedCells):
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

    def with_perturbations(self, kept: Iterable[str]) -> Screen:
        """The same with the control cells and the cells of the named perturbations only."""
        groups = Groups(self.perturbations, np.arange(self.group_start[-1]), self.group_start).of(kept)
        expression = sp.csr_matrix(self.expression[groups.rows])
        return replace(self, expression=expression, perturbations=groups.perturbations, group_start=groups.start)

    def summary(self) -> pd.DataFrame:
        """A row per group, control first: `perturbation`, `n_cells`."""
        return pd.DataFrame({"perturbation": ["control", *self.perturbations], "n_cells": self.n_cells})

    def to_anndata(self) -> anndata.AnnData:
        """Log-normalized cells x genes, control first; `obs` names the perturbation of each cell."""
        from anndata import AnnData  # noqa: PLC0415 (takes a while)

        labels = pd.Categorical(np.repeat(["control", *self.perturbations], self.n_cells))
        obs = pd.DataFrame({"perturbation": labels}, index=pd.RangeIndex(len(labels)).astype(str))
        return AnnData(self.expression, obs=obs, var=pd.DataFrame(index=pd.Index(self.genes)))

    def most_expressed(self, n_genes: int) -> Screen:
        """The same with so many genes, those of the largest mean over control cells, in their order."""
        mean = np.asarray(self.control.mean(axis=0)).reshape(-1)
        kept = np.sort(np.argsort(-mean, kind="stable")[:n_genes])
        genes = tuple(self.genes[gene] for gene in kept)
        note = f"the {len(kept):,} most expressed of {len(self.genes):,} genes, by their mean over control cells"
        return replace(self, expression=sp.csr_matrix(self.expression[:, kept]), genes=genes, notes=(*self.notes, note))

    def for_each_group(self, work: Callable[[sp.csr_matrix], Result], done: Callable[[int, Result], object]) -> None:
        """Call `work` with the expression of each group, on all cores, and `done` with its number and the result."""
        for_each_group(self.expression, self.group_start, work, done)


def for_each_group(
    expression: sp.csr_matrix,
    group_start: Int[np.ndarray, "bound"],
    work: Callable[[sp.csr_matrix], Result],
    done: Callable[[int, Result], object],
) -> None:
    """Call `work` with the rows of each group, on all cores, and `done` with the group's number and the result."""
    n_genes = expression.shape[1]  # pyright: ignore[reportOptionalSubscript]

    def one(group: int) -> None:
        bounds = expression.indptr[group_start[group] : group_start[group + 1] + 1].astype(np.int64)
        values = slice(int(bounds[0]), int(bounds[-1]))
        rows = expression.data[values], expression.indices[values], bounds - bounds[0]
        done(group, work(csr_of(*rows, (len(bounds) - 1, n_genes))))

    for_each(one, range(len(group_start) - 1))


class Groups(NamedTuple):
    """Cells in groups: control first, then the perturbations by name."""

    perturbations: tuple[str, ...]
    rows: Int[np.ndarray, "cell"]
    """Cells in the order of their groups, and in their own order inside each."""
    start: Int[np.ndarray, "bound"]
    """Where each group starts in `rows`, and its end."""

    def of(self, kept: Iterable[str]) -> Groups:
        """Control and the named perturbations only."""
        wanted = set(kept)
        groups = [0, *(group for group, name in enumerate(self.perturbations, start=1) if name in wanted)]
        sizes = np.diff(self.start)[groups]
        rows = np.concatenate([self.rows[self.start[group] : self.start[group + 1]] for group in groups])
        perturbations = tuple(self.perturbations[group - 1] for group in groups[1:])
        return Groups(perturbations, rows, np.concatenate([[0], np.cumsum(sizes)]))


def group_rows(labels: Sequence[str | None], name: str) -> Groups:
    """Sort cells into groups.

    Args:
        labels: Per cell the perturbed gene, `""` for control, `None` for a cell to leave out.
        name: Name of the screen.

    Raises:
        UnfitError: No control cell, or no perturbed cell.
    """
    perturbations = sorted({label for label in labels if label})
    group_of = {None: -1, "": 0} | {label: group for group, label in enumerate(perturbations, start=1)}
    groups = np.array([group_of[label] for label in labels], dtype=np.int64)
    sizes = np.bincount(groups[groups >= 0], minlength=len(perturbations) + 1)
    if sizes[0] == 0:
        raise UnfitError(f"{name}: no control cells are left after the cell filters; loosen --cell-filter")
    if not perturbations:
        raise UnfitError(
            f"{name}: no cell with a single perturbation is left after the cell filters; loosen --cell-filter"
        )
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
        UnfitError: No control cell, or no perturbed cell.
    """
    groups = group_rows(labels, name)
    grouped = sp.csr_matrix(expression[groups.rows], dtype=np.float32)
    grouped.sum_duplicates()
    return Screen(name, grouped, tuple(genes), groups.perturbations, groups.start, notes)
