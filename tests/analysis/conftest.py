"""Small result tables made by hand."""

import math

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
        return [row for row in self.rows if all(row[key] == item for key, item in wanted.items())]

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


@pytest.fixture
def tables():
    return Tables
