"""Opening the files that hold a screen: which matrix, which names of genes. What labels mean is not known here."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from anndata.utils import make_index_unique

from histpert.errors import InputError
from histpert.name_tables import read_name_table
from histpert.screens.matrices import CellMatrix
from histpert.screens.ten_x import read_10x_folder, read_10x_h5
from histpert.wording import every, reason, some

__all__ = ["ScreenFile", "open_screen_file"]

SYMBOL_COLUMNS = ("gene_symbol", "gene_name", "gene_symbols", "gene_names", "symbol", "feature_name", "gene_short_name")
"""Columns of `var` that are taken for gene symbols where the genes themselves are named by Ensembl ids."""

ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?")


class ScreenFile(NamedTuple):
    """What a file holds."""

    matrix: CellMatrix
    """Read when it is passed over, while the file is open."""
    obs: pd.DataFrame
    genes: tuple[str, ...]
    notes: tuple[str, ...]


@contextmanager
def open_screen_file(
    path: Path, layer: str | None = None, gene_column: str | None = None, cell_table: Path | None = None
) -> Iterator[ScreenFile]:
    """Read what a screen's file says of its cells and genes; of `.h5ad` and `.zarr`, no more than that is in memory.

    Args:
        path: `.h5ad`, `.zarr`, a 10x `.h5`, or a folder or file of a 10x `matrix.mtx`.
        layer: The layer to read, or `raw`; default: `X`.
        gene_column: Column of `var` with gene names; guessed where genes are named by Ensembl ids.
        cell_table: Table (csv, tsv) with a row per cell, named in the first column, whose columns are added to `obs`.

    Raises:
        InputError: The file or something in it is missing or cannot be read.
    """
    with ExitStack() as stack:
        try:
            matrix, obs, var = _open(path, layer, stack)
        except InputError:
            raise
        except Exception as error:  # the libraries raise many kinds for a file that is not what it should be
            kind = path.suffix or "a 10x matrix"
            raise InputError(
                f"{path} cannot be read as {kind}: {reason(error)}; it may be damaged, cut short, or of another kind"
            ) from error
        if (matrix.n_cells, matrix.n_genes) != (len(obs), len(var)):
            raise InputError(
                f"{path}: the matrix is {matrix.n_cells:,} x {matrix.n_genes:,}, "
                f"but there are {len(obs):,} cells in obs and {len(var):,} genes in var"
            )
        if not (matrix.n_cells and matrix.n_genes):
            raise InputError(f"{path} holds {matrix.n_cells:,} cells x {matrix.n_genes:,} genes: nothing to read")
        twice = obs.columns[obs.columns.duplicated()]
        if len(twice):
            raise InputError(f"{path}: column {twice[0]!r} stands more than once in obs; rename one")
        genes, notes = _gene_names(var, gene_column, path)
        twice = obs.index[obs.index.duplicated()]
        if len(twice):
            notes.append(f"{len(twice):,} cells have a name that another has: {some(twice.unique())}")
        if cell_table is not None:
            obs, note = _with_cell_table(obs, cell_table, path)
            notes.append(note)
        yield ScreenFile(matrix, obs, genes, tuple(notes))


def _open(path: Path, layer: str | None, stack: ExitStack) -> tuple[CellMatrix, pd.DataFrame, pd.DataFrame]:
    """Matrix, cells and genes."""
    if not path.exists():
        raise InputError(f"{path} does not exist: a screen is read from .h5ad, .zarr, 10x .h5 or 10x matrix.mtx")
    suffix = path.suffix.lower()
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path} is neither a file nor a folder: name an .h5ad file, a .zarr or a 10x folder")
    if path.is_dir() and suffix != ".zarr":
        if not any((path / f"matrix.mtx{end}").is_file() for end in ("", ".gz")):
            raise InputError(f"{path} is a folder without matrix.mtx: name an .h5ad file, a .zarr or a 10x folder")
        return _of_anndata(read_10x_folder(path), layer, path)
    match suffix:
        case ".h5ad":
            store = stack.enter_context(h5py.File(path))
            if _is_of_today(store):
                return _of_store(store, layer, path)
            return _of_anndata(anndata.read_h5ad(path), layer, path)
        case ".zarr":
            import zarr  # noqa: PLC0415  # takes a while

            return _of_store(zarr.open_group(path, mode="r"), layer, path)
        case ".h5":
            return _of_anndata(read_10x_h5(path), layer, path)
    if path.name.lower().endswith((".mtx", ".mtx.gz")):
        return _of_anndata(read_10x_folder(path.parent), layer, path)
    kind = suffix or path.name
    hint = "; unpack it first" if kind in (".gz", ".zip", ".tar", ".bz2", ".xz") else ""
    raise InputError(f"{path}: a screen is read from .h5ad, .zarr, 10x .h5 or 10x matrix.mtx, not from {kind}{hint}")


def _is_of_today(store: h5py.File) -> bool:
    """Whether the file is laid out as anndata does since 0.7, in 2020."""
    parts = [store[name] for name in ("obs", "var", "X") if name in store]
    return all("encoding-type" in part.attrs for part in parts) and "raw.X" not in store


def _of_store(store: Any, layer: str | None, path: Path) -> tuple[CellMatrix, pd.DataFrame, pd.DataFrame]:
    """Of an open `.h5ad` or `.zarr`: what is not asked for is not read."""
    for part in ("obs", "var"):
        if part not in store:
            raise InputError(f"{path} has no {part!r}: it was not written by anndata; it holds: {every(store)}")
    has_x = "X" in store and store["X"].attrs.get("encoding-type") != "null"
    where = _where(layer, list(store.get("layers", ())), has_x, "raw" in store, path)
    obs, var = read_elem(store["obs"]), read_elem(store["raw/var" if where == "raw/X" else "var"])
    if not (isinstance(obs, pd.DataFrame) and isinstance(var, pd.DataFrame)):
        raise InputError(f"{path}: obs and var are not tables: it was not written by anndata")
    return _stored_matrix(store[where], f"{path}: {where}"), obs, var


def _stored_matrix(element: Any, source: str) -> CellMatrix:
    kind = element.attrs.get("encoding-type")
    if kind in ("csr_matrix", "csc_matrix"):
        for name in ("data", "indices"):
            n_chunks = getattr(element[name], "nchunks", 0)
            if n_chunks and n_chunks > element[name].nchunks_initialized:  # zarr would read zeros in their place
                raise InputError(f"{source} is damaged: chunks of its {name} are missing; copy it again")
    if kind == "csc_matrix":  # cells are all over the file
        return _numbers(read_elem(element), source)
    if kind == "csr_matrix":
        _check_numbers(element["data"].dtype, source)
        shape = element.attrs["shape"]
        return CellMatrix.of_csr(element["data"], element["indices"], element["indptr"][:], shape, source)
    if not hasattr(element, "dtype"):
        raise InputError(f"{source} is stored as {kind or 'a group'}, not as a matrix of numbers")
    return _numbers(element, source)


def _of_anndata(data: anndata.AnnData, layer: str | None, path: Path) -> tuple[CellMatrix, pd.DataFrame, pd.DataFrame]:
    where = _where(layer, list(map(str, data.layers)), data.X is not None, data.raw is not None, path)
    values: Any = data.X if where == "X" else data.raw.X if where == "raw/X" else data.layers[str(layer)]
    var = data.raw.var if where == "raw/X" else data.var
    return _numbers(values, f"{path}: {where}"), cast("pd.DataFrame", data.obs), cast("pd.DataFrame", var)


def _where(layer: str | None, layers: list[str], has_x: bool, has_raw: bool, path: Path) -> str:
    """Which matrix is meant, by its place in the file."""
    there = every([*layers, "raw"] if has_raw else layers)
    if layer is None:
        if not has_x:
            raise InputError(f"{path} has no expression matrix in X; name one with --layer; there are: {there}")
        return "X"
    if layer in layers:
        return f"layers/{layer}"
    if layer == "raw" and has_raw:
        return "raw/X"
    raise InputError(f"{path} has no layer {layer!r} (--layer); there are: {there}")


def _numbers(values: Any, source: str) -> CellMatrix:
    _check_numbers(values.dtype, source)
    if len(values.shape) != 2:
        raise InputError(f"{source} has {len(values.shape)} dimensions: expression is cells x genes")
    return CellMatrix.of(values, source)


def _check_numbers(dtype: np.dtype, source: str) -> None:
    if dtype.kind not in "biuf":
        raise InputError(f"{source}: expression is stored as {dtype}, not as numbers")


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
    cells = cells.apply(_in_its_own_type)
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


def _in_its_own_type(column: pd.Series) -> pd.Series:
    """Numbers and truth values where all words that a column has are such."""
    given = ~column.isin(["", "NA", "NaN", "nan"])
    truth = column.str.lower().map({"true": True, "false": False})
    for typed in (pd.to_numeric(column, errors="coerce"), truth):
        if given.any() and typed[given].notna().all():
            return typed.convert_dtypes()
    return column
