"""Study folders with files of predictions, made of cells that tests draw."""

from pathlib import Path

import numpy as np

from histpert.prediction_files import SavedPredictions, write_predictions
from histpert.results import METRICS, PERTURBATION_SCHEMA, TRIAL_SCHEMA, write_table

N_CONTROL = 2_000


def binned(cells, lower, width, n_bins):
    """Shares of cells (cell x gene) in each gene's bins."""
    numbers = np.clip(((cells - lower) / width).astype(int), 0, n_bins - 1)
    return np.stack([np.bincount(column, minlength=n_bins) for column in numbers.T]) / len(cells)


def drawn_cells(random, n_cells, zero, mean, spread):
    """Log-normalized expression: zero with a chance, else normal about a mean; cell x gene."""
    shape = n_cells, len(zero)
    return np.where(random.random(shape) < zero, 0.0, np.clip(random.normal(mean, spread, shape), 0.05, None))


def predictions(
    method="MLP+Hist",
    fold=0,
    n_bins=15,
    perturbations=("STAT1", "IRF1"),
    genes=None,
    change=None,
    predicts=True,
    seed=0,
) -> SavedPredictions:
    """A trial's predictions. `change(name)` gives zero, mean and spread per gene of a perturbation's cells."""
    random = np.random.default_rng(seed)
    genes = genes or tuple(f"GENE{i}" for i in range(12))
    n_genes = len(genes)
    control = np.linspace(0.1, 0.9, n_genes), np.full(n_genes, 1.5), np.full(n_genes, 0.4)
    of = {name: change(name) if change else (control[0] * 0.9, control[1] + 0.1, control[2]) for name in perturbations}
    width = np.full(n_genes, 4.0 / (n_bins - 1))
    lower = -width / 2
    cells = {name: drawn_cells(random, 200 + 10 * i, *of[name]) for i, name in enumerate(perturbations)}
    of_control = drawn_cells(random, N_CONTROL, *control)
    masses = binned(of_control, lower, width, n_bins)
    own = 0.9999 * masses + 0.0001 / n_bins
    observed = np.stack([binned(cells[name], lower, width, n_bins) for name in perturbations])
    predicted = 0.3 * own + 0.7 * random.dirichlet(np.ones(n_bins), observed.shape[:2])
    centres = lower[:, None] + width[:, None] * (np.arange(n_bins) + 0.5)
    return SavedPredictions(
        trial_id=f"{method}-{n_bins}-{fold}".replace("+", "").replace(" ", ""),
        method=method,
        screen="drawn",
        fold=fold,
        n_bins=n_bins,
        control_smoothing=1e-4,
        perturbations=tuple(perturbations),
        genes=tuple(genes),
        n_cells=np.array([len(cells[name]) for name in perturbations]),
        n_control=N_CONTROL,
        lower=lower,
        width=width,
        constant=np.zeros(n_genes, dtype=bool),
        observed=observed.astype(np.float32),
        control=masses.astype(np.float32),
        observed_mean=np.stack([cells[name].mean(0) for name in perturbations]),
        control_mean=of_control.mean(0),
        predicted_mean=(predicted * centres).sum(-1),
        predicted_control_mean=(own * centres).sum(-1),
        predicted=predicted.astype(np.float32) if predicts else None,
        predicted_control=own.astype(np.float32) if predicts else None,
    )


def write_study(folder: Path, trials: list[SavedPredictions]) -> Path:
    """A study folder as the engine leaves it, of these trials."""
    (folder / "predictions").mkdir(parents=True)
    keys = ("trial_id", "method", "screen", "fold", "n_bins")
    rows, of_trials = [], []
    for saved in trials:
        key = {name: getattr(saved, name) for name in keys}
        of_trials.append(key | {"study": "bin_sweep", "status": "ok"} | dict.fromkeys(METRICS, 0.5))
        rows += [key | {"perturbation": name} for name in saved.perturbations]
        write_predictions(folder / "predictions" / f"{saved.trial_id}.arrow", saved)
    write_table(folder / "trials.parquet", of_trials, TRIAL_SCHEMA)
    write_table(folder / "perturbations.parquet", rows, PERTURBATION_SCHEMA)
    return folder
