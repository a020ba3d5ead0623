"""What a screen's file holds, counted over the cells that studies use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from histpert.multi_hot import genes_of
from histpert.screens import Screen
from histpert.screens.opened import FEW_CELLS, OpenScreen, Share

__all__ = ["Sample", "ScreenFacts", "Spread", "known_pairs", "read_sample"]


@dataclass(frozen=True)
class Spread:
    """How numbers are spread: 5th percentile, median, 95th percentile."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: Float[np.ndarray, "value"]) -> Spread:
        """Of one or more numbers."""
        return Spread(*np.percentile(values, [5, 50, 95]).tolist())


@dataclass(frozen=True)
class Sample:
    """A screen that was read, and what reading it told of its cells.

    Attributes:
        screen: All its cells, combinations included.
        opened: Its file, which may be closed.
        totals: Sum of the values of each cell, as the file has them, in the screen's order.
        is_raw: Whether these are raw counts.
        with_combinations: Whether studies of single perturbations use combinations too.
    """

    screen: Screen
    opened: OpenScreen
    totals: Float[np.ndarray, "cell"]
    is_raw: bool
    scale: str
    with_combinations: bool

    @property
    def used(self) -> tuple[str, ...]:
        """Perturbations that studies use."""
        names = self.screen.perturbations
        return names if self.with_combinations else tuple(name for name in names if len(genes_of(name)) == 1)

    @property
    def groups(self) -> Int[np.ndarray, "group"]:
        """Control and the groups of those perturbations."""
        used = set(self.used)
        return np.array([0, *(n for n, name in enumerate(self.screen.perturbations, start=1) if name in used)])

    @property
    def cells(self) -> Bool[np.ndarray, "cell"]:
        """Which cells these groups have."""
        is_used = np.zeros(len(self.screen.n_cells), dtype=bool)
        is_used[self.groups] = True
        return np.repeat(is_used, self.screen.n_cells)


@dataclass(frozen=True)
class ScreenFacts:
    """What a screen's file holds.

    Attributes:
        file: The file.
        matrix: Where in it expression was read: `X`, `layers/counts`, `raw/X`.
        values: Raw counts or log-normalized, and how they are normalized.
        perturbation_column: Column of `obs` that says what is perturbed.
        control_labels: What control cells are called there.
        n_cells_in_file: All its cells.
        n_cells: Cells that studies use, control cells included.
        n_control: Control cells.
        left_out: Cells that studies do not use, by the reason.
        n_genes_in_file: All its genes.
        n_genes: Genes that are kept.
        n_perturbations: Perturbations that studies use.
        n_combinations: Pairs and more of genes perturbed together.
        n_known_pairs: Pairs of which both genes were perturbed alone too.
        zeros: Share of zeros in cells x genes.
        library_size: Counts per cell as the file has them; None where it has no raw counts.
        cells_per_perturbation: Fewest, median, most.
        few_cells: Perturbations with fewer than `FEW_CELLS` cells, and how many they have.
        notes: What was guessed and left out on the way, a line each.
    """

    file: str
    matrix: str
    values: str
    perturbation_column: str
    control_labels: tuple[str, ...]
    n_cells_in_file: int
    n_cells: int
    n_control: int
    left_out: dict[str, int]
    n_genes_in_file: int
    n_genes: int
    n_perturbations: int
    n_combinations: int
    n_known_pairs: int
    zeros: float
    library_size: Spread | None
    cells_per_perturbation: tuple[int, float, int]
    few_cells: dict[str, int]
    notes: tuple[str, ...]

    @staticmethod
    def of(sample: Sample) -> ScreenFacts:
        """Count."""
        screen, opened, cells = sample.screen, sample.opened, sample.cells
        sizes = dict(zip(screen.perturbations, screen.n_cells[1:].tolist(), strict=True))
        of_used = [sizes[name] for name in sample.used]
        n_used = int(cells.sum())
        n_values = int(np.diff(screen.expression.indptr)[cells].sum())
        file, _, matrix = opened.matrix.source.rpartition(": ")
        return ScreenFacts(
            file=file,
            matrix=matrix,
            values=sample.scale,
            perturbation_column=opened.labels.column,
            control_labels=opened.labels.controls,
            n_cells_in_file=len(opened.obs),
            n_cells=n_used,
            n_control=int(screen.n_cells[0]),
            left_out=_left_out(sample, n_used),
            n_genes_in_file=len(opened.all_genes),
            n_genes=len(screen.genes),
            n_perturbations=len(of_used),
            n_combinations=sum(len(genes_of(name)) > 1 for name in screen.perturbations),
            n_known_pairs=len(known_pairs(screen.perturbations)),
            zeros=1 - n_values / (n_used * len(screen.genes)),
            library_size=Spread.of(sample.totals[cells]) if sample.is_raw else None,
            cells_per_perturbation=(min(of_used), float(np.median(of_used)), max(of_used)) if of_used else (0, 0.0, 0),
            few_cells={name: sizes[name] for name in sample.used if sizes[name] < FEW_CELLS},
            notes=screen.notes,
        )


def read_sample(opened: OpenScreen, with_combinations: bool) -> Sample:
    """Read all cells of an open screen, as `OpenScreen.read` does, and keep what was seen on the way.

    Raises:
        InputError: The values are neither counts nor log-normalized, or no gene is left.
    """
    share: Share = opened.share(slice(0, len(opened.perturbations) + 1))
    decision = opened.decision(share.facts)
    expression, largest = share.on(decision)
    notes = opened.notes_on(decision, largest)
    genes = opened.genes(decision)
    screen = Screen(opened.name, expression, genes, opened.perturbations, opened.groups.start, notes)
    scale = next(note for note in notes if note.startswith(decision.scale.value))
    return Sample(screen, opened, share.totals, decision.scale.is_of_counts, scale, with_combinations)


def known_pairs(perturbations: tuple[str, ...]) -> list[str]:
    """Pairs of which both genes were perturbed alone too: those that can be held out and compared with a sum."""
    known = set(perturbations)
    return [name for name in perturbations if len(genes := genes_of(name)) == 2 and known.issuperset(genes)]


def _left_out(sample: Sample, n_used: int) -> dict[str, int]:
    labels = sample.opened.labels.targets
    n_labelled = sum(label is not None for label in labels)
    left_out = {
        "by the cell filter": len(sample.opened.obs) - len(labels),
        "without a label": len(labels) - n_labelled,
        "of combinations of perturbations": n_labelled - n_used,
    }
    return {why: n_cells for why, n_cells in left_out.items() if n_cells}
