"""What a study would take on a GPU that is not here: computed from a data sheet and shapes. Nothing is measured."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from histpert.doctor.extrapolation import at_bins, makespan
from histpert.doctor.forecast import Measured, around_seconds
from histpert.doctor.gpus import Gpu
from histpert.doctor.probe import BOTH, STEPPED
from histpert.doctor.studies import SEARCHED, ScreenShape, Study, Trials, searched_settings
from histpert.models.celltarnet import CellSettings
from histpert.models.mlp_hist import n_parameters
from histpert.settings import ModelSettings
from histpert.step_costs import bytes_per_step, operations_per_step
from histpert.study_defaults import SUBJECT
from histpert.trial_memory import CONTEXT_BYTES, DENSITIES, TrialShape, gpu_share, trial_bytes

__all__ = ["GpuForecast", "at_once_on", "forecast_on", "most_bytes", "step_seconds"]

STEP_SECONDS = 1e-4
"""Of a step at least: to start its recorded kernels. Assumed."""

OWN_RANGES = 1.1
"""Genes of a fold with those that are counted again, on a range of their own: about one in ten."""


@dataclass(frozen=True)
class GpuForecast:
    """What a study takes on a GPU, computed.

    Attributes:
        study: Its name.
        trial_bytes: Memory of the GPU for its largest trial.
        fits: Whether that is there.
        n_at_once: Trials that run at once.
        seconds: From the command to the figures, where steps are as fast as bandwidth and arithmetic allow; all else as
            measured on this machine's CPU.
    """

    study: str
    trial_bytes: int
    fits: bool
    n_at_once: int
    seconds: float


def forecast_on(gpu: Gpu, study: Study, measured: Measured, settings: ModelSettings, cores: int) -> GpuForecast:
    """Work out what a study takes on a GPU, with this machine's cores beside it."""
    needed = most_bytes(study, measured.shape, settings)
    n_at_once = at_once_on(gpu.n_bytes, needed, cores)
    of_steps = sum(trials.n * _training(gpu, trials, measured.shape, settings) for trials in study.trials)
    beside = [_beside(trials, measured) for trials in study.trials for _ in range(trials.n)]
    seconds = around_seconds(study, measured) + of_steps + makespan(beside, n_at_once)
    return GpuForecast(study.name, needed, needed + CONTEXT_BYTES < gpu.n_bytes, n_at_once, seconds)


def at_once_on(gpu_bytes: int, needed: int, cores: int) -> int:
    """Trials of so many bytes that run at once on a GPU of this memory, each with a core."""
    return min(int(1 / gpu_share(needed, gpu_bytes)), cores)


def most_bytes(study: Study, shape: ScreenShape, settings: ModelSettings) -> int:
    """Memory of a GPU that the largest trial of a study takes."""
    return max(
        trial_bytes(_method(trials), _settings(trials, settings), _trial_shape(trials, shape))
        for trials in study.trials
    )


def _trial_shape(trials: Trials, shape: ScreenShape) -> TrialShape:
    """What the memory of one of these trials depends on."""
    folds = trials.folds
    n_perturbations = folds.trained_on + folds.most
    per_count = 2 if shape.n_cells < 2**15 else 4
    return TrialShape(
        n_bins=trials.n_bins,
        n_genes=shape.n_genes,
        n_perturbations=n_perturbations,
        n_features=shape.n_features,
        n_training=folds.trained_on + folds.most - folds.fewest,
        n_held_out=folds.most,
        count_bytes=ceil(per_count * (n_perturbations + 1) * shape.n_genes * trials.n_bins * OWN_RANGES),
        n_cells=shape.n_cells,
        with_cells=shape.with_cells,
    )


def step_seconds(gpu: Gpu, n_weights: int, n_outputs: int, batch_size: int) -> float:
    """Of a step of training, no faster than memory and arithmetic allow."""
    moved = bytes_per_step(n_weights, n_outputs, batch_size) / gpu.bytes_per_second
    return max(moved, operations_per_step(n_weights, batch_size) / gpu.operations_per_second, STEP_SECONDS)


def _training(gpu: Gpu, trials: Trials, of_screen: ScreenShape, settings: ModelSettings) -> float:
    """Of all steps of a trial; 0 of methods without."""
    if trials.method not in (*STEPPED, *BOTH, SEARCHED):
        return 0.0
    shape = _trial_shape(trials, of_screen)
    own, method = _settings(trials, settings), _method(trials)
    outputs = shape.n_genes * {"MLP+Mean": 1}.get(method, DENSITIES.get(method, (shape.n_bins,))[0])
    n_weights = n_parameters(shape.n_features, own.hidden_sizes(shape.n_training), outputs)
    batch = min(own.batch_size, shape.n_training)
    return trials.epochs * ceil(shape.n_training / batch) * step_seconds(gpu, n_weights, outputs, batch)


def _beside(trials: Trials, measured: Measured) -> float:
    """What a trial takes besides steps, as on a CPU."""
    cost = at_bins(measured.trials.costs[trials.method], trials.n_bins)
    return cost.setup + cost.score * trials.folds.most / measured.folds.most


def _method(trials: Trials) -> str:
    return SUBJECT if trials.method == SEARCHED else trials.method


def _settings(trials: Trials, settings: ModelSettings) -> ModelSettings:
    if trials.method == "CellTARNet":
        return CellSettings.like(settings)
    return settings if trials.method != SEARCHED else ModelSettings(**{**vars(settings), **searched_settings()})
