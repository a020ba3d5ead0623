"""Which part of a screen is tried, with which methods: what bounds the time that a forecast takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from histpert.doctor.coverage import FoldSizes
from histpert.doctor.facts import known_pairs
from histpert.doctor.forecast import Measured
from histpert.doctor.measuring import measured_store, measured_trials
from histpert.doctor.probe import Task
from histpert.doctor.studies import SEARCHED, ScreenShape, Study, searched_settings
from histpert.embeddings import GeneEmbeddings
from histpert.models.celltarnet import CellSettings
from histpert.multi_hot import genes_of
from histpert.screens import Screen, assign_folds, assign_pair_folds
from histpert.settings import ModelSettings
from histpert.study_defaults import BINS, COMBINATION_GENES, ON_GENES, SUBJECT

__all__ = ["Reading", "part_of", "tasks_of", "tried"]

MOST_VALUES = 1_000_000
"""Perturbations x genes of the store that is tried; of a larger screen some perturbations are, drawn at random."""

FEWEST = 72
"""Perturbations that are tried at least, where there are as many: two steps of training, and what is scored at once."""


@dataclass(frozen=True)
class Reading:
    """What reading a screen took.

    Attributes:
        seconds: From the file to memory.
        base_bytes: Memory of this process before.
        most_bytes: Memory that reading took at its peak.
    """

    seconds: float
    base_bytes: int
    most_bytes: int


def tried(
    root: Path,
    screen: Screen,
    vectors: GeneEmbeddings,
    planned: Sequence[Study],
    folds: FoldSizes,
    settings: ModelSettings,
    shape: ScreenShape,
    reading: Reading,
    n_at_once: int,
    on_gpu: bool = False,
) -> Measured:
    """Try the methods of some studies, all of single perturbations, or that of pairs.

    Args:
        root: Temporary folder.
        screen: Perturbations that have an embedding.
        vectors: Their embeddings.
        planned: The studies.
        folds: Of their cross-validation.
        settings: Of training; also its seed.
        shape: Of the screen.
        reading: What reading the screen took.
        n_at_once: Trials that run at once.
        on_gpu: Whether they run on the GPU.
    """
    of_pairs = shape.with_cells
    part = part_of(screen, settings.seed, of_pairs)
    names, assign = part.perturbations, assign_pair_folds if of_pairs else assign_folds
    drawn = assign(names, folds.folds, settings.seed)
    tasks = tasks_of(planned, settings, of_pairs)
    n_replicates = max(study.store.n_replicates for study in planned)
    apart = [BINS] if any(study.store.has_apart for study in planned) else []
    store = measured_store(root, part, drawn, sorted({task.n_bins for task in tasks}), n_replicates, apart, of_pairs)
    how = folds.trained_on, n_at_once, n_replicates, of_pairs, on_gpu
    return Measured(
        read_seconds=reading.seconds,
        read_bytes=reading.most_bytes - reading.base_bytes,
        built_bytes=store.own_bytes - reading.base_bytes,
        shape=shape,
        n_cells=int(part.n_cells.sum()),
        n_perturbations=len(names),
        share=len(names) / len(screen.perturbations),
        store=store,
        trials=measured_trials(store, names, vectors.lookup(names), tasks, *how),
        folds=FoldSizes.of(names, folds.folds, settings.seed, of_pairs),
    )


def tasks_of(planned: Sequence[Study], settings: ModelSettings, of_pairs: bool) -> list[Task]:
    """Each method at the fewest and the most bins; MLP+Hist also at those at which others have it as a part."""
    bins_of: dict[str, set[int]] = {}
    for study in planned:
        for trials in study.trials:
            bins_of.setdefault(trials.method, set()).add(trials.n_bins)
    tasks = []
    for name, bins in bins_of.items():
        own = CellSettings.like(settings) if name == "CellTARNet" else settings
        if name == SEARCHED:
            own = replace(settings, **searched_settings())
        chosen = {min(bins), max(bins), *([BINS] if name == SUBJECT else [])}
        method = SUBJECT if name == SEARCHED else name
        tasks += [Task(name, method, n_bins, own, of_pairs and name in ON_GENES) for n_bins in sorted(chosen)]
    return tasks


def part_of(screen: Screen, seed: int, of_pairs: bool) -> Screen:
    """The screen, or as much of it as is to be tried, drawn at random; of pairs, with the genes alone."""
    if of_pairs and len(screen.genes) > COMBINATION_GENES:
        screen = screen.most_expressed(COMBINATION_GENES)
    names = screen.perturbations
    n = max(FEWEST, MOST_VALUES // len(screen.genes))
    if len(names) <= n:
        return screen
    order = np.random.default_rng(seed).permutation(len(names))
    if not of_pairs:
        return screen.with_perturbations([names[number] for number in order[:n]])
    pairs, kept = set(known_pairs(names)), dict[str, None]()
    for name in (names[number] for number in order if names[number] in pairs):
        if len(kept) >= n:
            break
        kept |= dict.fromkeys((name, *genes_of(name)))
    return screen.with_perturbations(kept)
