"""Settings of PerturBERT: its shape, its training, and presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from histpert.errors import InputError

__all__ = ["N_BINS", "PRESETS", "BertSettings", "Preset", "Split"]

N_BINS = 17
"""Bins of a response: 8 down, unchanged, 8 up."""

Split = Literal["row", "perturbation", "cell_line"]


@dataclass(frozen=True)
class BertSettings:
    """Shape and training of the published model (PerturBERT's paper, Tables 4 to 7).

    Raises:
        InputError: A value out of range.
    """

    width: int = 768
    """Of all embeddings and hidden states."""
    layers: int = 8
    heads: int = 12
    feed_forward: int = 3072
    """Width of the layer between, of each encoder layer."""
    dropout: float = 0.1
    """Of hidden states and of attention."""
    masked: float = 0.4
    """Share of a signature's genes whose response is masked."""
    genes_per_signature: int = 0
    """Genes of a signature that a step takes, drawn anew each time; 0 for all. Signatures are sets: fewer genes cost
    less, attention by their square. Not in the paper."""
    unchanged: float = 1.0
    """Responses up to this many standard errors are the bin `unchanged`; the others' edges are quantiles."""
    learning_rate: float = 5e-5
    weight_decay: float = 0.05
    warm_up_steps: int = 200
    """Steps in which the learning rate rises; then it falls as a cosine."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    epochs: int = 80
    batch_size: int = 1600
    """Signatures per step, over all workers."""
    split: Split = "row"
    """What validation and test hold out: signatures, all signatures of a perturbation, or of a cell line."""
    held_out: float = 0.085
    """Share that is held out for validation, and again for test."""
    seed: Annotated[int, tyro.conf.Suppress] = 0  # that of the study

    def __post_init__(self):
        for name in ("width", "layers", "heads", "feed_forward", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 1 or more")
        for name in ("epochs", "warm_up_steps", "genes_per_signature", "unchanged", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be 0 or more")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout {self.dropout}: must be 0 or more, and below 1")
        if not 0 < self.masked < 1:
            raise InputError(f"--masked {self.masked}: must lie between 0 and 1")
        if not 0 < self.held_out < 0.5:
            raise InputError(f"--held-out {self.held_out}: must lie between 0 and 0.5")
        if self.width % self.heads:
            raise InputError(f"--width {self.width}: must be a multiple of --heads {self.heads}")
        if self.split not in get_args(Split):
            raise InputError(f"--split {self.split}: give one of {', '.join(get_args(Split))}")


Preset = Literal["small", "published"]

PRESETS: Mapping[Preset, BertSettings] = {
    "small": BertSettings(
        width=96,
        layers=2,
        heads=4,
        feed_forward=192,
        genes_per_signature=128,
        learning_rate=2e-3,
        warm_up_steps=100,
        epochs=40,
        batch_size=32,
    ),
    "published": BertSettings(),
}
"""`small` trains on some thousand signatures in minutes, on two cores."""
