"""Settings of CellTARNet. The paper gives none of them: what stands here was measured on simulated screens."""

from __future__ import annotations

from dataclasses import dataclass

from histpert.errors import InputError

__all__ = ["FlowSettings"]


@dataclass(frozen=True)
class FlowSettings:
    """Network, losses and attention prior.

    Raises:
        InputError: A value out of range.
    """

    members: int = 2
    """Networks, each from weights of its own; cells are drawn of all alike. Not in the paper."""
    width: int = 32
    """Of all tokens; the heads share it."""
    heads: int = 2
    context_layers: int = 1
    """Layers of the encoder of control cell and perturbation."""
    blocks: int = 3
    """Blocks of the flow, each in the reverse order of the one before."""
    layers: int = 1
    """Layers of a block."""
    expansion: int = 2
    """Width of the layers between, in widths of tokens."""
    cells_per_perturbation: int = 4
    """Cells of each perturbation of a step."""
    noise: float = 0.5
    """Deviation of the noise on control cells in training, in deviations of the gene; 0 for none."""
    noise_in_sampling: bool = False
    """Put the same noise on the control cells that are sampled from."""
    denoise_weight: float = 0.1
    """Of the likelihood of control cells given themselves with noise; 0 leaves it out."""
    contrast_weight: float = 0.01
    """Of the contrastive loss; 0 leaves it out."""
    temperature: float = 0.2
    """Of the contrastive loss."""
    contrast_cells: int = 2
    """Cells of a step that are anchors."""
    sparse_k: int = 10
    """Genes that a gene attends to for their correlation with it; 0 for none."""
    low_rank_k: int = 10
    """Genes that it attends to for the low-rank part of the correlations; 0 for none. With neither it attends to all
    genes."""
    rank: int = 5
    """Of that part."""
    samples: int = 1_000
    """Cells that are drawn of a perturbation to predict it, in twos of a noise and its negative."""

    def __post_init__(self):
        counts = ("width", "heads", "context_layers", "blocks", "layers", "expansion", "cells_per_perturbation")
        for name in (*counts, "members", "contrast_cells", "rank", "samples"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 1 or more")
        for name in ("noise", "denoise_weight", "contrast_weight", "sparse_k", "low_rank_k"):
            if not getattr(self, name) >= 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 0 or more")
        if not self.temperature > 0:
            raise InputError(f"--temperature {self.temperature}: must be above 0")
        if self.width % self.heads:
            raise InputError(f"--width {self.width}: must be a multiple of --heads {self.heads}")
        if self.contrast_weight and self.cells_per_perturbation < 2:
            raise InputError("--contrast-weight needs --cells-per-perturbation 2 or more: a positive is another cell")
