"""Do the intervals of a final model hold what they say, on perturbations of simulated screens that it never saw?

`make bench-intervals` fits a default ensemble to three quarters of the perturbations of several simulated screens, with
embeddings of unlike quality, predicts the last quarter, and counts how many of the means over its cells lie in their
intervals: of all genes, of the genes predicted to shift most, of the perturbations nearest to and farthest from those
trained on. The same is told of means of unlimited cells, which the simulation knows. Writes a table and a figure to
`results-intervals/`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from histpert import ModelSettings, fit, predict
from histpert.ensembles.ensemble import Ensemble
from histpert.plots import COLORS, MARKERS, save_figure
from histpert.screens import PRESETS, Simulation, simulate_screen

LEVELS = np.array([0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
SHAPE = {"n_perturbations": 120, "n_genes": 200, "n_cells": 16_000, "n_control": 2_000}
SCREENS: dict[str, tuple[Simulation, str]] = {
    "easy, good embeddings": (replace(PRESETS["easy"], **SHAPE), "good"),
    "easy, poor embeddings": (replace(PRESETS["easy"], **SHAPE), "poor"),
    "easy, permuted embeddings": (replace(PRESETS["easy"], **SHAPE), "permuted"),
    "papalexi, good embeddings": (replace(PRESETS["papalexi"], **SHAPE), "good"),
    "replogle-k562, good embeddings": (replace(PRESETS["replogle-k562"], **SHAPE), "good"),
}


@dataclass(frozen=True)
class Options:
    """What is tried."""

    epochs: int = 100
    seeds: tuple[int, ...] = (0, 1)
    out: Path = Path("results-intervals")


def coverage(simulation: Simulation, quality: str, seed: int, epochs: int) -> pd.DataFrame:
    """A row per level and part: share of the means of perturbations never seen that intervals hold."""
    simulated = simulate_screen(seed, simulation)
    screen = simulated.screen
    unseen = screen.perturbations[::4]
    known = screen.with_perturbations([name for name in screen.perturbations if name not in unseen])
    model = fit(known, simulated.embeddings[quality], ModelSettings(epochs=epochs, seed=seed))
    needed, truly, shifts, distances = [], [], [], []
    for name in unseen:
        start, end = screen.group_start[screen.perturbations.index(name) + 1 :][:2].tolist()
        means = np.asarray(screen.expression[start:end].mean(axis=0)).reshape(-1)
        inside = held(model, name, end - start, means)
        needed.append(inside)
        truly.append(held(model, name, 1_000_000_000, simulated.truth.moments(name)["mean"].to_numpy()))
        response = predict(model, [name])
        shifts.append(np.abs(response.predicted.mean[0] - response.control.mean[0]))
        distances.append(response.trust["distance"].item())
    inside, truly, shift = np.stack(needed, axis=1), np.stack(truly, axis=1), np.stack(shifts)
    near, far = np.quantile(distances, [1 / 3, 2 / 3])
    parts = {
        "all": np.ones_like(shift, bool),
        "largest 5% of predicted shifts": shift >= np.quantile(shift, 0.95),
        "nearest third": np.broadcast_to((np.array(distances) <= near)[:, None], shift.shape),
        "farthest third": np.broadcast_to((np.array(distances) >= far)[:, None], shift.shape),
    }
    return pd.DataFrame(
        [
            {"level": level, "of": part, "cells": inside[row][chosen].mean(), "truth": truly[row][chosen].mean()}
            for row, level in enumerate(LEVELS)
            for part, chosen in parts.items()
        ]
    )


def held(model: Ensemble, name: str, n_cells: int, means: np.ndarray) -> np.ndarray:
    """Whether intervals of each level hold the means, level x gene."""
    assert model.errors is not None
    response = predict(model, [name], level=0.8, n_cells=n_cells)
    reach = (response.mean_high[0] - response.mean_low[0]) / 2 / model.errors.quantile(0.8)
    quantiles = np.array([model.errors.quantile(float(level)) for level in LEVELS])
    return np.abs(means - response.predicted.mean[0]) <= quantiles[:, None] * reach


def drawn(table: pd.DataFrame) -> Figure:
    """Coverage by level, a panel a screen."""
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, (screen, of_screen) in zip(grid.flat, table.groupby("screen", sort=False), strict=False):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        axes.fill_between([0.77, 0.83], 0.7, 0.9, color="0.88", linewidth=0)
        for number, (part, rows) in enumerate(of_screen.groupby("of", sort=False)):
            mean = rows.groupby("level")["cells"].mean()
            look = {"color": COLORS[number], "marker": MARKERS[number], "markersize": 3, "linewidth": 1.1}
            axes.plot(mean.index, mean, label=part, **look)
        axes.set_title(screen, fontsize=8)
        axes.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1)
        axes.tick_params(labelsize=7)
    grid.flat[len(SCREENS)].remove()
    figure.supxlabel("level of the interval", fontsize=8)
    figure.supylabel("share of means of perturbations never seen inside", fontsize=8)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="lower right", fontsize=8, frameon=False)
    return figure


def main(options: Options) -> int:
    """Fit, predict, count; fails where coverage of 80% intervals is not between 0.7 and 0.9."""
    tables = []
    for screen, (simulation, quality) in SCREENS.items():
        for seed in options.seeds:
            start = time.perf_counter()
            tables.append(coverage(simulation, quality, seed, options.epochs).assign(screen=screen, seed=seed))
            print(f"{screen}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    table = pd.concat(tables, ignore_index=True)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "coverage.csv", index=False)
    at_80 = table[table["level"] == 0.8].pivot_table(index=["screen", "of"], values=["cells", "truth"], sort=False)
    print(at_80.round(3).to_string())
    print(save_figure(drawn(table), options.out / "coverage")[0])
    overall = table[(table["level"] == 0.8) & (table["of"] == "all")]["cells"]
    print(f"80% intervals hold {overall.min():.3f} to {overall.max():.3f} of the means, by screen and seed")
    return 0 if overall.between(0.7, 0.9).all() else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
