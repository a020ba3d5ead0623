"""Which files of predictions a study has, and the response to one perturbation out of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.distances import beyond_mean, sampling_noise, wasserstein1
from histpert.errors import InputError
from histpert.prediction_files import SavedPredictions, read_predictions
from histpert.results import read_table

__all__ = ["Response", "SavedStudy", "predicted_masses", "zero_bins"]


@dataclass(frozen=True)
class Response:
    """What was observed and predicted of one perturbation. Distances are in log-normalized expression, one a gene."""

    saved: SavedPredictions
    number: int
    """Of the perturbation, among those of its fold."""

    @property
    def perturbation(self) -> str:
        """Its name."""
        return self.saved.perturbations[self.number]

    @property
    def n_cells(self) -> int:
        """Its cells."""
        return int(self.saved.n_cells[self.number])

    @property
    def observed(self) -> np.ndarray:
        """Masses of its cells, gene x bin."""
        return self.saved.observed[self.number]

    @property
    def predicted(self) -> np.ndarray:
        """Predicted masses, gene x bin."""
        return predicted_masses(self.saved)[0][self.number]

    @cached_property
    def observed_shift(self) -> np.ndarray:
        """Distance of its cells from control cells."""
        return wasserstein1(self.observed, self.saved.control, self.saved.width)

    @cached_property
    def predicted_shift(self) -> np.ndarray:
        """Distance of the prediction from the method's own view of control."""
        return wasserstein1(self.predicted, predicted_masses(self.saved)[1], self.saved.width)

    @cached_property
    def beyond_mean(self) -> np.ndarray:
        """What the observed shift has beyond that of the mean."""
        edges = self.saved.lower, self.saved.width
        return beyond_mean(self.observed, self.saved.control, *edges, self.observed_shift)

    @cached_property
    def noise(self) -> np.ndarray:
        """Mean distance of as many control cells from the control cells."""
        return sampling_noise(self.saved.control, self.saved.width, np.array(self.n_cells), np.array(self.n_control))

    @property
    def n_control(self) -> int:
        """Control cells."""
        return self.saved.n_control

    @cached_property
    def detected(self) -> np.ndarray:
        """Share of cells in which a gene is seen, of its own or of control, whichever is larger."""
        in_zero_bin = np.minimum(self.observed[:, 0], self.saved.control[:, 0])
        return np.where(zero_bins(self.saved), 1 - in_zero_bin, 1.0)


def zero_bins(saved: SavedPredictions) -> np.ndarray:
    """Genes whose first bin is that of zeros: it is centred at the smallest value in training (Eq. 1)."""
    return np.abs(saved.lower + saved.width / 2) < 1e-6 * saved.width


def predicted_masses(saved: SavedPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Predicted masses, perturbation x gene x bin, and the method's own view of control, gene x bin.

    Raises:
        InputError: The method predicts means.
    """
    if saved.predicted is None or saved.predicted_control is None:
        raise InputError(f"{saved.method} predicts means, no histograms: name another --method")
    return saved.predicted, saved.predicted_control


class SavedStudy:
    """Files of predictions of one method at one number of bins.

    Args:
        folder: Of the study.
        method: As in its tables.
        n_bins: Number of bins; the largest that the study has by default.

    Raises:
        InputError: The study has no such trials, several for one fold, or not the files of all of them.
    """

    def __init__(self, folder: Path, method: str, n_bins: int | None = None):
        self.folder, self.method = Path(folder), method
        trials = read_table(self.folder / "trials.parquet").to_pandas()
        trials = _named(trials[trials["status"] == "ok"], "method", method, self.folder)
        self.n_bins = int(trials["n_bins"].max()) if n_bins is None else n_bins
        self._trials = _named(trials, "n_bins", self.n_bins, self.folder)
        self.screen = str(self._trials["screen"].iloc[0])
        if self._trials["fold"].duplicated().any():
            raise InputError(
                f"{folder} holds several trials of {method} in one fold: give a study of one configuration"
            )
        missing = [path for path in map(self._path, self._trials["trial_id"]) if not path.exists()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(self._trials)} trials of {method} with {self.n_bins} bins in {folder} have no "
                "file of predictions: run the study again with --save-predictions"
            )

    def _path(self, trial_id: str) -> Path:
        return self.folder / "predictions" / f"{trial_id}.arrow"

    @property
    def fold_numbers(self) -> list[int]:
        """Folds that have finished."""
        return sorted(self._trials["fold"].tolist())

    def folds(self) -> Iterator[SavedPredictions]:
        """What each trial left, one after the other."""
        for trial_id in self._trials.sort_values("fold")["trial_id"]:
            yield read_predictions(self._path(trial_id))

    @cached_property
    def perturbations(self) -> dict[str, str]:
        """Every held-out perturbation, and the trial that predicted it."""
        rows = read_table(self.folder / "perturbations.parquet").to_pandas()
        rows = rows[rows["trial_id"].isin(self._trials["trial_id"])]
        return dict(zip(rows["perturbation"], rows["trial_id"], strict=True))

    def response(self, perturbation: str) -> Response:
        """The response to one perturbation.

        Raises:
            InputError: The study has none of this name.
        """
        if perturbation not in self.perturbations:
            close = get_close_matches(perturbation, self.perturbations, n=3) or sorted(self.perturbations)[:3]
            raise InputError(
                f"no perturbation in {self.folder} is named {perturbation}: it has {', '.join(close)}, ..."
            )
        saved = read_predictions(self._path(self.perturbations[perturbation]))
        return Response(saved, saved.perturbations.index(perturbation))

    def largest_response(self) -> Response:
        """The perturbation whose cells differ most from control cells: by the distance above sampling noise, summed."""
        responses = (Response(saved, number) for saved in self.folds() for number in range(len(saved.perturbations)))
        return max(responses, key=lambda response: (response.observed_shift - response.noise).sum())


def _named(trials: pd.DataFrame, column: str, value: object, folder: Path) -> pd.DataFrame:
    found = trials[trials[column] == value]
    if found.empty:
        there = ", ".join(map(str, trials[column].unique())) or "none"
        option = f"--{column.replace('_', '-')}"
        raise InputError(f"no finished trial in {folder} has {option} {value}: give one of {there}")
    return found
