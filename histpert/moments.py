"""Mean, variance, skewness and excess kurtosis of histograms and of cells (appendix A)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Moments", "histogram_mean", "histogram_moments", "histogram_moments_both", "moments_from_sums"]


class Moments(NamedTuple):
    """The four statistics, each a value per gene. Skewness and kurtosis are NaN where the variance is 0."""

    mean: Float[Tensor, "*batch gene"]
    variance: Float[Tensor, "*batch gene"]
    skewness: Float[Tensor, "*batch gene"]
    kurtosis: Float[Tensor, "*batch gene"]


def histogram_mean(
    masses: Float[Tensor, "*batch gene bin"], lower: Float[Tensor, "gene"], width: Float[Tensor, "gene"]
) -> Float[Tensor, "*batch gene"]:
    """Mean of a histogram: the sum of bin centres times masses (Eq. 7).

    Args:
        masses: Bin masses, each row adding to 1.
        lower: Left edge of the first bin.
        width: Width of the bins.
    """
    number = torch.arange(masses.shape[-1], dtype=masses.dtype, device=masses.device) + 0.5
    return lower + width * (masses @ number)


def histogram_moments(
    masses: Float[Tensor, "*batch gene bin"], lower: Float[Tensor, "gene"], width: Float[Tensor, "gene"]
) -> Moments:
    """Moments of histograms with uniform density inside each bin (appendix A).

    Central moments are summed about the histogram's own mean, in units of the bin width: the raw moments of the
    appendix give the same values, but lose digits where the mean is large beside the spread.

    Args:
        masses: Bin masses, each row adding to 1.
        lower: Left edge of the first bin, in log-normalized expression.
        width: Width of the bins.
    """
    return histogram_moments_both(masses, lower, width)[0]


def histogram_moments_both(
    masses: Float[Tensor, "*batch gene bin"], lower: Float[Tensor, "gene"], width: Float[Tensor, "gene"]
) -> tuple[Moments, Moments]:
    """Moments of histograms in two readings: the paper's, and with zeros as a point.

    In the second the mass of a first bin that is centred on 0 lies at its centre, as cells without a count do: spread
    over the bin it would add `width^2 / 12` of variance that no cell has. The mean is the same in both. A gene whose
    smallest training value is not 0 has no such bin, and the same moments in both.

    Args:
        masses: Bin masses, each row adding to 1.
        lower: Left edge of the first bin, in log-normalized expression.
        width: Width of the bins.
    """
    number = torch.arange(masses.shape[-1], dtype=masses.dtype, device=masses.device) + 0.5
    mean = masses @ number
    offset = number - mean[..., None]
    second = (masses * (offset**2 + 1 / 12)).sum(-1)
    third = (masses * (offset**3 + offset / 4)).sum(-1)
    fourth = (masses * (offset**4 + offset**2 / 2 + 1 / 80)).sum(-1)
    zeros, place = torch.where(lower + width / 2 == 0, masses[..., 0], 0), offset[..., 0]
    as_point = second - zeros / 12, third - zeros * place / 4, fourth - zeros * (place**2 / 2 + 1 / 80)
    spread = second, third, fourth
    return _in_expression(mean, *spread, lower, width), _in_expression(mean, *as_point, lower, width)


def _in_expression(
    mean: Tensor, second: Tensor, third: Tensor, fourth: Tensor, lower: Tensor, width: Tensor
) -> Moments:
    """From central moments in units of the bin width; all mass at one point has no skewness or kurtosis."""
    defined = torch.where(second > 0, second, torch.nan)
    return Moments(lower + width * mean, width**2 * second, third / defined**1.5, fourth / defined**2 - 3)


def moments_from_sums(
    power_sums: Float[Tensor, "4 *batch gene"],
    n_cells: Float[Tensor, "*batch 1"],
    minimum: Float[Tensor, "*batch gene"],
    maximum: Float[Tensor, "*batch gene"],
) -> Moments:
    """Moments of cells, from their sums of x, x^2, x^3 and x^4 (appendix A). The variance is that of the cells, over n.

    Args:
        power_sums: Sums over cells, float64.
        n_cells: Cells.
        minimum: Smallest value; where it equals the largest, the variance is exactly 0.
        maximum: Largest value.
    """
    m1, m2, m3, m4 = power_sums / n_cells
    variance = torch.where(minimum == maximum, torch.zeros_like(m1), m2 - m1**2)
    defined = torch.where(variance > 0, variance, torch.nan)
    return Moments(
        mean=m1,
        variance=variance,
        skewness=(m3 - 3 * m1 * m2 + 2 * m1**3) / defined**1.5,
        kurtosis=(m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4) / defined**2 - 3,
    )
