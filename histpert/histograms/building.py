"""Building the store: once per screen, folds and bin count, by one process, visible only when it is whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Int

from histpert.errors import InputError
from histpert.histograms.cells_apart import apart_file
from histpert.histograms.coexpression import COEXPRESSION
from histpert.histograms.folders import Folder, LocalFolder, folder_at
from histpert.histograms.remote import Cache, RemoteFolder
from histpert.histograms.store import CELLS, FORMAT, HistogramStore, counts_file, read_manifest, replicates_file, sealed
from histpert.histograms.writing import StoreWriter
from histpert.results import write_json
from histpert.screens.screen import GroupedCells
from histpert.threads import Progress, silent

__all__ = ["open_or_build"]


def open_or_build(
    root: str | Path,
    screen: GroupedCells,
    folds: Int[np.ndarray, "perturbation"],
    bin_counts: Iterable[int],
    progress: Progress = silent,
    cache: Cache | None = None,
    n_replicates: int = 0,
    apart: Iterable[int] = (),
    with_coexpression: bool = False,
    with_cells: bool = False,
    option: str = "--store",
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
        apart: Bin counts at which it must have the cells that likelihoods of densities need one by one.
        with_coexpression: Whether it must have the most correlated genes of each gene.
        with_cells: Whether it must have all cells one by one.
        option: The one that a user names another place with.

    Raises:
        InputError: The folder cannot be written.
    """
    progress = _one_at_a_time(progress)
    fingerprint = screen.fingerprint()
    identity = hashlib.sha256(f"{FORMAT} {fingerprint} {folds.tolist()}".encode()).hexdigest()[:16]
    folder = folder_at(root, cache) / f"{screen.name}-{identity}"
    path = folder.path if isinstance(folder, LocalFolder) else folder.cache.folder / "building" / identity
    wanted = _Wanted(
        tuple(sorted(set(bin_counts))), n_replicates, tuple(sorted(set(apart))), with_coexpression, with_cells
    )
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
        option = option if isinstance(folder, LocalFolder) else "--store-cache"
        raise InputError(f"the store {path} cannot be written ({error}): name another folder with {option}") from error
    return HistogramStore(folder)


class _Wanted(NamedTuple):
    """What a store must have."""

    bin_counts: tuple[int, ...]
    n_replicates: int
    apart: tuple[int, ...]
    coexpression: bool
    cells: bool

    def lacking(self, folder: Folder) -> _Wanted:
        """What of it is not there."""
        files = _files(folder)
        return _Wanted(
            tuple(n_bins for n_bins in self.bin_counts if counts_file(n_bins) not in files),
            0 if replicates_file(self.n_replicates) in files else self.n_replicates,
            tuple(n_bins for n_bins in self.apart if apart_file(n_bins) not in files),
            self.coexpression and COEXPRESSION not in files,
            self.cells and CELLS not in files,
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
        write_json(path / "manifest.json", sealed({**about, "files": _files(folder) | dict(made)}))
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
    for left_over in (*path.glob(".*.arrow.*"), *path.glob(".manifest.json.*")):  # by a process that was killed
        left_over.unlink()
    writer = StoreWriter(path, screen, folds, progress)
    is_new = not _files(folder)
    ranges = writer.write_moments() if is_new else HistogramStore(folder).ranges
    made = ["moments.arrow", "ranges.arrow"] if is_new else []
    made += writer.write_counts(ranges, lacking.bin_counts, with_reference=is_new)
    made += writer.write_apart(ranges, lacking.apart)
    if lacking.n_replicates:
        made += [writer.write_replicates(lacking.n_replicates)]
    if lacking.coexpression:
        made += [writer.write_coexpression()]
    if lacking.cells:
        made += [writer.write_cells()]
    return writer.checksums(made)
