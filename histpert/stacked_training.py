"""Networks of one shape, trained as one: a product of each layer for all of them, where one alone leaves a GPU idle."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from histpert.settings import ModelSettings
from histpert.training import batch_orders

__all__ = ["StackedBatch", "n_steps", "train_stacked"]


@dataclass(frozen=True)
class StackedBatch:
    """Perturbations of a step, of each network's own training set.

    Attributes:
        numbers: Of the perturbations, 0 where a network has fewer than others.
        is_there: Where a network has a perturbation.
    """

    numbers: Int[Tensor, "network row"]
    is_there: Bool[Tensor, "network row"]

    def mean(self, values: Float[Tensor, "network row"]) -> Float[Tensor, "network"]:
        """Over each network's perturbations."""
        return (values * self.is_there).sum(1) / self.is_there.sum(1)


def n_steps(n_training: int, settings: ModelSettings) -> int:
    """Steps of an epoch; networks that are trained as one have the same."""
    return -(-n_training // settings.batch_size)


def train_stacked(
    networks: Sequence[nn.Module],
    loss_of: Callable[[Tensor, StackedBatch], Tensor],
    embeddings: Sequence[Float[Tensor, "_ feature"]],
    settings: ModelSettings,
) -> Iterator[Float[Tensor, "network"]]:
    """Train each as `histpert.training.train` trains it alone, to rounding.

    Orders of batches, dropout and the optimizer's steps are those of a training alone. They share a seed, and so each
    step's dropout.

    Args:
        networks: Of one shape, on one device; they have their weights at the end.
        loss_of: Mean losses of the predictions, network by network, of a batch.
        embeddings: Training perturbations of each; as many that an epoch has the same number of steps.
        settings: Epochs, batch size, learning rate, weight decay and seed of all.

    Yields:
        The mean loss over perturbations in each epoch, for each network, on the device.
    """
    device = embeddings[0].device
    weights, buffers = stack_module_state(list(networks))  # pyright: ignore[reportArgumentType]
    shape = copy.deepcopy(networks[0]).to("meta").train()
    forward = vmap(lambda own, fixed, rows: functional_call(shape, (own, fixed), (rows,)), randomness="same")
    optimizer = torch.optim.AdamW(
        list(weights.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    sizes = torch.tensor([len(rows) for rows in embeddings], device=device)
    longest = max(map(len, embeddings))
    inputs = torch.stack([nn.functional.pad(rows, (0, 0, 0, longest - len(rows))) for rows in embeddings])
    each = torch.arange(len(networks), device=device)[:, None]
    batches = _batches(sizes.tolist(), settings, device)
    for epoch, of_epoch in enumerate(batches):
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch)).generate_state(1)[0]))
            total = torch.zeros(len(networks), device=device, dtype=inputs.dtype)
            for batch in of_epoch:
                optimizer.zero_grad(set_to_none=True)
                losses = loss_of(forward(weights, buffers, inputs[each, batch.numbers]), batch)
                losses.sum().backward()
                optimizer.step()
                total += losses.detach() * batch.is_there.sum(1)
        yield total / sizes
    with torch.no_grad():
        for number, network in enumerate(networks):
            for name, weight in network.named_parameters():
                weight.copy_(weights[name][number])


def _batches(sizes: Sequence[int], settings: ModelSettings, device: torch.device) -> Iterator[Sequence[StackedBatch]]:
    """Those of each epoch."""
    orders = {size: batch_orders(size, settings) for size in set(sizes)}
    longest = max(sizes)
    for epoch in range(settings.epochs):
        rows = [nn.functional.pad(orders[size][epoch], (0, longest - size), value=-1) for size in sizes]
        numbers = torch.stack(rows).to(device)
        yield [StackedBatch(part.clamp_min(0), part >= 0) for part in numbers.split(settings.batch_size, dim=1)]
