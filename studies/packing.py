"""How many trials fit on a GPU at once: a forecast of what each needs from its shape."""

from __future__ import annotations

import numpy as np

from histpert.histograms import HistogramStore
from histpert.histograms.store import counts_file
from histpert.models.mlp_hist import n_parameters
from studies.trial import Job, Plan

__all__ = ["CONTEXT_BYTES", "gpu_share", "memory_fraction", "trial_bytes"]

CONTEXT_BYTES = 800 << 20
"""What a process takes of a GPU before its first tensor: CUDA's context and libraries. Not measured here."""

PER_PARAMETER = 16
"""Bytes: a weight, its gradient and AdamW's two moments, float32."""

STEP_ARRAYS = 12
"""Float32 arrays of the size of a batch's logits that loss and gradient hold at their peak, masses included."""

EVALUATION_ARRAYS = 13
"""Float64 arrays of the size of the held-out masses that scoring holds at its peak, what was observed included."""


def trial_bytes(plan: Plan, job: Job, store: HistogramStore) -> int:
    """The most that MLP+Hist, of all methods the one that needs most, has in tensors at a time.

    Counts lie on the device throughout, weights with what trains them from the first step to the end, and beside them
    first the arrays of a step, then those of scoring. Of the store only the manifest is read.
    """
    n_training = int(np.count_nonzero(plan.data.folds != job.fold))
    n_held_out = len(plan.data.folds) - n_training
    n_outputs = len(store.genes) * job.n_bins
    sums = 8 * len(store.genes) * (len(plan.data.folds) + 1)
    hidden = job.settings.hidden_sizes(n_training)
    weights = PER_PARAMETER * n_parameters(plan.data.vectors.shape[1], hidden, n_outputs)
    step = STEP_ARRAYS * 4 * min(job.settings.batch_size, n_training) * n_outputs
    scoring = EVALUATION_ARRAYS * 8 * n_held_out * n_outputs
    return store.n_bytes(counts_file(job.n_bins)) + sums + weights + max(step, scoring)


def gpu_share(n_bytes: int, gpu_bytes: int) -> float:
    """Share of a GPU of this size for a trial, so that as many run at once as fit; 1 where not even one is sure to."""
    n_trials = max(1, gpu_bytes // (n_bytes + CONTEXT_BYTES))
    return int(10_000 / n_trials) / 10_000  # Ray counts in ten-thousandths, and rounds up


def memory_fraction(share: float, gpu_bytes: int) -> float:
    """What torch may allocate of a GPU in a process that has this share of it."""
    return min(1.0, max(0.01, share - CONTEXT_BYTES / gpu_bytes)) if share < 1 else 1.0
