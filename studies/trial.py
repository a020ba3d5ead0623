"""One trial: fit a method on a fold's training perturbations and score it on the held-out ones. No Ray here."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from histpert.ceiling import ceiling_scores
from histpert.external import ExternalPredictions, read_external
from histpert.histograms import FoldCounts, HistogramStore
from histpert.histograms.folders import Folder
from histpert.metrics import HeldOut, evaluate_in_batches
from histpert.metrics.evaluation import Scores
from histpert.metrics.reliability import reliability
from histpert.models import METHODS, OF_COMBINATIONS, TrainingSet
from histpert.models.mlp_hist import MLPHist
from histpert.prediction_files import SavedPredictions, write_predictions
from histpert.predictions import Prediction, predicted_histograms
from histpert.results import METRICS
from histpert.targets import held_out_targets, replicate_differences, training_targets
from studies.ledger import Entry
from studies.plan import CEILING, OBSERVED, Job, Plan
from studies.saving import saved_predictions

__all__ = [
    "Fitted",
    "entry_of",
    "failed_entry",
    "failure",
    "fit_and_score",
    "open_store",
    "peak_memory_mb",
    "run_trial",
]


def run_trial(plan: Plan, job: Job, device: torch.device) -> Entry:
    """Fit, predict and score; whatever goes wrong in there is an entry with its reason.

    Args:
        plan: What the trials share.
        job: The configuration and the fold.
        device: Where to train.

    Raises:
        OSError: The predictions cannot be written.
    """
    torch.set_num_threads(plan.n_threads)
    return entry_of(plan, job, lambda: fit_and_score(plan, job, device))


def entry_of(plan: Plan, job: Job, work: Callable[[], tuple[Entry, SavedPredictions | None]]) -> Entry:
    """What comes of the work, its predictions in their file; what it raises is an entry too."""
    try:
        entry, saved = work()
    except Exception as error:  # a trial that fails is a row; the others go on
        return failure(plan, job, error)
    path = plan.predictions_file(job)
    if path and saved:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(path, saved)
    return entry


def failure(plan: Plan, job: Job, error: Exception) -> Entry:
    """The entry of a trial that raised this."""
    status = "oom" if _is_out_of_memory(error) else "failed"
    return failed_entry(plan, job, f"{type(error).__name__}: {error}", status)


class Fitted(NamedTuple):
    """A model that was trained with others: its last loss, its share of the time, and the memory of all of them."""

    model: MLPHist
    loss: float
    seconds: float
    memory_mb: float


def _is_out_of_memory(error: Exception) -> bool:
    """On a CPU torch says it with a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def failed_entry(plan: Plan, job: Job, error: str, status: str = "failed") -> Entry:
    """The entry of a trial that did not end: its settings and the reason."""
    return {"trial": plan.row(job) | {"status": status, "error": error.strip()}, "perturbations": []}


@lru_cache(maxsize=2)  # variants have folds of their own
def open_store(folder: Folder) -> HistogramStore:
    """The store, opened once per process."""
    return HistogramStore(folder)


@lru_cache(maxsize=1)
def _external(path: Path, store: HistogramStore) -> ExternalPredictions:
    """Predictions that were made elsewhere, read once per process."""
    control_mean = store.moments.power_sums[0][0] / store.moments.n_cells[0]
    return read_external(path, store.genes, store.perturbations, control_mean)


def fit_and_score(
    plan: Plan, job: Job, device: torch.device, fitted: Fitted | None = None
) -> tuple[Entry, SavedPredictions | None]:
    """Train the method of a job, unless it was trained with others, and score it."""
    data, about = plan.data_of(job), plan.row(job)
    store = open_store(data.store)
    counts = store.fold(job.fold, job.n_bins)
    with peak_memory_mb(device) as memory:
        training = training_targets(counts, store.moments, data.vectors, device)
        if data.attended is not None:
            training = replace(training, attended=torch.from_numpy(data.attended))
        held_out = held_out_targets(store, counts, device, data.n_replicates, data.with_cells)
        if job.method == CEILING:
            scores = ceiling_scores(store, counts, device, held_out, data.n_replicates, job.settings.seed)
            predict, seconds, n_parameters = None, 0.0, 0
        else:
            predict, seconds, n_parameters = _fit(plan, job, store, counts, training, held_out, fitted)
            scores = evaluate_in_batches(predict, held_out, job.settings.nll_floor)
    rows = _perturbation_rows(about, store, counts, held_out, scores, data.n_replicates)
    trial = about | {
        "status": "ok",
        "train_seconds": seconds,
        "peak_memory_mb": max(memory[0], fitted.memory_mb) if fitted else memory[0],
        "n_parameters": n_parameters,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "n_perturbations": len(rows),
        "n_absent": sum(math.isnan(row["mse"]) for row in rows),
        "n_genes": len(store.genes),
        "n_genes_constant": int(counts.edges.constant.sum()),
        "n_pearson_undefined": sum(math.isnan(row["pearson_top20"]) for row in rows),
        "n_de_undefined": sum(math.isnan(row["de_spearman"]) for row in rows),
        **{name: _mean(rows, name) for name in ("n_genes_undefined", "out_of_range_fraction", *METRICS)},
    }
    entry: Entry = {"trial": trial, "perturbations": rows}
    if predict is None or not plan.predictions_file(job):
        return entry, None
    return entry, saved_predictions(about, store, counts, training, held_out, predict(held_out))


def _fit(
    plan: Plan,
    job: Job,
    store: HistogramStore,
    counts: FoldCounts,
    training: TrainingSet,
    held_out: HeldOut,
    fitted: Fitted | None,
) -> tuple[Callable[[HeldOut], Prediction], float, int]:
    """What predicts some of the held-out perturbations, the seconds that it was trained, the number of parameters."""
    if job.method == OBSERVED:
        edges = training.lower, training.width
        return lambda batch: predicted_histograms(batch.masses, training.control, *edges), 0.0, 0
    if job.method in plan.external:
        made_elsewhere = _external(plan.external[job.method].path, store)
        names = [store.perturbations[number] for number in counts.held_out]
        known = counts.edges, held_out.control_mean, training.control.double()
        return lambda batch: made_elsewhere.predict([names[row] for row in batch.rows], *known), 0.0, 0
    if fitted:
        model, loss, seconds, _ = fitted
    else:
        checkpoint, start = plan.checkpoint(job), time.perf_counter()
        model = {**METHODS, **OF_COMBINATIONS}[job.method](job.settings)
        loss = next((last.item() for last in deque(model.fit(training, checkpoint), maxlen=1)), 0.0)
        seconds = checkpoint.seconds_before + time.perf_counter() - start
    if not math.isfinite(loss):
        raise FloatingPointError(f"the training loss ended at {loss}: lower --learning-rate")
    embeddings = torch.from_numpy(plan.data_of(job).vectors[counts.held_out]).to(training.embeddings.device)
    return lambda batch: model.predict(embeddings[batch.rows]), seconds, model.n_parameters


def _perturbation_rows(
    about: dict[str, Any],
    store: HistogramStore,
    counts: FoldCounts,
    held_out: HeldOut,
    scores: Scores,
    n_replicates: int,
) -> list[dict[str, Any]]:
    """The rows of `perturbations.parquet` of a trial of which this is known."""
    n_cells, outside = store.moments.n_cells[counts.held_out + 1], counts.held_out_outside.mean(1)
    undefined = held_out.moments.skewness.isnan().sum(-1).tolist()
    significant = held_out.significant.sum(-1).tolist()
    shared = {name: about[name] for name in ("trial_id", "screen", "method", "n_bins", "variant", "fold")}
    return [
        shared
        | {
            "perturbation": store.perturbations[perturbation],
            "n_cells": int(n_cells[row]),
            "n_genes_undefined": undefined[row],
            "out_of_range_fraction": float(outside[row] / n_cells[row]),
            "n_significant": significant[row],
            **_reliabilities(store, int(perturbation) + 1, n_replicates),
            **{name: float(scores[name][row]) for name in METRICS},
        }
        for row, perturbation in enumerate(counts.held_out)
    ]


def _reliabilities(store: HistogramStore, group: int, n_replicates: int) -> dict[str, float]:
    """Of the differences of a perturbation's four statistics from control; not known without replicates."""
    columns = ("reliability_mean", "reliability_var", "reliability_skew", "reliability_kurt")
    if not n_replicates:
        return dict.fromkeys(columns, math.nan)
    differences = zip(*replicate_differences(store, group, n_replicates), strict=True)
    return {name: reliability(*pair).item() for name, pair in zip(columns, differences, strict=True)}


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    """Average over the perturbations for which the value is defined, NaN where it is for none."""
    values = [row[name] for row in rows if not math.isnan(row[name])]
    return float(np.mean(values)) if values else math.nan


@contextmanager
def peak_memory_mb(device: torch.device) -> Iterator[list[float]]:
    """Peak memory inside the block: of the GPU's allocations, or of this process where the system can tell (Linux)."""
    peak = [math.nan]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak[0] = torch.cuda.max_memory_allocated(device) / 2**20
        return
    resettable = _reset_peak_resident_memory()
    yield peak
    if resettable:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        peak[0] = next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def _reset_peak_resident_memory() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
