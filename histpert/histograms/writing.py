"""Writing the files of a store, each in one pass over groups of cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from jaxtyping import Float, Int

from histpert.histograms.bootstrap import Resampling
from histpert.histograms.cells_apart import apart_file, limits
from histpert.histograms.coexpression import COEXPRESSION, MOST_CELLS, SampledCells, coexpression
from histpert.histograms.counting import Counting, group_moments
from histpert.histograms.edges import BinEdges, bin_edges
from histpert.histograms.folders import checksum_of
from histpert.histograms.group_files import Column, group_file
from histpert.histograms.ranges import NO_FOLD, Ranges
from histpert.histograms.store import (
    CELLS,
    FORMAT,
    MOMENTS,
    POWER_SUMS,
    REFERENCE_BINS,
    counts_file,
    moments_of,
    replicates_file,
)
from histpert.results import written_atomically
from histpert.screens.screen import GroupedCells
from histpert.threads import Progress, in_order

__all__ = ["StoreWriter"]

Result = TypeVar("Result")


class StoreWriter:
    """Writes the files of a store, each a row per group, as groups are through.

    Args:
        path: Folder of the store.
        screen: The cells.
        folds: The fold that holds out each perturbation.
        progress: Told what goes on, one call at a time.
    """

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
        _write(self._path / "ranges.arrow", table)
        return ranges

    def write_counts(self, ranges: Ranges, bin_counts: Sequence[int], with_reference: bool) -> list[str]:
        """Write counts on all ranges, and the reference on those over all cells; returns the names of the files.

        A group is counted on all ranges and bin counts while its cells are in the cache.
        """
        wanted: dict[str, tuple[BinEdges, Int[np.ndarray, "range"]]] = {
            counts_file(n_bins): (bin_edges(ranges.minimum, ranges.maximum, n_bins), ranges.gene)
            for n_bins in bin_counts
        }
        if with_reference:
            every = np.arange(len(self._screen.genes))
            wanted["reference.arrow"] = (bin_edges(*ranges.of_fold(NO_FOLD), REFERENCE_BINS), every)
        if not wanted:
            return []
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
        return list(wanted)

    def write_replicates(self, n_replicates: int) -> str:
        """Write bootstrap replicates of the sums of powers; returns the name of the file."""
        columns = {name: Column(np.float64, (n_replicates, len(self._screen.genes))) for name in POWER_SUMS}
        name = replicates_file(n_replicates)
        with group_file(self._path / name, self._labels, columns, self._about) as write:

            def write_sums(group: int, sums: Float[np.ndarray, "power replicate gene"]) -> None:
                write(group, dict(zip(POWER_SUMS, sums, strict=True)))

            self._for_each_group("replicates", Resampling(n_replicates), write_sums)
        return name

    def write_apart(self, ranges: Ranges, bin_counts: Sequence[int]) -> list[str]:
        """Write the cells that are kept one by one; returns the names of the files. They are held in memory first."""
        n_groups, names = len(self._screen.n_cells), [apart_file(n_bins) for n_bins in bin_counts]
        for name, n_bins in zip(names, bin_counts, strict=True):
            edges = bin_edges(ranges.minimum, ranges.maximum, n_bins)
            kept: list[tuple[np.ndarray, ...]] = [()] * n_groups
            self._for_each_group("apart", limits(edges, ranges.gene, len(self._screen.genes)), kept.__setitem__)
            first = pa.array(np.cumsum([0, *(len(gene) for gene, _ in kept)]), pa.int64())
            genes, values = (pa.array(np.concatenate(arrays)) for arrays in zip(*kept, strict=True))
            columns = {
                "gene": pa.LargeListArray.from_arrays(first, genes),
                "value": pa.LargeListArray.from_arrays(first, values),
            }
            table = pa.table(self._labels | columns).replace_schema_metadata(
                {"histpert": json.dumps({**self._about, "n_bins": n_bins})}
            )
            _write(self._path / name, table)
        return names

    def write_coexpression(self) -> str:
        """Write the most correlated genes of each gene, a row per fold; returns the name of the file."""
        n_cells, sampled = self._screen.n_cells, {}
        self._for_each_group("coexpression", SampledCells(MOST_CELLS / n_cells.sum()), sampled.__setitem__)
        control, *perturbed = (sampled[group] for group in range(len(n_cells)))
        found = coexpression(control, perturbed, self._folds)
        columns = {name: _nested(array) for name, array in found._asdict().items()}
        fold = pa.array(range(len(found.neighbor)), pa.int64())
        table = pa.table({"fold": fold, **columns}).replace_schema_metadata({"histpert": json.dumps(self._about)})
        _write(self._path / COEXPRESSION, table)
        return COEXPRESSION

    def write_cells(self) -> str:
        """Write the expression of all cells, a row each; returns the name of the file."""
        n_cells = self._screen.n_cells
        start, group = np.cumsum([0, *n_cells]), np.repeat(np.arange(len(n_cells)), n_cells)
        columns = {"expression": Column(np.float32, (len(self._screen.genes),))}
        labels = {"group": pa.array(group, pa.int32())}
        with group_file(self._path / CELLS, labels, columns, self._about) as write:

            def put(group: int, cells: sp.csr_matrix) -> None:
                for row, values in enumerate(cells.toarray(), start=int(start[group])):
                    write(row, {"expression": values})

            self._for_each_group("cells", _as_they_are, put)
        return CELLS

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


def _write(path: Path, table: pa.Table) -> None:
    with written_atomically(path) as beside, pa.ipc.new_file(str(beside), table.schema) as file:
        file.write_table(table)


def _as_they_are(cells: sp.csr_matrix) -> sp.csr_matrix:
    return cells


def _nested(array: np.ndarray) -> pa.Array:
    """Lists of lists, one in each row."""
    column = pa.array(array.reshape(-1))
    for length in reversed(array.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, length)
    return column


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
