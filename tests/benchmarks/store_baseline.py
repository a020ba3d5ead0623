"""What one would do without the store: `numpy.histogram` per gene and perturbation, a count of its own for each fold.

Kept as it is while the store gets faster, so that ratios stay comparable.
"""

import time
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sp

__all__ = ["numpy_counts", "separate_folds_bytes", "stream_read_seconds", "training_edges"]


def training_edges(dense: np.ndarray, training: np.ndarray, n_bins: int) -> np.ndarray:
    """Edges of equal bins, genes x (bins + 1), the outer ones centred on the extremes of the training cells."""
    lowest, highest = dense[training].min(axis=0), dense[training].max(axis=0)
    highest = np.where(highest > lowest, highest, lowest + 0.01)
    half = (highest - lowest) / (2 * (n_bins - 1))
    return np.linspace(lowest - half, highest + half, n_bins + 1, axis=1)


def numpy_counts(expression: sp.csr_matrix, group_start: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Cells per group, gene and bin."""
    n_groups, n_genes = len(group_start) - 1, expression.shape[1]
    counts = np.empty((n_groups, n_genes, edges.shape[1] - 1), dtype=np.int32)
    for group in range(n_groups):
        cells = expression[group_start[group] : group_start[group + 1]].toarray()
        for gene in range(n_genes):
            counts[group, gene] = np.histogram(cells[:, gene], edges[gene])[0]
    return counts


def separate_folds_bytes(n_groups: int, n_genes: int, bin_counts: list[int], n_folds: int, item_size: int) -> int:
    """Bytes of a whole array of counts for each fold and bin count."""
    return n_groups * n_genes * sum(bin_counts) * n_folds * item_size


def stream_read_seconds(path: Path) -> float:
    """Seconds to read a file from end to end, into a buffer that is used again."""
    buffer = bytearray(2**22)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def stream_values_seconds(path: Path) -> float:
    """Seconds to read the values and columns of a sparse matrix through h5py."""
    start = time.perf_counter()
    with h5py.File(path) as file:
        for name in ("X/data", "X/indices"):
            values = file[name]
            buffer = np.empty(2**21, dtype=values.dtype)
            for first in range(0, len(values), len(buffer)):
                n_values = min(len(buffer), len(values) - first)
                values.read_direct(buffer, np.s_[first : first + n_values], np.s_[:n_values])
    return time.perf_counter() - start
