"""Reading 20,000 cells x 5,000 genes, ready for histograms, beside what anndata takes to read the file alone.

The floor is the copy of the file's bytes out of the page cache and, where they are compressed, unpacking them, which
HDF5 does in one thread at a time. What scanpy would do to come as far (normalize, logarithm, order by perturbation)
stands beside it. Medians, of the file in the page cache.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np

from histpert.screens import PRESETS, read_screen
from histpert.screens.simulation import write_screen

REPEATS = 9
SCANPY = """
import scanpy
data = scanpy.read_h5ad({path!r})
scanpy.pp.normalize_total(data, target_sum=1e4)
scanpy.pp.log1p(data)
data = data[data.obs["perturbation"].argsort()].copy()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
OURS = """
from histpert.screens import read_screen
read_screen({path!r})
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def floor(path: Path) -> None:
    with h5py.File(path) as file:
        x = file["X"]
        for values in [x] if isinstance(x, h5py.Dataset) else [x["data"], x["indices"]]:
            buffer = np.empty((max(1, 2**22 // int(np.prod(values.shape[1:]))), *values.shape[1:]), values.dtype)
            for first in range(0, values.shape[0], len(buffer)):
                n_rows = min(len(buffer), values.shape[0] - first)
                values.read_direct(buffer, np.s_[first : first + n_rows], np.s_[:n_rows])


def with_scanpy(path: Path) -> None:
    import scanpy as sc  # noqa: PLC0415  # of the tests, not of the package

    data = sc.read_h5ad(path)
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    data[np.argsort(data.obs["perturbation"].cat.codes, kind="stable")].copy()


def medians(*ways: Callable[[], object]) -> list[float]:
    """Seconds of each way, taken in turn, so that what else the machine does meets all of them."""
    seconds = np.empty((REPEATS, len(ways)))
    for repeat in range(REPEATS):
        for number, way in enumerate(ways):
            start = time.perf_counter()
            way()
            seconds[repeat, number] = time.perf_counter() - start
    return np.median(seconds, axis=0).tolist()


def peak(code: str, path: Path) -> float:
    """GiB of a process of its own."""
    done = subprocess.run([sys.executable, "-c", code.format(path=str(path))], check=True, capture_output=True)
    return int(done.stdout) / 2**20


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        counts = Path(name) / "counts.h5ad"
        write_screen(counts, 0, replace(PRESETS["replogle-k562"], n_cells=20_000, n_control=1_500, n_perturbations=130))
        data = anndata.read_h5ad(counts)
        files = {"sparse counts": counts}
        for kind, compression in (("sparse counts, gzip", "gzip"), ("sparse counts, contiguous", None)):
            files[kind] = Path(name) / f"{kind}.h5ad"
            data.write_h5ad(files[kind], compression=compression)
        data.X = data.X.toarray()
        files["dense counts"] = Path(name) / "dense.h5ad"
        data.write_h5ad(files["dense counts"])
        del data
        print(
            f"{'20,000 cells x 5,000 genes':28} {'floor':>8} {'anndata':>8} {'scanpy':>8} {'histpert':>8}  of anndata"
        )
        for kind, path in files.items():
            read_screen(path)  # compiled code is loaded once
            ways = (lambda: floor(path), lambda: anndata.read_h5ad(path), lambda: read_screen(path))  # noqa: B023
            least, whole, ours = medians(*ways)
            start = time.perf_counter()
            with_scanpy(path)
            scanpy = time.perf_counter() - start
            print(f"{kind:28} {least:8.2f} {whole:8.2f} {scanpy:8.2f} {ours:8.2f} {ours / whole:10.2f}")
        print(f"most memory: histpert {peak(OURS, counts):.2f} GiB, scanpy {peak(SCANPY, counts):.2f} GiB")


if __name__ == "__main__":
    main()
