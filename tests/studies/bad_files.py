"""Files as they should not be: a small screen and embeddings of its genes, and ways to spoil them."""

import gzip
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

RANDOM = np.random.default_rng(0)
TARGETS = [f"G{number}" for number in range(6) for _ in range(10)]
LABELS = ["control"] * 20 + TARGETS
CELLS = [f"c{number}" for number in range(80)]
GENES = [f"G{number}" for number in range(12)]
ENSEMBL = [f"ENSG{number:011d}" for number in range(12)]
COUNTS = RANDOM.poisson(2.0, (80, 12)).astype(np.float32)
GUIDES = [f"{label}_{number % 2}" for number, label in enumerate(LABELS)]
EMBEDDED = GENES[:6]
VECTORS = RANDOM.normal(size=(6, 3)).astype(np.float32)

Make = Callable[[Path], Any]


def screen(values: Any = COUNTS, labels: Any = LABELS, genes: Any = GENES, var: Any = None, **obs: Any) -> Make:
    """Writes `screen.h5ad`; columns of obs instead of labels where any are given."""

    def make(folder: Path) -> None:
        table = pd.DataFrame(obs or {"perturbation": labels}, index=CELLS[: values.shape[0]])
        data = anndata.AnnData(values, obs=table, var=pd.DataFrame(var or {}, index=genes[: values.shape[1]]))
        data.write_h5ad(folder / "screen.h5ad")

    return make


def changed(change: Callable[[anndata.AnnData], Any], to: str = "screen.h5ad") -> Make:
    """Writes the screen after a change of what is in memory."""

    def make(folder: Path) -> None:
        data = anndata.read_h5ad(folder / "screen.h5ad")
        change(data)
        (data.write_zarr if to.endswith(".zarr") else data.write_h5ad)(folder / to)

    return make


def spoiled(change: Callable[[h5py.File], Any], values: Any = None, name: str = "screen.h5ad") -> Make:
    """Changes a file of HDF5; of the screen with these values."""

    def make(folder: Path) -> None:
        if values is not None:
            screen(values)(folder)
        with h5py.File(folder / name, "a") as file:
            change(file)

    return make


def put(path: str, value: Any) -> Callable[[h5py.File], None]:
    """Puts an array in the place of another, which may be changed by a function; its attributes stay."""

    def change(file: h5py.File) -> None:
        attributes = dict(file[path].attrs)
        new = value(file[path][...]) if callable(value) else value
        del file[path]
        file[path] = new
        file[path].attrs.update(attributes)

    return change


def with_value(value: float) -> np.ndarray:
    """Counts, with a value in the place of one."""
    counts = COUNTS.copy()
    counts[5, 3] = value
    return counts


def content(name: str, text: str | bytes) -> Make:
    """A file of just this."""
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def cut(name: str, left: float = 0.5) -> Make:
    """A file of which only the first part is left."""

    def make(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * left)])

    return make


def after(*steps: Make) -> Make:
    """One thing after the other."""
    return lambda folder: [step(folder) for step in steps]


def zarr_without(*parts: str) -> Make:
    """A `screen.zarr` of counts in CSR from which files are lost."""

    def make(folder: Path) -> None:
        screen(sp.csr_matrix(COUNTS))(folder)
        anndata.read_h5ad(folder / "screen.h5ad").write_zarr(folder / "screen.zarr")
        for part in parts:
            for path in list((folder / "screen.zarr").glob(part)):
                path.unlink()

    return make


def old_layout(kind: str = "csr", shift: int = 0) -> Make:
    """The screen as anndata wrote it until 0.6."""
    matrix: Any = sp.csr_matrix(COUNTS) if kind == "csr" else sp.csc_matrix(COUNTS)

    def make(folder: Path) -> None:
        with h5py.File(folder / "screen.h5ad", "w") as file:
            group = file.create_group("X")
            group.attrs.update({"h5sparse_format": kind, "h5sparse_shape": matrix.shape})
            group["data"], group["indptr"], group["indices"] = matrix.data, matrix.indptr, matrix.indices + shift
            obs = list(zip(np.array(CELLS, dtype="S"), np.array(LABELS, dtype="S"), strict=True))
            file["obs"] = np.array(obs, dtype=[("index", "S10"), ("perturbation", "S20")])
            file["var"] = np.array([(name.encode(),) for name in GENES], dtype=[("index", "S10")])

    return make


def ten_x_h5(change: Callable[[h5py.File], Any] = lambda file: None, name: str = "screen.h5") -> Make:
    """A 10x file, and labels of its cells in `cells.csv`."""
    counts = sp.csr_matrix(COUNTS.astype(np.int32))

    def make(folder: Path) -> None:
        with h5py.File(folder / name, "w") as file:
            group = file.create_group("matrix")
            group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
            group["shape"], group["barcodes"] = COUNTS.shape[::-1], np.array(CELLS, dtype="S")
            group["features/id"], group["features/name"] = np.array(ENSEMBL, dtype="S"), np.array(GENES, dtype="S")
            group["features/feature_type"] = np.array([b"Gene Expression"] * len(GENES))
            change(file)
        content("cells.csv", CELL_TABLE)(folder)

    return make


def ten_x_folder(**files: bytes | None) -> Make:
    """A folder `tenx` of a 10x matrix, with files of other contents or none; `__` in a name stands for the dot."""

    def make(folder: Path) -> None:
        there = folder / "tenx"
        there.mkdir()
        scipy.io.mmwrite(there / "matrix.mtx", sp.csr_matrix(COUNTS.astype(np.int32)).T)
        content("barcodes.tsv", "\n".join(CELLS))(there)
        features = (f"{gene}\t{name}\tGene Expression" for gene, name in zip(ENSEMBL, GENES, strict=True))
        content("features.tsv.gz", gzip.compress("\n".join(features).encode()))(there)
        content("cells.csv", CELL_TABLE)(folder)
        for name, instead in files.items():
            path = there / name.replace("__", ".")
            path.unlink() if instead is None else path.write_bytes(instead)

    return make


def embeddings(genes: Any = EMBEDDED, vectors: Any = VECTORS, name: str = "emb.npz", **more: Any) -> Make:
    """Writes `emb.npz`."""
    return lambda folder: np.savez(folder / name, genes=np.array(genes), vectors=vectors, **more)


def zipped(*files: tuple[str, bytes], encrypted: bool = False) -> Make:
    """An `emb.npz` of these files, said to be encrypted or not."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "emb.npz", "w") as archive:
            for name, raw in files:
                archive.writestr(name, raw)
        if encrypted:
            raw = bytearray((folder / "emb.npz").read_bytes())
            raw[raw.index(b"PK\x03\x04") + 6] |= 1
            raw[raw.index(b"PK\x01\x02") + 8] |= 1
            (folder / "emb.npz").write_bytes(raw)

    return make


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The beginning of an array of this shape, without values."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def parquet(name: str = "emb.parquet", **columns: Any) -> Make:
    return lambda folder: pd.DataFrame(columns).to_parquet(folder / name)


def h5(name: str = "emb.h5", **datasets: Any) -> Make:
    """A file of HDF5 with these datasets at its top."""

    def make(folder: Path) -> None:
        with h5py.File(folder / name, "w") as file:
            for path, values in datasets.items():
                file[path] = values

    return make


def h5ad_embeddings(change: Callable[[h5py.File], Any]) -> Make:
    """Embeddings in `emb.h5ad`, in CSR, spoiled."""

    def make(folder: Path) -> None:
        anndata.AnnData(sp.csr_matrix(VECTORS), obs=pd.DataFrame(index=EMBEDDED)).write_h5ad(folder / "emb.h5ad")
        spoiled(change, name="emb.h5ad")(folder)

    return make


class Calls:
    """What, unpickled, calls a function."""

    def __init__(self, function: Callable, *arguments: Any, state: Any = None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def pickled(value: Any, protocol: int = 4) -> Make:
    return content("emb.pkl", pickle.dumps(value, protocol))


def nested_tuples(depth: int) -> bytes:
    """A pickle that names an object outside the file by tuples of tuples, 2 to the power of `depth` in all."""
    doubled = b"".join(b"h" + bytes([number]) + b"h" + bytes([number]) + b"\x86\x94" for number in range(depth))
    return b"\x80\x04K\x01\x94" + doubled + b"Q."


def table(*columns: Any, header: str, separator: str = ",") -> str:
    """Text with a line for each row."""
    return "\n".join([header, *(separator.join(map(str, row)) for row in zip(*columns, strict=True))]) + "\n"


CELL_TABLE = table(CELLS, LABELS, header="cell,perturbation")
GUIDE_TABLE = table(sorted(set(GUIDES)), [name[:-2] for name in sorted(set(GUIDES))], header="guide,target")
VECTOR_TABLE = table(EMBEDDED, *VECTORS.T, header="gene,a,b,c")
