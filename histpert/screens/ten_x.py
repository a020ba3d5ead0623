"""Matrices as Cell Ranger writes them: genes only, cells by barcode."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import cast

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

from histpert.errors import InputError

__all__ = ["read_10x_folder", "read_10x_h5"]


def read_10x_h5(path: Path) -> anndata.AnnData:
    """A filtered or raw matrix of Cell Ranger 3 or newer."""
    with h5py.File(path) as file:
        if "matrix" not in file:
            raise InputError(
                f"{path} is no 10x file: it has no group 'matrix' (it holds {', '.join(file) or 'nothing'})"
            )
        group = cast("h5py.Group", file["matrix"])
        arrays = {name: np.asarray(group[name]) for name in ("data", "indices", "indptr", "shape", "barcodes")}
        features = cast("h5py.Group", group["features"])
        columns = {
            name: np.asarray(features[name]).astype(str) for name in ("id", "name", "feature_type") if name in features
        }
    shape = tuple(arrays["shape"])[::-1]
    counts = sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
    counts.check_format(full_check=True)
    return _ten_x(counts, pd.DataFrame(columns), arrays["barcodes"].astype(str))


def read_10x_folder(folder: Path) -> anndata.AnnData:
    """A folder of matrix.mtx, features.tsv (or genes.tsv) and barcodes.tsv, each as it is or with .gz."""
    counts = sp.csr_matrix(scipy.io.mmread(_one_of(folder, "matrix.mtx")).T)
    features = _lines(folder, "features.tsv", "genes.tsv")
    if len({len(line) for line in features}) > 1:
        raise InputError(f"{folder}: rows of features.tsv have unlike numbers of columns")
    columns = dict(zip(("id", "name", "feature_type"), zip(*features, strict=True), strict=False))
    return _ten_x(counts, pd.DataFrame(columns), np.array([line[0] for line in _lines(folder, "barcodes.tsv")]))


def _ten_x(counts: sp.csr_matrix, features: pd.DataFrame, barcodes: np.ndarray) -> anndata.AnnData:
    """Genes only: guides and antibodies are counted in the same matrix."""
    if "id" not in features:
        raise InputError("its features have no column 'id'")
    var = features.rename(columns={"name": "gene_name"}).set_index("id")
    data = anndata.AnnData(counts, obs=pd.DataFrame(index=barcodes), var=var)
    if "feature_type" in var:
        data = data[:, (var["feature_type"] == "Gene Expression").to_numpy()].copy()
    return data


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(f"{folder} has no {' or '.join(names)}")


def _lines(folder: Path, *names: str) -> list[list[str]]:
    path = _one_of(folder, *names)
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    return [line.split("\t") for line in text.splitlines()]
