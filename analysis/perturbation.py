"""The response to one held-out perturbation: predicted against observed shifts of all genes, and histograms of some.

`python -m analysis.perturbation FOLDER [--perturbation NAME] [--genes A B ...]` draws it from a study that was run with
`--save-predictions`, as in Figures 1 and 3 of the paper. Genes that are not named are chosen by what was observed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from analysis.distances import histogram_mean
from analysis.output import draw_again
from analysis.predicted import Response, SavedStudy
from analysis.telling_genes import LARGEST_SHIFT, SHAPE, rules, telling_genes
from histpert.errors import InputError
from histpert.plots import Histogram, HistogramPanel, histogram_panels, save_figure, shift_scatter
from histpert.results import write_atomically

__all__ = ["PAPER", "draw_response", "main", "response_figure", "response_table"]

PAPER: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "CEBPA": (),
    "CDKN1B": (("TUBA1B",),),
    "POU3F2": (("H4C3", "HIST1H4C"),),
}
"""Perturbations of the Norman screen that the paper shows, and genes, each under all its names; else by rule."""


def draw_response(response: Response, genes: Mapping[str, str], out: Path) -> list[Path]:
    """Write `figures/perturbation_NAME.*` and `tables/perturbation_NAME.csv`, the numbers of all genes.

    Args:
        response: To one perturbation.
        genes: To show, and why each.
        out: Where to write.

    Raises:
        InputError: `out` cannot be written.
    """
    name = "perturbation_" + re.sub(r"[^\w.+-]", "_", response.perturbation)
    table = out / "tables" / f"{name}.csv"
    text = response_table(response).to_csv(index=False)
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(table, lambda beside: beside.write_text(text, encoding="utf-8"))
        return [*save_figure(response_figure(response, genes), out / "figures" / name), table]
    except OSError as error:
        raise InputError(f"cannot write into {out} ({error}): give another folder") from error


def response_table(response: Response) -> pd.DataFrame:
    """A row per gene: share of cells that have it, distances, mean shifts, and its rank by the rules that choose it."""
    saved, number = response.saved, response.number
    ranks = {}
    for rule, column in {LARGEST_SHIFT: "rank_shift", SHAPE: "rank_shape"}.items():
        chosen = rules(response)[rule]
        ranks[column] = pd.array([pd.NA] * len(saved.genes), dtype="Int64")
        ranks[column][chosen] = np.arange(1, len(chosen) + 1)
    return pd.DataFrame(
        {
            "perturbation": response.perturbation,
            "gene": saved.genes,
            "detected": response.detected,
            "observed_shift": response.observed_shift,
            "predicted_shift": response.predicted_shift,
            "noise": response.noise,
            "beyond_mean": response.beyond_mean,
            "observed_mean_shift": saved.observed_mean[number] - saved.control_mean,
            "predicted_mean_shift": saved.predicted_mean[number] - saved.predicted_control_mean,
            **ranks,
        }
    )


def response_figure(response: Response, genes: Mapping[str, str]) -> Figure:
    """The scatter of all genes that vary in training on the left, histograms of some on the right.

    Args:
        response: To one perturbation.
        genes: To show as histograms, and why each.
    """
    saved = response.saved
    rows = -(-len(genes) // 2)
    figure = Figure(figsize=(7.0, max(3.3, 0.9 + 1.4 * rows)), layout="constrained")
    about = f"{saved.screen}, {saved.method}, {saved.n_bins} bins; {response.n_cells:,} cells"
    figure.suptitle(f"{response.perturbation}  ({about}, {response.n_control:,} control)", fontsize=9)
    parts = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.25))[0] if genes else [figure]
    if genes:
        histogram_panels(parts[1], [_panel(response, gene, why) for gene, why in genes.items()], min(2, len(genes)))
    varies = ~saved.constant
    shift_scatter(
        parts[0].subplots(),
        response.observed_shift[varies],
        response.predicted_shift[varies],
        [gene for gene, kept in zip(saved.genes, varies, strict=True) if kept],
        list(genes),
    )
    return figure


def _panel(response: Response, gene: str, why: str) -> HistogramPanel:
    saved, number = response.saved, response.saved.genes.index(gene)
    lower, width = float(saved.lower[number]), float(saved.width[number])

    def histogram(masses: np.ndarray) -> Histogram:
        masses = masses[number].astype(float)
        return Histogram(masses, float(histogram_mean(masses[None], np.array([lower]), np.array([width]))[0]))

    masses = {"control": saved.control, "observed": response.observed, "predicted": response.predicted}
    return HistogramPanel(gene, {name: histogram(each) for name, each in masses.items()}, lower, width, why)


def _paper(study: SavedStudy) -> dict[str, list[str]]:
    """The paper's perturbations that the study has, and the genes to show of each, under the names they have there."""
    missing = [name for name in PAPER if name not in study.perturbations]
    if len(missing) == len(PAPER):
        raise InputError(
            f"--preset paper: the study lacks {', '.join(missing)}, which the Norman screen has: leave --preset out"
        )
    if missing:
        print(f"not in the study: {', '.join(missing)}")
    found = {}
    for perturbation in PAPER:
        if perturbation in study.perturbations:
            there = study.response(perturbation).saved.genes
            names = [[name for name in of_one if name in there] for of_one in PAPER[perturbation]]
            found[perturbation] = [name for of_one in names for name in of_one[:1]]
            absent = [of_one[0] for of_one, here in zip(PAPER[perturbation], names, strict=True) if not here]
            if absent:
                print(f"not a gene of the screen, shown by rule instead: {', '.join(absent)}")
    return found


def _genes(response: Response, named: Sequence[str], n_genes: int) -> Mapping[str, str]:
    """The genes that were named, or those that the rules choose."""
    if unknown := [gene for gene in named if gene not in response.saved.genes]:
        raise InputError(
            f"--genes {' '.join(unknown)}: not among the {len(response.saved.genes):,} genes of the screen; "
            "name some of them"
        )
    if named:
        return dict.fromkeys(named, "")
    chosen = telling_genes(response, n_genes)
    if len(chosen) < n_genes:
        print(f"{response.perturbation}: {len(chosen)} genes respond above sampling noise; --genes shows others")
    elif SHAPE not in chosen.values():
        print(f"{response.perturbation}: no gene changes its shape, and not its mean, above sampling noise")
    return chosen


@dataclass(frozen=True)
class Options:
    """Draw the response to one held-out perturbation, from a study that was run with --save-predictions."""

    folder: tyro.conf.Positional[Path]
    """Study folder, with trials.parquet, perturbations.parquet and predictions/."""
    perturbation: str | None = None
    """Name of the perturbation; by default the one whose cells differ most from control."""
    genes: tuple[str, ...] = ()
    """Genes whose histograms are shown; by default chosen by what was observed: half by the largest shift from
    control, half by the largest change of shape without one of the mean."""
    n_genes: int = 4
    """How many are chosen."""
    method: str = "MLP+Hist"
    """Method whose predictions are shown."""
    n_bins: int | None = None
    """Number of bins; by default the largest of the study."""
    preset: Literal["paper"] | None = None
    """`paper`: CEBPA, CDKN1B with TUBA1B, POU3F2 with H4C3, for the Norman screen."""
    out: Path | None = None
    """Where figures/ and tables/ are written; the study folder by default."""

    def __post_init__(self):
        if self.n_genes < 1:
            raise InputError(f"--n-genes {self.n_genes}: must be 1 or more")
        if self.preset and (self.perturbation or self.genes):
            raise InputError(f"--preset {self.preset} names perturbations and genes itself: give the one or the other")


def _drawn(options: Options) -> Iterator[Path]:
    study = SavedStudy(options.folder, options.method, options.n_bins)
    wanted = _paper(study) if options.preset else {options.perturbation: options.genes}
    for name, genes in wanted.items():
        response = study.response(name) if name else study.largest_response()
        yield from draw_response(response, _genes(response, genes, options.n_genes), options.out or study.folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_again("perturbation", Options, arguments, _drawn)


if __name__ == "__main__":
    sys.exit(main())
