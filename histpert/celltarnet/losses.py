"""What CellTARNet is trained on: likelihoods of cells, and a contrast between their latents (paper 3.1.1, 3.1.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from histpert.celltarnet.flow import CellFlow
from histpert.celltarnet.settings import FlowSettings

__all__ = ["CellBatch", "contrastive_loss", "info_nce", "training_loss"]

LATENT_WIDTH = 64
"""Of the projection that latents are compared in."""

DENOISED = 0.125
"""Share of a step's control cells whose likelihood is taken: one of a small weight needs no more."""

MOST_NEGATIVES = 2
"""Of each of the two kinds, for an anchor."""


class CellBatch(NamedTuple):
    """Cells of a step, on the scale of the flow: those of a perturbation follow each other, as many of each."""

    perturbed: Float[Tensor, "cell gene"]
    control: Float[Tensor, "cell gene"]
    """A control cell for each."""
    perturbation: Float[Tensor, "cell feature"]
    per_perturbation: int


def projection(n_genes: int) -> nn.Sequential:
    """The head that maps latents to where they are compared."""
    return nn.Sequential(nn.Linear(n_genes, 2 * LATENT_WIDTH), nn.GELU(), nn.Linear(2 * LATENT_WIDTH, LATENT_WIDTH))


def training_loss(
    flow: CellFlow, project: nn.Module, batch: CellBatch, noise: Float[Tensor, "cell gene"], settings: FlowSettings
) -> Float[Tensor, ""]:
    """`NLL(post | pre + noise, c) + denoise_weight * NLL(pre | pre + noise, 0) + contrast_weight * InfoNCE`.

    Likelihoods are per gene, so that weights mean the same for any number of genes. That of control is of a share of
    the step's control cells.

    Args:
        flow: The model.
        project: Head of the contrast.
        batch: Cells.
        noise: Standard normal.
        settings: Weights and temperature.
    """
    noisy = batch.control + settings.noise * noise
    n_genes = noise.shape[1]
    context = flow.encoder(noisy, batch.perturbation)
    loss = -flow.log_density(batch.perturbed, context).mean() / n_genes
    if settings.denoise_weight:
        some = slice(max(1, round(DENOISED * len(noise))))
        without = flow.encoder(noisy[some], torch.zeros_like(batch.perturbation[some]))
        loss = loss - settings.denoise_weight * flow.log_density(batch.control[some], without).mean() / n_genes
    n_anchors = min(settings.contrast_cells, len(noise) // batch.per_perturbation)
    if settings.contrast_weight and n_anchors > 1:
        loss = loss + settings.contrast_weight * contrastive_loss(flow, project, batch, context, n_anchors, settings)
    return loss


def contrastive_loss(
    flow: CellFlow,
    project: nn.Module,
    batch: CellBatch,
    context: Float[Tensor, "cell token width"],
    n_anchors: int,
    settings: FlowSettings,
) -> Float[Tensor, ""]:
    """InfoNCE of the first cells of some perturbations, the anchors.

    The positive is another cell of the perturbation in the anchor's context; negatives are the anchor's cell in
    contexts of other perturbations, and cells of other perturbations in the anchor's context.
    """
    anchors = torch.arange(n_anchors, device=context.device) * batch.per_perturbation
    others = [anchors.roll(-shift) for shift in range(1, 1 + min(MOST_NEGATIVES, n_anchors - 1))]
    cells = [anchors, anchors + 1, *(anchors for _ in others), *others]
    contexts = [anchors, anchors, *others, *(anchors for _ in others)]
    latent, _ = flow(batch.perturbed[torch.cat(cells)], context[torch.cat(contexts)])
    anchor, positive, *negatives = project(latent).split(n_anchors)
    return info_nce(anchor, positive, torch.stack(negatives, dim=1), settings.temperature)


def info_nce(
    anchor: Float[Tensor, "anchor latent"],
    positive: Float[Tensor, "anchor latent"],
    negatives: Float[Tensor, "anchor negative latent"],
    temperature: float,
) -> Float[Tensor, ""]:
    """`-log(exp(s(e, e+) / t) / (exp(s(e, e+) / t) + sum over negatives of exp(s(e, e-) / t)))`, s the cosine."""
    others = torch.cat([positive[:, None], negatives], dim=1)
    similarity = nn.functional.cosine_similarity(anchor[:, None], others, dim=-1) / temperature
    return nn.functional.cross_entropy(similarity, torch.zeros_like(similarity[:, 0], dtype=torch.long))
