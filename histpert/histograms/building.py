"""Building the store: once per screen, folds and bin count, by one process, visible only when it is whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from filelock import FileLock, Timeout
from jaxtyping import Float, Int

from histpert.errors import InputError
from histpert.histograms.bootstrap import Resampling
from histpert.histograms.counting import Counting, group_moments
from histpert.histograms.edges import BinEdges, bin_edges
from histpert.histograms.folders import Folder, LocalFolder, checksum_of, folder_at
from histpert.histograms.group_files import Column, group_file
from histpert.histograms.ranges import NO_FOLD, Ranges
from histpert.histograms.remote import Cache, RemoteFolder
from histpert.histograms.store import (
    FORMAT,
    MOMENTS,
    POWER_SUMS,
    REFERENCE_BINS,
    HistogramStore,
    counts_file,
    moments_of,
    read_manifest,
    replicates_file,
)
from histpert.results import write_json, written_atomically
from histpert.screens.screen import GroupedCells
from histpert.threads import in_order

__all__ = ["Progress", "open_or_build"]

Progress = Callable[[str, int, int], object]
"""Told what is done now, and how many groups of cells are through, of how many; 0 of 0 while waiting."""

Result = TypeVar("Result")


def open_or_build(
    root: str | Path,
    screen: GroupedCells,
    folds: Int[np.ndarray, "perturbation"],
    bin_counts: Iterable[int],
    progress: Progress = lambda stage, done, total: None,
    cache: Cache | None = None,
    n_replicates: int = 0,
) -> HistogramStore:
    """Open the store of this screen and these folds under `root`; build what is missing of it first.

    One process builds, others that want the same store wait for it. On object storage that holds for the processes of
    a node; what two nodes build is the same.

    Args:
        root: Folder for stores, made where it is missing: a path, or a URI on object storage.
        screen: The screen.
        folds: The fold that holds out each perturbation.
        bin_counts: Bin counts that the store must have.
        progress: Told what goes on, from any thread, one call at a time.
        cache: Where files on object storage are kept on this node.
        n_replicates: Bootstrap replicates of the moments that the store must have, for estimates of noise.

    Raises:
        InputError: The folder cannot be written.
    """
    progress = _one_at_a_time(progress)
    fingerprint = screen.fingerprint()
    identity = hashlib.sha256(f"{FORMAT} {fingerprint} {folds.tolist()}".encode()).hexdigest()[:16]
    folder = folder_at(root, cache) / f"{screen.name}-{identity}"
    path = folder.path if isinstance(folder, LocalFolder) else folder.cache.folder / "building" / identity
    wanted = _Wanted(tuple(sorted(set(bin_counts))), n_replicates)
    if not any(wanted.lacking(folder)):
        if isinstance(folder, LocalFolder):
            with suppress(OSError):  # one may read what one may not write
                os.utime(path / "manifest.json")  # says when it was last of use
        return HistogramStore(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path / "lock", lambda: progress("waiting for another process that builds this store", 0, 0)):
            # Another process may have built it while this one waited.
            if any(lacking := wanted.lacking(folder)):
                made = _build(path, folder, screen, folds, lacking, progress)
                about = {
                    "format": FORMAT,
                    "screen": screen.name,
                    "fingerprint": fingerprint,
                    "genes": screen.genes,
                    "perturbations": screen.perturbations,
                    "n_cells": screen.n_cells.tolist(),
                    "folds": folds.tolist(),
                }
                _make_visible(path, folder, about, made, progress)
    except OSError as error:
        option = "--store" if isinstance(folder, LocalFolder) else "--store-cache"
        raise InputError(f"the store {path} cannot be written ({error}): name another folder with {option}") from error
    return HistogramStore(folder)


class _Wanted(NamedTuple):
    """What a store must have."""

    bin_counts: tuple[int, ...]
    n_replicates: int

    def lacking(self, folder: Folder) -> _Wanted:
        """What of it is not there."""
        files = _files(folder)
        return _Wanted(
            tuple(n_bins for n_bins in self.bin_counts if counts_file(n_bins) not in files),
            0 if replicates_file(self.n_replicates) in files else self.n_replicates,
        )


def _one_at_a_time(progress: Progress) -> Progress:
    lock = Lock()

    def told(stage: str, done: int, total: int) -> None:
        with lock:
            progress(stage, done, total)

    return told


@contextmanager
def _locked(path: Path, say_waiting: Callable[[], object]) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say_waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _files(folder: Folder) -> dict[str, dict[str, Any]]:
    return (read_manifest(folder) or {"files": {}})["files"]


def _make_visible(
    path: Path,
    folder: Folder,
    about: Mapping[str, Any],
    made: Mapping[str, dict[str, Any]],
    progress: Progress,
) -> None:
    """Write the manifest, last of all; to object storage everything is sent first, and kept here as if fetched."""
    if isinstance(folder, RemoteFolder):
        for n_sent, name in enumerate(made, start=1):
            progress("upload", n_sent, len(made))
            folder.put(path / name, name)
    while not _files(folder).keys() >= made.keys():  # another node may write its manifest at the same time
        write_json(path / "manifest.json", {**about, "files": _files(folder) | dict(made)})
        if isinstance(folder, RemoteFolder):
            folder.put(path / "manifest.json", "manifest.json")
    if isinstance(folder, RemoteFolder):
        for name, checksum in made.items():
            folder.cache.keep(path / name, checksum)
        (path / "manifest.json").unlink(missing_ok=True)


def _build(
    path: Path,
    folder: Folder,
    screen: GroupedCells,
    folds: Int[np.ndarray, "perturbation"],
    lacking: _Wanted,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Write the files that are lacking, and those that all need; returns the checksum of each."""
    for left_over in path.glob(".*.arrow.*"):  # by a process that was killed
        left_over.unlink()
    builder = _Builder(path, screen, folds, progress)
    wanted = {}
    if _files(folder):
        ranges, made = HistogramStore(folder).ranges, []
    else:
        ranges, made = builder.write_moments(), ["moments.arrow", "ranges.arrow"]
        wanted["reference.arrow"] = (bin_edges(*ranges.of_fold(NO_FOLD), REFERENCE_BINS), np.arange(len(screen.genes)))
    for n_bins in lacking.bin_counts:
        wanted[counts_file(n_bins)] = (bin_edges(ranges.minimum, ranges.maximum, n_bins), ranges.gene)
    builder.write_counts(wanted)
    if lacking.n_replicates:
        made += [builder.write_replicates(lacking.n_replicates)]
    return builder.checksums([*made, *wanted])


class _Builder:
    """Writes files of the store, a row per group, as groups are through."""

    def __init__(
        self, path: Path, screen: GroupedCells, folds: Int[np.ndarray, "perturbation"], progress: Progress
    ) -> None:
        self._path, self._screen, self._folds, self._progress = path, screen, folds, progress
        self._labels = {
            "perturbation": pa.array(["control", *screen.perturbations]),
            "fold": pa.array([None, *folds.tolist()], pa.int64()),
            "n_cells": pa.array(screen.n_cells, pa.int64()),
        }
        self._about = {"format": FORMAT, "screen": screen.name, "genes": screen.genes}

    def write_moments(self) -> Ranges:
        """Write the moments of each group, and the ranges that follow from them."""
        of_gene = (len(self._screen.genes),)
        columns = {name: Column(np.float64, of_gene) for name in MOMENTS[:-1]} | {
            MOMENTS[-1]: Column(np.int64, of_gene)
        }
        path = self._path / "moments.arrow"
        with group_file(path, self._labels, columns, self._about) as write:
            self._for_each_group("moments", _moments, write)
        with pa.memory_map(str(path)) as mapped:
            ranges = Ranges.of(moments_of(pa.ipc.open_file(mapped).read_all()), self._folds)
        genes = pa.DictionaryArray.from_arrays(pa.array(ranges.gene, pa.int32()), pa.array(self._screen.genes))
        table = pa.table({**ranges._asdict(), "gene": genes})
        with (
            written_atomically(self._path / "ranges.arrow") as beside,
            pa.ipc.new_file(str(beside), table.schema) as file,
        ):
            file.write_table(table)
        return ranges

    def write_counts(self, wanted: Mapping[str, tuple[BinEdges, Int[np.ndarray, "range"]]]) -> None:
        """Write files of counts, if any, given the edges of the ranges of each and the gene of each range.

        The first ranges are those of all genes over all cells, beyond which no cell is. A group is counted on all
        ranges and bin counts while its cells are in the cache.
        """
        if not wanted:
            return
        n_genes, dtype = len(self._screen.genes), _count_type(self._screen.n_cells)
        counting = {name: Counting(n_genes, *on, dtype) for name, on in wanted.items()}
        with ExitStack() as stack:
            writers = {}
            for name, (edges, genes) in wanted.items():
                columns = {
                    "counts": Column(dtype, (len(genes), edges.n_bins)),
                    "outside": Column(np.int32, (len(genes) - n_genes,)),
                }
                about = {**self._about, "n_bins": edges.n_bins}
                writers[name] = stack.enter_context(group_file(self._path / name, self._labels, columns, about))

            def write(group: int, counted: Mapping[str, Mapping[str, np.ndarray]]) -> None:
                for name, arrays in counted.items():
                    writers[name](group, arrays)

            self._for_each_group("counts", _CountOn(counting, n_genes), write)

    def write_replicates(self, n_replicates: int) -> str:
        """Write bootstrap replicates of the sums of powers; returns the name of the file."""
        columns = {name: Column(np.float64, (n_replicates, len(self._screen.genes))) for name in POWER_SUMS}
        name = replicates_file(n_replicates)
        with group_file(self._path / name, self._labels, columns, self._about) as write:

            def write_sums(group: int, sums: Float[np.ndarray, "power replicate gene"]) -> None:
                write(group, dict(zip(POWER_SUMS, sums, strict=True)))

            self._for_each_group("replicates", Resampling(n_replicates), write_sums)
        return name

    def _for_each_group(
        self, stage: str, work: Callable[[sp.csr_matrix], Result], write: Callable[[int, Result], object]
    ) -> None:
        n_groups, n_done = len(self._screen.n_cells), count(1)
        self._progress(stage, 0, n_groups)

        def done(group: int, result: Result) -> None:
            write(group, result)
            self._progress(stage, next(n_done), n_groups)

        self._screen.for_each_group(work, done)

    def checksums(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Of files that are written."""
        return dict(zip(names, in_order(checksum_of, [self._path / name for name in names]), strict=True))


def _moments(cells: sp.csr_matrix) -> dict[str, np.ndarray]:
    """The moments of one group, by column."""
    moments = group_moments(cells, np.array([0, cells.indptr.size - 1]))
    columns = *moments.power_sums, moments.minimum, moments.maximum, moments.n_detected
    return dict(zip(MOMENTS, columns, strict=True))


@dataclass(frozen=True)
class _CountOn:
    """The counts of one group, by file and column."""

    counting: Mapping[str, Counting]
    n_genes: int

    def __call__(self, cells: sp.csr_matrix) -> dict[str, dict[str, np.ndarray]]:
        counted = {name: count(cells, np.array([0, cells.indptr.size - 1])) for name, count in self.counting.items()}
        return {
            name: {"counts": counts.in_bin, "outside": counts.outside[:, self.n_genes :]}
            for name, counts in counted.items()
        }


def _count_type(n_cells: Int[np.ndarray, "group"]) -> type[np.signedinteger]:
    """The smallest integer that holds any count and that torch can calculate with."""
    return np.int16 if n_cells.max() <= np.iinfo(np.int16).max else np.int32
