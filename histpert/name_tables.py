"""Tables of names that come beside a screen or embeddings: guides, cells, accessions, aliases. All text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from histpert.errors import InputError
from histpert.wording import reason, some

__all__ = ["read_name_table", "read_tidy_table"]

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def read_name_table(path: Path, flag: str) -> pd.DataFrame:
    """All cells as text, empty where they are; `flag` is the option that named the file.

    Raises:
        InputError: The file is missing, of another kind, empty, has fewer than two columns, or rows longer than its
            header.
    """
    if not path.is_file():
        raise InputError(f"{flag} {path} {'is a folder' if path.is_dir() else 'does not exist'}: it takes a table")
    separator = _SEPARATORS.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    if separator is None:
        raise InputError(f"{flag} {path}: tables are read from .csv, .tsv and .txt (tabs), also with .gz")
    try:
        table = _parsed(path, flag, separator)
    except InputError:
        raise
    except Exception as error:  # damaged text and damaged gzip raise many kinds
        raise InputError(f"{flag} {path} cannot be read as a table: {reason(error)}") from error
    if table.shape[1] < 2 or table.empty:
        what = "commas" if separator == "," else "tabs"
        raise InputError(f"{flag} {path}: needs a header, and rows of two columns or more separated by {what}")
    return table


def read_tidy_table(path: Path, flag: str, what: str) -> pd.DataFrame:
    """A table (.csv, .tsv, .txt, .parquet) with a row for each fact; cells of text files are text, empty ones too.

    Raises:
        InputError: The file is missing, of another kind, or damaged; `flag` named it, and it should hold `what`.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix != ".parquet" and suffix not in _SEPARATORS:
        raise InputError(f"{flag} {path}: {what} are read from {', '.join(_SEPARATORS)} and .parquet")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep=_SEPARATORS[suffix], dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except Exception as error:  # damaged files raise many kinds
        raise InputError(f"{flag} {path} cannot be read as a table of {what}: {reason(error)}") from error


def _parsed(path: Path, flag: str, separator: str) -> pd.DataFrame:
    # a gene may be called NA
    settings: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False, "encoding": "utf-8-sig"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # that cells are lost
            return pd.read_csv(path, sep=separator, **settings)
    except pd.errors.ParserWarning:
        header = pd.read_csv(path, sep=separator, nrows=0, **settings).columns
        rows = pd.read_csv(path, sep=separator, header=None, skiprows=1, **settings)
    if rows.shape[1] == len(header) + 1 and rows.iloc[:, -1].all():  # as R writes tables with row names
        return rows.set_axis(["row name", *header], axis=1)
    raise InputError(
        f"{flag} {path}: line 2 has {rows.shape[1]} cells, and the header names {len(header)} columns ({some(header)})"
    )
