"""Distances of histograms in numpy: of whole distributions, of their shapes alone, and what sampling makes of them.

Masses are uniform inside each bin. Distances are in log-normalized expression.
"""

from __future__ import annotations

import numpy as np

__all__ = ["histogram_mean", "sampling_noise", "shape_distance", "wasserstein1"]


def histogram_mean(masses: np.ndarray, lower: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Means of histograms: masses are ... x gene x bin, `lower` is the left edge of each gene's first bin."""
    return lower + width * _mean_in_bins(masses)


def wasserstein1(first: np.ndarray, second: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance (Eq. 5), as `histpert.losses.wasserstein1` has it.

    Args:
        first: Bin masses, ... x gene x bin.
        second: Bin masses on the same edges.
        width: Width of each gene's bins.
    """
    gap = np.cumsum(np.asarray(first, float) - second, axis=-1)
    return width * _area(gap[..., :-1], gap[..., 1:]) + width * np.abs(gap[..., 0]) / 2


def shape_distance(first: np.ndarray, second: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance of two histograms moved so that their means are the same: how far their shapes differ.

    Arguments are those of `wasserstein1`. Both distributions are linear between the edges of either: exact.
    """
    first, second = np.broadcast_arrays(np.asarray(first, float), np.asarray(second, float))
    edges = np.arange(first.shape[-1] + 1)
    ends = [edges - _mean_in_bins(masses)[..., None] for masses in (first, second)]
    places = np.sort(np.concatenate(ends, axis=-1), axis=-1)
    gap = _distribution(first, places - ends[0][..., :1]) - _distribution(second, places - ends[1][..., :1])
    return width * _area(gap[..., :-1], gap[..., 1:], np.diff(places, axis=-1))


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


def _mean_in_bins(masses: np.ndarray) -> np.ndarray:
    """Divided by the sum, which is 1 but for rounding of float32."""
    masses = np.asarray(masses, float)
    return masses @ (np.arange(masses.shape[-1]) + 0.5) / masses.sum(-1)


def _area(left: np.ndarray, right: np.ndarray, length: np.ndarray | float = 1.0) -> np.ndarray:
    """Area between 0 and a line that goes from left to right, summed: two triangles where it changes its sign."""
    size = np.abs(left) + np.abs(right)
    crossing = np.maximum(-left * right, 0) / np.maximum(size, np.finfo(float).tiny)
    return (length * (size / 2 - crossing)).sum(-1)


def _distribution(masses: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Share of each histogram below places, which are counted in bins from its left end."""
    n_bins = masses.shape[-1]
    below = np.concatenate([np.zeros_like(masses[..., :1]), np.cumsum(masses, axis=-1)], axis=-1)
    inside = np.clip(places, 0, n_bins)
    number = np.minimum(inside.astype(int), n_bins - 1)
    left, right = (np.take_along_axis(below, number + i, axis=-1) for i in (0, 1))
    return left + (inside - number) * (right - left)
