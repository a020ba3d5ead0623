"""The training loop: a generator that yields once per epoch, for a scheduler, a test or a notebook to consume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from math import cos, pi

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from histpert.checkpoints import Checkpoint
from histpert.memory import keep_freed_memory
from histpert.output_layer import OutputLayer
from histpert.settings import ModelSettings

__all__ = ["Replayed", "Steps", "batch_orders", "rate_at", "recorded", "train"]

RISING = 0.05
"""Share of the epochs in which a learning rate that is decayed rises."""

WARM_UP = 3
"""Steps of a size before one is recorded, as torch asks for."""


def train(
    network: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    embeddings: Float[Tensor, "perturbation feature"],
    settings: ModelSettings,
    checkpoint: Checkpoint | None = None,
    *,
    is_static: bool = True,
    after_epoch: Callable[[], object] = lambda: None,
    is_decayed: bool = False,
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
        is_static: Whether `loss_of` does the same to every batch of a size: a GPU then records a step and replays it,
            since a small network's step takes the time of starting its some hundred kernels one by one.
        after_epoch: Called before an epoch's state is kept, which has what this leaves in the network's buffers.
        is_decayed: Whether the learning rate rises over the first epochs, and falls as a cosine to 0 at the end.

    Yields:
        The mean loss over perturbations in each epoch, on the device: reading its value waits for the device.
    """
    device = embeddings.device
    if device.type == "cpu":
        keep_freed_memory()
    outputs = [layer for layer in network.modules() if isinstance(layer, OutputLayer) and layer.begin(settings)]
    updated = {layer.weight for layer in outputs}
    optimizer = torch.optim.AdamW(
        [parameter for parameter in network.parameters() if parameter not in updated],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
        capturable=device.type == "cuda",
    )
    steps = Steps(network, loss_of, embeddings, optimizer)
    take_step = Replayed(steps, recorded) if device.type == "cuda" and is_static else steps
    orders = batch_orders(len(embeddings), settings).to(device)
    first = _restore(checkpoint, network, optimizer)
    for epoch, order in enumerate(orders[first:], start=first):
        if is_decayed:
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate_at(epoch, settings.epochs)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch)).generate_state(1)[0]))
            network.train()
            steps.total.zero_()
            for batch in order.split(settings.batch_size):
                take_step(batch)
            loss = steps.total / len(embeddings)
        after_epoch()
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


class Steps:
    """Steps of a training, one after the other.

    Attributes:
        total: Loss of each step times its perturbations, added up on the device.
    """

    def __init__(
        self,
        network: nn.Module,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        embeddings: Tensor,
        optimizer: torch.optim.Optimizer,
    ):
        self._network, self._loss_of, self._embeddings, self._optimizer = network, loss_of, embeddings, optimizer
        self.total = torch.zeros((), device=embeddings.device)

    def __call__(self, batch: Int[Tensor, "batch"]) -> None:
        """Forward, backward, update."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss_of(self._network(self._embeddings[batch]), batch)
        loss.backward()
        self._optimizer.step()
        self.total += loss.detach() * len(batch)


class Replayed:
    """Steps that are recorded once for each size of a batch and replayed from then on.

    Args:
        step: Takes a step.
        record: Of a first step that works on a given tensor makes what takes such a step again, on what is in that
            tensor then. Recording takes no step.
    """

    def __init__(self, step: Callable[[Tensor], None], record: Callable[[Callable[[], None]], Callable[[], None]]):
        self._step, self._record = step, record
        self._n_taken: Counter[int] = Counter()
        self._recorded: dict[int, tuple[Tensor, Callable[[], None]]] = {}

    def __call__(self, batch: Int[Tensor, "batch"]) -> None:
        """Take a step: the first few of a size as they are, since libraries set themselves up in them."""
        size = len(batch)
        if size not in self._recorded:
            self._n_taken[size] += 1
            if self._n_taken[size] <= WARM_UP:
                self._step(batch)
                return
            given = batch.clone()
            self._recorded[size] = given, self._record(partial(self._step, given))
        given, replay = self._recorded[size]
        given.copy_(batch)
        replay()


def recorded(step: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of a step; dropout in it goes on drawing from torch's generator as seeded when it is replayed."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def rate_at(epoch: int, n_epochs: int) -> float:
    """Share of the learning rate in an epoch: from nothing up in the first ones, then down half a cosine."""
    rising = max(1, round(RISING * n_epochs))
    if epoch < rising:
        return (epoch + 1) / rising
    return (1 + cos(pi * (epoch - rising) / (n_epochs - rising))) / 2


def batch_orders(n_training: int, settings: ModelSettings) -> Int[Tensor, "epoch perturbation"]:
    """A permutation of the training perturbations for each epoch."""
    random = np.random.default_rng(settings.seed)
    orders = np.tile(np.arange(n_training), (settings.epochs, 1))
    return torch.from_numpy(random.permuted(orders, axis=1))
