"""Embeddings from tables: `.csv`, `.tsv` and `.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histpert.embeddings.rows import Rows, gene_names, stacked
from histpert.errors import InputError
from histpert.wording import reason, some

__all__ = ["read_parquet", "read_text"]

_FORMS = "needs one column of gene names, and a numeric column per feature or one column of lists"
_LOOKED_AT = 200
"""Rows read to find the column of names."""


def read_parquet(path: Path) -> Rows:
    """A column (or index) of gene names, and a numeric column per feature or one column of lists."""
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # a damaged file raises many kinds
        raise InputError(f"{path} cannot be read as .parquet: {reason(error)}") from error
    numeric = table.select_dtypes("number", exclude="timedelta")
    others = [name for name in table.columns if name not in numeric.columns]
    lists = [name for name in others if len(table) and not isinstance(table[name].iloc[0], str)]
    names = [name for name in others if name not in lists]
    if len(names) > 1 or len(lists) > 1 or bool(lists) == bool(len(numeric.columns)):
        text = f", where {some(names)} hold text" if len(names) > 1 else ""
        raise InputError(f"{path}: {_FORMS}; it has {some(table.columns)}{text}")
    if not names and isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path} has no gene names, neither in a column nor in its index")
    genes = gene_names(path, table[names[0]] if names else table.index)
    if not lists:
        return Rows(genes, numeric.to_numpy(dtype=np.float64, na_value=np.nan))
    return Rows(genes, _from_lists(path, str(lists[0]), genes, table[lists[0]]))


def _from_lists(path: Path, column: str, genes: list[str], values: pd.Series) -> np.ndarray:
    for gene, value in zip(genes, values, strict=True):
        if not isinstance(value, np.ndarray | list):
            raise InputError(f"{path}: column {column!r} does not hold lists of numbers: see gene {gene!r}")
    return stacked(path, genes, values)


def read_text(path: Path, separator: str) -> Rows:
    """A header, a column of gene names and a numeric column per feature; may be compressed with gzip.

    The names are in the first column most rows of which hold no number. The header may lack the name of that column.
    """
    header, head = _head(path, separator)
    if len(header) < 2:
        what = "tabs" if separator == "\t" else "commas"
        raise InputError(f"{path} has one column, {some(header)!r}: its columns must be separated by {what}")
    if sum(_is_fraction(cell) for cell in header) * 2 >= len(header):
        raise InputError(f"{path} starts with numbers ({some(header, 3)}): it needs a header line that names columns")
    column = _column_of_names(path, header, head)
    # names stay as they are written: a gene may be called NA or NAN
    table = _parsed(
        path, separator, header=None, skiprows=1, names=range(len(header)), converters={column: str}, low_memory=False
    )
    genes = gene_names(path, table.pop(column))
    for number in table:
        if table[number].dtype.kind not in "fiu":
            _refuse_text(path, str(header[number]), genes, table[number])
    return Rows(genes, table.to_numpy(dtype=np.float64))


def _parsed(path: Path, separator: str, **settings: Any) -> Any:
    try:
        return pd.read_csv(path, sep=separator, encoding="utf-8-sig", **settings)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} has no rows: it needs a header, and one row per gene") from None
    except Exception as error:  # damaged text and damaged gzip raise many kinds
        raise InputError(f"{path} cannot be read as a table: {reason(error)}") from error


def _head(path: Path, separator: str) -> tuple[list[str], pd.DataFrame]:
    """Names of all columns, and the first rows as text."""
    as_text = {"header": None, "dtype": str, "keep_default_na": False}
    header = _parsed(path, separator, nrows=1, **as_text).iloc[0].tolist()
    head = _parsed(path, separator, skiprows=1, nrows=_LOOKED_AT, **as_text)
    if head.shape[1] == len(header) + 1:  # as R writes tables with row names
        header = ["", *header]
    if head.shape[1] != len(header):
        raise InputError(f"{path}: the header names {len(header)} columns, and the first row has {head.shape[1]}")
    return header, head


def _column_of_names(path: Path, header: list[str], head: pd.DataFrame) -> int:
    for number in range(len(header)):
        if sum(not _is_number(cell) for cell in head[number]) * 2 > len(head):
            return number
    raise InputError(
        f"{path} has no column of gene names: all its columns hold numbers, {header[0]!r} starts with {head.iloc[0, 0]}"
    )


def _refuse_text(path: Path, column: str, genes: list[str], values: pd.Series) -> None:
    gene, value = next(
        ((gene, value) for gene, value in zip(genes, values, strict=True) if not _is_number(value)),
        (genes[0], values.iloc[0]),
    )
    raise InputError(
        f"{path}: column {column!r} holds {str(value)[:40]!r} for gene {gene!r}, where it needs numbers: "
        f"keep one column of gene names, and numbers in the others"
    )


def _is_number(cell: object) -> bool:
    try:
        float(str(cell))
    except ValueError:
        return False
    return not isinstance(cell, bool)


def _is_fraction(cell: str) -> bool:
    """Whether a cell of the header is a value: pandas writes 0, 1, 2 or 0.0 as names of columns."""
    return _is_number(cell) and not float(cell).is_integer()
