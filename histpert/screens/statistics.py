"""What a screen looks like: statistics per gene, per perturbation and per pair of genes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control, ttest_ind_from_stats

from histpert.screens.screen import Screen

__all__ = ["gene_pair_rows", "gene_rows", "perturbation_rows", "shape_statistics", "welch_test"]

FALSE_DISCOVERY_RATE = 0.05
MIN_DETECTION = 0.1
"""Correlations are taken over genes seen in more than this fraction of control cells."""
N_PAIRS = 20_000
"""Most pairs of genes whose correlation is taken."""


def shape_statistics(
    moments: Float[np.ndarray, "4 gene"], constant: Bool[np.ndarray, "gene"] | Literal[False] = False
) -> dict[str, Float[np.ndarray, "gene"]]:
    """Mean, variance, skewness and excess kurtosis from the expectations of x, x^2, x^3 and x^4.

    Args:
        moments: About 0, or about any center, from which the mean counts then.
        constant: Genes known not to vary: rounding may leave them a variance.

    Returns:
        Per gene; skewness and kurtosis are NaN without variance.
    """
    first, second, third, fourth = moments
    variance = np.where(constant, 0, np.maximum(second - first**2, 0))
    defined = np.where(variance > 0, variance, np.nan)
    return {
        "mean": first,
        "variance": variance,
        "skewness": (third - 3 * first * second + 2 * first**3) / defined**1.5,
        "kurtosis": (fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / defined**2 - 3,
    }


def gene_rows(screen: Screen) -> Iterator[dict[str, Any]]:
    """Per gene, over control cells: fraction of zeros, mean, variance, skewness and excess kurtosis.

    Skewness and kurtosis of a gene without variance are NaN.
    """
    control = sp.csr_matrix(screen.control, dtype=np.float64)
    n_cells = screen.n_cells[0]
    powers = np.stack([np.asarray(control.power(k).mean(axis=0), dtype=np.float64).ravel() for k in (1, 2, 3, 4)])
    lowest, highest = (values.toarray().ravel() for values in (control.min(axis=0), control.max(axis=0)))
    columns = {"zeros": 1 - control.getnnz(axis=0) / n_cells, **shape_statistics(powers, constant=lowest == highest)}
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
        _, significant = welch_test(mean, variance, n_cells, control_mean, control_variance, n_control)
        squared = (mean - control_mean) ** 2 - variance / n_cells - control_variance / n_control
        yield {
            "screen": screen.name,
            "perturbation": name,
            "n_cells": n_cells,
            "n_significant": int(significant.sum()),
            "shift": float(np.sqrt(np.maximum(squared.mean(), 0.0))),
        }


def welch_test(
    mean: Float[np.ndarray, "*perturbation gene"],
    variance: Float[np.ndarray, "*perturbation gene"],
    n_cells: Int[np.ndarray, "perturbation 1"] | int,
    control_mean: Float[np.ndarray, "gene"],
    control_variance: Float[np.ndarray, "gene"],
    n_control: int,
) -> tuple[Float[np.ndarray, "*perturbation gene"], Bool[np.ndarray, "*perturbation gene"]]:
    """Welch's t-test of each gene against control cells.

    Args:
        mean: Mean of each perturbation's cells.
        variance: Their variance, over n - 1.
        n_cells: Their number.
        control_mean: Mean of the control cells.
        control_variance: Their variance, over n - 1.
        n_control: Their number.

    Returns:
        t, NaN for a gene that does not vary; and which genes have a false discovery rate below 5%
        (Benjamini-Hochberg, for each perturbation).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        t, p = ttest_ind_from_stats(
            *(mean, np.sqrt(variance), n_cells), *(control_mean, np.sqrt(control_variance), n_control), equal_var=False
        )
    return t, false_discovery_control(np.nan_to_num(p, nan=1.0), axis=-1) < FALSE_DISCOVERY_RATE


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
