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

import h5py
import numpy as np
from store_baseline import numpy_counts, separate_folds_bytes, stream_read_seconds, stream_values_seconds

from histpert.histograms import HistogramStore, bin_edges, group_moments
from histpert.histograms.counting import Counting, count_shard
from histpert.screens import open_screen

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
    with open_screen(path) as opened:
        first = opened.with_perturbations(opened.perturbations[:200]).read()
    moments = group_moments(first.expression, first.group_start)
    edges = bin_edges(moments.minimum.min(axis=0), moments.maximum.max(axis=0), 15)
    count = OneGroup(Counting(len(first.genes), edges, dtype=np.int16))
    n_values, n_bytes = first.expression.nnz, first.expression.data.nbytes + first.expression.indices.nbytes
    seconds = fastest(lambda: first.for_each_group(count, lambda group, counts: None))
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


class OneGroup:
    """Counts the cells of a group."""

    def __init__(self, counting: Counting):
        self.counting = counting

    def __call__(self, cells):
        return self.counting(cells, np.array([0, cells.shape[0]]))


BUILD = """
import time
from pathlib import Path
from histpert.histograms import open_or_build
from histpert.screens import WorkingSpace, assign_folds, read_screen
start = time.perf_counter()
screen = read_screen({path!r}, space=WorkingSpace({limit}, Path({root!r})))
read = time.perf_counter()
stages = {{}}
def progress(stage, done, total):
    stages.setdefault(stage, time.perf_counter())
open_or_build({root!r}, screen, assign_folds(screen.perturbations, {folds}, 0), {bins}, progress)
built = time.perf_counter()
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(read - start, stages["moments"] - read, stages["counts"] - stages["moments"], built - stages["counts"], peak)
"""


def build(path: Path, root: Path, limit: int | None = None) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    code = BUILD.format(path=str(path), root=str(root), folds=N_FOLDS, bins=BINS, limit=limit)
    start, own = time.perf_counter(), 0
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            own = max(own, status(process.pid, "RssAnon"))
            time.sleep(0.02)
        said = process.stdout.read()
    whole = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.returncode)
    *parts, peak = map(float, said.split())
    stages = zip(["read", "fingerprint", "moments", "counts"], parts, strict=True)
    limited = "" if limit is None else f", values above {limit / 1e9:.1f} GB in a file"
    print(f"whole job, {path.name}{limited}: {whole:.1f} s, {own / 2**30:.2f} GiB of memory at the most")
    print(f"  {', '.join(f'{stage} {seconds:.1f}' for stage, seconds in stages)}, the rest is starting")
    print(f"  {peak / 2**20:.2f} GiB with the parts of files that are mapped, which make room when others need it")
    return next(folder for folder in root.iterdir() if folder.is_dir())


def status(process: int, field: str) -> int:
    """Bytes that Linux says of a process, 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def sizes(path: Path, store: Path) -> None:
    n_bytes = sum(file.stat().st_size for file in store.glob("counts_*.arrow"))
    opened = HistogramStore(store)
    item = opened.fold(0, BINS[0]).training_counts.itemsize
    separate = separate_folds_bytes(len(opened.perturbations) + 1, len(opened.genes), BINS, N_FOLDS, item)
    print(
        f"floor: bytes of the file {stream_read_seconds(path):.1f} s, through h5py {stream_values_seconds(path):.1f} s"
    )
    print(f"counts {n_bytes / 1e9:.2f} GB, {n_bytes / separate:.3f} of {N_FOLDS} folds apart ({separate / 1e9:.2f} GB)")


def compressed(path: Path, copy: Path) -> Path:
    """The same file with the values of X in gzip, in the chunks that anndata makes."""
    shutil.copy(path, copy)
    with h5py.File(path) as source, h5py.File(copy, "r+") as target:
        for name in ("data", "indices"):
            values = source["X"][name]
            del target["X"][name]
            made = target["X"].create_dataset(name, values.shape, values.dtype, compression="gzip", chunks=True)
            for first in range(0, len(values), 2**24):
                made[first : first + 2**24] = values[first : first + 2**24]
    return copy


def ready_for_training(store: Path):
    import torch  # noqa: PLC0415

    from histpert.settings import ModelSettings  # noqa: PLC0415
    from histpert.targets import training_targets  # noqa: PLC0415

    opened = HistogramStore(store)
    vectors = np.zeros((len(opened.perturbations), 8), dtype=np.float32)
    training = training_targets(opened.fold(0, 15), opened.moments, vectors, torch.device("cpu"))
    for batch in torch.arange(len(vectors[: len(training.masses)])).split(ModelSettings().batch_size):
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
        stores = Path(name) / "stores"
        store = build(path, stores)
        sizes(path, store)
        opening(store)
        build(path, stores, limit=10**9)
        build(compressed(path, Path(name) / "gzip.h5ad"), stores)


if __name__ == "__main__":
    main()
