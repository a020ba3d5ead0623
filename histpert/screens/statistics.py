"""What a screen looks like: statistics per gene, per perturbation and per pair of genes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.stats import false_discovery_control, ttest_ind_from_stats

from histpert.screens.screen import Screen

__all__ = ["gene_pair_rows", "gene_rows", "perturbation_rows"]

FALSE_DISCOVERY_RATE = 0.05
MIN_DETECTION = 0.1
"""Correlations are taken over genes seen in more than this fraction of control cells."""
N_PAIRS = 20_000
"""Most pairs of genes whose correlation is taken."""


def gene_rows(screen: Screen) -> Iterator[dict[str, Any]]:
    """Per gene, over control cells: fraction of zeros, mean, variance, skewness and excess kurtosis.

    Skewness and kurtosis of a gene without variance are NaN.
    """
    control = sp.csr_matrix(screen.control, dtype=np.float64)
    n_cells = screen.n_cells[0]
    powers = np.stack([np.asarray(control.power(k).mean(axis=0), dtype=np.float64).ravel() for k in (1, 2, 3, 4)])
    mean, second, third, fourth = powers
    lowest, highest = (values.toarray().ravel() for values in (control.min(axis=0), control.max(axis=0)))
    variance = np.where(lowest == highest, 0, np.maximum(second - mean**2, 0))
    defined = np.where(variance > 0, variance, np.nan)
    columns = {
        "zeros": 1 - control.getnnz(axis=0) / n_cells,
        "mean": mean,
        "variance": variance,
        "skewness": (third - 3 * mean * second + 2 * mean**3) / defined**1.5,
        "kurtosis": (fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4) / defined**2 - 3,
    }
    for number, gene in enumerate(screen.genes):
        yield {"screen": screen.name, "gene": gene} | {name: float(values[number]) for name, values in columns.items()}


def perturbation_rows(screen: Screen) -> Iterator[dict[str, Any]]:
    """Per perturbation: cells, genes with a significant shift of their mean, and the size of the shift.

    Significant is a false discovery rate of 5% (Benjamini-Hochberg) by Welch's t-test against control cells. The size
    is the root mean square over genes of the shift, without what the sampling of cells adds to it.
    """
    n_control = int(screen.n_cells[0])
    control_mean, control_variance = _mean_and_variance(screen.control, n_control)
    for group, name in enumerate(screen.perturbations, start=1):
        n_cells = int(screen.n_cells[group])
        cells = screen.expression[screen.group_start[group] : screen.group_start[group + 1]]
        mean, variance = _mean_and_variance(cells, n_cells)
        with np.errstate(divide="ignore", invalid="ignore"):
            test = ttest_ind_from_stats(
                *(mean, np.sqrt(variance), n_cells),
                *(control_mean, np.sqrt(control_variance), n_control),
                equal_var=False,
            )
        adjusted = false_discovery_control(np.nan_to_num(test.pvalue, nan=1.0))
        squared = (mean - control_mean) ** 2 - variance / n_cells - control_variance / n_control
        yield {
            "screen": screen.name,
            "perturbation": name,
            "n_cells": n_cells,
            "n_significant": int((adjusted < FALSE_DISCOVERY_RATE).sum()),
            "shift": float(np.sqrt(np.maximum(squared.mean(), 0.0))),
        }


def gene_pair_rows(screen: Screen) -> Iterator[dict[str, Any]]:
    """Pearson correlation over control cells of pairs of genes; a repeatable draw of pairs where there are many."""
    detected = np.flatnonzero(screen.control.getnnz(axis=0) > MIN_DETECTION * screen.n_cells[0])
    cells = screen.control[:, detected].toarray().astype(np.float64)
    cells -= cells.mean(axis=0)
    deviation = cells.std(axis=0)
    detected, cells = detected[deviation > 0], (cells / np.where(deviation > 0, deviation, 1))[:, deviation > 0]
    first, second = np.triu_indices(len(detected), 1)
    if len(first) > N_PAIRS:
        chosen = np.sort(np.random.default_rng(0).choice(len(first), N_PAIRS, replace=False))
        first, second = first[chosen], second[chosen]
    correlation = cells.T @ cells / len(cells)
    for a, b in zip(first, second, strict=True):
        names = {"gene_a": screen.genes[detected[a]], "gene_b": screen.genes[detected[b]]}
        yield {"screen": screen.name, **names, "correlation": float(correlation[a, b])}


def _mean_and_variance(
    cells: sp.csr_matrix, n_cells: int
) -> tuple[Float[np.ndarray, "gene"], Float[np.ndarray, "gene"]]:
    """Per gene; the variance is over n - 1, and NaN for a single cell."""
    values = cells.astype(np.float64)
    mean = np.asarray(values.mean(axis=0)).ravel()
    second = np.asarray(values.power(2).mean(axis=0)).ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        return mean, np.maximum(second - mean**2, 0) * np.float64(n_cells) / (n_cells - 1)
