"""Which genes of a signature a step takes, and which responses it masks: drawn per signature, not per batch.

Random numbers are a hash of seed, epoch, purpose, signature and gene. A signature is masked alike in whatever batch, on
whatever worker and device it is, so that several workers together do what one does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from histpert.perturbert.settings import N_BINS
from histpert.perturbert.tokens import ABSENT, MASK

__all__ = ["Batch", "drawn_genes", "masked_batch", "uniform"]

_WHICH, _HOW, _BIN = 1, 2, 3
"""Purposes."""
MASKED_AS_MASK, MASKED_AS_RANDOM = 0.8, 0.1
"""Of the masked responses; the rest stays as it is (PerturBERT's paper, Table 5)."""


class Batch(NamedTuple):
    """What a step sees of some signatures, and what it is to find out."""

    genes: Int[Tensor, "signature token"]
    responses: Int[Tensor, "signature token"]
    """With masks and random bins in the place of some; of an absent gene, any."""
    present: Bool[Tensor, "signature token"]
    cell_lines: Int[Tensor, "signature"]
    true: Int[Tensor, "signature token"]
    is_masked: Bool[Tensor, "signature token"]
    """Where the loss is taken."""


def _signed(value: int) -> int:
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


_GOLDEN, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mixed(bits: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014), in the 64 bits of signed integers."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        bits = (bits ^ _shifted(bits, shift)) * factor
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Int[Tensor, "*any"], by: int) -> Int[Tensor, "*any"]:
    return (bits >> by) & ((1 << (64 - by)) - 1)


def uniform(
    signatures: Int[Tensor, "signature 1"], genes: Int[Tensor, "#signature gene"], key: tuple[int, int, int]
) -> Float[Tensor, "signature gene"]:
    """Numbers from 0 up to 1 for each signature and gene, of 24 bits.

    Args:
        signatures: Numbers of the signatures.
        genes: Numbers of the genes.
        key: Seed, epoch and purpose.
    """
    start = 0
    for part in key:  # on the host, as one number
        start = int(_mixed(torch.tensor(_signed((start ^ part) * 0x9E3779B97F4A7C15 + part))).item())
    bits = _mixed(_mixed(signatures * _GOLDEN + start) + genes * _GOLDEN)
    return _shifted(bits, 40).float() / 2**24


def drawn_genes(
    responses: UInt8[Tensor, "signature gene"],
    signatures: Int[Tensor, "signature"],
    n_genes: int,
    key: tuple[int, int],
) -> Int[Tensor, "signature token"]:
    """Genes of each signature that a step takes: all, or as many, drawn of those that are present.

    Args:
        responses: `ABSENT` where a gene is.
        signatures: Their numbers.
        n_genes: 0 for all.
        key: Seed and epoch.
    """
    n_all = responses.shape[1]
    every = torch.arange(n_all, device=responses.device).expand(len(responses), -1)
    if not 0 < n_genes < n_all:
        return every
    order = uniform(signatures[:, None], every[:1], (*key, _WHICH))
    return order.masked_fill(responses == ABSENT, 2.0).topk(n_genes, largest=False, sorted=False).indices


def masked_batch(
    responses: UInt8[Tensor, "signature gene"],
    cell_lines: Int[Tensor, "signature"],
    signatures: Int[Tensor, "signature"],
    genes: Int[Tensor, "signature token"],
    masked: float,
    key: tuple[int, int],
) -> Batch:
    """Mask a share of the responses of some genes; the genes themselves stay visible.

    Args:
        responses: Of all genes.
        cell_lines: Of the signatures.
        signatures: Their numbers.
        genes: Those to take, of each.
        masked: Share of the genes that are present.
        key: Seed and epoch.
    """
    true = responses.gather(1, genes).long()
    present = true != ABSENT
    true = true.masked_fill(~present, 0)
    number = signatures[:, None]
    draw = uniform(number, genes, (*key, _HOW))
    is_masked = present & (draw < masked)
    # Given that it is masked, what was drawn is spread evenly from 0 to `masked`.
    replaced = torch.where(draw < masked * MASKED_AS_MASK, MASK, true)
    is_random = (draw >= masked * MASKED_AS_MASK) & (draw < masked * (MASKED_AS_MASK + MASKED_AS_RANDOM))
    drawn_bin = (uniform(number, genes, (*key, _BIN)) * N_BINS).long()
    seen = torch.where(is_masked, torch.where(is_random, drawn_bin, replaced), true)
    return Batch(genes, seen, present, cell_lines, true, is_masked)
