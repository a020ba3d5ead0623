"""A process that tries trials for a few steps, as a worker of a study would run them, and says how long they took.

As many run beside each other as a study runs trials, so that they get in each other's way as trials do.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from histpert.doctor.extrapolation import TrialCost
from histpert.doctor.timing import scored, steps_of, timed, whole_of
from histpert.histograms import FoldCounts, HistogramStore
from histpert.metrics import HeldOut
from histpert.metrics.held_out import SCORED_AT_ONCE
from histpert.metrics.reliability import reliability
from histpert.models import METHODS, OF_COMBINATIONS, TrainingSet
from histpert.moments import Moments
from histpert.predictions import Prediction, predicted_histograms
from histpert.settings import ModelSettings
from histpert.study_defaults import CEILING, N_REPLICATES, OBSERVED
from histpert.targets import held_out_targets, replicate_differences, resampled_targets, training_targets

__all__ = ["BOTH", "STEPPED", "Bench", "Request", "Task", "main"]

WHOLE_CELLS = "CellTARNet"
"""The method that draws cells: of one perturbation alone, as it takes long."""

STEPPED = ("MLP+Hist", "MLP+Mean", "TG", "ZITG", "MLP+Hist copula", WHOLE_CELLS)
"""Methods that are trained in steps, of which a few are timed; others are run whole."""

BOTH = {"GP+MLP+Hist": ("GP+Hist", "MLP+Hist")}
"""Methods that run two others, which are timed alone."""


class Task(NamedTuple):
    """A method to time."""

    name: str
    """By which its cost is known."""
    method: str
    n_bins: int
    settings: ModelSettings
    on_genes: bool = False
    """Whether it is told which genes are perturbed in the place of embeddings."""


@dataclass(frozen=True)
class Request:
    """What a process is asked to do.

    Attributes:
        store: Folder of the store.
        vectors: Embeddings of its perturbations.
        perturbed: Which genes are perturbed, for methods that are told nothing else.
        tasks: What to time, in this order.
        n_training: Perturbations that a trial of the study trains on, where the store has some of them only.
        n_replicates: Bootstrap replicates that the store has.
        with_cells: Whether predictions are compared with the cells one by one.
        on_gpu: Whether to train on the GPU.
    """

    store: Path
    vectors: Float[np.ndarray, "perturbation feature"]
    perturbed: Float[np.ndarray, "perturbation gene"]
    tasks: tuple[Task, ...]
    n_training: int
    n_replicates: int
    with_cells: bool
    on_gpu: bool


def main() -> int:
    """Read a request from the standard input, and print a line of JSON per task: its cost, and when it was tried."""
    request: Request = pickle.load(sys.stdin.buffer)  # of the process that started this one
    torch.set_num_threads(1)
    print(json.dumps({"ready": time.time()}), flush=True)
    bench = Bench(request)
    for task in request.tasks:
        begun = time.time()
        cost = bench.cost(task)
        line = {"task": task.name, "n_bins": task.n_bins, "begun": begun, "ended": time.time(), **cost._asdict()}
        print(json.dumps(line), flush=True)
    return 0


class Bench:
    """Fold 0 of a store, and methods that are timed on it."""

    def __init__(self, request: Request):
        self._request = request
        self._store = HistogramStore(request.store)
        self._device = torch.device("cuda" if request.on_gpu else "cpu")
        self._costs: dict[tuple[str, int], TrialCost] = {}

    def cost(self, task: Task) -> TrialCost:
        """What a trial on this fold takes."""
        if task.method in BOTH:
            parts = [self._costs[part, task.n_bins] for part in BOTH[task.method]]
            return TrialCost(*map(sum, zip(*parts, strict=True)))
        counts = self._store.fold(0, task.n_bins)
        vectors = self._request.perturbed if task.on_genes else self._request.vectors
        made = partial(training_targets, counts, self._store.moments, vectors, self._device)
        timed(lambda: (made(), self._held_out(counts)))  # files are opened, and kernels loaded
        take, training = timed(made)
        look, held_out = timed(partial(self._held_out, counts))
        if task.method == CEILING:
            found = self._of_ceiling(counts, held_out)
        elif task.method == OBSERVED:
            found = TrialCost(0.0, 0.0, scored(partial(_observed, training), held_out))
        else:
            found = self._of_method(task, training, held_out, vectors[counts.held_out])
        self._costs[task.name, task.n_bins] = found
        return found._replace(setup=found.setup + take, score=found.score + look + self._rows(counts))

    def _held_out(self, counts: FoldCounts) -> HeldOut:
        with_what = self._request.n_replicates, self._request.with_cells
        return held_out_targets(self._store, counts, self._device, *with_what)

    def _of_method(self, task: Task, training: TrainingSet, held_out: HeldOut, vectors: np.ndarray) -> TrialCost:
        make = {**METHODS, **OF_COMBINATIONS}[task.method]
        settings = replace(task.settings, hidden=task.settings.hidden_sizes(self._request.n_training))
        embeddings = torch.from_numpy(vectors).to(self._device)
        if task.method in STEPPED:
            model, setup, epoch = steps_of(
                lambda n_epochs: make(replace(settings, epochs=n_epochs)), training, settings.batch_size
            )
            if task.method == WHOLE_CELLS:  # which looks at all cells that it is trained on first
                setup *= self._request.n_training / min(settings.batch_size, len(training.embeddings))
        else:
            model, setup = whole_of(lambda: make(settings), training, self._request.n_training)
            epoch = 0.0
        n_scored = 1 if task.method == WHOLE_CELLS else SCORED_AT_ONCE
        return TrialCost(setup, epoch, scored(lambda batch: model.predict(embeddings[batch.rows]), held_out, n_scored))

    def _of_ceiling(self, counts: FoldCounts, held_out: HeldOut) -> TrialCost:
        seconds, resampled = timed(lambda: resampled_targets(self._store, counts, self._device, N_REPLICATES, 0, 0))

        def predict(batch: HeldOut) -> Prediction:
            moments = Moments(*(values[batch.rows] for values in held_out.moments))
            return Prediction(moments, batch.control_mean, held_out.cells.masses(batch.rows))

        return TrialCost(0.0, 0.0, N_REPLICATES * (seconds + scored(predict, resampled)))

    def _rows(self, counts: FoldCounts) -> float:
        """Seconds of the reliabilities that stand in the rows of results, where there are replicates."""
        if not self._request.n_replicates:
            return 0.0

        def work() -> None:
            group = int(counts.held_out[0]) + 1
            for pair in zip(*replicate_differences(self._store, group, self._request.n_replicates), strict=True):
                reliability(*pair).item()

        work()
        return timed(work)[0] * len(counts.held_out)


def _observed(training: TrainingSet, batch: HeldOut) -> Prediction:
    return predicted_histograms(batch.masses, training.control, training.lower, training.width)


if __name__ == "__main__":
    sys.exit(main())
