"""From the user's files to what trials read: screen, embeddings, folds and store."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from histpert.embeddings import GeneEmbeddings, combined_embeddings
from histpert.embeddings.fold_files import FOLD, FoldFiles
from histpert.errors import InputError
from histpert.histograms import open_or_build
from histpert.histograms.folders import Folder
from histpert.perturbed_screen import notes_on, with_embeddings
from histpert.screens import (
    PRESETS,
    GroupedCells,
    Screen,
    Simulation,
    assign_cluster_folds,
    assign_folds,
    assign_pair_folds,
    open_screen,
    simulate_screen,
)
from histpert.screens.fold_files import folds_of, read_fold_file
from histpert.terminal_progress import store_progress
from histpert.threads import Progress
from studies.options import SIMULATED, StudyOptions
from studies.shards import shared_out

__all__ = [
    "Pairs",
    "StudyData",
    "check_writable",
    "prepare",
    "with_permuted_embeddings",
]


class Pairs(NamedTuple):
    """Which pairs of perturbed genes are held out, of which screen where it is simulated, with how many genes."""

    any_pair: bool
    simulation: Simulation
    n_genes: int | None = None
    """The most expressed ones; all by default."""


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
        store: Where the store is.
        notes: What was guessed and left out.
        n_replicates: Bootstrap replicates of moments that the store has for this study.
        with_cells: Whether predictions are compared with the cells one by one too.
        attended: Which genes each gene attends to in CellTARNet; None to choose them by correlation.
        of_fold: Embeddings of each fold, where folds have their own; `vectors` are those of one of them then.
    """

    screen: str
    screen_fingerprint: str
    embeddings: str
    embeddings_fingerprint: str
    perturbations: tuple[str, ...]
    vectors: Float[np.ndarray, "perturbation feature"]
    folds: Int[np.ndarray, "perturbation"]
    store: Folder
    notes: tuple[str, ...]
    n_replicates: int = 0
    with_cells: bool = False
    attended: Bool[np.ndarray, "gene gene"] | None = None
    of_fold: Mapping[int, Float[np.ndarray, "perturbation feature"]] = field(default_factory=dict)

    def with_embeddings(self, name: str, vectors: Vectors) -> StudyData:
        """The same with other embeddings: vectors of the perturbations, or those of each fold."""
        of_fold = vectors if isinstance(vectors, Mapping) else {}
        some = next(iter(vectors.values())) if isinstance(vectors, Mapping) else vectors
        # A fold has a fingerprint of its own: what its trials depend on.
        prints = [GeneEmbeddings(name, self.perturbations, each).fingerprint() for each in of_fold.values() or [some]]
        fingerprint = prints[0] if len(prints) == 1 else sha256("".join(prints).encode()).hexdigest()
        return replace(self, embeddings=name, embeddings_fingerprint=fingerprint, vectors=some, of_fold=of_fold)

    def in_fold(self, fold: int) -> StudyData:
        """The same with the embeddings that are a fold's own, where they are."""
        if not self.of_fold:
            return self
        return self.with_embeddings(self.embeddings, self.of_fold[fold])


Vectors = Float[np.ndarray, "perturbation feature"] | Mapping[int, Float[np.ndarray, "perturbation feature"]]
"""Embeddings of perturbations, the same for all folds or by fold."""


def prepare(
    options: StudyOptions,
    bin_counts: Sequence[int],
    kept: Collection[str] | None = None,
    n_folds: int | None = None,
    apart: Sequence[int] = (),
    n_replicates: int = 0,
    with_coexpression: bool = False,
    with_cells: bool = False,
    pairs: Pairs | None = None,
) -> StudyData:
    """Read or simulate the screen, find its embeddings, draw the folds and open the store.

    Args:
        options: From the command line.
        bin_counts: Bin counts that the store must have.
        kept: Perturbations to take, as if the screen had no others; all that have an embedding by default.
        n_folds: Other than `--folds`.
        apart: Bin counts at which the store must have cells one by one, as TG and ZITG need them.
        n_replicates: Bootstrap replicates of moments that the store must have, `N_REPLICATES` where a study needs
            them; without them the columns of the results that need them are empty.
        with_coexpression: Whether the store must have the most correlated genes of each gene, as GEARS needs them.
        with_cells: Whether it must have all cells one by one, as models of whole cells need them.
        pairs: Hold out pairs, and train on all else.

    Raises:
        InputError: Anything in the user's input that the study cannot use, or a store that cannot be written.
    """
    is_by_fold = any(map(FoldFiles.is_by_fold, options.embeddings))
    if is_by_fold and (n_folds is not None or options.hold_out == "clusters"):
        raise InputError(f"--embeddings with {FOLD}: folds are drawn of embeddings here, give one file for all folds")
    with (
        store_progress() as progress,
        _screen_and_embeddings(options, progress, kept, pairs) as (screen, embeddings, notes),
    ):
        if kept is None:
            print(f"screen {screen.name}", flush=True)
            for note in notes:
                print(f"  {note}", flush=True)
        vectors, n_folds = embeddings.lookup(screen.perturbations), n_folds or options.folds
        if options.folds_file and kept is None:
            folds = folds_of(
                read_fold_file(options.folds_file),
                screen.perturbations,
                options.folds_file,
                trained_on=pairs is not None,
            )
        elif pairs is not None:
            folds = assign_pair_folds(screen.perturbations, n_folds, options.model.seed, pairs.any_pair)
        elif options.hold_out == "clusters":
            folds = assign_cluster_folds(vectors, n_folds, options.model.seed)
        else:
            folds = assign_folds(screen.perturbations, n_folds, options.model.seed)
        stored = bin_counts, progress, options.cache, n_replicates, apart, with_coexpression, with_cells
        store = open_or_build(options.store, screen, folds, *stored)
    data = StudyData(
        screen=screen.name,
        screen_fingerprint=store.fingerprint,
        embeddings=embeddings.name,
        embeddings_fingerprint=GeneEmbeddings(embeddings.name, screen.perturbations, vectors).fingerprint(),
        perturbations=screen.perturbations,
        vectors=vectors,
        folds=folds,
        store=store.folder,
        notes=notes,
        n_replicates=n_replicates,
        with_cells=with_cells,
    )
    files = FoldFiles(options.embeddings, options.names, options.fold_numbers)
    files.check_unseen(data.perturbations, data.folds)
    if is_by_fold:
        data = data.with_embeddings(embeddings.name, files.vectors(data.perturbations))
    return with_permuted_embeddings(data, options.model.seed) if options.permute_embeddings else data


def with_permuted_embeddings(data: StudyData, seed: int) -> StudyData:
    """The same, each perturbation with the embedding of another one."""
    shift = np.random.default_rng(seed).permutation(len(data.vectors))

    def permuted(vectors: np.ndarray) -> np.ndarray:
        dealt = np.empty_like(vectors)
        dealt[shift] = vectors[np.roll(shift, 1)]  # along one cycle, so that none keeps its own
        return dealt

    name = f"{data.embeddings} (permuted)"
    if data.of_fold:
        return data.with_embeddings(name, {fold: permuted(vectors) for fold, vectors in data.of_fold.items()})
    return data.with_embeddings(name, permuted(data.vectors))


def check_writable(out: Path, study: str) -> None:
    """Make the folder of results where it is missing; see that files can be made there, and in what a study has there.

    Raises:
        InputError: They cannot.
    """
    folder = out
    try:
        out.mkdir(parents=True, exist_ok=True)
        for folder in (
            out,
            out / study,
            *(out / study / inside for inside in ("ledger", "figures", "tables", "predictions")),
        ):
            if os.path.lexists(folder):
                tempfile.TemporaryFile(dir=folder).close()
        for folder in (out / study).glob("*.parquet"):
            if folder.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder in the place of a table")
    except OSError as error:
        raise InputError(f"--out {folder} cannot be written ({error.strerror}): name another folder") from error


def _of_genes(screen: Screen, pairs: Pairs | None) -> Screen:
    """The screen, with the genes that are asked for."""
    if pairs is None or pairs.n_genes is None or pairs.n_genes >= len(screen.genes):
        return screen
    return screen.most_expressed(pairs.n_genes)


@contextmanager
def _screen_and_embeddings(
    options: StudyOptions, progress: Progress, kept: Collection[str] | None, pairs: Pairs | None
) -> Iterator[tuple[GroupedCells, GeneEmbeddings, tuple[str, ...]]]:
    """The cells of all perturbations that have an embedding, their embeddings, and notes."""
    if options.screen == SIMULATED:
        if options.embeddings:
            raise InputError("--embeddings goes with --screen: the simulated screen has embeddings of its own")
        simulation = PRESETS["easy"] if pairs is None else pairs.simulation
        simulated = simulate_screen(options.model.seed, simulation, with_pairs=pairs is not None)
        screen = _of_genes(simulated.screen, pairs)
        screen = screen if kept is None else screen.with_perturbations(kept)
        yield screen, combined_embeddings(simulated.embeddings["good"], screen.perturbations), screen.notes
        return
    if not options.embeddings:
        raise InputError("--screen needs --embeddings: a file with an embedding for each perturbed gene")
    embeddings = FoldFiles(options.embeddings, options.names, options.fold_numbers).first()
    read = options.read if pairs is None else replace(options.read, combinations=True)
    with open_screen(options.screen, read, options.working_space(), progress) as opened:
        wanted, found = with_embeddings(opened, embeddings, options.names.aliases)
        if kept is not None:
            wanted = wanted.with_perturbations(kept)
        if options.shards > 1 and pairs is not None:
            raise InputError(
                f"--shards {options.shards}: a screen of combinations is read by one process, leave it out"
            )
        with (
            shared_out(wanted, options)
            if options.shards > 1
            else nullcontext(_of_genes(wanted.read(), pairs)) as screen
        ):
            yield screen, found.embeddings, notes_on(screen, len(opened.perturbations), found)
