"""The truth about a simulated screen: exact moments and histograms of every gene, and joint samples on demand."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from histpert.errors import InputError
from histpert.screens.simulation.cells import SAMPLE, SimulatedCells, draw_cells
from histpert.screens.simulation.marginals import Marginals, marginals
from histpert.screens.simulation.parameters import CONTROL, ScreenParameters
from histpert.screens.simulation.settings import Simulation
from histpert.screens.statistics import shape_statistics

__all__ = ["ScreenTruth"]

FORMAT = 1
"""Version of the parameter file."""


class ScreenTruth(ScreenParameters):
    """Parameters of a simulated screen, and what follows from them."""

    def moments(self, perturbation: str) -> pd.DataFrame:
        """True moments of log-normalized expression, exact but for rounding.

        Args:
            perturbation: A gene, a pair `A+B` in either order, or `control`.

        Returns:
            A row per gene: mean, variance, skewness and (excess) kurtosis, and the fraction of zeros.

        Raises:
            InputError: No such perturbation.
        """
        truth = self._marginals(perturbation, np.zeros((1, 0)))
        table = shape_statistics(truth.moments.T)
        table |= {"mean": self._centers() + table["mean"], "zeros": truth.zeros}
        return pd.DataFrame(table, index=pd.Index(self.genes, name="gene"))

    def histogram(
        self, perturbation: str, bin_edges: Float[np.ndarray, "bound"] | Float[np.ndarray, "gene bound"]
    ) -> Float[np.ndarray, "gene bin"]:
        """True bin masses of log-normalized expression; what lies outside the edges counts in the nearest bin.

        Args:
            perturbation: A gene, a pair `A+B` in either order, or `control`.
            bin_edges: Rising, the same for all genes or a row per gene. A bin holds its left edge, not its right one.

        Raises:
            InputError: No such perturbation, or edges that do not fit.
        """
        edges = np.atleast_2d(np.asarray(bin_edges, dtype=np.float64))
        if edges.shape[0] not in (1, len(self.genes)) or edges.shape[1] < 2 or not (np.diff(edges) > 0).all():
            raise InputError(
                f"bin edges of shape {np.shape(bin_edges)}: give two or more rising edges, "
                f"for all genes or in {len(self.genes)} rows"
            )
        return self._marginals(perturbation, edges).masses

    def _centers(self) -> Float[np.ndarray, "gene"]:
        """Rough means in control, so that sums of powers about them lose few digits."""
        return np.log1p(np.exp(self.log_rate))

    def _marginals(self, perturbation: str, bin_edges: Float[np.ndarray, "row bound"]) -> Marginals:
        parts = []
        for response, share in self.mixture(perturbation).items():
            log_rate, dispersion, silenced = self.log_rate, np.exp(self.log_dispersion), np.zeros(len(self.genes))
            if response >= 0:
                effects = self.effects(np.array([response]))
                log_rate = log_rate + effects.log_rate[0]
                dispersion = dispersion * np.exp(effects.log_dispersion[0])
                silenced = effects.silenced[0]
            spread = np.sqrt(self.log_variance)
            part = marginals(log_rate, spread, dispersion, silenced, self.library_sizes, self._centers(), bin_edges)
            parts.append([share * values for values in part])
        return Marginals(*(np.sum(values, axis=0) for values in zip(*parts, strict=True)))

    def sample(self, perturbation: str, n_cells: int, seed: int) -> SimulatedCells:
        """Further cells of one perturbation, joint over genes.

        Args:
            perturbation: A gene, a pair `A+B` in either order, or `control`.
            n_cells: How many.
            seed: The same seed gives the same cells; no seed gives cells of the screen itself.

        Raises:
            InputError: No such perturbation, or no cells asked for.
        """
        if n_cells < 1:
            raise InputError(f"{n_cells} cells of {perturbation!r}: ask for 1 or more")
        number = -1 if perturbation == CONTROL else self.number(perturbation)
        seeds = np.random.SeedSequence(seed, spawn_key=(SAMPLE, number + 1))
        return SimulatedCells.join(draw_cells(self, np.full(n_cells, number), seeds))

    def save(self, path: Path) -> None:
        """Write the parameters as `.npz`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays: dict[str, Any] = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        words = {"format": FORMAT, "seed": self.seed, "simulation": asdict(self.simulation)}
        words |= {name: list(value) for name, value in values.items() if _is_words(value)}
        with path.open("wb") as file:
            np.savez_compressed(file, settings=np.array(json.dumps(words)), **arrays)

    @staticmethod
    def load(path: str | Path) -> ScreenTruth:
        """Read a parameter file.

        Raises:
            InputError: The file is missing or is not a parameter file of this version.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays: dict[str, Any] = dict(archive)
            words: dict[str, Any] = json.loads(str(arrays.pop("settings")))
            if words.pop("format") != FORMAT:
                raise InputError(f"{path} was written by another version of histpert: simulate the screen again")
            simulation = Simulation(**_with_tuples(words.pop("simulation")))
            return ScreenTruth(simulation=simulation, **_with_tuples(words), **arrays)
        except FileNotFoundError:
            raise InputError(f"{path} does not exist: give the .truth.npz beside a simulated screen") from None
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise InputError(
                f"{path} is not the parameter file of a simulated screen ({error}): give the .truth.npz beside one"
            ) from error


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _is_words(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(word, str) for word in value)
