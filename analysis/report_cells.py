"""Cells of a page's tables: what is read, and the whole value behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables import DASH, SHORT, TIE, decimals
from histpert.results import METRICS

__all__ = ["Cell", "difference_cells", "interval_cells", "number_cells", "text_cells"]

_P_VALUES = ("p", "p_holm")
_SPREADS, _MARKS = ("sd", "se"), ["best", "tie"]


@dataclass(frozen=True)
class Cell:
    """What is read, the whole value behind it, and what rows are sorted by (empty: last)."""

    text: str
    title: str = ""
    value: str = ""
    is_best: bool = False


def text_cells(values: pd.Series, *, are_metrics: bool = False) -> list[Cell]:
    """Words as they are, metrics by the names that headings give them."""
    return [_word(value, are_metrics) for value in values]


def _word(value: Any, is_metric: bool) -> Cell:
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no", value="yes" if value else "no")
    if pd.isna(value):
        return Cell(DASH)
    text = SHORT.get(value) or METRICS[value].label if is_metric and value in METRICS else str(value)
    return Cell(text, value=text)


def number_cells(table: pd.DataFrame, name: str) -> list[Cell]:
    """Cells `mean ± deviation` of a column, or its numbers alone; the best and its ties are marked as such."""
    values, spread = table[name].astype(float), next((end for end in _SPREADS if f"{name}_{end}" in table), "")
    texts, digits = [_p(value) for value in values] if name in _P_VALUES else _rounded(values), _digits(values)
    ends = [spread, *_MARKS, *(["n"] if name in METRICS else [])]
    parts = table[[f"{name}_{end}" for end in ends if f"{name}_{end}" in table]]
    rows = parts.rename(columns=lambda part: str(part).removeprefix(f"{name}_")).to_dict("records")
    return [
        _number(value, text, row, row.get(spread), digits) if pd.notna(value) else Cell(DASH)
        for value, text, row in zip(values.tolist(), texts, rows or [{}] * len(values), strict=True)
    ]


def _number(value: float, text: str, row: Mapping[Any, Any], around: Any, digits: int) -> Cell:
    shown, title = text, repr(value)
    if pd.notna(around):
        shown, title = f"{shown} ± {around:,.{digits}f}", f"{title} ± {float(around)!r}"
    if pd.notna(n := row.get("n")):
        title += f", of {n:.0f}"
    return Cell(shown + f" {TIE}" * (row.get("tie") is True), title, repr(value), is_best=row.get("best") is True)


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _rounded(values: pd.Series) -> list[str]:
    """Short numbers in full, others with three figures of a typical one."""
    defined = values[np.isfinite(values)]
    digits = _digits(values)
    if digits and (defined == defined.round(2)).all():
        return [f"{value:g}" for value in values]
    return [f"{value:,.{digits}f}" for value in values]


def _digits(values: pd.Series) -> int:
    """After the point: none of whole numbers and of thousands."""
    defined = values[np.isfinite(values)]
    size = defined.abs().median()
    if (defined == defined.round()).all() or size >= 1000:
        return 0
    return 1 if size >= 100 else decimals(values)


def difference_cells(table: pd.DataFrame, start: str) -> list[Cell]:
    """Cells `difference (low, high)`, of the columns whose names begin so."""
    digits = decimals(table[f"{start}difference"].astype(float))
    names = ("difference", "low", "high", "compared")
    parts = table[[f"{start}{name}" for name in names if f"{start}{name}" in table]].astype(float)
    cells = []
    for value, low, high, *n in parts.to_numpy().tolist():
        title = f"{value!r} ({low!r}, {high!r})" + "".join(f", of {count:.0f}" for count in n)
        text = f"{value:+.{digits}f} {_bounds(low, high, digits)}".rstrip()
        cells.append(Cell(text, title, repr(value)) if np.isfinite(value) else Cell(DASH))
    return cells


def interval_cells(table: pd.DataFrame, start: str) -> list[Cell]:
    """Cells `(low, high)` over folds, of the columns whose names begin so; sorted by their lower end."""
    bounds = table[[f"{start}fold_low", f"{start}fold_high"]].to_numpy(float)
    digits = decimals(pd.Series(bounds[np.isfinite(bounds)]))
    return [
        Cell(shown, f"({low!r}, {high!r})", repr(low)) if (shown := _bounds(low, high, digits)) else Cell(DASH)
        for low, high in bounds.tolist()
    ]


def _bounds(low: float, high: float, digits: int) -> str:
    return f"({low:+.{digits}f}, {high:+.{digits}f})" if np.isfinite([low, high]).all() else ""
