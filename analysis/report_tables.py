"""A table of numbers as a page shows it: rounded to read, with the whole value behind each cell.

Columns that belong together become one: a mean and its deviation, a difference and its interval.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.report_captions import HEADINGS, TABLES, parted
from analysis.report_cells import Cell, difference_cells, interval_cells, number_cells, text_cells
from analysis.tables import SHORT, heading_of
from histpert.errors import InputError
from histpert.results import METRICS

__all__ = ["MOST_ROWS", "Column", "ReportTable", "read_numbers", "report_table"]

MOST_ROWS = 400
"""Shown of a table; a row per gene may be thousands."""

MOST_COLUMNS = 12
"""Of a wider table the rest are shown when asked for."""

HEADLINE = ("crps", "rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt", "nll", "pearson_top20", "pds")
"""Metrics that a wide table shows at once."""

_ARROW = re.compile(" ([\u2191\u2193])")
_OF_ALL = ("targets", "screen", "n_folds", "n_perturbations")
"""Columns that say nothing where they hold one value: it stands above the tables."""


@dataclass(frozen=True)
class Column:
    """A heading and its cells; `is_extra` where it is shown only when all columns are asked for."""

    heading: str
    cells: Sequence[Cell]
    is_number: bool
    is_extra: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table of a page.

    Attributes:
        name: Of its file, without the suffix.
        columns: From left to right; the first names a row.
        n_rows: In the file.
    """

    name: str
    columns: Sequence[Column]
    n_rows: int

    @property
    def title(self) -> str:
        """What it is of."""
        base, part = parted(self.name)
        said = TABLES.get(base, base.replace("_", " "))
        return said[:1].upper() + said[1:] + part

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """Cells of each row that is shown."""
        return list(zip(*(column.cells for column in self.columns), strict=True))

    @property
    def n_extra(self) -> int:
        """Columns that are shown only when asked for."""
        return sum(column.is_extra for column in self.columns)


def read_numbers(path: Path) -> pd.DataFrame:
    """A csv of `tables/`, to the last digit.

    Raises:
        InputError: It is missing, or is no table.
    """
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""], float_precision="round_trip")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): draw the study's tables again") from error


def report_table(path: Path) -> ReportTable:
    """What a page shows of a csv file.

    Raises:
        InputError: It cannot be read.
    """
    table = read_numbers(path)
    n_rows = len(table)
    table = _defined(table)
    table = table.drop(
        columns=[name for name in _OF_ALL if name in table and table[name].nunique() == 1 and n_rows > 1]
    )
    columns = list(_columns(table))
    if len(columns) > MOST_COLUMNS:
        columns = [replace(column, is_extra=extra) for column, extra in zip(columns, _extra(table), strict=True)]
    return ReportTable(path.stem, [replace(one, cells=one.cells[:MOST_ROWS]) for one in columns], n_rows)


def _defined(table: pd.DataFrame) -> pd.DataFrame:
    """Without what is nowhere defined: columns, their counts, and comparisons of nothing."""
    if {"difference", "n"} <= set(table.columns):
        table = table[table["n"] > 0]
    empty = {str(name) for name in table if table[name].isna().all()}
    return table.drop(columns=[name for name in table if name in empty or str(name).removesuffix("_n") in empty])


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """What becomes a column each: its kind, and the name of its value, or what the names of its parts begin with."""
    taken: set[str] = set()
    names = set(map(str, table.columns))
    for name in map(str, table.columns):
        start = name.removesuffix("difference")
        if name in taken:
            continue
        if name.endswith("difference") and {f"{start}low", f"{start}high"} <= names:
            taken |= {f"{start}{end}" for end in ("low", "high", "compared")}
            yield "difference", start
        elif name.endswith("fold_low") and f"{name.removesuffix('low')}high" in names:
            taken.add(f"{name.removesuffix('low')}high")
            yield "interval", name.removesuffix("fold_low")
        elif pd.api.types.is_numeric_dtype(table[name]) and table[name].dtype != bool:
            ends = ("sd", "se", "best", "tie", *(["n"] if name in METRICS else []))
            taken |= {f"{name}_{end}" for end in ends}
            yield "number", name
        else:
            yield "text", name


def _columns(table: pd.DataFrame) -> Iterator[Column]:
    for kind, name in _groups(table):
        if kind == "difference":
            yield Column(_heading(name.rstrip("_"), "difference (95%)"), difference_cells(table, name), is_number=True)
        elif kind == "interval":
            yield Column(_heading(name.rstrip("_"), "95% over folds"), interval_cells(table, name), is_number=True)
        elif kind == "number":
            yield Column(_heading(name), number_cells(table, name), is_number=True)
        else:
            yield Column(_heading(name), text_cells(table[name], are_metrics=name == "metric"), is_number=False)


def _extra(table: pd.DataFrame) -> Iterator[bool]:
    """Which columns of a wide table wait: intervals over folds, the paper's, and metrics that are no headline."""
    for kind, name in _groups(table):
        own = name.rstrip("_").removesuffix("_verdict")
        of_metric = own in METRICS and own not in HEADLINE
        of_metric |= name.startswith("published_") or name.endswith("_zero_atom") or own.endswith("_excess")
        yield of_metric or kind == "interval" or (kind == "difference" and name not in ("", "crps_"))


def _heading(name: str, what: str = "") -> str:
    said, where = name, ""
    if name.startswith("published_"):  # published_<screen>_<metric>, or published_<metric>
        said = name.removeprefix("published_")
        screen, _, rest = said.partition("_")
        where, said = (" (published)", said) if said in METRICS else (f" ({screen}, published)", rest)
    if said in SHORT:  # an arrow stays beside its metric
        said = SHORT[said] if what else _ARROW.sub("\u00a0\\1", heading_of(said))
    elif said not in HEADINGS and said in METRICS:
        said = METRICS[said].label
    else:
        plain = said.removeprefix("n_").replace("_", " ")
        said = HEADINGS.get(said, plain[:1].upper() + plain[1:])
    if not said:
        return what[:1].upper() + what[1:]
    return f"{said} {what}".rstrip() + where
