"""What every reader of a format gives, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from histpert.errors import InputError

__all__ = ["Rows", "check_rows", "gene_names", "stacked"]


class Rows(NamedTuple):
    """Names and vectors as a file holds them.

    Attributes:
        names: One per row.
        vectors: Rows x features, numbers of any kind.
    """

    names: list[str]
    vectors: np.ndarray


def gene_names(path: Path, values: Iterable[Any]) -> list[str]:
    """Names as text; InputError for one that is missing or blank."""
    names = list(values)
    for number, name in enumerate(names, start=1):
        if pd.isna(name) or not str(name).strip():
            raise InputError(f"{path}: row {number} has no gene name: name it, or leave the row out")
    return [str(name) for name in names]


def stacked(path: Path, names: list[str], vectors: Iterable[object]) -> np.ndarray:
    """Rows x features from one vector per name; InputError names the gene whose vector cannot be used."""
    rows: list[np.ndarray] = []
    for name, vector in zip(names, vectors, strict=True):
        try:
            if isinstance(vector, list | tuple) and isinstance(next(iter(vector), 0), list | tuple):
                raise ValueError  # of nested ones numpy would try all values, which a few bytes can make endless
            row = np.asarray(vector)
        except ValueError:
            raise InputError(f"{path}: the vector of gene {name!r} holds lists, where it needs numbers") from None
        if row.ndim != 1 or row.dtype.kind not in "fiu":
            what = "one number" if row.ndim == 0 and row.dtype.kind in "fiu" else f"{row.dtype} of shape {row.shape}"
            raise InputError(f"{path}: the vector of gene {name!r} is {what}: it needs a list of numbers")
        if rows and len(row) != len(rows[0]):
            raise InputError(
                f"{path}: the vectors are of unlike lengths: {len(rows[0])} values for gene {names[0]!r}, "
                f"{len(row)} for {name!r}"
            )
        rows.append(row)
    return np.stack(rows) if rows else np.zeros((0, 0))


def check_rows(path: Path, rows: Rows) -> None:
    """InputError where there are no genes or features, a gene stands twice, or a value is not finite."""
    if not rows.names:
        raise InputError(f"{path} has no rows: it needs one per gene")
    if rows.vectors.shape[1] == 0:
        raise InputError(f"{path} has gene names and no features: it needs at least one number per gene")
    names = pd.Index(rows.names)
    twice = names[names.duplicated()]
    if len(twice):
        raise InputError(f"{path}: gene {twice[0]!r} stands there more than once: keep one row per gene")
    finite = np.isfinite(rows.vectors).all(axis=1)
    if not finite.all():
        worst = rows.names[int(np.argmin(finite))]
        raise InputError(
            f"{path}: the vector of gene {worst!r} has values that are NaN or infinite: leave the gene out, "
            f"or fill them in"
        )
