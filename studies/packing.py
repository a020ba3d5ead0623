"""The forecast of a trial's memory on a GPU, from the plan, the job and the store."""

from __future__ import annotations

from math import ceil

import numpy as np

from histpert import trial_memory
from histpert.histograms import HistogramStore
from histpert.histograms.store import counts_file
from histpert.trial_memory import TrialShape
from studies.plan import Job, Plan

__all__ = ["tensor_bytes", "trial_bytes"]


def tensor_bytes(plan: Plan, job: Job, store: HistogramStore) -> int:
    """The most that a trial has in tensors at a time, in whichever fold: an upper bound for most methods."""
    return trial_memory.tensor_bytes(job.method, job.settings, _shape_of(plan, job, store))


def trial_bytes(plan: Plan, job: Job, store: HistogramStore) -> int:
    """What torch must be let allocate for it."""
    return trial_memory.trial_bytes(job.method, job.settings, _shape_of(plan, job, store))


def _shape_of(plan: Plan, job: Job, store: HistogramStore) -> TrialShape:
    """Of the store manifest and ranges are read, and of whole cells the moments."""
    data = plan.data_of(job)
    n_genes, n_perturbations, n_features = len(store.genes), *data.vectors.shape
    of_fold = np.unique(data.folds, return_counts=True)[1]
    ranges = store.ranges
    n_own = int(np.bincount(ranges.fold + 1)[1:].max(initial=0))  # `NO_FOLD` is -1
    return TrialShape(
        n_bins=job.n_bins,
        n_genes=n_genes,
        n_perturbations=n_perturbations,
        n_features=n_features,
        n_training=n_perturbations - int(of_fold.min()),
        n_held_out=int(of_fold.max()),
        count_bytes=ceil(store.n_bytes(counts_file(job.n_bins)) * (n_genes + n_own) / len(ranges.gene)),
        n_cells=int(store.moments.n_cells.sum()) if job.method == "CellTARNet" else 0,
        with_cells=data.with_cells,
    )
