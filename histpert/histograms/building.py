"""Building the store: once per screen, folds and bin count, by one process, visible only when it is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from jaxtyping import Int

from histpert.errors import InputError
from histpert.histograms.counting import GroupMoments, count_groups, group_moments
from histpert.histograms.edges import bin_edges
from histpert.histograms.store import (
    FORMAT,
    REFERENCE_BINS,
    HistogramStore,
    checksum,
    overall_range,
    read_manifest,
    training_range,
)
from histpert.results import write_atomically, write_json
from histpert.screens.screen import Screen

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
    moments = group_moments(screen.expression, screen.group_start)
    files = (read_manifest(path) or {"files": {}})["files"] or _write_shared(path, screen, moments)
    for n_bins in bin_counts:
        files |= _write_counts(path, screen, moments, folds, n_bins)
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


def _write_shared(path: Path, screen: Screen, moments: GroupMoments) -> dict[str, dict[str, Any]]:
    """The files that do not depend on folds and bin counts."""
    sums = {f"sum_{k}": values for k, values in enumerate(moments.power_sums, start=1)}
    extremes = {"minimum": moments.minimum, "maximum": moments.maximum, "n_detected": moments.n_detected}
    columns = {"n_cells": moments.n_cells, **sums, **extremes}
    edges = bin_edges(*overall_range(moments), REFERENCE_BINS)
    reference = count_groups(screen.expression, screen.group_start, edges).in_bin.astype(_count_type(moments))
    return _write(path / "moments.arrow", screen, columns) | _write(
        path / "reference.arrow", screen, {"counts": reference}
    )


def _write_counts(
    path: Path, screen: Screen, moments: GroupMoments, folds: Int[np.ndarray, "perturbation"], n_bins: int
) -> dict[str, dict[str, Any]]:
    """The base array of a bin count, and the overrides of each fold."""
    overall = overall_range(moments)
    base = count_groups(screen.expression, screen.group_start, bin_edges(*overall, n_bins))
    dtype = _count_type(moments)
    files = _write(path / f"counts_B{n_bins}.arrow", screen, {"counts": base.in_bin.astype(dtype)})
    for fold in np.unique(folds).tolist():
        low, high = training_range(moments, folds, fold)
        genes = np.flatnonzero((low != overall[0]) | (high != overall[1]))
        if not len(genes):
            genes = np.array([0])  # Arrow has no lists of length 0, and any gene may be counted again
        edges = bin_edges(low[genes], high[genes], n_bins)
        counts = count_groups(screen.expression, screen.group_start, edges, genes)
        arrays = {"counts": counts.in_bin.astype(dtype), "outside": counts.outside}
        files |= _write(path / f"counts_B{n_bins}_fold{fold}.arrow", screen, arrays, genes)
    return files


def _count_type(moments: GroupMoments) -> type[np.signedinteger]:
    """The smallest integer that holds any count and that torch can calculate with."""
    return np.int16 if moments.n_cells.max() <= np.iinfo(np.int16).max else np.int32


def _write(
    path: Path, screen: Screen, arrays: dict[str, np.ndarray], genes: np.ndarray | None = None
) -> dict[str, dict[str, Any]]:
    """Write arrays with a row per group; returns the manifest's entry of the file."""
    columns: dict[str, pa.Array] = {"perturbation": pa.array(["control", *screen.perturbations])}
    for name, array in arrays.items():
        values = pa.array(array.reshape(-1))
        columns[name] = values if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, array[0].size)
    table = pa.table(columns)
    if genes is not None:
        table = table.replace_schema_metadata({"genes": json.dumps(genes.tolist())})

    def write(beside: Path) -> None:
        with pa.ipc.new_file(str(beside), table.schema) as writer:
            writer.write_table(table)

    write_atomically(path, write)
    return {path.name: checksum(path)}
