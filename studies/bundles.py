"""What a worker takes up at once. No Ray here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from histpert.models import METHODS
from histpert.trial_memory import CONTEXT_BYTES
from studies.plan import CEILING, Job, Plan
from studies.stacks import can_stack, is_small, stack_bytes
from studies.trial import open_store

__all__ = ["BUNDLE", "BUNDLE_MASSES", "bundles"]

BUNDLE, BUNDLE_MASSES = 16, 1 << 23
"""The most jobs without training that a worker takes up at once, and the most bin masses that they score: about a
second's work. To take one up costs some 15 ms, on a small screen twice as long as to do it."""


def bundles(plan: Plan, jobs: Sequence[Job], gpu_bytes: int = 0) -> list[tuple[Job, ...]]:
    """The jobs in their order, those next to each other that a worker is to take up together in one bundle.

    They train nothing and are soon scored, or a GPU trains them as one.

    Args:
        plan: What they share.
        jobs: The jobs.
        gpu_bytes: Memory of a GPU, or of the share of one, that a trial may have.
    """
    made: list[tuple[Job, ...]] = []
    room = 0
    for job in jobs:
        n_masses = _masses_scored(plan, job)
        is_short = n_masses <= room and len(made[-1]) < BUNDLE if made else False
        if is_short or (made and gpu_bytes and _go_together(plan, (*made[-1], job), gpu_bytes)):
            made[-1] += (job,)
        else:
            made.append((job,))
            room = BUNDLE_MASSES
        room -= n_masses
    return made


def _go_together(plan: Plan, jobs: tuple[Job, ...], gpu_bytes: int) -> bool:
    """Whether a GPU can train these jobs as one, and has room for it beside what a process takes."""
    store = open_store(plan.data_of(jobs[0]).store)
    return (
        can_stack(plan, jobs[0], jobs[-1])
        and is_small(plan, jobs[-1], store)
        and stack_bytes(plan, jobs, store) + CONTEXT_BYTES < gpu_bytes
    )


def _masses_scored(plan: Plan, job: Job) -> float:
    """Bin masses that a job scores, infinitely many where it also trains."""
    n_parameters = getattr(METHODS.get(job.method), "n_parameters", 0)  # of the class: a property where it is trained
    if job.method == CEILING or n_parameters != 0:
        return math.inf
    data = plan.data_of(job)
    return int(np.count_nonzero(data.folds == job.fold)) * len(open_store(data.store).genes) * job.n_bins
