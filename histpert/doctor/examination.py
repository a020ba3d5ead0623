"""A screen and its embeddings, looked through from end to end."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from histpert.doctor.coverage import Coverage, FoldSizes
from histpert.doctor.doubts import Doubt, doubts_about
from histpert.doctor.facts import Sample, ScreenFacts, known_pairs, read_sample
from histpert.doctor.gpus import Gpu
from histpert.doctor.machine import Machine, memory_of, sampled
from histpert.doctor.outlook import Outlook, outlook_on
from histpert.doctor.trying import Reading
from histpert.embeddings import EmbeddingOptions
from histpert.errors import UnfitError
from histpert.memory import available_bytes
from histpert.screens import ReadOptions, Screen, WorkingSpace, open_screen
from histpert.settings import ModelSettings
from histpert.study_defaults import COMBINATION_FOLDS
from histpert.threads import Progress, silent

__all__ = ["Examination", "Examined", "examine"]


@dataclass(frozen=True)
class Examination:
    """What is to be looked at.

    Attributes:
        screen: The file.
        embeddings: Files of embeddings; may be none.
        names: Tables of names for them.
        read: How the screen is read.
        folds: Of the cross-validation over perturbations.
        settings: Of trainings; their seed is also that of the folds.
        gpu: One to compute a forecast for.
    """

    screen: Path
    embeddings: tuple[Path, ...]
    names: EmbeddingOptions
    read: ReadOptions
    folds: int
    settings: ModelSettings
    gpu: Gpu | None = None


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        facts: What the file holds; None where no cell of it can be used.
        doubts: What is wrong or doubtful.
        coverage: Of the embeddings; None where none are given.
        folds: Sizes of folds; None where there are too few perturbations.
        pair_folds: The same of folds over pairs; None where the screen has too few, as most have.
        outlook: What studies take; None where none can run for other reasons.
        reasons: Why no study can run; empty where one can.
    """

    facts: ScreenFacts | None = None
    doubts: tuple[Doubt, ...] = ()
    coverage: Coverage | None = None
    folds: FoldSizes | None = None
    pair_folds: FoldSizes | None = None
    outlook: Outlook | None = None
    reasons: tuple[str, ...] = ()


def examine(what: Examination, progress: Progress = silent) -> Examined:
    """Read the screen and its embeddings, and try what studies are made of.

    Raises:
        InputError: A file cannot be read.
    """
    try:
        sample, reading = _read(what, progress)
    except UnfitError as error:
        return Examined(reasons=(str(error),))
    facts = ScreenFacts.of(sample)
    found = Examined(facts, tuple(doubts_about(sample, facts, what.folds)))
    if not what.embeddings:
        return replace(found, reasons=("no embeddings are given, by which methods tell perturbations apart",))
    used = _coverage(what, sample.used)
    found = replace(found, coverage=used, reasons=_reasons(used, what.folds))
    if found.reasons:
        return found
    every = used if sample.screen.perturbations == sample.used else _coverage(what, sample.screen.perturbations)
    found = replace(found, folds=FoldSizes.of(used.perturbations, what.folds, what.settings.seed))
    if len(known_pairs(every.perturbations)) >= COMBINATION_FOLDS:
        pair_folds = FoldSizes.of(every.perturbations, COMBINATION_FOLDS, what.settings.seed, pairs=True)
        found = replace(found, pair_folds=pair_folds)
    screen = sample.screen
    del sample  # a large screen has no room beside what is made of it
    outlook = _outlook(what, found, screen, every, reading, progress)
    return replace(found, outlook=outlook, reasons=tuple(filter(None, [outlook.lacking])))


def _read(what: Examination, progress: Progress) -> tuple[Sample, Reading]:
    start, base = time.perf_counter(), memory_of([os.getpid()]).own
    read, space = replace(what.read, combinations=True), WorkingSpace(available_bytes() // 2)
    with sampled([os.getpid()]) as seen, open_screen(what.screen, read, space, progress) as opened:
        sample = read_sample(opened, what.read.combinations)
    return sample, Reading(time.perf_counter() - start, base, max(memory.own for memory in seen))


def _coverage(what: Examination, perturbations: tuple[str, ...]) -> Coverage:
    return Coverage.of(what.embeddings, what.names, perturbations, what.folds, what.settings.seed)


def _reasons(coverage: Coverage, n_folds: int) -> tuple[str, ...]:
    """Why no study can run with these embeddings."""
    n = len(coverage.perturbations)
    if not n:
        return (f"none of the {len(coverage.missing):,} perturbations has an embedding in {coverage.name}",)
    if n < n_folds:
        return (f"{n:,} perturbations with an embedding cannot fill {n_folds} folds",)
    return (coverage.unusable,) if coverage.unusable else ()


def _outlook(
    what: Examination, found: Examined, screen: Screen, every: Coverage, reading: Reading, progress: Progress
) -> Outlook:
    """Of single perturbations, and of pairs where there are folds of them."""
    assert found.coverage is not None
    assert found.folds is not None
    progress("trying methods for a few steps", 0, 0)
    machine = Machine.here()
    how = what.settings, reading, machine, what.gpu
    with tempfile.TemporaryDirectory(prefix="histpert-doctor-") as name:
        root, used = Path(name), found.coverage
        of_pairs = None
        if found.pair_folds is not None:
            pairs = _kept(screen, every.perturbations)
            of_pairs = outlook_on(root / "pairs", pairs, every.vectors, found.pair_folds, *how, of_pairs=True)
        single = _kept(screen, used.perturbations)
        outlook = outlook_on(root / "single", single, used.vectors, found.folds, *how)
    return outlook if of_pairs is None else outlook.and_of(of_pairs)


def _kept(screen: Screen, names: tuple[str, ...]) -> Screen:
    """The screen with these perturbations; the same one where it has no others."""
    return screen if screen.perturbations == names else screen.with_perturbations(names)
