"""Jobs whose networks a GPU trains as one, since each alone would leave it idle. No Ray here.

A core of a CPU is never idle: 27 networks together took it half as long as one after the other at 20 genes x 10 bins,
as long at 50 x 15, and twice as long at 200 x 15, where arrays no longer fit its cache.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from histpert.histograms import HistogramStore
from histpert.models.mlp_hist import MLPHist, n_parameters
from histpert.targets import training_targets
from studies.ledger import Entry
from studies.packing import trial_bytes
from studies.plan import Job, Plan
from studies.trial import Fitted, entry_of, failure, fit_and_score, open_store, peak_memory_mb

__all__ = ["can_stack", "is_small", "run_stack", "stack_bytes"]

STACKED = "MLP+Hist"
"""The method whose networks can be trained as one."""

SMALL = 8 << 20
"""Weights of a network up to which a GPU takes longer to start a step than to do it: ten passes over 8 M weights are
0.1 ms at 4 TB/s, a hundred kernels started one by one 0.5 ms. Not measured here."""

STACK_ROOM = 1.5
"""Memory of jobs that are trained as one, to their forecasts alone: all three losses are worked out for all."""


def can_stack(plan: Plan, one: Job, other: Job) -> bool:
    """Whether the networks of two jobs can be trained as one."""
    if one.method != STACKED or other.method != STACKED or (one.n_bins, one.variant) != (other.n_bins, other.variant):
        return False
    folds = plan.data_of(one).folds
    keys = [MLPHist.stack_key(job.settings, int(np.sum(folds != job.fold))) for job in (one, other)]
    return keys[0] == keys[1]


def is_small(plan: Plan, job: Job, store: HistogramStore) -> bool:
    """Whether training a job's network with others saves time."""
    data = plan.data_of(job)
    hidden = job.settings.hidden_sizes(int(np.sum(data.folds != job.fold)))
    return n_parameters(data.vectors.shape[1], hidden, len(store.genes) * job.n_bins) <= SMALL


def stack_bytes(plan: Plan, jobs: Sequence[Job], store: HistogramStore) -> int:
    """What torch must be let allocate to train these jobs as one; of one job, to run it."""
    alone = sum(trial_bytes(plan, job, store) for job in jobs)
    return alone if len(jobs) == 1 else int(STACK_ROOM * alone)


def run_stack(plan: Plan, jobs: Sequence[Job], device: torch.device) -> Iterator[Entry]:
    """The same as `run_trial` of each of these jobs, whose networks are trained as one.

    Raises:
        OSError: Predictions cannot be written.
    """
    torch.set_num_threads(plan.n_threads)
    store = open_store(plan.data_of(jobs[0]).store)
    start = time.perf_counter()
    models = [MLPHist(job.settings) for job in jobs]
    try:
        with peak_memory_mb(device) as memory:
            counts = {job.fold: store.fold(job.fold, job.n_bins) for job in jobs}
            vectors = {job.fold: plan.data_of(job).vectors for job in jobs}
            trainings = {
                fold: training_targets(each, store.moments, vectors[fold], device) for fold, each in counts.items()
            }
            epochs = MLPHist.fit_together(models, [trainings[job.fold] for job in jobs])
            losses = next(iter(deque(epochs, maxlen=1)), torch.zeros(len(jobs))).tolist()
    except Exception as error:
        for job in jobs:
            yield failure(plan, job, error)
        return
    seconds = (time.perf_counter() - start) / len(jobs)
    for job, model, loss in zip(jobs, models, losses, strict=True):
        fitted = Fitted(model, loss, seconds, memory[0])
        yield entry_of(plan, job, lambda job=job, fitted=fitted: fit_and_score(plan, job, device, fitted))
