"""Histogram stores in words and tables, for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from histpert.histograms.inventory import Entry, is_locked
from histpert.histograms.ranges import NO_FOLD
from histpert.histograms.store import HistogramStore

__all__ = ["counted", "facts", "files", "for_programs", "numbers", "print_table", "state", "table"]

HOLDS = {
    "moments": "sums of powers, extremes, cells with a value other than 0: per perturbation and gene",
    "ranges": "the ranges that genes are counted on: over all cells, and in each fold's training",
    "reference": "cells per bin of the reference that CRPS is taken from: per perturbation and gene",
    "counts": "cells per bin: per perturbation and range",
    "apart": "cells near zero and beyond a range of training, one by one: per perturbation",
    "cells": "log-normalized expression: per cell and gene",
    "coexpression": "each gene's most correlated genes over training cells: per fold and gene",
    "replicates": "bootstrap replicates of the sums of powers: per perturbation and gene",
}


def facts(entry: Entry, store: HistogramStore) -> Table:
    """What a whole store holds."""
    control, *of_perturbations = entry.manifest["n_cells"]
    fold_sizes = np.unique(store.folds, return_counts=True)[1].tolist()
    built = entry.built()
    known = {
        "store": str(entry.folder),
        "screen": store.screen,
        "fingerprint": store.fingerprint,
        "format": str(entry.manifest["format"]),
        "built": f"{built.astimezone():%Y-%m-%d %H:%M}" if built else "unknown",
        "cells": f"{sum(entry.manifest['n_cells']):,}: {control:,} control; "
        f"per perturbation {_spread(of_perturbations)}",
        "perturbations": f"{len(store.perturbations):,} in {len(fold_sizes)} folds of {_spread(fold_sizes)}",
        "genes": _genes(store),
        "bin counts": " ".join(map(str, entry.bin_counts)),
    }
    grid = Table(box=None, show_header=False, pad_edge=False)
    for name, fact in known.items():
        grid.add_row(name, escape(fact))
    return grid


def numbers(entry: Entry) -> Sequence[str]:
    """What a whole store holds, in the columns of `ls`."""
    if not entry.is_whole:
        return [""] * 5
    held = entry.manifest
    shown = len(held["perturbations"]), len(held["genes"]), sum(held["n_cells"]), len(set(held["folds"]))
    return [*(f"{number:,}" for number in shown), " ".join(map(str, entry.bin_counts))]


def for_programs(entry: Entry) -> dict[str, Any]:
    """What is known of a store, of whatever state, as JSON."""
    known = {"folder": str(entry.folder), "state": entry.state, "n_bytes": entry.n_bytes}
    if not entry.is_whole:
        return known
    built, held = entry.built(), entry.manifest
    return known | {
        "built": built.isoformat() if built else None,
        "n_perturbations": len(held["perturbations"]),
        "n_genes": len(held["genes"]),
        "n_cells": sum(held["n_cells"]),
        "n_folds": len(set(held["folds"])),
        "bins": entry.bin_counts,
        "files": {name: entry.files.get(name, 0) for name in sorted(held["files"])},
    }


def state(entry: Entry) -> str:
    """When a whole store was built; what is the matter with any other."""
    if entry.is_whole:
        built = entry.built()
        return f"{built.astimezone():%Y-%m-%d}" if built else ""
    return "being built" if entry.state == "unfinished" and is_locked(entry.folder) else entry.state


def _genes(store: HistogramStore) -> str:
    every, own = store.ranges.fold == NO_FOLD, store.ranges.fold != NO_FOLD
    n_constant = int((store.ranges.maximum <= store.ranges.minimum)[every].sum())
    n_own = len(np.unique(store.ranges.gene[own]))
    per_fold = own.sum() / max(1, len(np.unique(store.folds)))
    return (
        f"{len(store.genes):,}, {n_constant:,} constant; {n_own:,} have a range of their own in some fold's training, "
        f"{per_fold:,.0f} per fold"
    )


def files(entry: Entry) -> Table:
    """The files of a store and their columns."""
    rows = table("file", ">size", "holds, and columns")
    for name in sorted(entry.manifest["files"]):
        rows.add_row(name, decimal(entry.files.get(name, 0)), HOLDS[name.split("_")[0].split(".")[0]])
        columns = entry.folder.schema(name)
        for type_, alike in groupby(columns, lambda column: _type(column.type)):
            rows.add_row("", "", escape(f"  {', '.join(column.name for column in alike)}: {type_}"))
    return rows


def _type(type_: pa.DataType) -> str:
    """As `int16[508][15]`: a list of 508 lists of 15."""
    lengths = ""
    while isinstance(type_, pa.FixedSizeListType):
        lengths, type_ = f"{lengths}[{type_.list_size}]", type_.value_type
    name = f"{type_.value_type} in a dictionary" if isinstance(type_, pa.DictionaryType) else str(type_)
    return {"double": "float64"}.get(name, name) + lengths


def _spread(numbers: Sequence[int]) -> str:
    least, median, most = min(numbers), float(np.median(numbers)), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,} (median {median:,.0f})"


def counted(number: int, word: str) -> str:
    """As `2 stores`."""
    return f"{number:,} {word}" + "s" * (number != 1)


def table(*columns: str) -> Table:
    """Columns without lines between; `>` before a name has it to the right."""
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return made


def print_table(rows: Table) -> None:
    """As wide as the terminal; into a pipe or a file, as wide as it takes, so that no name is cut."""
    console = Console(highlight=False)
    if not console.is_terminal:
        width = console.measure(rows, options=console.options.update(max_width=10_000)).maximum
        console = Console(highlight=False, width=width)
    console.print(rows)
