"""What a trial predicted and what was observed, from tensors and the store to what a file of predictions holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from histpert.histograms import FoldCounts, HistogramStore
from histpert.metrics import HeldOut
from histpert.models import TrainingSet
from histpert.prediction_files import SavedPredictions
from histpert.predictions import Prediction

__all__ = ["saved_predictions"]


def saved_predictions(
    row: Mapping[str, Any],
    store: HistogramStore,
    counts: FoldCounts,
    training: TrainingSet,
    held_out: HeldOut,
    predicted: Prediction,
) -> SavedPredictions:
    """Gather what is to be kept of a trial.

    Args:
        row: The trial's row of `trials.parquet`.
        store: Where the counts are from.
        counts: Counts of the fold.
        training: What was trained on.
        held_out: What was observed.
        predicted: What was predicted.
    """
    return SavedPredictions(
        **{name: row[name] for name in ("trial_id", "method", "screen", "fold", "n_bins", "control_smoothing")},
        perturbations=tuple(store.perturbations[number] for number in counts.held_out),
        genes=store.genes,
        n_cells=store.moments.n_cells[counts.held_out + 1],
        n_control=int(store.moments.n_cells[0]),
        lower=counts.edges.lower,
        width=counts.edges.width,
        constant=counts.edges.constant,
        observed=_float32(held_out.masses),
        control=_float32(training.control),
        observed_mean=_float64(held_out.moments.mean),
        control_mean=_float64(held_out.control_mean),
        predicted_mean=_float64(predicted.moments.mean),
        predicted_control_mean=_float64(predicted.control_mean),
        predicted=None if predicted.masses is None else _float32(predicted.masses),
        predicted_control=None if predicted.control is None else _float32(predicted.control),
    )


def _float32(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _float64(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
