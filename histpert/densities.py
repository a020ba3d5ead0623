"""Truncated Gaussians, alone or with a spike around zero: likelihood of cells, masses and moments (Eq. 9 to 11).

A Gaussian of mean `mu` and deviation `sigma` is cut off at the ends of a gene's range `[a, b]`. The likelihood of its
cells depends on their number, mean and variance alone, so that nothing here goes over cells but for the few near zero,
where the spike is.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from histpert.cells import Cells
from histpert.moments import Moments

__all__ = ["Density", "log_normal_mass"]

LOG_ROOT_2_PI = math.log(2 * math.pi) / 2
ROOT_HALF = math.sqrt(0.5)
DEEP = -8.0
"""Where the tail is so far out that its mass in float32 loses digits; its logarithm costs ten times as much."""
NARROW = 0.1
"""Width, times 1 and the distance from the mean, below which a normal mass is taken from its expansion."""
NEGLIGIBLE = 80.0
"""Twice the nats below the peak from which a density adds nothing to moments in float64."""
NODES = 64
"""Of the Gauss-Legendre rule for moments: over the part that is not negligible it is exact to about 1e-13."""


class Density(NamedTuple):
    """Densities of the cells of each perturbation and gene.

    Attributes:
        mu: Mean of the Gaussian before it is cut off.
        sigma: Its deviation.
        lower: Left end of each gene's range.
        upper: Right end.
        spike: Half the width of the spike around zero, `eps` of Eq. 1.
        log_odds: Of the spike's share `pi`; None for a density without one.
    """

    mu: Float[Tensor, "*batch gene"]
    sigma: Float[Tensor, "*batch gene"]
    lower: Float[Tensor, "gene"]
    upper: Float[Tensor, "gene"]
    spike: Float[Tensor, "gene"]
    log_odds: Float[Tensor, "*batch gene"] | None = None

    def negative_log_likelihood(self, cells: Cells) -> Float[Tensor, "batch gene"]:
        """Mean over cells of the negative log density, in nats (Eq. 11); cells beyond the range are at its ends."""
        normalizer = self.sigma.log() + LOG_ROOT_2_PI + self._log_mass(self.lower, self.upper)
        at_rest = (cells.variance + (cells.mean - self.mu) ** 2) / (2 * self.sigma**2)
        zero = torch.zeros_like(self.lower).clamp(self.lower, self.upper)
        at_zero = self._log_density(zero, self.spike, self.mu, self.sigma, normalizer, self.log_odds)
        rest = normalizer + at_rest
        if self.log_odds is not None:
            rest = rest - torch.nn.functional.logsigmoid(-self.log_odds)
        value = cells.rest * rest - cells.zeros * at_zero
        if not len(cells.value):
            return value
        gene, place = cells.gene, cells.row * self.mu.shape[-1] + cells.gene
        mu, sigma, own_normalizer = (each.flatten()[place] for each in (self.mu, self.sigma, normalizer))
        log_odds = None if self.log_odds is None else self.log_odds.flatten()[place]
        log_density = self._log_density(cells.value, self.spike[gene], mu, sigma, own_normalizer, log_odds)
        return value.flatten().index_add(0, place, -cells.weight * log_density).view_as(value)

    def double(self) -> Density:
        """The same in float64."""
        return Density(*(None if part is None else part.double() for part in self))  # pyright: ignore[reportArgumentType]

    def masses(self, n_bins: int) -> Float[Tensor, "*batch gene bin"]:
        """Masses in equal bins of the range; a spike beyond the range is in the nearest one."""
        share = torch.linspace(0, 1, n_bins + 1, dtype=self.lower.dtype, device=self.lower.device)
        edges = torch.lerp(self.lower[:, None], self.upper[:, None], share)
        # One bin after the other: the way to a mass passes through some fifteen arrays.
        log_masses = [self._log_mass(*ends) for ends in pairwise(edges.T)]
        masses = torch.stack(log_masses, -1).softmax(-1)
        if self.log_odds is None:
            return masses
        below = ((edges + self.spike[:, None]) / (2 * self.spike[:, None])).clamp(0, 1)
        below[:, 0], below[:, -1] = 0, 1
        return torch.lerp(masses, below.diff(dim=-1), self.log_odds.sigmoid()[..., None])

    def moments(self) -> Moments:
        """Statistics (appendix A), by quadrature about the mean: the recursion there loses digits in a tail."""
        mean, central = self._gaussian_moments()
        if self.log_odds is not None:
            share, spike = self.log_odds.sigmoid(), self.spike
            whole = (1 - share) * mean
            of_gaussian = _about(mean - whole, central)
            of_spike = _about(-whole, [spike**2 / 3, torch.zeros_like(spike), spike**4 / 5])
            mean = whole
            central = [torch.lerp(one, other, share) for one, other in zip(of_gaussian, of_spike, strict=True)]
        second, third, fourth = central
        return Moments(mean, second, third / second**1.5, fourth / second**2 - 3)

    def _gaussian_moments(self) -> tuple[Tensor, list[Tensor]]:
        """Mean and second to fourth central moment of the truncated Gaussian."""
        low, high = ((end - self.mu) / self.sigma for end in (self.lower, self.upper))
        peak = torch.zeros_like(low).clamp(low, high)
        reach = (peak**2 + NEGLIGIBLE).sqrt()
        low, high = torch.maximum(low, -reach), torch.minimum(high, reach)
        middle, half = (low + high) / 2, (high - low) / 2
        nodes = [(float(x), float(w)) for x, w in zip(*np.polynomial.legendre.leggauss(NODES), strict=True)]

        def weight(x: float, w: float) -> Tensor:
            place = middle + half * x
            return w * ((peak**2 - place**2) / 2).exp()

        total, first = torch.zeros_like(low), torch.zeros_like(low)
        for x, w in nodes:
            mass = weight(x, w)
            total += mass
            first += mass * x
        center = first / total  # in units of half the width, about its middle
        sums = [torch.zeros_like(low) for _ in range(3)]
        for x, w in nodes:
            mass, offset = weight(x, w) / total, x - center
            for power in (2, 3, 4):
                sums[power - 2] += mass * offset**power
        scale = self.sigma * half
        central = [value * scale**power for power, value in enumerate(sums, start=2)]
        return self.mu + self.sigma * middle + scale * center, central

    def _log_mass(self, low: Tensor, high: Tensor) -> Tensor:
        return log_normal_mass((low - self.mu) / self.sigma, (high - self.mu) / self.sigma)

    @staticmethod
    def _log_density(
        value: Tensor, spike: Tensor, mu: Tensor, sigma: Tensor, normalizer: Tensor, log_odds: Tensor | None
    ) -> Tensor:
        """Log density at values inside the range (Eq. 9, 10)."""
        gaussian = -normalizer - (value - mu) ** 2 / (2 * sigma**2)
        if log_odds is None:
            return gaussian
        logsigmoid = torch.nn.functional.logsigmoid
        gaussian = gaussian + logsigmoid(-log_odds)
        return torch.where(value.abs() <= spike, gaussian.logaddexp(logsigmoid(log_odds) - (2 * spike).log()), gaussian)


def _about(distance: Tensor, central: list[Tensor]) -> list[Tensor]:
    """Moments about a point that is `distance` below the mean, from those about the mean."""
    second, third, fourth = central
    return [
        second + distance**2,
        third + 3 * distance * second + distance**3,
        fourth + 4 * distance * third + 6 * distance**2 * second + distance**4,
    ]


def log_normal_mass(low: Float[Tensor, "*shape"], high: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Logarithm of the mass that a standard normal has between `low` and `high`, in either tail as in the middle."""
    return _LogNormalMass.apply(low, high)


class _LogNormalMass(torch.autograd.Function):
    """Its derivatives are the densities at the ends over the mass: autograd would take them from 0 / 0 in a tail."""

    @staticmethod
    def forward(ctx, low: Tensor, high: Tensor) -> Tensor:
        low, high = torch.broadcast_tensors(low, high)
        right = low + high > 0  # the same mass lies mirrored, where it is the difference of small numbers
        near, far = torch.where(right, -low, high), torch.where(right, -high, low)
        log_mass = ((torch.erfc(near * -ROOT_HALF) - torch.erfc(far * -ROOT_HALF)) / 2).log()
        deep = near < DEEP
        if deep.any():
            log_near = torch.special.log_ndtr(near[deep])
            log_mass[deep] = log_near + torch.log1p(-(torch.special.log_ndtr(far[deep]) - log_near).exp())
        width, middle = near - far, (near + far) / 2
        square, small = middle**2, width**2
        series = (square - 1) * small / 24 + (square**2 - 6 * square + 3) * small**2 / 1920
        expansion = width.log() - square / 2 - LOG_ROOT_2_PI + series.log1p()
        log_mass = torch.where(width * (1 + middle.abs()) < NARROW, expansion, log_mass)
        ctx.save_for_backward(low, high, log_mass)
        return log_mass

    @staticmethod
    def backward(ctx, *outer: Tensor) -> tuple[Tensor, Tensor]:
        low, high, log_mass = ctx.saved_tensors
        at_low, at_high = ((-(end**2) / 2 - LOG_ROOT_2_PI - log_mass).exp() for end in (low, high))
        return -outer[0] * at_low, outer[0] * at_high
