"""Tables of names that come beside a screen or embeddings: guides, cells, accessions, aliases. All text."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from histpert.errors import InputError
from histpert.wording import reason

__all__ = ["read_name_table"]

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def read_name_table(path: Path, flag: str) -> pd.DataFrame:
    """All cells as text, empty where they are; `flag` is the option that named the file.

    Raises:
        InputError: The file is missing, of another kind, empty, or has fewer than two columns.
    """
    if not path.is_file():
        raise InputError(f"{flag} {path} {'is a folder' if path.is_dir() else 'does not exist'}: it takes a table")
    separator = _SEPARATORS.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    if separator is None:
        raise InputError(f"{flag} {path}: tables are read from .csv, .tsv and .txt (tabs), also with .gz")
    try:
        # a gene may be called NA
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
        )
    except Exception as error:  # damaged text and damaged gzip raise many kinds
        raise InputError(f"{flag} {path} cannot be read as a table: {reason(error)}") from error
    if table.shape[1] < 2 or table.empty:
        what = "commas" if separator == "," else "tabs"
        raise InputError(f"{flag} {path}: needs a header, and rows of two columns or more separated by {what}")
    return table
