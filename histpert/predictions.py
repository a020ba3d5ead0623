"""What a method predicts of held-out perturbations: distributions, or means alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.densities import Density
from histpert.moments import Moments, histogram_mean, histogram_moments_both, moments_from_sums

__all__ = ["Prediction", "predicted_cells", "predicted_densities", "predicted_histograms", "predicted_means"]


class Prediction(NamedTuple):
    """Predicted distributions of each gene's expression, float64.

    Attributes:
        moments: Their statistics; all but the mean are NaN for a method that predicts means.
        control_mean: Mean of the method's own view of control: predicted shifts are from there.
        masses: Their masses in the bins of training, adding to 1; None for a method that predicts means.
        control: The method's own view of control, in the same bins; None for a method that has none.
        density: What the masses are of; None for a method whose prediction is uniform inside each bin, or is a mean.
        zero_atom: Statistics of histograms whose zeros are a point; None where `moments` do not come from bins.
        cells: Draws so many cells of each perturbation; None for a method that does not predict whole cells.
    """

    moments: Moments
    control_mean: Float[Tensor, "gene"]
    masses: Float[Tensor, "perturbation gene bin"] | None
    control: Float[Tensor, "gene bin"] | None = None
    density: Density | None = None
    zero_atom: Moments | None = None
    cells: Callable[[int], Float[Tensor, "perturbation cell gene"]] | None = None


def predicted_histograms(
    masses: Float[Tensor, "perturbation gene bin"],
    control: Float[Tensor, "gene bin"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
) -> Prediction:
    """Histograms that are uniform inside each bin (appendix A).

    Args:
        masses: Predicted bin masses.
        control: The method's own view of control, bin masses.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
    """
    masses, control, lower, width = (values.double() for values in (masses, control, lower, width))
    moments, zero_atom = histogram_moments_both(masses, lower, width)
    return Prediction(moments, histogram_mean(control, lower, width), masses, control, zero_atom=zero_atom)


def predicted_densities(
    density: Density, control: Float[Tensor, "gene bin"], control_mean: Float[Tensor, "gene"]
) -> Prediction:
    """Densities: their likelihood and statistics are exact; other scores take them as uniform inside each bin.

    Args:
        density: Predicted densities.
        control: Bin masses of the control cells.
        control_mean: Their mean, which a density of best likelihood has as well.
    """
    density = density.double()
    masses = density.masses(control.shape[-1])
    return Prediction(density.moments(), control_mean.double(), masses, control.double(), density)


def predicted_cells(
    cells: Float[Tensor, "perturbation cell gene"],
    control: Float[Tensor, "gene bin"],
    control_mean: Float[Tensor, "gene"],
    lower: Float[Tensor, "gene"],
    width: Float[Tensor, "gene"],
    draw: Callable[[int], Float[Tensor, "perturbation cell gene"]],
) -> Prediction:
    """Whole cells: statistics and masses are theirs.

    Args:
        cells: Cells of each perturbation.
        control: Bin masses of the control cells.
        control_mean: Their mean.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        draw: Draws more of them.
    """
    n_cells, n_bins = cells.shape[1], control.shape[-1]
    exact = cells.double()
    sums = torch.stack([(exact**power).sum(1) for power in (1, 2, 3, 4)])
    number = torch.full((len(cells), 1), float(n_cells), dtype=torch.float64, device=cells.device)
    moments = moments_from_sums(sums, number, exact.amin(1), exact.amax(1))
    place = ((cells - lower) / width).floor().long().clamp(0, n_bins - 1).transpose(1, 2)
    counts = torch.zeros(*place.shape[:2], n_bins, dtype=torch.float64, device=cells.device)
    masses = counts.scatter_add_(2, place, torch.ones_like(place, dtype=torch.float64)) / n_cells
    return Prediction(moments, control_mean.double(), masses, control.double(), cells=draw)


def predicted_means(means: Float[Tensor, "perturbation gene"], control_mean: Float[Tensor, "gene"]) -> Prediction:
    """Means alone.

    Args:
        means: Predicted means.
        control_mean: Mean of the control cells.
    """
    unknown = torch.full_like(means, torch.nan, dtype=torch.float64)
    return Prediction(Moments(means.double(), unknown, unknown, unknown), control_mean.double(), None)
