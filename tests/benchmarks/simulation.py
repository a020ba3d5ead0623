"""Writing a screen of the published size, beside the same draws made at once in NumPy and written by anndata.

The floor is what cannot be left out: a gamma and a Poisson draw for each cell and gene on all cores, and the bytes of
the file to disk. The form in one piece holds several dense cells x genes arrays; at the published size they would take
over 30 GB, so that it is timed on a part of the cells.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata
import h5py
import numpy as np
import scipy.sparse as sp

from histpert.screens.simulation import PRESETS
from histpert.screens.simulation.drawing import draw_screen

PRESET = "replogle-k562"
PART = 10_000
"""Cells of the form in one piece."""


@contextmanager
def timed(found: list[float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    found.append(time.perf_counter() - start)


def in_one_piece(folder: Path) -> float:
    """Seconds per cell."""
    truth, _ = draw_screen(0, PRESETS[PRESET])
    random = np.random.default_rng(0)
    seconds: list[float] = []
    with timed(seconds):
        activity = random.normal(0, truth.activity_spread, (PART, len(truth.activity_spread)))
        size = np.exp(-truth.log_dispersion)
        rate = np.exp(activity @ truth.loadings.T + truth.log_rate)
        mean = rate * (random.choice(truth.library_sizes, PART) / 10_000)[:, None]
        counts = random.negative_binomial(size, size / (size + mean))
        anndata.AnnData(sp.csr_matrix(counts.astype(np.float32))).write_h5ad(folder / "piece.h5ad")
    return seconds[0] / PART


def draws() -> float:
    """Seconds per value of a gamma and a Poisson draw, one thread."""
    truth, _ = draw_screen(0, PRESETS[PRESET])
    random = np.random.default_rng(0)
    size = np.tile(np.exp(-truth.log_dispersion), (500, 1))
    mean = np.exp(truth.log_rate)
    seconds: list[float] = []
    with timed(seconds):
        random.poisson(mean * random.standard_gamma(size) / size)
    return seconds[0] / size.size


def disk(folder: Path, n_bytes: int) -> float:
    """Seconds to write and flush that many bytes."""
    seconds: list[float] = []
    piece = np.random.default_rng(0).bytes(2**24)
    with timed(seconds), (folder / "bytes").open("wb") as file:
        for _ in range(n_bytes // len(piece)):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    (folder / "bytes").unlink()
    return seconds[0]


def main() -> None:
    preset = PRESETS[PRESET]
    n_values, n_cores = preset.n_cells * preset.n_genes, len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder, seconds = Path(name), []
        path = folder / "screen.h5ad"
        command = [sys.executable, "-m", "histpert.cli", "simulate", str(path), "--like", PRESET]
        with timed(seconds):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        with h5py.File(path) as file:
            zeros = 1 - file["X/data"].shape[0] / n_values
        n_bytes = path.stat().st_size
        per_cell, per_value, written = in_one_piece(folder), draws(), disk(folder, n_bytes)
    floor = n_values * per_value / n_cores
    print(f"{PRESET}: {preset.n_cells:,} cells x {preset.n_genes:,} genes, {zeros:.1%} zeros, {n_bytes / 1e9:.2f} GB")
    print(f"histpert simulate          {seconds[0]:7.1f} s, {peak:.2f} GiB at the most, {n_cores} cores")
    print(f"in one piece, NumPy        {per_cell * preset.n_cells:7.1f} s (from {PART:,} cells), one core")
    print(f"  ratio                    {per_cell * preset.n_cells / seconds[0]:7.2f}")
    print(f"floor: draws, all cores    {floor:7.1f} s; the file to disk {written:.1f} s")
    print(f"  distance from the draws  {seconds[0] / floor:7.2f}")


if __name__ == "__main__":
    main()
