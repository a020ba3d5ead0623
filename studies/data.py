"""From the user's files to what trials read: screen, embeddings, folds and store."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from histpert.embeddings import GeneEmbeddings, match_genes, read_embeddings
from histpert.errors import InputError
from histpert.histograms import open_or_build
from histpert.screens import PRESETS, Screen, assign_folds, read_screen, simulate_screen
from studies.options import SIMULATED, StudyOptions

__all__ = ["StudyData", "check_writable", "prepare"]


@dataclass(frozen=True)
class StudyData:
    """What the trials of a study share.

    Attributes:
        screen: Name of the screen.
        screen_fingerprint: Of everything that results depend on in it.
        embeddings: Name of the embeddings.
        embeddings_fingerprint: Of the vectors of the screen's perturbations.
        perturbations: Names, in the store's order.
        vectors: Their embeddings.
        folds: The fold that holds out each.
        store: Folder of the store.
        notes: What was guessed and left out.
    """

    screen: str
    screen_fingerprint: str
    embeddings: str
    embeddings_fingerprint: str
    perturbations: tuple[str, ...]
    vectors: Float[np.ndarray, "perturbation feature"]
    folds: Int[np.ndarray, "perturbation"]
    store: Path
    notes: tuple[str, ...]


def prepare(options: StudyOptions, bin_counts: Sequence[int]) -> StudyData:
    """Read or simulate the screen, find its embeddings, draw the folds and open the store.

    Raises:
        InputError: Anything in the user's input that the study cannot use, or a store that cannot be written.
    """
    screen, embeddings = _screen_and_embeddings(options)
    print(f"screen {screen.name}", flush=True)
    for note in screen.notes:
        print(f"  {note}", flush=True)
    folds = assign_folds(screen.perturbations, options.folds, options.model.seed)
    assert options.store is not None
    store = open_or_build(options.store, screen, folds, bin_counts)
    vectors = embeddings.lookup(screen.perturbations)
    return StudyData(
        screen=screen.name,
        screen_fingerprint=store.fingerprint,
        embeddings=embeddings.name,
        embeddings_fingerprint=GeneEmbeddings(embeddings.name, screen.perturbations, vectors).fingerprint(),
        perturbations=screen.perturbations,
        vectors=vectors,
        folds=folds,
        store=store.path,
        notes=screen.notes,
    )


def check_writable(out: Path, study: str) -> None:
    """Make the folder of results where it is missing; see that files can be made there, and in what a study has there.

    Raises:
        InputError: They cannot.
    """
    folder = out
    try:
        out.mkdir(parents=True, exist_ok=True)
        for folder in (out, out / study, *(out / study / inside for inside in ("ledger", "figures", "tables"))):
            if os.path.lexists(folder):
                tempfile.TemporaryFile(dir=folder).close()
        for folder in (out / study).glob("*.parquet"):
            if folder.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder in the place of a table")
    except OSError as error:
        raise InputError(f"--out {folder} cannot be written ({error.strerror}): name another folder") from error


def _screen_and_embeddings(options: StudyOptions) -> tuple[Screen, GeneEmbeddings]:
    if options.screen == SIMULATED:
        if options.embeddings:
            raise InputError("--embeddings goes with --screen: the simulated screen has embeddings of its own")
        simulated = simulate_screen(options.model.seed, PRESETS["easy"])
        return simulated.screen, simulated.embeddings["good"]
    if not options.embeddings:
        raise InputError("--screen needs --embeddings: a file with an embedding for each perturbed gene")
    embeddings = read_embeddings(options.embeddings, options.names)
    screen = read_screen(options.screen, options.read)
    found = match_genes(embeddings, screen.perturbations, options.names.aliases)
    screen = screen.with_notes(
        f"{len(screen.perturbations)} perturbations, {screen.n_cells[0]:,} control cells, {len(screen.genes):,} genes",
        *embeddings.notes,
        *found.notes,
    )
    if not found.embeddings.genes:
        raise InputError(
            f"none of the {len(found.missing)} perturbations has an embedding in {embeddings.name}: "
            f"the screen has {', '.join(found.missing[:3])}, ..., the embeddings {', '.join(embeddings.genes[:3])}, ..."
        )
    if found.missing:
        screen = screen.with_perturbations(found.embeddings.genes).with_notes(
            f"left out {len(found.missing)} perturbations without an embedding: {', '.join(found.missing)}"
        )
    return screen, found.embeddings
