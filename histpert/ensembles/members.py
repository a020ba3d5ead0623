"""Training the members of an ensemble, each once, on as many cores as there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from joblib import Parallel, delayed
from safetensors.torch import save_file

from histpert.checkpoints import Checkpoint
from histpert.errors import InputError
from histpert.histograms import HistogramStore
from histpert.memory import available_bytes
from histpert.models.mlp_hist import MLPHist
from histpert.results import written_atomically
from histpert.settings import ModelSettings
from histpert.study_defaults import SUBJECT
from histpert.targets import training_targets
from histpert.threads import Progress, n_cores
from histpert.trial_memory import TrialShape, tensor_bytes

__all__ = ["Member", "train_members"]

PROCESS_BYTES = 400 << 20
"""Of a process that has loaded torch, beside the tensors of a training; 330 MiB were seen."""

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Member:
    """A network to train.

    Attributes:
        path: The file that its weights are kept in.
        training: Numbers of the perturbations that it is trained on.
        settings: Of its network and training; the seed is its own.
    """

    path: Path
    training: Int[np.ndarray, "training"]
    settings: ModelSettings


def train_members(
    members: Sequence[Member],
    store: Path,
    vectors: Float[np.ndarray, "perturbation feature"],
    n_bins: int,
    device: torch.device,
    progress: Progress,
) -> None:
    """Train what has no file yet; a training that was stopped goes on from its last checkpoint.

    On a CPU members are trained side by side, one thread each, in processes of their own; on a GPU one after the other.

    Raises:
        InputError: A training did not converge, or a file cannot be written.
    """
    missing = [member for member in members if not member.path.exists()]
    done = len(members) - len(missing)
    progress("members", done, len(members))
    n_workers = 1 if device.type == "cuda" else _n_workers(members[0], store, vectors, n_bins)
    work = (delayed(_train)(member, store, vectors, n_bins, device) for member in missing)
    for problem in Parallel(n_jobs=min(n_workers, len(missing)) or 1, return_as="generator_unordered")(work):
        if problem:
            raise InputError(problem)
        done += 1
        progress("members", done, len(members))


def _n_workers(member: Member, store: Path, vectors: np.ndarray, n_bins: int) -> int:
    """As many as there are cores, and room in memory for; counts are mapped, once for all."""
    n_genes = len(HistogramStore(store).genes)
    n_perturbations, n_features = vectors.shape
    n_training = len(member.training)
    shape = TrialShape(n_bins, n_genes, n_perturbations, n_features, n_training, 0, count_bytes=0, n_cells=0)
    n_bytes = PROCESS_BYTES + tensor_bytes(SUBJECT, member.settings, shape)
    return max(1, min(n_cores(), available_bytes() // n_bytes))


def _train(member: Member, store: Path, vectors: np.ndarray, n_bins: int, device: torch.device) -> str | None:
    """Train a member and keep its weights; what the user can do something about is returned, to be said in one line."""
    n_threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        return _trained(member, store, vectors, n_bins, device)
    finally:
        torch.set_num_threads(n_threads)


def _trained(member: Member, store: Path, vectors: np.ndarray, n_bins: int, device: torch.device) -> str | None:
    opened = HistogramStore(store)
    counts = replace(opened.fold(0, n_bins), training=member.training)
    training = training_targets(counts, opened.moments, np.asarray(vectors), device)
    checkpoint = Checkpoint(member.path.with_suffix(".pt"), CHECKPOINT_SECONDS)
    model = MLPHist(member.settings)
    loss = next((last.item() for last in deque(model.fit(training, checkpoint), maxlen=1)), 0.0)
    if not isfinite(loss):
        return f"the training loss ended at {loss}: lower --learning-rate"
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    try:
        with written_atomically(member.path) as beside:
            save_file(weights, beside)
    except OSError as error:
        return f"{member.path} cannot be written ({error.strerror}): make room and run the same command again"
    checkpoint.remove()
    return None
