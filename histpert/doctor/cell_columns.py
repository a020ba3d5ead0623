"""Columns of `obs` that a screen was not read by, and that tell something of it: total counts, and batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from histpert.doctor.facts import Sample
from histpert.screens.opened import FEW_CELLS

__all__ = ["Batches", "batches_of", "possible_totals"]

BATCHES = (
    *("batch", "gem_group", "gemgroup", "gem", "lane", "replicate", "bio_rep", "biorep", "sample", "sample_id"),
    *("donor", "orig.ident", "library_id", "well", "plate", "channel"),
)
"""Columns of `obs` that name what was processed together."""

TOTALS = ("umi", "count", "total", "library", "depth")
"""Parts of the names of columns that hold total counts."""


class Batches(NamedTuple):
    """A column that names what was processed together."""

    column: str
    n: int
    """Batches of cells that are used."""
    alone: tuple[str, ...]
    """Perturbations whose cells are all in one batch."""
    without_control: tuple[str, ...]
    """Batches without control cells."""


def possible_totals(sample: Sample) -> list[str]:
    """Columns of `obs` that may be total counts: whole numbers, in no cell less than the counts at hand."""
    rows, obs = sample.opened.groups.rows, sample.opened.obs
    found = {}
    for name in obs:
        if not any(part in str(name).lower() for part in TOTALS) or not pd.api.types.is_numeric_dtype(obs[name]):
            continue
        values = obs[name].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
        if np.isfinite(values).all() and (values >= np.maximum(sample.totals, 1)).all() and (values % 1 == 0).all():
            found[str(name)] = float(np.median(values))
    return sorted(found, key=found.__getitem__, reverse=True)


def batches_of(sample: Sample) -> Iterator[Batches]:
    """Each column that names two batches or more, and not each cell."""
    screen, cells = sample.screen, sample.cells
    group = np.repeat(np.arange(len(screen.n_cells)), screen.n_cells)[cells]
    for column in [name for name in sample.opened.obs if str(name).lower() in BATCHES]:
        batch, names = pd.factorize(sample.opened.obs[column].iloc[sample.opened.groups.rows[cells]].astype(str))
        if not 1 < len(names) < len(batch) / FEW_CELLS:
            continue
        n_batches = pd.Series(batch).groupby(group).nunique()
        alone = [g for g in sample.groups[1:] if n_batches[g] == 1 and screen.n_cells[g] > 1]
        without = sorted(set(names) - set(names[batch[group == 0]]))
        yield Batches(
            str(column), len(names), tuple(screen.perturbations[g - 1] for g in alone), tuple(map(str, without))
        )
