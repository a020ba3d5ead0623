"""Whether what a store's files say can be true, beside its manifest and each other: some rows at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from histpert.histograms.cells_apart import limits
from histpert.histograms.coexpression import COEXPRESSION
from histpert.histograms.counting import GroupMoments
from histpert.histograms.edges import bin_edges
from histpert.histograms.ranges import NO_FOLD, Ranges
from histpert.histograms.store import CELLS, MOMENTS, POWER_SUMS, apart_of, array_of, moments_of

__all__ = ["Content"]

BATCH_BYTES = 16 << 20
"""Of a file, looked at at once."""

ROUNDING = 1e-9
"""Share of a value that sums over many cells may be off."""

BORDER = 1e-4
"""Share of a bin's width by which a cell on the border may be on the other side of it."""


@dataclass
class _Failures:
    """Where a statement is false: how often, and the first place."""

    groups: list[str]
    genes: list[str]
    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, what: str, false: Bool[np.ndarray, "row range"], start: int, gene: Int[np.ndarray, "range"]) -> None:
        """Add rows from `start` on, each range being one of a gene."""
        if not false.any():
            return
        row, place = np.argwhere(false)[0]
        number, first = self.found.get(what, (0, f"{self.genes[gene[place]]} under {self.groups[start + row]}"))
        self.found[what] = number + int(false.sum()), first

    def lines(self) -> Iterator[str]:
        for what, (number, first) in self.found.items():
            yield f"{what}: {first}" + (f", and {number - 1:,} more" if number > 1 else "")


class Content:
    """What the files of a store say, beside its manifest and each other."""

    def __init__(self, manifest: Mapping[str, Any], tables: Mapping[str, pa.Table]):
        self._manifest, self._tables = manifest, tables
        self._groups: list[str] = ["control", *manifest["perturbations"]]
        self._genes: list[str] = manifest["genes"]
        self._n_cells = np.asarray(manifest["n_cells"], dtype=np.int64)
        self._folds = np.asarray(manifest["folds"], dtype=np.int64)

    def problems(self, name: str) -> Iterator[str]:
        """Of one file."""
        table = self._tables[name]
        if name == "ranges.arrow":
            yield from self._of_ranges(table)
            return
        about = json.loads((table.schema.metadata or {}).get(b"histpert", b"{}"))
        for key in ("format", "screen", "genes"):
            if about.get(key) != self._manifest[key]:
                yield f"its {key} is not that of manifest.json"
        if name == COEXPRESSION:
            yield from self._of_coexpression(table)
            return
        if name == CELLS:
            yield from self._of_cells(table)
            return
        labels = {
            "perturbation": self._groups,
            "fold": [None, *self._folds.tolist()],
            "n_cells": self._n_cells.tolist(),
        }
        wrong = [column for column, values in labels.items() if table[column].to_pylist() != values]
        if wrong:
            yield from (f"its column {column} is not that of manifest.json" for column in wrong)
            return
        failures = _Failures(self._groups, self._genes)
        if name == "moments.arrow":
            self._of_moments(table, failures)
        elif name.startswith("replicates"):
            self._of_replicates(table, failures)
        elif name.startswith("apart"):
            self._of_apart(name, table, failures)
        else:
            self._of_counts(name, table, failures)
        yield from failures.lines()

    def _of_ranges(self, table: pa.Table) -> Iterator[str]:
        """They follow from the extremes of control and of what each fold holds out."""
        if "moments.arrow" not in self._tables:
            return
        moments, names = moments_of(self._tables["moments.arrow"]), np.unique(self._folds)
        shape = len(names) + 1, len(self._genes)
        low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
        part = np.concatenate([[0], np.searchsorted(names, self._folds) + 1])
        for rows in self._batches(2 * low[0].nbytes):
            for number in np.unique(part[rows]):
                here = part[rows] == number
                low[number] = np.minimum(low[number], moments.minimum[rows][here].min(axis=0))
                high[number] = np.maximum(high[number], moments.maximum[rows][here].max(axis=0))
        extremes = GroupMoments(np.zeros(len(low), dtype=np.int64), (), low, high, np.zeros(shape, dtype=np.int64))
        same_genes = table["gene"].chunk(0).dictionary.to_pylist() == self._genes  # pyright: ignore[reportAttributeAccessIssue]
        if not same_genes or not all(map(np.array_equal, _ranges_of(table), Ranges.of(extremes, names))):
            yield "the ranges are not those that follow from moments.arrow"

    def _of_coexpression(self, table: pa.Table) -> Iterator[str]:
        """Each gene comes first among its own, then others by falling correlation."""
        neighbor, correlation = array_of(table, "neighbor"), array_of(table, "correlation")
        shape = (int(self._folds.max()) + 1, len(self._genes))
        if neighbor.shape[:2] != shape or correlation.shape != neighbor.shape:
            raise ValueError(f"neighbors have the shape {neighbor.shape}")
        if not 0 <= neighbor.min() <= neighbor.max() < len(self._genes):
            yield "a gene's number is not one of manifest.json"
        if (neighbor[..., 0] != np.arange(len(self._genes))).any():
            yield "a gene is not the first of its own neighbors"
        if not (np.diff(np.abs(correlation), axis=-1) <= 0).all() or not (np.abs(correlation) <= 1).all():
            yield "correlations are not from 1 to -1, by falling size"

    def _of_cells(self, table: pa.Table) -> Iterator[str]:
        """As many as there are of each group, with its sums."""
        group, expression = table["group"].to_numpy(), array_of(table, "expression")
        if expression.shape[1] != len(self._genes):
            raise ValueError(f"cells have {expression.shape[1]} genes")
        if not np.array_equal(group, np.repeat(np.arange(len(self._groups)), self._n_cells)):
            yield "its column group is not that of manifest.json"
            return
        sums = moments_of(self._tables["moments.arrow"]).power_sums[0] if "moments.arrow" in self._tables else None
        bounds = np.cumsum([0, *self._n_cells])
        for number, (first, end) in enumerate(pairwise(bounds)):
            found = expression[first:end].sum(axis=0, dtype=np.float64)
            if not np.isfinite(found).all():
                yield f"a value is no number: under {self._groups[number]}"
            elif sums is not None and not np.allclose(found, sums[number], rtol=1e-6, atol=1e-9):
                yield f"the mean is not that of moments.arrow: under {self._groups[number]}"

    def _of_moments(self, table: pa.Table, failures: _Failures) -> None:
        columns, gene = [array_of(table, name) for name in MOMENTS], np.arange(len(self._genes))
        for rows in self._batches(sum(column[0].nbytes for column in columns)):
            n_cells = self._n_cells[rows][:, None]
            s1, s2, s3, s4, minimum, maximum, n_detected = (column[rows] for column in columns)

            def note(what: str, true: Bool[np.ndarray, "row gene"], n_cells=n_cells, start=rows.start) -> None:
                failures.note(what, ~true & (n_cells > 0), start, gene)

            slack = ROUNDING * n_cells * np.maximum(np.abs(minimum), np.abs(maximum))
            note("a sum is no number", np.isfinite(s1 + s2 + s3 + s4))
            note("n_detected is not from 0 to n_cells", (n_detected >= 0) & (n_detected <= n_cells))
            inside = (n_cells * minimum - slack <= s1) & (s1 <= n_cells * maximum + slack)
            note("the mean is not from minimum to maximum", inside)
            possible = (s1**2 <= s2 * n_cells * (1 + ROUNDING)) & (s2**2 <= s4 * n_cells * (1 + ROUNDING))
            note("no values have these sums of powers", possible)

    def _of_replicates(self, table: pa.Table, failures: _Failures) -> None:
        """Cells drawn from a group are nowhere beyond its extremes."""
        columns = [array_of(table, name) for name in POWER_SUMS]
        moments = moments_of(self._tables["moments.arrow"]) if "moments.arrow" in self._tables else None
        gene = np.tile(np.arange(len(self._genes)), columns[0].shape[1])
        for rows in self._batches(sum(column[0].nbytes for column in columns)):
            s1, s2, s3, s4 = (column[rows].reshape(rows.stop - rows.start, -1) for column in columns)
            failures.note("a sum is no number", ~np.isfinite(s1 + s2 + s3 + s4), rows.start, gene)
            if moments is not None:
                n_cells = self._n_cells[rows][:, None]
                low, high = moments.minimum[rows][:, gene], moments.maximum[rows][:, gene]
                slack = ROUNDING * n_cells * np.maximum(np.abs(low), np.abs(high))
                beyond = ((s1 < n_cells * low - slack) | (s1 > n_cells * high + slack)) & (n_cells > 0)
                failures.note("a mean is not from minimum to maximum", beyond, rows.start, gene)

    def _of_apart(self, name: str, table: pa.Table, failures: _Failures) -> None:
        """They are near zero or beyond a range, as many as have a value there, and of the genes there are."""
        first, gene, value = apart_of(table)
        row, shape = np.repeat(np.arange(len(self._groups)), np.diff(first)), (len(self._groups), len(self._genes))
        if not 0 <= gene.min(initial=0) <= gene.max(initial=0) < len(self._genes):
            raise ValueError("a gene's number is not one of manifest.json")
        if not self._tables.keys() >= {"moments.arrow", "ranges.arrow"}:
            return
        ranges, moments = _ranges_of(self._tables["ranges.arrow"]), moments_of(self._tables["moments.arrow"])
        edges = bin_edges(ranges.minimum, ranges.maximum, int(re.sub(r"\D", "", name)))
        kept = limits(edges, ranges.gene, len(self._genes)).keeps(value, gene)
        possible = (moments.minimum[row, gene] <= value) & (value <= moments.maximum[row, gene])
        number = np.zeros(shape, dtype=np.int64)
        for what, wrong in {
            "a cell is not to be kept apart": ~kept,
            "a value is beyond the extremes": ~possible,
        }.items():
            number[:] = 0
            np.add.at(number, (row[wrong], gene[wrong]), 1)
            failures.note(what, number > 0, 0, np.arange(len(self._genes)))
        number[:] = 0
        np.add.at(number, (row, gene), 1)
        failures.note("more cells than have a value", number > moments.n_detected, 0, np.arange(len(self._genes)))

    def _of_counts(self, name: str, table: pa.Table, failures: _Failures) -> None:
        """All cells are in bins; their mean is that of the moments, but for what bins cost; few are beyond a range."""
        if not self._tables.keys() >= {"moments.arrow", "ranges.arrow"}:
            return
        ranges, moments = _ranges_of(self._tables["ranges.arrow"]), moments_of(self._tables["moments.arrow"])
        if name == "reference.arrow":
            ranges = Ranges(*(values[: len(self._genes)] for values in ranges))
        counts, own = array_of(table, "counts"), ranges.fold != NO_FOLD
        n_bins = counts.shape[2] if name == "reference.arrow" else int(re.sub(r"\D", "", name))
        if counts.shape != (len(self._groups), len(ranges.gene), n_bins):
            raise ValueError(f"counts have the shape {counts.shape}")
        edges, held_out = bin_edges(ranges.minimum, ranges.maximum, n_bins), np.concatenate([[NO_FOLD], self._folds])
        sums = np.stack([np.ones(n_bins), np.arange(n_bins) + 0.5], axis=1)
        for rows in self._batches(counts[0].nbytes):
            batch, n_cells = counts[rows], self._n_cells[rows][:, None]
            total, in_widths = np.moveaxis(batch.astype(np.float64) @ sums, -1, 0)
            outside = np.zeros(total.shape, dtype=np.int64)
            if own.any():
                outside[:, own] = array_of(table, "outside")[rows]

            def note(what: str, false: Bool[np.ndarray, "row range"], start=rows.start) -> None:
                failures.note(what, false, start, ranges.gene)

            note("a count is below 0", batch.min(axis=-1) < 0)
            note("counts do not add up to n_cells", total != n_cells)
            at_edges = batch[..., 0].astype(np.int64) + batch[..., -1]
            note("outside is more than the edge bins hold", (outside < 0) | (outside > at_edges))
            note(
                "outside of a range that they are counted for", (outside > 0) & (held_out[rows][:, None] != ranges.fold)
            )
            # No cell is further from the centre of its bin than half a width.
            least = n_cells * edges.lower + (in_widths - (0.5 + BORDER) * n_cells) * edges.width
            most = n_cells * edges.lower + (in_widths + (0.5 + BORDER) * n_cells) * edges.width
            sum_1 = moments.power_sums[0][rows][:, ranges.gene]
            slack = ROUNDING * np.abs(sum_1)
            note(
                "the mean is not that of moments.arrow",
                (outside == 0) & ((sum_1 < least - slack) | (sum_1 > most + slack)),
            )

    def _batches(self, row_bytes: int) -> Iterator[slice]:
        step = max(1, BATCH_BYTES // max(1, row_bytes))
        for start in range(0, len(self._groups), step):
            yield slice(start, min(start + step, len(self._groups)))


def _ranges_of(table: pa.Table) -> Ranges:
    gene = cast("pa.DictionaryArray", table["gene"].chunk(0)).indices.to_numpy()
    return Ranges(gene, *(table[name].to_numpy() for name in Ranges._fields[1:]))
