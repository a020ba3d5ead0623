"""A Gaussian copula: how genes go together in control cells, under any distribution of each gene."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.correlations import pearson_correlations
from histpert.quantiles import quantiles

__all__ = ["GaussianCopula"]

MOST_CELLS = 4_000
"""Control cells that correlations are taken from, and cells that are drawn to match them."""

N_MATCHED = 8
"""Rounds of matching."""

LEAST_EIGENVALUE = 1e-3
LARGEST = 0.99


class GaussianCopula:
    """Normal variables, correlated so that cells with control's distributions correlate as control cells do.

    Distributions with many zeros correlate less than the normal variables that they are made of: correlations of these
    are raised by what is lacking, over and over (NORTA, Cario and Nelson 1997), on the same draws.

    Args:
        control: Control cells.
        seed: Of the draws.
    """

    def __init__(self, control: Float[Tensor, "cell gene"], seed: int):
        self._random = torch.Generator().manual_seed(seed)
        cells = control[torch.randperm(len(control), generator=self._random)[:MOST_CELLS].to(control.device)].double()
        wanted, ordered = pearson_correlations(cells), cells.sort(dim=0).values
        noise = self._normal(MOST_CELLS, cells)
        latent = wanted
        for _ in range(N_MATCHED):
            uniform = _shares(noise @ _factor(latent).T)
            place = (uniform * len(cells)).long().clamp_max(len(cells) - 1)
            latent = (latent + wanted - pearson_correlations(ordered.gather(0, place))).clamp(-LARGEST, LARGEST)
        self._like, self._factor = cells, _factor(latent)

    def _normal(self, n_cells: int, like: Tensor) -> Float[Tensor, "cell gene"]:
        return torch.randn(n_cells, like.shape[1], generator=self._random, dtype=torch.float64).to(like.device)

    def sample(
        self,
        masses: Float[Tensor, "perturbation gene bin"],
        lower: Float[Tensor, "gene"],
        width: Float[Tensor, "gene"],
        n_cells: int,
        seed: int,
    ) -> Float[Tensor, "perturbation cell gene"]:
        """Cells with these histograms; the same normal draws for every perturbation."""
        self._random.manual_seed(seed)
        uniform = _shares(self._normal(n_cells, self._like) @ self._factor.T)
        return quantiles(masses, lower, width, uniform.expand(len(masses), -1, -1))


def _shares(normal: Float[Tensor, "cell gene"]) -> Float[Tensor, "cell gene"]:
    return torch.special.ndtr(normal)


def _factor(correlation: Float[Tensor, "gene gene"]) -> Float[Tensor, "gene gene"]:
    """A matrix whose product with its transpose is the nearest correlations that can be."""
    values, vectors = torch.linalg.eigh(correlation.clone().fill_diagonal_(1))
    factor = vectors * values.clamp_min(LEAST_EIGENVALUE).sqrt()
    return factor / factor.norm(dim=1, keepdim=True)
