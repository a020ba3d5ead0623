"""The training loop: a generator that yields once per epoch, for a scheduler, a test or a notebook to consume."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from histpert.checkpoints import Checkpoint
from histpert.output_layer import OutputLayer
from histpert.settings import ModelSettings

__all__ = ["batch_orders", "train"]


def train(
    network: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    embeddings: Float[Tensor, "perturbation feature"],
    settings: ModelSettings,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Float[Tensor, ""]]:
    """Train with AdamW on shuffled batches of perturbations (section 4.1).

    Everything stays on its device: the order of the batches is drawn on the CPU, the same for every device, and sent
    over once. An epoch's dropout depends on seed and epoch only, whatever else draws random numbers in between.

    Args:
        network: Maps a batch of embeddings to the prediction that `loss_of` takes.
        loss_of: Mean loss of a prediction, given the numbers of the batch's perturbations.
        embeddings: Training perturbations.
        settings: Epochs, batch size, learning rate, weight decay and seed.
        checkpoint: Of this training: it goes on from there, to the same numbers as if it had never stopped.

    Yields:
        The mean loss over perturbations in each epoch, on the device: reading its value waits for the device.
    """
    device = embeddings.device
    outputs = [layer for layer in network.modules() if isinstance(layer, OutputLayer) and layer.begin(settings)]
    updated = {layer.weight for layer in outputs}
    optimizer = torch.optim.AdamW(
        [parameter for parameter in network.parameters() if parameter not in updated],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    orders = batch_orders(len(embeddings), settings).to(device)
    first = _restore(checkpoint, network, optimizer)
    for epoch, order in enumerate(orders[first:], start=first):
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch)).generate_state(1)[0]))
            loss = _train_epoch(network, loss_of, embeddings, order.split(settings.batch_size), optimizer)
        if checkpoint is not None and epoch + 1 < settings.epochs:
            done = epoch + 1
            checkpoint.keep(
                lambda done=done: {"epochs": done, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
            )
        yield loss
    for layer in outputs:
        layer.end()


def _restore(checkpoint: Checkpoint | None, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put weights and moments as they were; returns how many epochs are done."""
    state = None if checkpoint is None else checkpoint.load()
    if state is None:
        return 0
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["epochs"]


def _train_epoch(
    network: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    embeddings: Tensor,
    batches: tuple[Tensor, ...],
    optimizer: torch.optim.Optimizer,
) -> Float[Tensor, ""]:
    network.train()
    total = torch.zeros((), device=embeddings.device)
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(embeddings[batch]), batch)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(batch)
    return total / len(embeddings)


def batch_orders(n_training: int, settings: ModelSettings) -> Int[Tensor, "epoch perturbation"]:
    """A permutation of the training perturbations for each epoch."""
    random = np.random.default_rng(settings.seed)
    orders = np.tile(np.arange(n_training), (settings.epochs, 1))
    return torch.from_numpy(random.permuted(orders, axis=1))
