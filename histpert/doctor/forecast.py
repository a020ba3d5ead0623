"""What each study would take on this machine: time, memory and disk, from what was measured of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from histpert.doctor.coverage import FoldSizes
from histpert.doctor.extrapolation import TrialCost, at_bins, makespan
from histpert.doctor.machine import Machine
from histpert.doctor.measuring import MeasuredStore, MeasuredTrials
from histpert.doctor.studies import ScreenShape, Store, Study, Trials
from histpert.study_defaults import INNER_FOLDS

__all__ = [
    "Forecast",
    "Measured",
    "around_seconds",
    "fitting_forecast",
    "forecast",
    "store_bytes",
    "store_seconds",
    "trial_seconds",
]

STARTS = 8.0
"""Seconds of a study around its trials, in starts of a process that loads torch: the script's own with what it draws
with, Ray's and its workers', its end, tables and figures. Measured with `tests/benchmarks/forecast.py` on two cores."""

SCHEDULING = 0.04
"""Seconds between two trials of a worker."""

DRIVER_BYTES = 450 << 20
"""Of the process that runs a study, beside a screen while it is read. Measured like what follows, with Ray 2.60."""

RAY_BYTES = 370 << 20
"""Of Ray's own processes on one machine: its store of states, node manager, agents and monitors."""

WORKER_BYTES = 180 << 20
"""Of each of Ray's workers, beside what a process takes that tries the same trials without Ray."""

KEPT = 1.15
"""Memory of a worker after many trials to that of a process that tried each once: what is freed is kept in part."""

ROW_BYTES, FIGURE_BYTES = 1_800, 500_000
"""On disk: of each trial and held-out perturbation, in the ledger and tables; of figures and tables of a study."""


@dataclass(frozen=True)
class Measured:
    """What was measured on this machine of a screen, or of a part of it.

    Attributes:
        read_seconds: To read all of it.
        read_bytes: Memory that reading took.
        built_bytes: Memory that the screen and building the store took.
        shape: Of the screen.
        n_cells: Of the part, control cells included.
        n_perturbations: Of the part.
        share: Of the screen's perturbations, in the part.
        store: A store of the part that was built.
        trials: Trials that were tried on it.
        folds: Of that store.
    """

    read_seconds: float
    read_bytes: int
    built_bytes: int
    shape: ScreenShape
    n_cells: int
    n_perturbations: int
    share: float
    store: MeasuredStore
    trials: MeasuredTrials
    folds: FoldSizes


@dataclass(frozen=True)
class Forecast:
    """What a study takes.

    Attributes:
        study: Its name.
        n_trials: Trials in all.
        n_at_once: Trials that run at once.
        seconds: From the command to the figures.
        own_bytes: Memory that all its processes need at its peak.
        mapped_bytes: Memory beside it for the store that they map, which the system takes back where it is short.
        disk_bytes: Of its store and results.
        left_out: What it does not run here.
    """

    study: str
    n_trials: int
    n_at_once: int
    seconds: float
    own_bytes: int
    mapped_bytes: int
    disk_bytes: int
    left_out: str = ""

    @property
    def memory_bytes(self) -> int:
        """Both."""
        return self.own_bytes + self.mapped_bytes

    def lacks(self, machine: Machine) -> str:
        """What this machine has too little of, in words; empty where it has all."""
        lacking = []
        if self.own_bytes > machine.memory_bytes:
            lacking.append("memory")
        if self.disk_bytes > machine.disk_bytes:
            lacking.append("disk")
        return " and ".join(lacking)


def forecast(study: Study, measured: Measured, n_at_once: int) -> Forecast:
    """Add up what a study takes."""
    n_trials = study.n_trials
    busy = min(n_at_once, n_trials)
    own, mapped = _memory(study, measured, busy)
    return Forecast(
        study=study.name,
        n_trials=n_trials,
        n_at_once=busy,
        seconds=around_seconds(study, measured) + _of_trials(study, measured, busy),
        own_bytes=own,
        mapped_bytes=mapped,
        disk_bytes=study.n_stores * store_bytes(study.store, measured) + _results(study),
        left_out=study.left_out,
    )


def fitting_forecast(study: Study, measured: Measured, machine: Machine, n_at_once: int) -> Forecast:
    """With as many trials at once as fit into the machine's memory, up to a number; with one where none does."""
    found = forecast(study, measured, n_at_once)
    while found.n_at_once > 1 and found.own_bytes > machine.memory_bytes:
        found = forecast(study, measured, found.n_at_once - 1)
    return found


def trial_seconds(trials: Trials, measured: MeasuredTrials, folds: FoldSizes) -> float:
    """Of one of these trials, by those that were tried on other folds."""
    cost: TrialCost = at_bins(measured.costs[trials.method], trials.n_bins)
    training, held_out = trials.folds.trained_on / folds.trained_on, trials.folds.most / folds.most
    return cost.seconds(trials.epochs, training, held_out)


def store_seconds(store: Store, measured: Measured) -> float:
    """To build it: a pass over all cells for each number of bins, and for each other file."""
    built = measured.store
    parts = {
        "counts": (len(store.bin_counts) + 1) / built.n_counted,  # and the reference
        "replicates": bool(store.n_replicates),
        "apart": store.has_apart,
        "cells": store.has_cells,
    }
    of_part = sum(seconds * parts.get(stage, 1) for stage, seconds in built.stages.items())
    return of_part * measured.shape.n_cells / measured.n_cells


def store_bytes(store: Store, measured: Measured) -> int:
    """Of its files, those of counts on the line through the ones that were written."""
    files = measured.store.n_bytes
    counts = {int(name[len("counts_B") :].split(".")[0]): size for name, size in files.items() if "counts" in name}
    per_bin = sum(counts.values()) / sum(counts)
    wanted = {"replicates": bool(store.n_replicates), "apart": store.has_apart, "cells": store.has_cells}
    others = sum(size * wanted.get(name.split("_")[0].split(".")[0], True) for name, size in files.items())
    of_part = others - sum(counts.values()) + per_bin * sum(store.bin_counts)
    return int(of_part / measured.share)


def around_seconds(study: Study, measured: Measured) -> float:
    """Seconds before and after the trials."""
    building = measured.read_seconds + store_seconds(study.store, measured)
    return STARTS * measured.trials.start_seconds + study.n_stores * building


def _of_trials(study: Study, measured: Measured, n_at_once: int) -> float:
    seconds = [trial_seconds(trials, measured.trials, measured.folds) for trials in study.trials]
    together = INNER_FOLDS if study.name == "search" else 1
    each = [
        together * (one + SCHEDULING)
        for one, trials in zip(seconds, study.trials, strict=True)
        for _ in range(round(trials.n / together))
    ]
    return makespan(each, n_at_once)


def _memory(study: Study, measured: Measured, n_at_once: int) -> tuple[int, int]:
    """What processes take for themselves at the peak, while the screen is read or while trials run; and mapped."""
    own: Mapping[str, Mapping[int, int]] = measured.trials.own_bytes
    worker = WORKER_BYTES + int(KEPT * max(size for trials in study.trials for size in own[trials.method].values()))
    if study.store.has_cells:  # each has all cells, in float32
        worker += 4 * (measured.shape.n_cells - measured.n_cells) * measured.shape.n_genes
    running = RAY_BYTES + measured.trials.library_bytes + n_at_once * worker
    mapped = store_bytes(study.store, measured)
    reading = max(measured.read_bytes, measured.built_bytes)
    return (DRIVER_BYTES + running, mapped) if running + mapped > reading else (DRIVER_BYTES + reading, 0)


def _results(study: Study) -> int:
    return FIGURE_BYTES + ROW_BYTES * sum(trials.n * trials.folds.most for trials in study.trials)
