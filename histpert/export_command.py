"""`histpert export STUDY --out FILE`: what a method predicted, for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.prediction_files import SavedPredictions, read_predictions
from histpert.results import write_atomically
from histpert.sampled_cells import CONTROL_LABEL, LABEL_COLUMN, sampled_screen
from histpert.words import Words

__all__ = ["Export", "tidy_means"]


@dataclass(frozen=True)
class Export:
    """Write what a method predicted of held-out perturbations: cells, which cell-eval scores, or a table of means."""

    study: tyro.conf.Positional[Path]
    """Folder of a study that was run with --save-predictions, such as results/methods."""
    out: Path
    """The file to write: .h5ad, .parquet or .csv."""
    method: str = "MLP+Hist"
    """The method whose predictions are written."""
    bins: int | None = None
    """Number of bins, where the study has several."""
    fold: int | None = None
    """The perturbations of this fold alone; default: all."""
    cells: int | None = None
    """Cells to draw of each perturbation; default: as many as were observed. Control has as many as were observed."""
    seed: int = 0
    """Of the draws."""
    words: Words = field(default_factory=Words)

    def run(self) -> int:
        """Write the file, and say what is in it."""
        if self.cells is not None and self.cells < 1:
            raise InputError(f"--cells {self.cells}: must be 1 or more")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or more")
        out = absolute(self.out, "--out")
        if out.suffix not in (".h5ad", ".parquet", ".csv"):
            raise InputError(f"--out {out}: name a file that ends in .h5ad, .parquet or .csv")
        with self.words.said() as outcome:
            outcome.update(self._written(out, self._found(absolute(self.study))))
        return 0

    def _written(self, out: Path, saved: Sequence[SavedPredictions]) -> dict[str, Any]:
        try:
            if out.suffix == ".h5ad":
                screen = sampled_screen(saved, self.cells, self.seed)
                write_atomically(out, screen.write_h5ad)
                holds = {"n_cells": screen.n_obs, "n_genes": screen.n_vars, "label_column": LABEL_COLUMN}
                print(f"{screen.n_obs:,} cells x {screen.n_vars:,} genes, log-normalized, genes drawn apart")
                print(f"  labels in {LABEL_COLUMN}, control is {CONTROL_LABEL}")
            else:
                table = tidy_means(saved)
                write_atomically(out, lambda beside: getattr(table, f"to_{out.suffix[1:]}")(beside, index=False))
                holds = {"n_rows": len(table)}
                print(f"{len(table):,} rows")
        except OSError as error:
            raise InputError(f"--out {out} cannot be written ({error}): name another file") from error
        print(out)
        return {"file": out, "method": self.method, **holds}

    def _found(self, study: Path) -> list[SavedPredictions]:
        """The predictions asked for, by fold."""
        paths = sorted((study / "predictions").glob("*.arrow"))
        if not paths:
            raise InputError(f"{study} holds no predictions: run the study again with --save-predictions")
        every = [read_predictions(path) for path in paths]
        saved = [each for each in every if each.method == self.method]
        if not saved:
            raise InputError(
                f"--method {self.method}: {study} has {', '.join(sorted({each.method for each in every}))}; give one"
            )
        bins = sorted({each.n_bins for each in saved})
        if self.bins not in (None, *bins) or (self.bins is None and len(bins) > 1):
            raise InputError(f"--bins: {study} has {', '.join(map(str, bins))}; give one of them")
        saved = [each for each in saved if self.bins in (None, each.n_bins)]
        if self.fold is not None:
            folds = sorted(each.fold for each in saved)
            saved = [each for each in saved if each.fold == self.fold]
            if not saved:
                raise InputError(
                    f"--fold {self.fold}: {study} has folds {', '.join(map(str, folds))}; give one of them"
                )
        names = [name for each in saved for name in each.perturbations]
        if len(set(names)) < len(names) or len({each.genes for each in saved}) > 1:
            raise InputError(f"{study} holds predictions of several runs: name another --out in a run of its own")
        if self.out.suffix == ".h5ad" and any(each.predicted is None for each in saved):
            raise InputError(f"--method {self.method} predicts means, not cells: name a .parquet or .csv")
        return sorted(saved, key=lambda each: each.fold)


def tidy_means(saved: Sequence[SavedPredictions]) -> pd.DataFrame:
    """A row per held-out perturbation and gene: predicted and observed means, and those of control, log-normalized."""
    tables = []
    for fold in saved:
        n_perturbations, n_genes = fold.predicted_mean.shape
        tables.append(
            pd.DataFrame(
                {
                    "perturbation": np.repeat(fold.perturbations, n_genes),
                    "gene": np.tile(fold.genes, n_perturbations),
                    "fold": fold.fold,
                    "n_cells": np.repeat(fold.n_cells, n_genes),
                    "predicted_mean": fold.predicted_mean.reshape(-1),
                    "predicted_control_mean": np.tile(fold.predicted_control_mean, n_perturbations),
                    "observed_mean": fold.observed_mean.reshape(-1),
                    "control_mean": np.tile(fold.control_mean, n_perturbations),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
