"""How much of what was observed of a perturbation is more than the sampling of its cells."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["reliability"]


def reliability(difference: Float[Tensor, "gene"], replicates: Float[Tensor, "replicate gene"]) -> Float[Tensor, ""]:
    """Share of the variance over genes that is signal: 1 - (sampling variance) / (observed variance).

    The sampling variance is that over genes of what bootstrap replicates differ from their mean by, so that noise which
    genes have in common counts as it does in the observed variance. A perfect prediction correlates with the observed
    difference by the root of the reliability (Spearman 1904).

    Args:
        difference: Of a statistic of the perturbation's cells from that of control, NaN where it has none.
        replicates: The same of bootstrap replicates of both. NaN where a replicate has none.

    Returns:
        From 0 to 1; NaN where the noise is larger than all that is observed: too little signal to tell.
    """
    defined = ~difference.isnan()
    difference, replicates = difference[defined], replicates[:, defined]
    observed = difference.var()
    noise = (replicates - replicates.nanmean(0)).T
    n_defined = (~noise.isnan()).sum()
    squared = (noise - noise.nanmean(0)) ** 2
    sampled = squared.nansum() / n_defined * len(replicates) / (len(replicates) - 1)
    found = 1 - sampled / observed
    return torch.where(found >= 0, found, torch.nan)
