"""Timing a method on a few steps, or on few perturbations, so that it tells what all of them take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from histpert.doctor.extrapolation import grown
from histpert.metrics import HeldOut
from histpert.metrics.evaluation import evaluate
from histpert.metrics.held_out import SCORED_AT_ONCE
from histpert.models import TrainingSet
from histpert.moments import Moments
from histpert.predictions import Prediction

__all__ = ["scored", "steps_of", "timed", "whole_of"]

TIMED_SECONDS = 0.4
"""Steps of a method are timed for so long, and twice at least."""

EPOCHS = 1_000
"""More than are timed."""

MOST_STEPS = 4
"""Steps of an epoch that is timed, where an epoch has more."""

FIRST = 16
"""Training perturbations on which methods without steps are first run; then twice as many, while that is soon done."""

SOON_SECONDS = 1.0

REPEATS = 3
"""Times that scoring is timed."""


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of some work, and what comes of it."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def steps_of(make: Callable[[int], Any], training: TrainingSet, batch_size: int) -> tuple[Any, float, float]:
    """A model that was trained for an epoch of one step; seconds before the first epoch, and of a whole one."""
    n_training = len(training.embeddings)
    model = make(1)
    _run(model.fit(_first(training, batch_size)))  # kernels are compiled and memory is touched in it
    step, model = timed(lambda: _trained(make(1), _first(training, batch_size)))
    n = min(n_training, batch_size * min(MOST_STEPS, max(1, int(TIMED_SECONDS / 2 / step))))
    ends = [time.perf_counter()]
    for loss in make(EPOCHS).fit(_first(training, n)):
        loss.item()
        ends.append(time.perf_counter())
        if len(ends) > 3 and ends[-1] - ends[0] > TIMED_SECONDS:
            break
    each = np.diff(ends)
    epoch = float(np.median(each[1:]))
    return model, max(0.0, float(each[0]) - epoch), epoch * n_training / n


def whole_of(make: Callable[[], Any], training: TrainingSet, n_training: int) -> tuple[Any, float]:
    """A model that was fitted, and the seconds that it takes to be on all that a study trains it on."""
    sizes = _doubled(len(training.embeddings))
    found: list[tuple[int, float]] = []
    model: Any = None
    for n in sizes:
        seconds, model = timed(lambda n=n: _trained(make(), _first(training, n)))
        found.append((n, seconds))
        if len(found) > 1 and seconds > SOON_SECONDS:
            break
    if len(found) == 1 or found[-1][0] == n_training:
        return model, found[-1][1]
    return model, grown(n_training, *found[-2:])


def scored(predict: Callable[[HeldOut], Prediction], held_out: HeldOut, n_scored: int = SCORED_AT_ONCE) -> float:
    """Seconds to score all that the fold holds out, by some of it."""
    batch = next(held_out.batches())
    batch = batch if n_scored >= len(batch.rows) else _some(batch, n_scored)
    evaluate(predict(batch), batch)
    seconds = float(np.median([timed(lambda: evaluate(predict(batch), batch))[0] for _ in range(REPEATS)]))
    return seconds * len(held_out.rows) / len(batch.rows)


def _doubled(most: int) -> list[int]:
    """Numbers from `FIRST` on, each twice the one before; the last is `most`."""
    sizes = [min(FIRST, most)]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return sizes


def _some(batch: HeldOut, n: int) -> HeldOut:
    return replace(
        batch,
        rows=batch.rows[:n],
        n_cells=batch.n_cells[:n],
        moments=Moments(*(values[:n] for values in batch.moments)),
        ranking=batch.ranking[:n],
        significant=batch.significant[:n],
        targets=batch.targets[:n],
    )


def _first(training: TrainingSet, n: int) -> TrainingSet:
    """The first training perturbations alone; what is read for a perturbation is read as before."""
    if n >= len(training.embeddings):
        return training
    return replace(training, embeddings=training.embeddings[:n], n_cells=training.n_cells[:n])


def _trained(model: Any, training: TrainingSet) -> Any:
    _run(model.fit(training))
    return model


def _run(epochs: Any) -> None:
    for loss in epochs:
        loss.item()
