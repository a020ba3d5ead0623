"""Where a difference in likelihood comes from: from whether a gene is seen in a cell, or from how much of it is.

`python -m analysis.zero_bin FOLDER` splits, per gene, the negative log-likelihood of two methods into the zero bin's
part and the rest, and draws the differences against the zero bin's mass. The study was run with `--save-predictions`.

With observed masses `h` in bins of width `w` and predicted ones `p`, raised to the likelihood's floor and adding to
`p_0 + P` (zero bin and the others), the mean negative log density at the cells (Eq. 12) is

    [-h_0 log(p_0 / w) - (1 - h_0) log P]  +  (1 - h_0) [-sum_b h_b / (1 - h_0) log(p_b / (P w))],

zero or not, and the density of what is not zero: for any masses, exactly.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis.output import draw_again
from analysis.predicted import SavedStudy, predicted_masses, zero_bins
from histpert.errors import InputError
from histpert.plots import save_figure, split_differences
from histpert.prediction_files import SavedPredictions
from histpert.results import MASS_FLOOR, write_atomically

__all__ = ["SplitLikelihood", "draw_zero_bin", "main", "split_likelihood", "zero_bin_table"]


PARTS = {"zero": "zero or not", "rest": "how much, if not zero", "nll": "total"}


class SplitLikelihood(NamedTuple):
    """Parts of a negative log-likelihood in nats, perturbation x gene: `nll = zero + rest`.

    A gene whose first bin is not that of zeros has all of it in `rest`.
    """

    zero: np.ndarray
    rest: np.ndarray
    nll: np.ndarray
    zero_mass: np.ndarray
    """Observed mass of the zero bin; 0 where there is none."""


def split_likelihood(saved: SavedPredictions, floor: float = MASS_FLOOR) -> SplitLikelihood:
    """Split the likelihood of a trial's held-out cells.

    Observed masses are taken from the numbers of cells that they stand for, which float32 tells exactly.

    Args:
        saved: Of one trial.
        floor: Predicted masses below it are raised to it.
    """
    of_each = [_split(saved, number, floor) for number in range(len(saved.perturbations))]
    zero, rest, first = (np.stack(parts) for parts in zip(*of_each, strict=True))
    nll, has_zeros = zero + rest, zero_bins(saved)
    return SplitLikelihood(
        zero=np.where(has_zeros, zero, 0.0),
        rest=np.where(has_zeros, rest, nll),
        nll=nll,
        zero_mass=np.where(has_zeros, first, 0.0),
    )


def _split(saved: SavedPredictions, number: int, floor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both parts and the mass of the first bin, gene by gene; one perturbation at a time, for they are many."""
    counts = np.rint(saved.observed[number].astype(float) * saved.n_cells[number])
    observed = counts / counts.sum(-1, keepdims=True)
    predicted = np.maximum(predicted_masses(saved)[0][number].astype(float), floor)
    first, others = observed[:, 0], observed[:, 1:]
    sum_of_others = predicted[:, 1:].sum(-1)
    zero = -first * np.log(predicted[:, 0] / saved.width) - (1 - first) * np.log(sum_of_others)
    rest = -(others * np.log(predicted[:, 1:] / (sum_of_others * saved.width)[:, None])).sum(-1)
    return zero, rest, first


def zero_bin_table(studies: Mapping[str, SavedStudy]) -> pd.DataFrame:
    """A row per fold and gene that varies in training, averaged over the fold's held-out perturbations.

    Columns `zero`, `rest` and `nll` of each method end in `_1` and `_2`, in the order given; `_difference` is the
    second's less the first's: negative where the second is better.

    Args:
        studies: Two methods, and the files of each.

    Raises:
        InputError: The two have other folds or perturbations.
    """
    first, second = studies.values()
    if first.fold_numbers != second.fold_numbers:
        raise InputError(f"{' and '.join(studies)} have not finished the same folds in {first.folder}: run it again")
    tables = []
    for one, other in zip(first.folds(), second.folds(), strict=True):
        if (one.perturbations, one.genes) != (other.perturbations, other.genes):
            raise InputError(f"{' and '.join(studies)} predict other perturbations in {first.folder}: run it again")
        varies = ~one.constant
        columns: dict[str, object] = {"fold": one.fold, "gene": np.array(one.genes)[varies]}
        parts = [split_likelihood(saved) for saved in (one, other)]
        columns["zero_mass"] = parts[0].zero_mass.mean(0)[varies]
        for part in PARTS:
            values = [getattr(split, part).mean(0)[varies] for split in parts]
            columns |= {f"{part}_{place}": value for place, value in enumerate(values, start=1)}
            columns[f"{part}_difference"] = values[1] - values[0]
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def draw_zero_bin(folder: Path, methods: tuple[str, str], n_bins: int | None, out: Path) -> list[Path]:
    """Write `figures/zero_bin.*` and `tables/zero_bin.csv`, a row per gene, averaged over folds.

    Args:
        folder: Of the study.
        methods: Two; the second's likelihood is held against the first's.
        n_bins: Number of bins; the largest of the study by default.
        out: Where to write.

    Raises:
        InputError: The study has not the files, or `out` cannot be written.
    """
    studies = {method: SavedStudy(folder, method, n_bins) for method in methods}
    if len(studies) < 2:
        raise InputError(f"--methods {' '.join(methods)}: give two that differ")
    table = zero_bin_table(studies)
    genes = table.drop(columns="fold").groupby("gene", sort=False).mean().reset_index()
    path = out / "tables" / "zero_bin.csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda beside: genes.to_csv(beside, index=False))
        figure = _figure(table, genes, studies)
        return [*save_figure(figure, out / "figures" / "zero_bin"), path]
    except OSError as error:
        raise InputError(f"cannot write into {out} ({error}): give another folder") from error


def _figure(table: pd.DataFrame, genes: pd.DataFrame, studies: Mapping[str, SavedStudy]) -> Figure:
    (one, study), (other, _) = studies.items()
    folds = table.groupby("fold")[[f"{part}_difference" for part in PARTS]].mean()
    return split_differences(
        genes["zero_mass"].to_numpy(),
        {label: genes[f"{part}_difference"].to_numpy() for part, label in PARTS.items()},
        {label: folds[f"{part}_difference"].to_numpy() for part, label in PARTS.items()},
        x_label="observed mass of the zero bin",
        y_label=f"NLL, {other} less {one} (nats)",
        title=f"{study.screen}, {study.n_bins} bins, {len(genes):,} genes; below 0: {other} is better",
    )


@dataclass(frozen=True)
class Options:
    """Split a difference in likelihood into the zero bin's part and the rest, gene by gene."""

    folder: tyro.conf.Positional[Path]
    """Study folder, with trials.parquet and predictions/."""
    methods: tuple[str, str] = ("MLP+Hist", "Non-Ctrl Hist")
    """Two methods; the second is held against the first."""
    n_bins: int | None = None
    """Number of bins; by default the largest of the study."""
    out: Path | None = None
    """Where figures/ and tables/ are written; the study folder by default."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""

    def draw(given: Options) -> list[Path]:
        return draw_zero_bin(given.folder, given.methods, given.n_bins, given.out or given.folder)

    return draw_again("zero_bin", Options, arguments, draw)


if __name__ == "__main__":
    sys.exit(main())
