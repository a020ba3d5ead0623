"""Embeddings from files of arrays: `.npz`, `.h5` and `.h5ad`."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histpert.embeddings.rows import Rows, gene_names, stacked
from histpert.errors import InputError
from histpert.wording import reason, some

__all__ = ["read_h5ad", "read_hdf5", "read_npz"]


def read_npz(path: Path) -> Rows:
    """One array of gene names and one of vectors, under any names."""
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            arrays = {name: _decoded(archive[name]) for name in archive.files}
    except Exception as error:  # damaged and encrypted archives raise many kinds
        raise InputError(f"{path} cannot be read as .npz: {reason(error)}") from error
    names = [array for array in arrays.values() if array.ndim == 1 and array.dtype.kind == "U"]
    tables = [array for array in arrays.values() if array.ndim == 2 and array.dtype.kind in "fiu"]
    vectors = [array for array in tables if array.dtype.kind == "f"] or tables
    if len(names) != 1 or len(vectors) != 1 or len(names[0]) != len(vectors[0]):
        found = some(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise InputError(
            f"{path}: needs one array of gene names and one genes x features array of numbers; it has {found}"
        )
    return Rows(gene_names(path, names[0].tolist()), vectors[0])


def _decoded(array: np.ndarray | bytes) -> np.ndarray:
    """An array, text of bytes in it decoded; bytes alone are a file of another kind."""
    array = np.asarray(array)
    return np.char.decode(array, "utf-8") if array.ndim == 1 and array.dtype.kind == "S" else array


def read_hdf5(path: Path) -> Rows:
    """A 1-D dataset per gene or accession, or one 1-D dataset of names beside one 2-D dataset of floats."""
    import h5py  # noqa: PLC0415 (slow to load, and only these files need it)

    try:
        with h5py.File(path, "r") as file:
            datasets = _datasets(path, file)
            names = [name for name, data in datasets.items() if data.ndim == 1 and data.dtype.kind in "OS"]
            tables = [name for name, data in datasets.items() if data.ndim == 2 and data.dtype.kind == "f"]
            if len(names) == len(tables) == 1 and len(datasets) == 2:
                listed = datasets[names[0]].asstr()[...].tolist()
                return _paired(path, gene_names(path, listed), datasets[tables[0]][...])
            _check_one_per_gene(path, datasets)
            genes = gene_names(path, datasets)
            return Rows(genes, stacked(path, genes, (data[...] for data in datasets.values())))
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise InputError(f"{path} cannot be read as .h5: {reason(error)}") from error


def _datasets(path: Path, file) -> dict:
    """The datasets at the top of an HDF5 file; InputError for anything else there."""
    import h5py  # noqa: PLC0415

    found = {}
    for name in file:
        # a link may lead to another file, which nobody asked to read
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise InputError(f"{path}: {name!r} is a link: copy the vectors into the file")
        if not isinstance(file[name], h5py.Dataset):
            raise InputError(
                f"{path}: {name!r} is a group: embeddings stand at the top of an .h5 file "
                f"(it has {some(file)}); a file written by anndata is read under the name .h5ad"
            )
        found[name] = file[name]
    return found


def _paired(path: Path, names: list[str], vectors: np.ndarray) -> Rows:
    if len(names) != len(vectors):
        raise InputError(f"{path}: {len(names)} gene names and {len(vectors)} vectors: it needs as many of each")
    return Rows(names, vectors)


def _check_one_per_gene(path: Path, datasets: dict) -> None:
    for name, data in datasets.items():
        if data.ndim != 1 or data.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: needs one 1-D dataset of numbers per gene (a vector per protein, not per residue), or one "
                f"of gene names and one of genes x features floats; {name!r} is {data.dtype} of shape {data.shape}"
            )


def read_h5ad(path: Path) -> Rows:
    """The names of `obs` and the matrix `X`."""
    import h5py  # noqa: PLC0415 (slow to load, and only these files need them)
    import scipy.sparse as sp  # noqa: PLC0415
    from anndata.io import read_elem  # noqa: PLC0415

    try:
        with warnings.catch_warnings(), h5py.File(path) as file:
            warnings.simplefilter("ignore")  # of layouts of before 2020
            parts: Any = file
            genes: Any = read_elem(parts["obs"])
            values: Any = read_elem(parts["X"]) if "X" in parts else None
            names = genes.index if isinstance(genes, pd.DataFrame) else genes[genes.dtype.names[0]].astype(str)
    except Exception as error:  # anndata and h5py raise many kinds for a file that is not what it should be
        raise InputError(f"{path} cannot be read as .h5ad: {reason(error)}") from error
    if values is None:
        raise InputError(f"{path} has no matrix X: it needs one row per gene there, named in obs")
    try:
        if sp.issparse(values):
            values.check_format(full_check=True)  # SciPy would write anywhere
            values = values.toarray()
    except (ValueError, MemoryError) as error:
        raise InputError(f"{path}: X is damaged: {reason(error)}") from error
    vectors = np.asarray(values)
    if vectors.dtype.kind not in "fiu" or vectors.ndim != 2:
        raise InputError(f"{path}: X holds {vectors.dtype} of shape {vectors.shape}, where vectors need numbers")
    return _paired(path, gene_names(path, names), vectors)
