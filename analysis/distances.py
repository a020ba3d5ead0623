"""Distances of histograms in numpy: what of them the mean does not see, and what sampling makes of them.

Masses are uniform inside each bin. Distances are in log-normalized expression.
"""

from __future__ import annotations

import numpy as np

__all__ = ["beyond_mean", "histogram_mean", "sampling_noise", "wasserstein1"]


def histogram_mean(masses: np.ndarray, lower: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Means of histograms: masses are ... x gene x bin, `lower` is the left edge of each gene's first bin."""
    masses = np.asarray(masses, float)
    return lower + width * (masses @ (np.arange(masses.shape[-1]) + 0.5)) / masses.sum(-1)  # 1 but for rounding


def wasserstein1(first: np.ndarray, second: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance (Eq. 5), as `histpert.losses.wasserstein1` has it.

    Args:
        first: Bin masses, ... x gene x bin.
        second: Bin masses on the same edges.
        width: Width of each gene's bins.
    """
    gap = np.cumsum(np.asarray(first, float) - second, axis=-1)
    size, left, right = np.abs(gap), gap[..., :-1], gap[..., 1:]
    crossing = np.maximum(-left * right, 0) / np.maximum(size[..., :-1] + size[..., 1:], np.finfo(float).tiny)
    return width * (size.sum(-1) - crossing.sum(-1))


def beyond_mean(
    first: np.ndarray, second: np.ndarray, lower: np.ndarray, width: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """What a distance has beyond the difference of the means: 0 where all mass moves one way, else what cancels there.

    A gene that is seen in more cells, and else alike, moves one way. One that spreads, or whose cells part in two,
    moves both ways; the mean sees the difference, the distance the sum.

    Args:
        first: Bin masses, ... x gene x bin.
        second: Bin masses on the same edges.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        distance: `wasserstein1` of the two.
    """
    return distance - np.abs(histogram_mean(first, lower, width) - histogram_mean(second, lower, width))


def sampling_noise(masses: np.ndarray, width: np.ndarray, n_first: np.ndarray, n_second: np.ndarray) -> np.ndarray:
    """Mean Wasserstein-1 distance of two samples of the same distribution, for many cells.

    At each place the difference of the two empirical distributions is normal, with the variance
    `F (1 - F) (1 / n_first + 1 / n_second)`; of such a variable the mean size is `sqrt(2 / pi)` standard deviations.

    Args:
        masses: Bin masses of the distribution, gene x bin.
        width: Width of each gene's bins.
        n_first: Cells of the one sample.
        n_second: Cells of the other.
    """
    below = np.clip(np.cumsum(np.asarray(masses, float), axis=-1), 0, 1)
    spread = width * np.sqrt(below * (1 - below)).sum(-1)
    return np.sqrt(2 / np.pi * (1 / n_first + 1 / n_second)) * spread
