"""Small result tables made by hand."""

import math
import zlib

import numpy as np
import pytest

from histpert.results import METRICS, PERTURBATION_SCHEMA, TRIAL_SCHEMA, write_table

METHODS = ("MLP+Hist", "Ctrl Hist", "Non-Ctrl Hist", "Observed Hist")
HELD_OUT = {0: ("STAT1", "IRF1", "CUL3"), 1: ("JAK2", "BRD4"), 2: ("SMAD4", "MYC+STAT1")}


def value(method, n_bins, perturbation, metric):
    """Any number that differs between all of its arguments; None where Ctrl Hist has no correlation."""
    if method == "Ctrl Hist" and metric.startswith("pearson"):
        return None
    place = sum(map(ord, perturbation + metric))
    return 0.1 * METHODS.index(method) + 1 / n_bins + 0.3 * math.sin(place * (1 + METHODS.index(method)) + n_bins)


class Tables:
    """Rows of both tables of one study, to be changed at will before `write`."""

    def __init__(self, screen="simulated", bins=(5, 15), held_out=None, methods=METHODS):
        self.trials, self.rows = [], []
        for method in methods:
            for n_bins in bins:
                for fold, names in (held_out or HELD_OUT).items():
                    key = {"screen": screen, "method": method, "n_bins": n_bins, "fold": fold}
                    key["trial_id"] = f"{method}-{n_bins}-{fold}"
                    self.trials.append({**key, "study": "bin_sweep", "status": "ok"})
                    for name in names:
                        numbers = {metric: value(method, n_bins, name, metric) for metric in METRICS}
                        self.rows.append({**key, "perturbation": name, "n_cells": 50, **numbers})

    def find(self, **wanted):
        return [row for row in self.rows if all(row.get(key) == item for key, item in wanted.items())]

    def fail(self, method, n_bins, fold):
        name = f"{method}-{n_bins}-{fold}"
        self.rows = [row for row in self.rows if row["trial_id"] != name]
        next(t for t in self.trials if t["trial_id"] == name).update(status="failed", error="CUDA out of memory\nframe")

    def write(self, folder):
        folder.mkdir(parents=True)
        for trial in self.trials:
            for metric in METRICS if trial["status"] == "ok" else ():
                defined = [row[metric] for row in self.find(trial_id=trial["trial_id"]) if row[metric] is not None]
                trial.setdefault(metric, sum(defined) / len(defined) if defined else None)
        write_table(folder / "trials.parquet", self.trials, TRIAL_SCHEMA)
        write_table(folder / "perturbations.parquet", self.rows, PERTURBATION_SCHEMA)
        return folder


FOLDS = {fold: tuple(f"G{3 * fold + i}" for i in range(3)) for fold in range(4)}
OF_MEANS = ("rmae_mean", "pearson", "de_spearman", "pds", "l2", "mse", "mae")
DISTRIBUTIONS = [name for name in METRICS if not name.startswith(OF_MEANS)]


class Points(Tables):
    """A study of any points: what `Tables` can do, for trials that differ in columns of their own.

    Values are an effect of the perturbation, shared by all points, and noise of the point.
    """

    def __init__(self, points, folds=FOLDS):
        self.trials, self.rows = [], []
        for number, point in enumerate(points):
            for fold, names in point.pop("folds", folds).items():
                key = {"screen": "simulated", "n_bins": 15, **point, "fold": fold, "trial_id": f"{number}-{fold}"}
                costs = {"train_seconds": 60.0 + 6 * fold, "peak_memory_mb": 1000.0 + fold, "n_parameters": 12345}
                self.trials.append({**key, "study": "points", "status": "ok", "device": "cpu", **costs})
                key = {name: key[name] for name in PERTURBATION_SCHEMA.names if name in key}
                for name in names:
                    shared, own = (
                        np.random.default_rng(zlib.crc32(text.encode())).normal(size=len(METRICS))
                        for text in (name, f"{name} {number}")
                    )
                    numbers = dict(zip(METRICS, (0.5 + 0.1 * shared + 0.02 * own).tolist(), strict=True))
                    if point["method"].endswith("Mean") or point["method"] in ("GP", "Ridge"):
                        numbers |= dict.fromkeys(DISTRIBUTIONS)
                    self.rows.append({**key, "perturbation": name, "n_cells": 50, **numbers})

    def drop(self, **wanted):
        """Leave out trials, as if they had failed."""
        gone = [trial for trial in self.trials if all(trial.get(key) == item for key, item in wanted.items())]
        for trial in gone:
            trial |= {"status": "failed", "error": "CUDA out of memory"}
        ids = {trial["trial_id"] for trial in gone}
        self.rows = [row for row in self.rows if row["trial_id"] not in ids]


@pytest.fixture(scope="session")
def points():
    return Points


@pytest.fixture
def tables():
    return Tables
