"""Reading the store: moments and histogram counts of one screen and one set of folds, mapped by every trial.

A folder named by content holds uncompressed Arrow files and `manifest.json`, which is written last and names every file
with its checksum. A gene has the same range in every fold that holds out none of its extreme cells: at each bin count
it is counted on its range over all cells, and once more for each fold in which its training range differs. Adding a bin
count later adds a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from histpert.coexpression import Coexpression
from histpert.errors import InputError
from histpert.histograms.cells_apart import CellsApart, apart_file
from histpert.histograms.coexpression import COEXPRESSION
from histpert.histograms.counting import GroupMoments
from histpert.histograms.edges import BinEdges, bin_edges
from histpert.histograms.folders import Folder, LocalFolder
from histpert.histograms.ranges import NO_FOLD, Ranges
from histpert.threads import for_each

__all__ = [
    "CELLS",
    "FORMAT",
    "MOMENTS",
    "POWER_SUMS",
    "REFERENCE_BINS",
    "FoldCounts",
    "HistogramStore",
    "apart_of",
    "counts_file",
    "moments_of",
    "read_manifest",
    "replicates_file",
    "sealed",
]

FORMAT = 4

CELLS = "cells.arrow"
"""The file of all cells one by one, which models of whole cells train on."""

POWER_SUMS = ("sum_1", "sum_2", "sum_3", "sum_4")
MOMENTS = (*POWER_SUMS, "minimum", "maximum", "n_detected")
"""Columns of the file of moments."""

REFERENCE_BINS = 32
"""Bins of the reference that scores of cells are taken from, the same for all bin counts and folds.

Measured on Papalexi 2021 (270 genes): Ctrl Hist's CRPS from the reference is 0.03 to 0.1% above that of the cells one
by one at 5 to 35 bins; from the same bins as the prediction it was 6% above at 5 bins, 1.5% at 10 and 0.2% at 25."""


@dataclass(frozen=True)
class FoldCounts:
    """What one fold's trial reads: counts on this fold's edges, training and held-out perturbations apart.

    The arrays of all groups, control first, are views of the mapped files.

    Attributes:
        edges: From the cells of control and training perturbations only.
        training: Numbers of the training perturbations in the screen's order.
        held_out: Numbers of the held-out ones.
        on_all_cells: Cells per gene and bin of the range over all cells.
        own_genes: Genes whose training range is another.
        own: Cells of these in bins of that range; those beyond it are in the edge bins.
        own_outside: Cells beyond it.
        reference: Reads the cells per gene and bin of the reference.
        reference_centers: Centres of the reference's bins; the first is each gene's smallest value over all cells.
        apart: Reads the cells that are kept one by one at this bin count.
        coexpression: Reads the most correlated genes of each gene over training cells.
        cells: Reads the expression of all cells, group after group, and the first of each group.
    """

    edges: BinEdges
    training: Int[np.ndarray, "training"]
    held_out: Int[np.ndarray, "held_out"]
    on_all_cells: Int[np.ndarray, "group gene bin"]
    own_genes: Int[np.ndarray, "own"]
    own: Int[np.ndarray, "group own bin"]
    own_outside: Int[np.ndarray, "group own"]
    reference: Callable[[], Int[np.ndarray, "group gene reference"]]
    reference_centers: Float[np.ndarray, "gene reference"]
    apart: Callable[[], CellsApart]
    coexpression: Callable[[], Coexpression]
    cells: Callable[[], tuple[Float[np.ndarray, "cell gene"], Int[np.ndarray, "bound"]]]

    @property
    def control_counts(self) -> Int[np.ndarray, "gene bin"]:
        """Control cells per gene and bin."""
        return self._gathered(np.array([0]))[0]

    @property
    def training_counts(self) -> Int[np.ndarray, "training gene bin"]:
        """Cells per training perturbation, gene and bin."""
        return self._gathered(self.training + 1)

    @property
    def held_out_counts(self) -> Int[np.ndarray, "held_out gene bin"]:
        """Cells per held-out perturbation, gene and bin."""
        return self._gathered(self.held_out + 1)

    @property
    def held_out_outside(self) -> Int[np.ndarray, "held_out gene"]:
        """Held-out cells beyond the training range; counted in the edge bins."""
        outside = np.zeros((len(self.held_out), self.on_all_cells.shape[1]), dtype=np.int32)
        outside[:, self.own_genes] = self.own_outside[self.held_out + 1]
        return outside

    @property
    def held_out_reference(self) -> Int[np.ndarray, "held_out gene reference"]:
        """Held-out cells per perturbation, gene and bin of the reference."""
        return self.reference()[self.held_out + 1]

    def _gathered(self, groups: Int[np.ndarray, "group"]) -> Int[np.ndarray, "group gene bin"]:
        counts = self.on_all_cells[groups]
        counts[:, self.own_genes] = self.own[groups]
        return counts


class HistogramStore:
    """One store folder, opened for reading. Arrays are views of the mapped files.

    Args:
        folder: Folder with `manifest.json`: a path, or one on object storage.

    Raises:
        InputError: No store there, one of another format, or a file whose checksum does not fit.
    """

    def __init__(self, folder: str | Path | Folder):
        self.folder = LocalFolder(Path(folder)) if isinstance(folder, str | Path) else folder
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise InputError(f"{self.folder} holds no histogram store (manifest.json is missing)")
        if manifest["format"] != FORMAT:
            raise InputError(
                f"{self.folder} is a store of format {manifest['format']}, this version reads format {FORMAT}: "
                "name another --store"
            )
        self._files: dict[str, dict[str, Any]] = manifest["files"]
        self._tables: dict[str, pa.Table] = {}
        self.screen: str = manifest["screen"]
        self.fingerprint: str = manifest["fingerprint"]
        self.genes: tuple[str, ...] = tuple(manifest["genes"])
        self.perturbations: tuple[str, ...] = tuple(manifest["perturbations"])
        self.folds = np.asarray(manifest["folds"], dtype=np.int64)

    @cached_property
    def moments(self) -> GroupMoments:
        """Moments of each group's cells; group 0 is control."""
        return moments_of(self._table("moments.arrow"))

    def replicates(self, n_replicates: int) -> tuple[Float[np.ndarray, "group replicate gene"], ...]:
        """Sums of x, x^2, x^3 and x^4 over cells drawn with replacement, as many as the group has."""
        table = self._table(replicates_file(n_replicates))
        return tuple(array_of(table, name) for name in POWER_SUMS)

    def n_bytes(self, name: str) -> int:
        """Size of one of its files, which is not opened."""
        return self._files[name]["bytes"]

    def fold(self, fold: int, n_bins: int) -> FoldCounts:
        """Counts of one fold at one bin count, on each gene's range in training."""
        name = counts_file(n_bins)
        if unread := [file for file in (name, "moments.arrow") if file not in self._tables]:
            for_each(self._table, unread)
        ranges, n_genes = self.ranges, len(self.genes)
        counts = array_of(self._table(name), "counts")
        own = slice(*np.searchsorted(ranges.fold, [fold, fold + 1]).tolist())
        outside = np.zeros((len(counts), 0), dtype=np.int32)
        if own.stop > own.start:
            outside = array_of(self._table(name), "outside")[:, own.start - n_genes : own.stop - n_genes]
        return FoldCounts(
            edges=bin_edges(*ranges.of_fold(fold), n_bins),
            training=np.flatnonzero(self.folds != fold),
            held_out=np.flatnonzero(self.folds == fold),
            on_all_cells=counts[:, :n_genes],
            own_genes=ranges.gene[own],
            own=counts[:, own],
            own_outside=outside,
            reference=self._reference,
            reference_centers=bin_edges(*ranges.of_fold(NO_FOLD), REFERENCE_BINS).centers,
            apart=partial(self._apart, n_bins),
            coexpression=partial(self._coexpression, fold),
            cells=self.cells,
        )

    @cached_property
    def ranges(self) -> Ranges:
        """What is counted on."""
        table = self._table("ranges.arrow")
        gene = cast("pa.DictionaryArray", table["gene"].chunk(0)).indices.to_numpy()
        return Ranges(gene, *(table[name].to_numpy() for name in Ranges._fields[1:]))

    def _reference(self) -> Int[np.ndarray, "group gene bin"]:
        """Counts of all groups on the reference's bins, a view of the mapped file."""
        return array_of(self._table("reference.arrow"), "counts")

    def _apart(self, n_bins: int) -> CellsApart:
        """Views of the mapped file."""
        return apart_of(self._table(apart_file(n_bins)))

    def cells(self) -> tuple[Float[np.ndarray, "cell gene"], Int[np.ndarray, "bound"]]:
        """Log-normalized expression of all cells, group after group, and the first of each group; views of the file."""
        return array_of(self._table(CELLS), "expression"), np.cumsum([0, *self.moments.n_cells])

    @property
    def has_cells(self) -> bool:
        """Whether it has them."""
        return CELLS in self._files

    def _coexpression(self, fold: int) -> Coexpression:
        """Views of the mapped file."""
        return Coexpression(*(array_of(self._table(COEXPRESSION), name)[fold] for name in Coexpression._fields))

    def _table(self, name: str) -> pa.Table:
        """The mapped file, its checksum verified when this process first reads it."""
        if name not in self._tables:
            if name not in self._files:
                raise InputError(f"{self.folder} has no {name}: run the study again to add it")
            self._tables[name] = pa.ipc.open_file(self.folder.fetch(name, self._files[name])).read_all()
        return self._tables[name]


def counts_file(n_bins: int) -> str:
    """The file with counts in so many bins."""
    return f"counts_B{n_bins}.arrow"


def replicates_file(n_replicates: int) -> str:
    """The file with so many bootstrap replicates of moments."""
    return f"replicates_R{n_replicates}.arrow"


def read_manifest(folder: Folder) -> dict[str, Any] | None:
    """What the store holds, or None where there is none. Of another format no more is known than that.

    Raises:
        InputError: It cannot be read, or is not what was written.
    """
    content = folder.read("manifest.json")
    if content is None:
        return None
    manifest: Any = None
    try:
        manifest = json.loads(content)
        is_whole = manifest["format"] != FORMAT or manifest == sealed(manifest)
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise InputError(f"{folder}/manifest.json is damaged: delete {folder} and run again")
    return manifest


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum of the rest of it."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return content | {"sha256": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def moments_of(table: pa.Table) -> GroupMoments:
    """Views of a table of moments."""
    *power_sums, minimum, maximum, n_detected = (array_of(table, name) for name in MOMENTS)
    return GroupMoments(table["n_cells"].to_numpy(), tuple(power_sums), minimum, maximum, n_detected)


def apart_of(table: pa.Table) -> CellsApart:
    """Views of a table of cells that are kept one by one."""
    gene, value = (cast("Any", table[name].chunk(0)) for name in ("gene", "value"))
    return CellsApart(gene.offsets.to_numpy(), gene.values.to_numpy(), value.values.to_numpy())


def array_of(table: pa.Table, name: str) -> np.ndarray:
    """A column of lists, or of lists of lists, as a view with an axis for each, without a copy."""
    values, shape = cast("Any", table[name].chunk(0)), [len(table)]
    while isinstance(values, pa.FixedSizeListArray):
        shape.append(values.type.list_size)
        values = values.values
    return values.to_numpy(zero_copy_only=True).reshape(shape)
