"""What is wrong with a screen, or doubtful: what each thing means, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from histpert.doctor.cell_columns import batches_of, possible_totals
from histpert.doctor.expression import hardly_seen, largest_depth, target_fold_changes
from histpert.doctor.facts import Sample, ScreenFacts
from histpert.multi_hot import genes_of
from histpert.screens.files import ENSEMBL
from histpert.screens.normalization import Scale
from histpert.screens.opened import FEW_CELLS
from histpert.screens.reading import LIBRARY_SIZE
from histpert.wording import some

__all__ = ["Doubt", "doubts_about"]

FEW_CONTROL = 200
"""Control cells below which each bin of a control histogram of 15 holds a dozen cells or so."""

FEW_IN_FOLD = 5
"""Held-out perturbations of a fold below which its averages hang on single perturbations."""

SEEN = 0.01
"""Share of control cells in which a gene is to be seen: `--min-control-detection` that is proposed."""

MANY_GENES = 8_000
"""Genes of a file that holds a whole transcriptome, or all of it that a screen of some thousand cells detects."""

VISIBLE = 0.25
"""Median log2 fold change of targets in their own cells, either way, from which a perturbation shows in them."""

LARGEST_DEPTH = 1.1e6
"""Sum over a cell's genes of what log-normalized values stand for, at most: a million is the largest scale in use."""


class Doubt(NamedTuple):
    """Something that is wrong or doubtful."""

    what: str
    means: str
    do: str


def doubts_about(sample: Sample, facts: ScreenFacts, n_folds: int) -> list[Doubt]:
    """All that a screen gives reason for, without its embeddings."""
    looks: tuple[Callable[..., Iterator[Doubt]], ...] = (_cells, _genes, _values, _library_size, _targets, _batches)
    found = [doubt for look in looks for doubt in look(sample, facts)]
    if 0 < facts.n_perturbations < FEW_IN_FOLD * n_folds:
        found.append(
            Doubt(
                f"{facts.n_perturbations} perturbations in {n_folds} folds",
                f"a fold holds out fewer than {FEW_IN_FOLD}: its averages hang on single perturbations, and intervals "
                "are wide",
                f"--folds {max(2, facts.n_perturbations // FEW_IN_FOLD)}, or a screen of more perturbations",
            )
        )
    return found


def _cells(sample: Sample, facts: ScreenFacts) -> Iterator[Doubt]:
    if facts.n_control < FEW_CONTROL:
        yield Doubt(
            f"few control cells: {facts.n_control:,}",
            "every prediction starts from the control histogram, and noise in it is noise in all",
            "see whether --control-label names all control cells; fewer --bins",
        )
    if facts.few_cells:
        names = [f"{name} ({n_cells})" for name, n_cells in facts.few_cells.items()]
        yield Doubt(
            f"{len(names):,} perturbations have fewer than {FEW_CELLS} cells: {some(names, 20)}",
            "their observed histograms are mostly noise, which no method predicts",
            "they count like the others: leave them out with --cell-filter, or look at them apart",
        )
    unused = sum(n for why, n in facts.left_out.items() if "combinations" not in why)
    if unused > facts.n_cells_in_file / 2:
        yield Doubt(
            f"{unused:,} of {facts.n_cells_in_file:,} cells are left out",
            "the column or the filter may not be the one that you mean",
            f"--perturbation-column (taken: {facts.perturbation_column}), --cell-filter",
        )
    n_empty = int((sample.totals[sample.cells] == 0).sum())
    if n_empty:
        yield Doubt(
            f"{n_empty:,} cells have no value other than 0",
            "they count as cells in which nothing is expressed",
            "--cell-filter on a column of counts or genes per cell",
        )


def _genes(sample: Sample, facts: ScreenFacts) -> Iterator[Doubt]:
    genes = sample.screen.genes
    if np.mean([bool(ENSEMBL.fullmatch(gene)) for gene in genes]) > 0.5:
        yield Doubt(
            f"genes are named by Ensembl ids: {some(genes, 2)}",
            "perturbed genes are not found among them, so that their own shift is not left out of metrics",
            "--gene-column with the column of var that holds symbols, where there is one",
        )
    for note in sample.screen.notes:
        if "share a name with another" in note:
            yield Doubt(
                note, "which of them a perturbed gene is, is not known", "--gene-column with a column of other names"
            )
    perturbed = {gene for name in sample.used for gene in genes_of(name)}
    unmeasured = sorted(perturbed - set(sample.opened.all_genes))
    if unmeasured:
        yield Doubt(
            f"{len(unmeasured):,} of {len(perturbed):,} perturbed genes are not measured: {some(unmeasured)}",
            "they are predicted and scored like others; that the perturbation worked cannot be seen",
            "if their names are spelt otherwise in var: --gene-column",
        )
    rare = hardly_seen(sample.screen, SEEN)
    if rare:
        yield Doubt(
            f"{rare:,} of {len(genes):,} genes are seen in {SEEN:.0%} of control cells or fewer",
            "skewness and kurtosis of such genes rule the averages over genes, and say little",
            f"--min-control-detection {SEEN:g}",
        )


def _values(sample: Sample, facts: ScreenFacts) -> Iterator[Doubt]:
    if not sample.is_raw and (depth := largest_depth(sample.screen)) > LARGEST_DEPTH:
        yield Doubt(
            f"log-normalized values stand for up to {depth:.3g} counts in a cell",
            "they were not scaled per cell, or are logarithms of another base: means and bins are on that scale",
            "--layer with raw counts, where the file has them",
        )


def _library_size(sample: Sample, facts: ScreenFacts) -> Iterator[Doubt]:
    if not sample.is_raw:
        return
    if sample.scale == Scale.NOT_BY_COLUMN.value:
        yield Doubt(
            f"column {LIBRARY_SIZE!r} of obs has less than the sum of a cell's counts, or no number",
            "it was not taken: cells are normalized by the sum of their counts",
            "--library-size-column with the right one, where there is one",
        )
    if sample.scale == Scale.BY_SUM.value and facts.n_genes_in_file < MANY_GENES:
        columns = possible_totals(sample)
        yield Doubt(
            f"cells are normalized by the sum over {facts.n_genes_in_file:,} genes",
            "where the file holds only some of the genes, a strong shift of few of them moves all others",
            f"--library-size-column {columns[0]}"
            if columns
            else "--library-size-column with a column of obs that has each cell's total count, where there is one",
        )


def _targets(sample: Sample, facts: ScreenFacts) -> Iterator[Doubt]:
    changes = target_fold_changes(sample.screen)
    if len(changes) < 3 or abs(median := float(np.median(list(changes.values())))) >= VISIBLE:
        return
    yield Doubt(
        f"the perturbed gene's own expression hardly changes: median log2 fold change {median:+.2f} over "
        f"{len(changes):,} targets",
        "CRISPRi and CRISPRa show in it; a knock-out may not, as its mRNA is often still there",
        f"see that column {facts.perturbation_column!r} names the target, and that guides are called well "
        "(--cell-filter on their counts)",
    )


def _batches(sample: Sample, facts: ScreenFacts) -> Iterator[Doubt]:
    for batches in batches_of(sample):
        alone = f"{len(batches.alone):,} perturbations are in one batch only: {some(batches.alone)}"
        apart = [*([alone] if batches.alone else [])]
        apart += [f"no control cells in {some(batches.without_control)}"] if batches.without_control else []
        if apart:
            yield Doubt(
                f"column {batches.column!r} of obs has {batches.n:,} batches; {'; '.join(apart)}",
                "what differs between batches looks like an effect of the perturbation",
                "nothing here corrects for batches: --cell-filter keeps those that have both, or one at a time",
            )
