"""Exact marginal distributions of simulated expression, gene by gene.

Given its library size and the normal that its programs add to its log rate, a gene's count is negative binomial.
Library sizes are a finite list, so that they are summed over; the normal is integrated by Gauss-Hermite quadrature.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from numpy.polynomial.hermite_e import hermegauss

from histpert.screens.gathering import TARGET_SUM

__all__ = ["Marginals", "marginals"]

N_NODES = 32
"""Quadrature nodes: moments are exact to 1e-7 of themselves, masses to 1e-5."""

LEFT_OUT = 1e-12
"""Probability that sums over counts, and quadrature nodes, may leave out."""

TINY = -600.0
"""Below it, the logarithm of a probability is followed instead: the probability itself would be rounded to 0."""


class Marginals(NamedTuple):
    """Distribution of each gene's log-normalized expression."""

    moments: Float[np.ndarray, "gene 4"]
    """Expectation of the first four powers of x - center."""
    zeros: Float[np.ndarray, "gene"]
    """Probability of 0."""
    masses: Float[np.ndarray, "gene bin"]
    """Probability of each bin; none where no edges are given."""


def marginals(
    log_rate: Float[np.ndarray, "gene"],
    spread: Float[np.ndarray, "gene"],
    dispersion: Float[np.ndarray, "gene"],
    silenced: Float[np.ndarray, "gene"],
    library_sizes: Int[np.ndarray, "size"],
    centers: Float[np.ndarray, "gene"],
    bin_edges: Float[np.ndarray, "row bound"],
) -> Marginals:
    """Distribution of `log1p(count / library size * 10,000)`.

    Args:
        log_rate: Mean of the log of counts per 10,000.
        spread: Its standard deviation.
        dispersion: Of the negative binomial.
        silenced: Probability of a count of 0 whatever the rate.
        library_sizes: Equally frequent.
        centers: What the powers are taken about.
        bin_edges: A row for all genes or one per gene; rows without edges ask for no masses.
    """
    nodes, weights = hermegauss(N_NODES)
    weights /= weights.sum()
    nodes, weights = nodes[weights > LEFT_OUT], weights[weights > LEFT_OUT]
    n_bins = max(bin_edges.shape[1] - 1, 0)
    n_genes = len(log_rate)
    result = Marginals(np.zeros((n_genes, 4)), np.zeros(n_genes), np.zeros((n_genes, n_bins)))
    rows = np.ascontiguousarray(np.broadcast_to(bin_edges, (n_genes, bin_edges.shape[1])), dtype=np.float64)
    scale = TARGET_SUM / library_sizes
    _sum_over_states(
        np.exp(log_rate[:, None] + spread[:, None] * nodes),
        weights / weights.sum(),
        1 / dispersion,
        silenced,
        scale,
        centers,
        rows,
        *result,
    )
    return result


@numba.njit(parallel=True, cache=True)
@no_type_check
def _sum_over_states(rate, weight, size, silenced, scale, centers, bin_edges, moments, zeros, masses):
    n_bins = masses.shape[1]
    n_sizes, n_nodes = len(scale), len(weight)
    for gene in numba.prange(len(size)):
        r = size[gene]
        mass, log_mass, growth = np.empty(n_nodes), np.empty(n_nodes), np.empty(n_nodes)
        expressed = (1 - silenced[gene]) / n_sizes
        zeros[gene] = silenced[gene]
        for k in range(4):
            moments[gene, k] = silenced[gene] * (-centers[gene]) ** (k + 1)
        if n_bins:
            masses[gene, _bin(0.0, bin_edges[gene], 0)] += silenced[gene]
        for one in range(n_sizes):
            n_tiny = 0
            for node in range(n_nodes):
                mean = rate[gene, node] / scale[one]
                growth[node] = mean / (mean + r)
                log_mass[node] = np.log(weight[node]) - r * np.log1p(mean / r)
                mass[node] = np.exp(log_mass[node])
                n_tiny += log_mass[node] < TINY
            left, count, place = 1.0, 0, 0
            while left > LEFT_OUT:
                total = 0.0
                step = (count + r) / (count + 1)
                for node in range(n_nodes):
                    total += mass[node]
                    mass[node] *= growth[node] * step
                if n_tiny:
                    n_tiny = _follow_logarithms(mass, log_mass, growth, step)
                value = np.log1p(count * scale[one])
                share = expressed * total
                power = share
                for k in range(4):
                    power *= value - centers[gene]
                    moments[gene, k] += power
                if n_bins:
                    place = _bin(value, bin_edges[gene], place)
                    masses[gene, place] += share
                if count == 0:
                    zeros[gene] += share
                left -= total
                count += 1
                if total < 1e-18 and n_tiny == 0 and count * scale[one] > rate[gene, n_nodes - 1]:
                    break  # rounding keeps `left` above 0


@numba.njit
@no_type_check
def _follow_logarithms(mass, log_mass, growth, step):
    """Take tiny masses on to the next count; returns how many still are tiny."""
    n_tiny = 0
    for node in range(len(mass)):
        if log_mass[node] < TINY:
            log_mass[node] += np.log(growth[node] * step)
            mass[node] = np.exp(log_mass[node])
            n_tiny += log_mass[node] < TINY
    return n_tiny


@numba.njit(inline="always")
@no_type_check
def _bin(value, edges, place):
    """The bin of a value, looked for from `place` on."""
    while place < len(edges) - 2 and value >= edges[place + 1]:
        place += 1
    return place
