"""Building the store: once per screen, folds and bin count, by one process, visible only when it is whole."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from filelock import FileLock
from jaxtyping import Int

from histpert.errors import InputError
from histpert.histograms.counting import GroupMoments, counter, group_moments, no_counts
from histpert.histograms.edges import BinEdges, bin_edges
from histpert.histograms.ranges import NO_FOLD, Ranges
from histpert.histograms.store import FORMAT, REFERENCE_BINS, HistogramStore, checksum, read_manifest
from histpert.results import write_json, written_atomically
from histpert.screens.screen import Screen
from histpert.threads import for_each

__all__ = ["open_or_build"]


def open_or_build(
    root: str | Path, screen: Screen, folds: Int[np.ndarray, "perturbation"], bin_counts: Iterable[int]
) -> HistogramStore:
    """Open the store of this screen and these folds under `root`; build what is missing of it first.

    One process builds, others that want the same store wait for it.

    Args:
        root: Folder for stores; made where it is missing.
        screen: The screen.
        folds: The fold that holds out each perturbation.
        bin_counts: Bin counts that the store must have.

    Raises:
        InputError: The folder cannot be written.
    """
    fingerprint = screen.fingerprint()
    identity = hashlib.sha256(f"{FORMAT} {fingerprint} {folds.tolist()}".encode()).hexdigest()[:16]
    path = Path(root) / f"{screen.name}-{identity}"
    wanted = sorted(set(bin_counts))
    if not _lacking(path, wanted):
        return HistogramStore(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with FileLock(path / "lock"):
            # Another process may have built it while this one waited.
            if lacking := _lacking(path, wanted):
                _build(path, screen, fingerprint, folds, lacking)
    except OSError as error:
        raise InputError(f"the store {path} cannot be written ({error}): name another folder with --store") from error
    return HistogramStore(path)


def _lacking(path: Path, bin_counts: Sequence[int]) -> list[int]:
    files = (read_manifest(path) or {"files": {}})["files"]
    return [n_bins for n_bins in bin_counts if f"counts_B{n_bins}.arrow" not in files]


def _build(
    path: Path, screen: Screen, fingerprint: str, folds: Int[np.ndarray, "perturbation"], bin_counts: Sequence[int]
) -> None:
    """Write moments and counts, and last the manifest that makes them visible."""
    files = (read_manifest(path) or {"files": {}})["files"]
    if files:
        store = HistogramStore(path)
        moments, ranges = store.moments, store.ranges
    else:
        moments = group_moments(screen.expression, screen.group_start)
        ranges = Ranges.of(moments, folds)
    wanted = {
        f"counts_B{n_bins}.arrow": (bin_edges(ranges.minimum, ranges.maximum, n_bins), ranges.gene)
        for n_bins in bin_counts
    }
    if not files:
        files = _write_moments(path, screen, moments) | _write_ranges(path, ranges)
        reference = bin_edges(*ranges.of_fold(NO_FOLD), REFERENCE_BINS)
        wanted["reference.arrow"] = (reference, np.arange(len(screen.genes)))
    files = files | _write_counts(path, screen, wanted)
    write_json(
        path / "manifest.json",
        {
            "format": FORMAT,
            "screen": screen.name,
            "fingerprint": fingerprint,
            "genes": screen.genes,
            "perturbations": screen.perturbations,
            "n_cells": moments.n_cells.tolist(),
            "folds": folds.tolist(),
            "files": files,
        },
    )


def _write_moments(path: Path, screen: Screen, moments: GroupMoments) -> dict[str, dict[str, Any]]:
    sums = {f"sum_{k}": values for k, values in enumerate(moments.power_sums, start=1)}
    extremes = {"minimum": moments.minimum, "maximum": moments.maximum, "n_detected": moments.n_detected}
    file = path / "moments.arrow"
    with written_atomically(file) as beside:
        _write(beside, screen, {"n_cells": moments.n_cells, **sums, **extremes})
    return {file.name: checksum(file)}


def _write_ranges(path: Path, ranges: Ranges) -> dict[str, dict[str, Any]]:
    file, table = path / "ranges.arrow", pa.table(ranges._asdict())
    with written_atomically(file) as beside, pa.ipc.new_file(str(beside), table.schema) as writer:
        writer.write_table(table)
    return {file.name: checksum(file)}


def _write_counts(
    path: Path, screen: Screen, wanted: dict[str, tuple[BinEdges, Int[np.ndarray, "range"]]]
) -> dict[str, dict[str, Any]]:
    """Count each group on all ranges and bin counts while its cells are in the cache, and write it to its place.

    `wanted` has for each file the edges of its ranges, and the gene of each: all genes on their range over all cells,
    beyond which no cell is, and more.
    """
    n_groups, n_genes, dtype = len(screen.n_cells), len(screen.genes), _count_type(screen.n_cells)
    with ExitStack() as stack:
        files = []
        for name, (edges, genes) in wanted.items():
            beside = stack.enter_context(written_atomically(path / name))
            zeros = no_counts(n_groups, edges, dtype)
            arrays = {"counts": zeros.in_bin, "outside": zeros.outside[:, n_genes:]}
            _write(beside, screen, {column: array for column, array in arrays.items() if array.size})
            files.append((edges, counter(screen.expression, edges, genes), stack.enter_context(_rows_of(beside))))

        def count(group: int) -> None:
            for edges, add, write in files:
                counts = no_counts(1, edges, dtype)
                add(screen.group_start[group : group + 2], counts)
                write(group, {"counts": counts.in_bin, "outside": counts.outside[:, n_genes:]})

        for_each(count, range(n_groups))
    return {name: checksum(path / name) for name in wanted}


def _count_type(n_cells: Int[np.ndarray, "group"]) -> type[np.signedinteger]:
    """The smallest integer that holds any count and that torch can calculate with."""
    return np.int16 if n_cells.max() <= np.iinfo(np.int16).max else np.int32


def _write(path: Path, screen: Screen, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays with a row per group."""
    columns: dict[str, pa.Array] = {"perturbation": pa.array(["control", *screen.perturbations])}
    for name, array in arrays.items():
        values = pa.array(array.reshape(-1))
        columns[name] = values if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, array[0].size)
    table = pa.table(columns)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


@contextmanager
def _rows_of(path: Path) -> Iterator[Callable[[int, dict[str, np.ndarray]], None]]:
    """What writes a row of the columns of lists, in place of the zeros there: the whole would not fit into memory."""
    with pa.memory_map(str(path)) as mapped:
        start, table = mapped.read_buffer().address, pa.ipc.open_file(mapped).read_all()
        lists = {name: cast("pa.FixedSizeListArray", table[name].chunk(0)) for name in table.column_names[1:]}
        offset = {name: cast("pa.Buffer", column.values.buffers()[1]).address - start for name, column in lists.items()}
    with path.open("r+b", buffering=0) as file:

        def write(row: int, arrays: dict[str, np.ndarray]) -> None:
            for name, first in offset.items():
                content = np.ascontiguousarray(arrays[name]).data
                if os.pwrite(file.fileno(), content, first + row * content.nbytes) < content.nbytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        yield write
