"""Training PerturBERT: a generator that yields once per epoch, on one worker or on several together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from math import cos, pi
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from histpert.checkpoints import Checkpoint
from histpert.memory import keep_freed_memory
from histpert.perturbert.masking import Batch, drawn_genes, masked_batch
from histpert.perturbert.network import PerturBERT
from histpert.perturbert.settings import N_BINS, BertSettings
from histpert.perturbert.tokens import ABSENT, Tokens

__all__ = ["Epoch", "Score", "marginal_score", "masked_loss", "pretrain", "rate_at", "validation_score"]

_EVALUATED_AT_ONCE = 256
_VALIDATION_EPOCH = -1
"""Stands for the epoch where the masks of validation are drawn: they are the same each time."""


class Score(NamedTuple):
    """Of masked responses: mean cross-entropy in nats, and how many of the likeliest bins are right."""

    loss: float
    accuracy: float


class Epoch(NamedTuple):
    """What an epoch came to."""

    epoch: int
    training_loss: float
    validation: Score
    seconds: float


class _Data:
    """Tokens on a device."""

    def __init__(self, tokens: Tokens, device: torch.device):
        self.responses = torch.from_numpy(tokens.responses).to(device)
        self.cell_lines = torch.from_numpy(tokens.cell_lines).to(device)
        self.is_complete = not (tokens.responses == ABSENT).any()

    def batch(self, rows: Tensor, settings: BertSettings, epoch: int) -> Batch:
        """Some signatures as a step sees them."""
        responses, key = self.responses[rows], (settings.seed, epoch)
        genes = drawn_genes(responses, rows, settings.genes_per_signature, key)
        return masked_batch(responses, self.cell_lines[rows], rows, genes, settings.masked, key)


def pretrain(
    network: PerturBERT,
    training: Tokens,
    validation: Tokens,
    settings: BertSettings,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train with AdamW to find out masked responses (PerturBERT's paper, section 4 and Tables 5 to 7).

    The loss of a step is the mean cross-entropy over the masked responses of all workers' signatures. Where
    torch.distributed is set up, each of its workers calls this with the same arguments, takes its share of each
    batch, and gets the same records. On a GPU, in bfloat16 and compiled. Signatures that do not fill a batch are left
    for the next epoch's order.

    Args:
        network: On its device.
        training: Signatures to train on.
        validation: Signatures to score after each epoch, masked the same each time.
        settings: Of the training.
        checkpoint: Of this training: it goes on from there.

    Yields:
        Losses after each epoch, those from before the checkpoint first.

    Raises:
        FloatingPointError: The loss is no number any more.
    """
    device = network.head.weight.device
    rank, n_workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if device.type == "cpu":
        keep_freed_memory()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    history = _restore(checkpoint, network, optimizer)
    yield from history
    shared: nn.Module = DistributedDataParallel(network) if n_workers > 1 else network
    data, held_out = _Data(training, device), _Data(validation, device)
    run: Any = torch.compile(shared) if device.type == "cuda" else shared
    size = min(settings.batch_size, len(training)) // n_workers * n_workers
    n_steps = len(training) // size
    for epoch in range(len(history), settings.epochs):
        start = time.perf_counter()
        order = torch.from_numpy(np.random.default_rng([settings.seed, epoch]).permutation(len(training))).to(device)
        total, n_masked = torch.zeros((), device=device), torch.zeros((), device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch, rank)).generate_state(1)[0]))
            network.train()
            for step in range(n_steps):
                rate = rate_at(epoch * n_steps + step, settings.epochs * n_steps, settings.warm_up_steps)
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * rate
                rows = order[step * size : (step + 1) * size][rank::n_workers]
                batch = data.batch(rows, settings, epoch)
                n_here = _over_workers(batch.is_masked.sum().float())
                loss = masked_loss(_logits(run, batch, data.is_complete), batch) / n_here.clamp_min(1)
                optimizer.zero_grad(set_to_none=True)
                (loss * n_workers).backward()  # whose gradients are averaged over workers
                nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
                optimizer.step()
                total += loss.detach() * n_here
                n_masked += n_here
        training_loss = (_over_workers(total) / n_masked).item()
        if not np.isfinite(training_loss):
            raise FloatingPointError(f"the training loss ended at {training_loss}: lower --learning-rate")
        score = _score(network, held_out, settings, rank, n_workers)
        history.append(Epoch(epoch, training_loss, score, time.perf_counter() - start))
        if checkpoint is not None and rank == 0 and epoch + 1 < settings.epochs:
            checkpoint.keep(
                lambda: {
                    "history": [[one.epoch, one.training_loss, *one.validation, one.seconds] for one in history],
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                }
            )
        yield history[-1]


def _over_workers(value: Tensor) -> Tensor:
    """The sum over all workers."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def masked_loss(logits: Float[Tensor, "signature token bin"], batch: Batch) -> Float[Tensor, ""]:
    """Sum of the cross-entropies of masked responses, and of no others (PerturBERT's paper, section 4)."""
    each = nn.functional.cross_entropy(logits.flatten(0, 1), batch.true.flatten(), reduction="none")
    return (each * batch.is_masked.flatten()).sum()


def _logits(run: Any, batch: Batch, is_complete: bool) -> Float[Tensor, "signature token bin"]:
    device = batch.genes.device
    precision = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    with precision:
        return run(batch.genes, batch.responses, batch.cell_lines, None if is_complete else batch.present).float()


def rate_at(step: int, n_steps: int, warm_up: int) -> float:
    """Share of the learning rate: up in a line over the first steps, then down half a cosine to 0 at the end."""
    warm_up = min(warm_up, n_steps // 2)
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + cos(pi * (step - warm_up) / max(1, n_steps - warm_up))) / 2


def _restore(checkpoint: Checkpoint | None, network: nn.Module, optimizer: torch.optim.Optimizer) -> list[Epoch]:
    """Put weights and moments as they were; returns the epochs that are done."""
    state = None if checkpoint is None else checkpoint.load()
    if state is None:
        return []
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return [Epoch(epoch, loss, Score(*score), seconds) for epoch, loss, *score, seconds in state["history"]]


def validation_score(network: PerturBERT, tokens: Tokens, settings: BertSettings) -> Score:
    """Score these signatures, their masks drawn as those of validation are."""
    return _score(network, _Data(tokens, network.head.weight.device), settings, 0, 1)


@torch.no_grad()
def _score(network: PerturBERT, data: _Data, settings: BertSettings, rank: int, n_workers: int) -> Score:
    network.eval()
    sums = torch.zeros(3, device=data.responses.device)
    for rows in torch.arange(len(data.responses), device=data.responses.device)[rank::n_workers].split(
        _EVALUATED_AT_ONCE
    ):
        batch = data.batch(rows, settings, _VALIDATION_EPOCH)
        logits = _logits(network, batch, data.is_complete)[batch.is_masked]
        true = batch.true[batch.is_masked]
        loss = nn.functional.cross_entropy(logits, true, reduction="sum")
        sums += torch.stack([loss, (logits.argmax(-1) == true).sum(), torch.tensor(len(true), device=loss.device)])
    if n_workers > 1:
        sums = _over_workers(sums)
    return Score((sums[0] / sums[2]).item(), (sums[1] / sums[2]).item())


def marginal_score(training: Tokens, held_out: Tokens, settings: BertSettings) -> Score:
    """What one scores who knows how often each gene is in each bin, over the training signatures, and no more.

    Of the same masked responses as `validation_score`. Frequencies are of (count + 1/17) / (n + 1).
    """
    batch = _Data(held_out, torch.device("cpu")).batch(torch.arange(len(held_out)), settings, _VALIDATION_EPOCH)
    counts = np.stack([(training.responses == bin_).sum(axis=0) for bin_ in range(N_BINS)], axis=1)
    log = torch.from_numpy(np.log((counts + 1 / N_BINS) / (counts.sum(axis=1, keepdims=True) + 1)))
    logits, true = log[batch.genes[batch.is_masked]], batch.true[batch.is_masked]
    loss = nn.functional.cross_entropy(logits, true)
    return Score(loss.item(), (logits.argmax(-1) == true).float().mean().item())
