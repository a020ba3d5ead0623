"""The histogram store: counting, building and opening, beside what one would do without it (store_baseline.py)."""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from store_baseline import numpy_counts, separate_folds_bytes, stream_read_seconds, stream_values_seconds

from histpert.histograms import HistogramStore, bin_edges, group_moments
from histpert.histograms.counting import count_groups, count_shard
from histpert.histograms.ranges import overall_range
from histpert.screens import read_screen

PRESET = "replogle-k562"
BINS, N_FOLDS, REPEATS = [5, 10, 15, 20, 25, 35], 9, 5
SLICE = 8
"""Perturbations that `numpy.histogram` counts: it takes a minute for a hundred."""


def fastest(way) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def kernel(path: Path) -> None:
    screen = read_screen(path)
    first = screen.with_perturbations(screen.perturbations[:200])
    moments = group_moments(first.expression, first.group_start)
    edges = bin_edges(*overall_range(moments), 15)
    n_values, n_bytes = first.expression.nnz, first.expression.data.nbytes + first.expression.indices.nbytes
    seconds = fastest(lambda: count_groups(first.expression, first.group_start, edges, None, np.int16))
    floor = fastest(lambda: (first.expression.data.sum(), first.expression.indices.sum()))
    few = first.group_start[1 : SLICE + 2]  # without control: many cells in one call suit numpy.histogram
    start = time.perf_counter()
    by_numpy = numpy_counts(first.expression, few, edges.edges)
    numpy_seconds = time.perf_counter() - start
    n_few = first.expression[few[0] : few[-1]].nnz
    assert (count_shard(first.expression, few, edges).in_bin == by_numpy).all()
    ratio = numpy_seconds / n_few / (seconds / n_values)
    print(f"kernel, 15 bins: {n_values / seconds / 1e6:,.0f} M nonzeros/s on {len(os.sched_getaffinity(0))} cores")
    print(f"  numpy.histogram per gene and perturbation: {n_few / numpy_seconds / 1e6:.2f} M, ratio {ratio:,.0f}")
    print(f"  adding up the same {n_bytes / 1e9:.2f} GB with NumPy, one core: {n_values / floor / 1e6:,.0f} M")


BUILD = """
import sys, time
from pathlib import Path
start = time.perf_counter()
from histpert.histograms import open_or_build
from histpert.screens import assign_folds, read_screen
imported = time.perf_counter()
screen = read_screen({path!r})
read = time.perf_counter()
open_or_build({root!r}, screen, assign_folds(screen.perturbations, {folds}, 0), {bins})
built = time.perf_counter()
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
anonymous = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(read - imported, built - read, peak, anonymous)
"""


def build(path: Path, root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    code = BUILD.format(path=str(path), root=str(root), folds=N_FOLDS, bins=BINS)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    whole = time.perf_counter() - start
    reading, building, peak, _ = map(float, done.stdout.split())
    (store,) = (folder for folder in root.iterdir() if folder.is_dir())
    n_bytes = sum(file.stat().st_size for file in store.glob("counts_*.arrow"))
    opened = HistogramStore(store)
    item = opened.fold(0, BINS[0]).training_counts.itemsize
    separate = separate_folds_bytes(len(opened.perturbations) + 1, len(opened.genes), BINS, N_FOLDS, item)
    print(
        f"whole job, {path.name}: {whole:.1f} s (read {reading:.1f}, build {building:.1f}), "
        f"{peak / 2**20:.2f} GiB at the most"
    )
    print(
        f"  floor: bytes of the file {stream_read_seconds(path):.1f} s, "
        f"through h5py {stream_values_seconds(path):.1f} s"
    )
    print(
        f"  counts {n_bytes / 1e9:.2f} GB, {n_bytes / separate:.3f} of {N_FOLDS} folds apart ({separate / 1e9:.2f} GB)"
    )
    return store


def ready_for_training(store: Path):
    import torch  # noqa: PLC0415

    from histpert.targets import training_targets  # noqa: PLC0415

    opened = HistogramStore(store)
    vectors = np.zeros((len(opened.perturbations), 8), dtype=np.float32)
    training = training_targets(opened.fold(0, 15), opened.moments, vectors, torch.device("cpu"))
    for batch in torch.arange(len(vectors[: len(training.masses)])).split(64):
        training.masses[batch]
    return opened, training


def _share(store: Path, added, together) -> None:
    import histpert.targets  # noqa: F401, PLC0415

    together.wait()
    before = proportional()
    together.wait()
    kept = ready_for_training(store)
    together.wait()
    added.put(proportional() - before)
    together.wait()
    del kept


def opening(store: Path) -> None:
    print(f"one fold's 15-bin targets, opened and each read once: {fastest(lambda: ready_for_training(store)):.2f} s")
    context = multiprocessing.get_context("spawn")
    added, together = context.Queue(), context.Barrier(4)
    workers = [context.Process(target=_share, args=(store, added, together)) for _ in range(4)]
    for worker in workers:
        worker.start()
    total = sum(added.get() for _ in workers)
    for worker in workers:
        worker.join()
    size = (store / "counts_B15.arrow").stat().st_size
    print(f"  four processes add {total / 1e9:.2f} GB in all, {total / size:.2f} copies of the counts")


def proportional() -> int:
    """Bytes of this process, those shared with others counted by their part."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screen", type=Path, help="an .h5ad to take instead of a simulated one")
    given = parser.parse_args().screen
    with tempfile.TemporaryDirectory() as name:
        path = given or Path(name) / "screen.h5ad"
        if given is None:
            command = [sys.executable, "-m", "histpert.cli", "simulate", str(path), "--like", PRESET]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        kernel(path)
        opening(build(path, Path(name) / "stores"))


if __name__ == "__main__":
    main()
