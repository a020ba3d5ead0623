"""An ensemble of MLP+Hist: what `histpert fit` makes and `histpert predict` asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from histpert.embeddings import GeneEmbeddings
from histpert.ensembles.calibration import Calibration
from histpert.ensembles.uncertainty import Circumstances, ErrorModel
from histpert.models.mlp_hist import HistogramNetwork
from histpert.moments import Moments, histogram_moments
from histpert.settings import ModelSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Averaged", "Ensemble", "aligned", "member_network"]

PREDICTED_AT_ONCE = 64
"""Perturbations: 38 MB for each array of 5,000 genes in 15 bins in float64."""


@dataclass(frozen=True, eq=False)
class Averaged:
    """What members predict on average, and how far they differ; of log-normalized expression.

    Attributes:
        mean: Mean of the averaged distribution.
        circumstances: What tells how large the error of the mean is, in a sample of so many cells.
        masses: Its bin masses, where they were asked for.
    """

    mean: Float[np.ndarray, "perturbation gene"]
    circumstances: Circumstances
    masses: Float[np.ndarray, "perturbation gene bin"] | None


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks of MLP+Hist, each trained without one fold of the perturbations; every fold is left out once a repeat.

    All share bin edges, those of all cells, so that their histograms can be averaged.

    Attributes:
        screen: Name of the screen.
        genes: Of the screen.
        perturbations: Those that were trained on.
        n_cells: Cells of each.
        n_control: Control cells.
        vectors: Embeddings of the perturbations, scaled as they were for training.
        embeddings: Of all genes that the embedding files have, likewise.
        n_bins: Bins per gene.
        settings: Of each member, but for the seed.
        held_out: Which perturbations each member was trained without.
        lower: Left edge of each gene's first bin, log-normalized expression.
        width: Width of each gene's bins.
        constant: Genes that do not vary.
        control: Bin masses of control, smoothed: what a network of no effect predicts.
        networks: The members.
        errors: How far to trust predicted means; None before that is known.
        calibration: How often intervals held what was held out; likewise.
        about: How the screen was read, versions, fingerprints.
    """

    screen: str
    genes: tuple[str, ...]
    perturbations: tuple[str, ...]
    n_cells: Int[np.ndarray, "perturbation"]
    n_control: int
    vectors: Float[np.ndarray, "perturbation feature"]
    embeddings: GeneEmbeddings
    n_bins: int
    settings: ModelSettings
    held_out: Bool[np.ndarray, "member perturbation"]
    lower: Float[np.ndarray, "gene"]
    width: Float[np.ndarray, "gene"]
    constant: Bool[np.ndarray, "gene"]
    control: Float[np.ndarray, "gene bin"]
    networks: tuple[HistogramNetwork, ...]
    errors: ErrorModel | None = None
    calibration: Calibration | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def averaged(
        self,
        vectors: Float[np.ndarray, "perturbation feature"],
        asked: Bool[np.ndarray, "member perturbation"],
        n_cells: Int[np.ndarray, "perturbation"],
        *,
        with_masses: bool = True,
    ) -> Averaged:
        """What members predict for embeddings.

        Args:
            vectors: Embeddings.
            asked: The members that are asked, two or more for each.
            n_cells: Of the sample that the mean is held against.
            with_masses: Whether the histograms are wanted too.
        """
        shape = len(vectors), len(self.genes)
        number = asked.sum(axis=0)[:, None]
        sums = np.zeros((3, *shape))  # of means, of their squares, of second moments
        masses = np.zeros((*shape, self.n_bins)) if with_masses else None
        distances, nearest = self.distances(vectors), np.zeros(len(vectors))
        at_control = self._moments(aligned(self.control)).mean
        for member in range(len(self.networks)):
            for rows, predicted in self._predicted(member, vectors, np.flatnonzero(asked[member])):
                moments = self._moments(predicted)
                mean = moments.mean - at_control  # squares of shifts keep the digits that those of means would lose
                for total, values in zip(sums, (mean, mean**2, moments.variance + mean**2), strict=True):
                    total[rows] += values.numpy()
                if masses is not None:
                    masses[rows] += predicted.numpy()
                nearest[rows] += np.where(self.held_out[member], np.inf, distances[rows]).min(axis=1)
        shift, squares, second = sums / number
        variance = second - shift**2
        spread = np.maximum(squares - shift**2, 0) * number / (number - 1)
        at = Circumstances(variance / n_cells[:, None], spread, shift, nearest / number[:, 0])
        masses = None if masses is None else masses / number[..., None]
        return Averaged(at_control.numpy() + shift, at, masses)

    def summary(self) -> pd.DataFrame:
        """A row per perturbation that was trained on: cells, and how well members that had not seen it predict it.

        `distance` is that of the embedding from the nearest that these were trained on, `error_ratio` the root mean
        square error of its means in predicted standard deviations.
        """
        assert self.calibration is not None
        known = {"distance": self.calibration.distance, "error_ratio": self.calibration.ratio}
        return pd.DataFrame({"perturbation": self.perturbations, "n_cells": self.n_cells, **known})

    def save(self, path: str | Path) -> None:
        """Write it to one file, which `read_ensemble` reads: `files.write_ensemble`."""
        from histpert.ensembles.files import write_ensemble  # noqa: PLC0415 (which needs this class)

        write_ensemble(Path(path), self)

    def calibration_figure(self) -> Figure:
        """How often intervals held the means of held-out perturbations, and where less often."""
        from histpert.ensembles.figures import calibration_figure  # noqa: PLC0415 (matplotlib takes a while)

        assert self.calibration is not None
        return calibration_figure(self.calibration, self.screen)

    def _predicted(self, member: int, vectors: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Bin masses of a member for the vectors in these rows, some at a time."""
        network = deepcopy(self.networks[member])  # weights that are mapped lie as the file has them
        for first in range(0, len(rows), PREDICTED_AT_ONCE):
            some = rows[first : first + PREDICTED_AT_ONCE]
            yield some, network(aligned(vectors[some])).double().softmax(-1)

    def _moments(self, masses: Float[Tensor, "*batch gene bin"]) -> Moments:
        return histogram_moments(masses, aligned(self.lower), aligned(self.width))

    def distances(self, vectors: Float[np.ndarray, "one feature"]) -> Float[np.ndarray, "one perturbation"]:
        """Cosine distances of embeddings from those trained on, about the mean of these: 0 is the same direction."""
        middle = self.vectors.mean(axis=0, dtype=np.float64)
        ours, theirs = (aligned(_directions(each - middle)) for each in (vectors, self.vectors))
        return 1 - (ours @ theirs.T).clamp(-1, 1).numpy()


def aligned(array: np.ndarray) -> Tensor:
    """A copy that lies as torch's own tensors do: on this depends the last bit of a product, the same everywhere."""
    return torch.tensor(array)


def _directions(vectors: Float[np.ndarray, "one feature"]) -> Float[np.ndarray, "one feature"]:
    """Of length 1; none where the length is 0."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def member_network(
    control: Float[np.ndarray, "gene bin"], settings: ModelSettings, n_training: int, weights: Mapping[str, Tensor]
) -> HistogramNetwork:
    """A member of these weights, which are not copied.

    Raises:
        RuntimeError: They are not those of such a network.
    """
    n_features = weights["shift.0.weight"].shape[1]
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = HistogramNetwork(torch.empty(control.shape), n_features, settings.layers(n_training))
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval()
