"""Figures of predicted responses, and of how far to trust them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from histpert.ensembles.calibration import Calibration
from histpert.ensembles.responses import Distributions, Responses
from histpert.errors import InputError
from histpert.plots import Histogram, HistogramPanel, histogram_panels
from histpert.plots.calibration import calibration_panels
from histpert.plots.changes import change_scatter
from histpert.study_defaults import SHOWN_GENES
from histpert.top_genes import TopBy
from histpert.wording import some

__all__ = ["calibration_figure", "response_figure"]


def response_figure(
    responses: Responses,
    perturbation: str,
    *,
    by: TopBy = "w1",
    n_genes: int = SHOWN_GENES,
    genes: Sequence[str] = (),
) -> Figure:
    """All genes on the left, the histograms of those that change most on the right; observed cells where there are any.

    Args:
        responses: What is predicted.
        perturbation: One of those.
        by: What the top genes are chosen by.
        n_genes: How many are shown.
        genes: Genes to show instead.

    Raises:
        InputError: No such perturbation, gene or order.
    """
    if unknown := [gene for gene in genes if gene not in responses.genes]:
        raise InputError(f"{some(unknown)}: not among the {len(responses.genes):,} genes of {responses.screen}")
    shown = list(genes) or responses.top(perturbation, by, n_genes)["gene"].tolist()
    number = responses.perturbations.index(perturbation)
    figure = Figure(figsize=(7.0, max(3.4, 1.2 + 1.4 * -(-len(shown) // 2))), layout="constrained")
    figure.suptitle(_title(responses, number), fontsize=9, linespacing=1.4)
    parts = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.25))[0] if shown else [figure]
    if shown:
        panels = [_panel(responses, number, responses.genes.index(gene)) for gene in shown]
        histogram_panels(parts[1], panels, min(2, len(shown)))
    varies = ~responses.constant
    at_control = responses.control.mean[0]
    shift, low, high = (
        (values[number] - at_control)[varies]
        for values in (responses.predicted.mean, responses.mean_low, responses.mean_high)
    )
    names = [gene for gene, kept in zip(responses.genes, varies, strict=True) if kept]
    interval = f"{responses.level:.0%} interval, {responses.n_cells:,} cells"
    w1 = responses.predicted.w1[number][varies]
    change_scatter(parts[0].subplots(), shift, w1, low, high, names, shown, interval)
    return figure


def _title(responses: Responses, number: int) -> str:
    row = responses.trust.iloc[number]
    known = (
        f"predicted by the {row['n_members']} members that had not seen it" if row["trained_on"] else "never perturbed"
    )
    cells = f"; {responses.n_observed[number]:,} cells" if responses.n_observed and responses.n_observed[number] else ""
    return f"{row['perturbation']}\n{responses.screen}: {known}{cells}"


def _panel(responses: Responses, number: int, gene: int) -> HistogramPanel:
    def histogram(source: Distributions, row: int) -> Histogram:
        return Histogram(source.masses[row, gene], float(source.mean[row, gene]))

    histograms = {"control": histogram(responses.control, 0)}
    if responses.observed is not None and not np.isnan(responses.observed.mean[number, gene]):
        histograms["observed"] = histogram(responses.observed, number)
    histograms["predicted"] = histogram(responses.predicted, number)
    edges = float(responses.lower[gene]), float(responses.width[gene])
    return HistogramPanel(responses.genes[gene], histograms, *edges)


def calibration_figure(calibration: Calibration, screen: str) -> Figure:
    """How often intervals held the means of perturbations of the screen that were held out."""
    return calibration_panels(
        calibration.levels,
        calibration.coverage,
        calibration.predicted,
        calibration.observed,
        calibration.distance,
        calibration.ratio,
        f"Held-out perturbations of {screen}, {len(calibration.perturbations)} of them",
    )
