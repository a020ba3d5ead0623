"""Scores of means and of their shifts from control: relative errors, correlation, discrimination."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["TINY_SHIFT", "discrimination", "pearson", "pearson_over_top_genes", "pearson_split", "relative_error"]

TINY_SHIFT = 1e-9
"""Shifts that differ by less are constant: what is left of equal float32 masses after the means are taken."""


def relative_error(
    predicted: Float[Tensor, "perturbation gene"], observed: Float[Tensor, "perturbation gene"]
) -> Float[Tensor, "perturbation"]:
    """Relative mean absolute error, `sum |predicted - observed| / sum |observed|` over genes (Eq. 13).

    A gene whose observed value is NaN is left out of both sums. The result is NaN where the observed values that are
    left add to 0: there is nothing to relate an error to.
    """
    defined = ~observed.isnan()
    error, size = (values.abs().where(defined, 0).sum(-1) for values in (predicted - observed, observed))
    return torch.where(size > 0, error / size, torch.nan)


def pearson(
    predicted: Float[Tensor, "perturbation gene"],
    observed: Float[Tensor, "perturbation gene"],
    left_out: Bool[Tensor, "perturbation gene"] | None = None,
) -> Float[Tensor, "perturbation"]:
    """Pearson correlation over genes; NaN where either does not vary: a constant prediction has no correlation.

    Args:
        predicted: Predicted shifts.
        observed: Observed ones.
        left_out: Genes that do not count.
    """
    if left_out is None:
        left_out = torch.zeros_like(observed, dtype=torch.bool)
    n_genes = (~left_out).sum(1, keepdim=True)
    x, y = (
        torch.where(left_out, 0, values - values.where(~left_out, 0).sum(1, keepdim=True) / n_genes)
        for values in (predicted, observed)
    )
    correlation = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
    return torch.where(_is_constant(x, left_out) | _is_constant(y, left_out), torch.nan, correlation)


def _is_constant(
    values: Float[Tensor, "perturbation gene"], left_out: Bool[Tensor, "perturbation gene"]
) -> Bool[Tensor, "perturbation"]:
    highest, lowest = values.masked_fill(left_out, -torch.inf).amax(1), values.masked_fill(left_out, torch.inf).amin(1)
    return highest - lowest <= TINY_SHIFT


def pearson_over_top_genes(
    predicted: Float[Tensor, "perturbation gene"],
    observed: Float[Tensor, "perturbation gene"],
    ranking: Int[Tensor, "perturbation gene"],
    n_top: int,
) -> Float[Tensor, "perturbation"]:
    """Pearson correlation of predicted and observed mean shifts over each perturbation's first `n_top` ranked genes."""
    top = ranking[:, :n_top]
    return pearson(predicted.gather(1, top), observed.gather(1, top))


def pearson_split(
    predicted: Float[Tensor, "perturbation gene"],
    observed: Float[Tensor, "perturbation gene"],
    control_noise: Float[Tensor, "replicate gene"],
) -> Float[Tensor, "perturbation"]:
    """Pearson correlation of shifts from two halves of the control cells, which share no noise.

    Shifts from the same control mean m share its noise, and correlate even where there is nothing to predict. Of halves
    with means A and B, `m = (A + B) / 2`, and `A - m = -(B - m)` varies by the variance of a cell over the number of
    all control cells: as much as the mean r of a bootstrap replicate does around m. So `A = r` and `B = 2m - r` vary as
    the halves of a random split do, and the correlation is averaged over replicates. NaN without replicates, and where
    the prediction does not vary: it would correlate with nothing but the noise that is taken off it.

    Args:
        predicted: Predicted shifts from m.
        observed: Observed ones.
        control_noise: `r - m`, a row per replicate.
    """
    constant = pearson(predicted, observed).isnan()
    splits = [pearson(predicted - noise, observed + noise) for noise in control_noise]
    if not splits:
        return torch.full_like(predicted[:, 0], torch.nan)
    return torch.stack(splits).mean(0).masked_fill(constant, torch.nan)


def discrimination(
    predicted: Float[Tensor, "perturbation gene"],
    observed: Float[Tensor, "candidate gene"],
    own: Int[Tensor, "perturbation"],
    targets: Bool[Tensor, "perturbation gene"],
) -> Float[Tensor, "perturbation"]:
    """Perturbation discrimination score, `1 - rank / N` (Wu et al. 2024, Virtual Cell Challenge 2025).

    The rank is the number of candidates whose observed shifts are nearer to the prediction, by L1 over genes, than the
    perturbation's own; ties count half. From 1/N to 1, and `0.5 + 1/(2N)` on average for a prediction that is the same
    for all. NaN for a single candidate: there is nothing to tell it from.

    Args:
        predicted: Predicted shifts.
        observed: Observed shifts of the N candidates.
        own: Which of them each perturbation is.
        targets: Genes of each perturbation that do not count.
    """
    n_candidates = len(observed)
    scores = torch.full_like(predicted[:, 0], torch.nan)
    if n_candidates == 1:
        return scores
    for row, shift in enumerate(predicted):
        distance = (observed - shift).abs_().masked_fill_(targets[row], 0).sum(1)
        itself = distance[own[row]]
        rank = (distance < itself).sum() + ((distance == itself).sum() - 1) / 2
        scores[row] = torch.where(itself.isnan(), torch.nan, 1 - rank / n_candidates)
    return scores
