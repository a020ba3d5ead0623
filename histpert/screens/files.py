"""Opening the files that hold a screen: which matrix, which names of genes. What labels mean is not known here."""

from __future__ import annotations

import gzip
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp
from anndata.utils import make_index_unique

from histpert.errors import InputError
from histpert.name_tables import read_name_table
from histpert.wording import every, reason, some

__all__ = ["ScreenFile", "open_screen_file"]

SYMBOL_COLUMNS = ("gene_symbol", "gene_name", "gene_symbols", "gene_names", "symbol", "feature_name", "gene_short_name")
"""Columns of `var` that are taken for gene symbols where the genes themselves are named by Ensembl ids."""

ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?")


class ScreenFile(NamedTuple):
    """What a file holds."""

    values: Any
    """Cells x genes, sparse or dense."""
    obs: pd.DataFrame
    genes: tuple[str, ...]
    notes: tuple[str, ...]


def open_screen_file(
    path: Path, layer: str | None = None, gene_column: str | None = None, cell_table: Path | None = None
) -> ScreenFile:
    """Read a screen's file whole.

    Args:
        path: `.h5ad`, `.zarr`, a 10x `.h5`, or a folder or file of a 10x `matrix.mtx`.
        layer: The layer to read, or `raw`; default: `X`.
        gene_column: Column of `var` with gene names; guessed where genes are named by Ensembl ids.
        cell_table: Table (csv, tsv) with a row per cell, named in the first column, whose columns are added to `obs`.

    Raises:
        InputError: The file or something in it is missing or cannot be read.
    """
    data = _read(path)
    values, var = _matrix(data, layer, path)
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: expression is stored as {values.dtype}, not as numbers")
    genes, notes = _gene_names(var, gene_column, path)
    obs = cast("pd.DataFrame", data.obs)
    if cell_table is not None:
        obs, note = _with_cell_table(obs, cell_table, path)
        notes.append(note)
    return ScreenFile(values, obs, genes, tuple(notes))


def _read(path: Path) -> anndata.AnnData:
    if not path.exists():
        raise InputError(f"{path} does not exist: a screen is read from .h5ad, .zarr, 10x .h5 or 10x matrix.mtx")
    reader = _reader(path)
    try:
        return reader(path)
    except InputError:
        raise
    except Exception as error:  # the libraries raise many kinds for a file that is not what it should be
        raise InputError(f"{path} cannot be read as {path.suffix or 'a 10x matrix'}: {reason(error)}") from error


def _reader(path: Path) -> Callable[[Path], anndata.AnnData]:
    name = path.name.removesuffix(".gz")
    if path.is_dir() and path.suffix != ".zarr":
        if not any((path / f"matrix.mtx{end}").is_file() for end in ("", ".gz")):
            raise InputError(f"{path} is a folder without matrix.mtx: name an .h5ad file, a .zarr or a 10x folder")
        return _read_10x_folder
    readers: Mapping[str, Callable[[Path], anndata.AnnData]] = {
        ".h5ad": anndata.read_h5ad,
        ".zarr": anndata.io.read_zarr,
        ".h5": _read_10x_h5,
        ".mtx": lambda file: _read_10x_folder(file.parent),
    }
    suffix = Path(name).suffix
    if suffix not in readers:
        raise InputError(
            f"{path}: a screen is read from .h5ad, .zarr, 10x .h5 or 10x matrix.mtx, not from {suffix or name}"
        )
    return readers[suffix]


def _read_10x_h5(path: Path) -> anndata.AnnData:
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
    return _ten_x(counts, pd.DataFrame(columns), arrays["barcodes"].astype(str))


def _read_10x_folder(folder: Path) -> anndata.AnnData:
    counts = sp.csr_matrix(scipy.io.mmread(_one_of(folder, "matrix.mtx")).T)
    features = _lines(folder, "features.tsv", "genes.tsv")
    columns = dict(zip(("id", "name", "feature_type"), zip(*features, strict=True), strict=False))
    return _ten_x(counts, pd.DataFrame(columns), np.array([line[0] for line in _lines(folder, "barcodes.tsv")]))


def _ten_x(counts: sp.csr_matrix, features: pd.DataFrame, barcodes: np.ndarray) -> anndata.AnnData:
    """Genes only: guides and antibodies are counted in the same matrix."""
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


def _matrix(data: anndata.AnnData, layer: str | None, path: Path) -> tuple[Any, pd.DataFrame]:
    var = cast("pd.DataFrame", data.var)
    layers = ", ".join([*map(str, data.layers), *(["raw"] if data.raw is not None else [])]) or "none"
    if layer is None:
        if data.X is None:
            raise InputError(f"{path} has no expression matrix in X; name one with --layer; there are: {layers}")
        return data.X, var
    if layer in data.layers:
        return data.layers[layer], var
    if layer == "raw" and data.raw is not None:
        return data.raw.X, cast("pd.DataFrame", data.raw.var)
    raise InputError(f"{path} has no layer {layer!r} (--layer); there are: {layers}")


def _gene_names(var: pd.DataFrame, column: str | None, path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Symbols, and a note where they are not the names that `var` itself has."""
    index = var.index.astype(str)
    if column is not None and column not in var:
        raise InputError(f"{path} has no column {column!r} in var (--gene-column); columns there: {every(var)}")
    if column is None and len(index) and np.mean([bool(ENSEMBL.fullmatch(name)) for name in index]) > 0.5:
        column = next((name for name in SYMBOL_COLUMNS if name in var), None)
    if column is None:
        twice = index[index.duplicated()]
        if len(twice):
            raise InputError(f"{path}: gene {twice[0]!r} stands more than once in var_names; make them unique")
        return tuple(index), []
    given = var[column]
    unnamed = given.isna().to_numpy() | (given.astype(str).str.strip() == "").to_numpy()
    symbols: Any = pd.Index(np.where(unnamed, index, given.astype(str).str.strip()))
    notes = [f"gene names from column {column!r} of var"]
    twice = symbols.duplicated()
    if twice.any():
        with warnings.catch_warnings(action="ignore"):  # that a number was taken already
            symbols = make_index_unique(symbols)
        notes.append(f"{twice.sum():,} genes share a name with another and got a number: {some(symbols[twice])}")
    return tuple(symbols), notes


def _with_cell_table(obs: pd.DataFrame, table_path: Path, path: Path) -> tuple[pd.DataFrame, str]:
    table = read_name_table(table_path, "--cell-table")
    cells = table.set_index(table.columns[0])
    cells.index = cells.index.astype(str)
    twice = cells.index[cells.index.duplicated()]
    if len(twice):
        raise InputError(f"{table_path}: cell {twice[0]!r} stands there more than once")
    twice = obs.index[obs.index.duplicated()]
    if len(twice):
        raise InputError(
            f"{path}: cell {twice[0]!r} stands there more than once, so that --cell-table cannot be joined"
        )
    n_found = int(obs.index.isin(cells.index).sum())
    if not n_found:
        raise InputError(
            f"{table_path} names none of the cells of {path}: "
            f"the table has {cells.index[0]!r}, the file {obs.index[0]!r}"
        )
    joined = obs.drop(columns=[name for name in cells if name in obs]).join(cells)
    return joined, f"{n_found:,} of {len(obs):,} cells are in {table_path.name}"
