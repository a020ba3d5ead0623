"""Embeddings from files of arrays: `.npz`, `.h5` and `.h5ad`."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from histpert.embeddings.rows import Rows, gene_names, stacked
from histpert.errors import InputError
from histpert.wording import reason, some

__all__ = ["read_h5ad", "read_hdf5", "read_npz"]


def read_npz(path: Path) -> Rows:
    """One array of gene names and one of vectors, under any names."""
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as .npz: {reason(error)}") from error
    names = [array for array in arrays.values() if array.ndim == 1 and array.dtype.kind == "U"]
    vectors = [array for array in arrays.values() if array.ndim == 2 and array.dtype.kind == "f"]
    if len(names) != 1 or len(vectors) != 1 or len(names[0]) != len(vectors[0]):
        found = some(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise InputError(
            f"{path}: needs one array of gene names and one genes x features array of floats; it has {found}"
        )
    return Rows(gene_names(path, names[0].tolist()), vectors[0])


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
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
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
    import anndata  # noqa: PLC0415 (slow to load, and only these files need it)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that stand twice are an error of ours
            data = anndata.read_h5ad(path)
    except Exception as error:  # anndata and h5py raise many kinds for a file that is not what it should be
        raise InputError(f"{path} cannot be read as .h5ad: {reason(error)}") from error
    if data.X is None:
        raise InputError(f"{path} has no matrix X: it needs one row per gene there, named in obs")
    vectors = np.asarray(data.X.toarray() if hasattr(data.X, "toarray") else data.X)  # pyright: ignore
    if vectors.dtype.kind not in "fiu":
        raise InputError(f"{path}: X holds {vectors.dtype}, where vectors need numbers")
    return Rows(gene_names(path, data.obs_names), vectors)
