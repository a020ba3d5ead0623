"""Simulated screens in memory and on disk."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import sparse_dataset, write_elem
from jaxtyping import Int

from histpert.embeddings import GeneEmbeddings
from histpert.errors import InputError
from histpert.gene_sets import write_gene_sets
from histpert.results import write_atomically
from histpert.screens.reading import LIBRARY_SIZE
from histpert.screens.screen import Screen, group_cells
from histpert.screens.simulation.cells import SCREEN, SimulatedCells, assign_cells, draw_cells
from histpert.screens.simulation.drawing import SOURCES, draw_screen
from histpert.screens.simulation.gene_sets import simulated_gene_sets
from histpert.screens.simulation.parameters import CONTROL
from histpert.screens.simulation.settings import Simulation
from histpert.screens.simulation.truth import ScreenTruth

__all__ = ["SimulatedScreen", "simulate_screen", "write_screen"]

HDF5_CHUNK = 2**16
"""Values that are read from the file at a time: large enough to read at the speed of the disk."""


class SimulatedScreen(NamedTuple):
    """A simulated screen and what is true of it."""

    screen: Screen
    """Control cells and cells of single perturbations, and of pairs where these were asked for."""
    embeddings: Mapping[str, GeneEmbeddings]
    """Of the perturbed genes: `good`, `poor`, and `permuted` (those of `good`, dealt out anew)."""
    truth: ScreenTruth


def simulate_screen(seed: int = 0, simulation: Simulation | None = None, with_pairs: bool = False) -> SimulatedScreen:
    """Simulate a screen in memory.

    Args:
        seed: The same seed and settings give the same screen, here and in a file.
        simulation: Settings.
        with_pairs: Keep the cells of pairs.
    """
    simulation = simulation or Simulation()
    truth, embeddings = draw_screen(seed, simulation)
    group = assign_cells(truth)
    expression = SimulatedCells.join(_blocks(truth, group)).expression()
    names = np.array(["", *truth.perturbations], dtype=object)[group + 1]
    labels = [None if "+" in name and not with_pairs else "+".join(sorted(name.split("+"))) for name in names]
    note = (
        f"SIMULATED, not measured: {simulation.n_perturbations} perturbations x {simulation.n_genes} genes, "
        f"seed {seed}; use --screen and --embeddings for your own"
    )
    return SimulatedScreen(group_cells(expression, labels, truth.genes, "simulated", (note,)), embeddings, truth)


def write_screen(
    path: Path,
    seed: int = 0,
    simulation: Simulation | None = None,
    on_progress: Callable[[int], object] = lambda n_cells: None,
) -> dict[str, Path]:
    """Simulate a screen into an `.h5ad` file, in bounded memory.

    `X` has the raw counts, `obs` the columns `perturbation` and `library_size`. Beside `NAME.h5ad` come the parameters
    that truth is asked of, `NAME.truth.npz`, embeddings, `NAME.good.npz`, `NAME.poor.npz`, `NAME.permuted.npz`, and
    gene sets that tell what each of these does, `NAME.good.gmt`, ...

    Args:
        path: The `.h5ad` file, which must not exist, nor those beside it.
        seed: The same seed and settings give the same screen, here and in memory.
        simulation: Settings.
        on_progress: Told the number of cells after each block of them.

    Returns:
        What was written: `screen`, `truth`, the three embeddings and their `... gene sets`.

    Raises:
        InputError: The path is no place for new files, or the disk is full.
    """
    if path.suffix != ".h5ad":
        raise InputError(f"{path}: name a file that ends in .h5ad")
    paths = {"screen": path} | {kind: path.with_suffix(f".{kind}.npz") for kind in ("truth", *SOURCES)}
    paths |= {f"{source} gene sets": path.with_suffix(f".{source}.gmt") for source in SOURCES}
    truth, embeddings = draw_screen(seed, simulation or Simulation())
    small = {"truth": truth.save} | {source: table.save for source, table in embeddings.items()}
    for source, table in embeddings.items():
        small[f"{source} gene sets"] = partial(write_gene_sets, sets=simulated_gene_sets(table, seed))
    in_place: list[Path] = []

    def write(beside: Path) -> None:
        _write_h5ad(beside, truth, on_progress)
        for kind, save in small.items():
            write_atomically(paths[kind], save)
            in_place.append(paths[kind])

    try:
        for file in paths.values():
            if file.exists():
                raise InputError(f"{file} exists already: name another file, or remove it first")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except BaseException as error:
        for file in in_place:
            file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{path} cannot be written: {error.strerror or error}; name another file") from error
        raise
    return paths


class _Sink(io.FileIO):
    """A file that keeps its first error, or an interrupt, to itself and takes no more from then on.

    HDF5 crashes where it cannot write on closing, loses what a call of its own raises, and reads again what it wrote:
    what is not taken is remembered, until the error is raised.
    """

    error: BaseException | None = None

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._not_taken: list[tuple[int, bytes]] = []

    def write(self, data: Any) -> int:
        whole, start = memoryview(data).cast("B"), self.tell()
        try:
            left = whole
            while self.error is None and len(left):
                left = left[super().write(left) :]
        except BaseException as error:
            self.error = error
        if self.error is not None:
            self._not_taken.append((start, bytes(whole)))
            self.seek(start + len(whole))
        return len(whole)

    def readinto(self, buffer: Any) -> int:
        view, start = memoryview(buffer).cast("B"), self.tell()
        n_read = super().readinto(view) or 0
        if self.error is None:
            return n_read
        for at, data in self._not_taken:
            first, last = max(at, start), min(at + len(data), start + len(view))
            if first < last:
                view[first - start : last - start] = data[first - at : last - at]
        self.seek(start + len(view))
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self.error is None else size or 0
        except BaseException as error:
            self.error = error
            return size or 0

    def check(self) -> None:
        """Raise the error that there was."""
        if self.error is not None:
            raise self.error


def _write_h5ad(path: Path, truth: ScreenTruth, on_progress: Callable[[int], object]) -> None:
    group = assign_cells(truth)
    names = pd.Index([CONTROL, *truth.perturbations])
    cells = pd.Index([f"cell{number}" for number in range(1, len(group) + 1)])
    obs = pd.DataFrame({"perturbation": pd.Categorical.from_codes(group + 1, names)}, index=cells)
    simulation = {"seed": truth.seed, "settings": json.dumps(asdict(truth.simulation))}
    library_size: list[Int[np.ndarray, "cell"]] = []
    with _Sink(path, "w+") as sink, h5py.File(sink, "w") as file:
        genes = pd.DataFrame(index=list(truth.genes))
        write_elem(file, "/", anndata.AnnData(obs=obs, var=genes, uns={"simulation": simulation}))
        for block in _blocks(truth, group):
            if not library_size:
                block.counts.indptr = block.counts.indptr.astype(np.int64)  # as wide as the whole matrix may need
                write_elem(file, "X", block.counts, dataset_kwargs={"chunks": (HDF5_CHUNK,)})
            else:
                cast("Any", sparse_dataset(cast("h5py.Group", file["X"]))).append(block.counts)
            sink.check()
            library_size.append(block.library_size)
            on_progress(len(block.library_size))
        obs[LIBRARY_SIZE] = np.concatenate(library_size)
        write_elem(file, "obs", obs)
    sink.check()


def _blocks(truth: ScreenTruth, group: Int[np.ndarray, "cell"]) -> Iterator[SimulatedCells]:
    return draw_cells(truth, group, np.random.SeedSequence(truth.seed, spawn_key=(SCREEN,)))
