"""Predicted responses, as tables, as an AnnData and as figures; beside the cells of a screen where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float
from pyarrow import feather

from histpert.errors import InputError
from histpert.multi_hot import genes_of
from histpert.results import write_atomically
from histpert.study_defaults import SHOWN_GENES
from histpert.top_genes import TopBy
from histpert.wording import some

if TYPE_CHECKING:
    import anndata
    from matplotlib.figure import Figure

__all__ = ["Distributions", "Responses"]

LEAST_DETECTED = 0.05
"""Genes seen in a smaller share of control cells, and of those predicted, are not among the top ones."""


class Distributions(NamedTuple):
    """Histograms of log-normalized expression and their statistics, uniform inside each bin.

    Attributes:
        masses: Bin masses.
        mean: Mean.
        variance: Variance.
        skewness: Skewness.
        kurtosis: Excess kurtosis.
        w1: Wasserstein-1 distance from control.
        p_zero: Share of cells in the first bin, where that is centred at zero; NaN for genes that all cells have.
    """

    masses: Float[np.ndarray, "perturbation gene bin"]
    mean: Float[np.ndarray, "perturbation gene"]
    variance: Float[np.ndarray, "perturbation gene"]
    skewness: Float[np.ndarray, "perturbation gene"]
    kurtosis: Float[np.ndarray, "perturbation gene"]
    w1: Float[np.ndarray, "perturbation gene"]
    p_zero: Float[np.ndarray, "perturbation gene"]

    @property
    def bimodality(self) -> Float[np.ndarray, "perturbation gene"]:
        """Sarle's coefficient (Pfister et al., Frontiers in Psychology 2013): `(skewness^2 + 1) / kurtosis`.

        It is 1 of two points, 5/9 of a uniform distribution, 1/3 of a normal one.
        """
        return (self.skewness**2 + 1) / (self.kurtosis + 3)


_STATISTICS = ("mean", "variance", "skewness", "kurtosis", "bimodality", "p_zero")


@dataclass(frozen=True, eq=False)
class Responses:
    """Predicted responses of all genes.

    Attributes:
        screen: Name of the screen that was trained on.
        genes: Of the screen.
        perturbations: Those that are predicted.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        constant: Genes that do not vary.
        control: Control, as the ensemble sees it; its arrays have one row.
        predicted: After the perturbations.
        mean_low: Lower end of the interval of each mean.
        mean_high: Upper end.
        spread: Standard deviation of the predicted mean over members.
        level: Share of the intervals that hold the mean over the cells of an experiment.
        n_cells: Of that experiment.
        trust: A row per perturbation: whether it was trained on (and is predicted by members that had not seen it), how
            many members were asked, the nearest embedding that was trained on, the distance from there averaged over
            members, and the share of held-out perturbations that were nearer.
        missing: Perturbations that were asked for and have no embedding.
        notes: What was found under other names, and likely names of what is missing.
        observed: Cells of a screen; NaN for perturbations that it does not have.
        n_observed: Their number.
    """

    screen: str
    genes: tuple[str, ...]
    perturbations: tuple[str, ...]
    lower: Float[np.ndarray, "gene"]
    width: Float[np.ndarray, "gene"]
    constant: Bool[np.ndarray, "gene"]
    control: Distributions
    predicted: Distributions
    mean_low: Float[np.ndarray, "perturbation gene"]
    mean_high: Float[np.ndarray, "perturbation gene"]
    spread: Float[np.ndarray, "perturbation gene"]
    level: float
    n_cells: int
    trust: pd.DataFrame
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    observed: Distributions | None = None
    n_observed: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.perturbations)

    def table(self) -> pd.DataFrame:
        """A row per perturbation and gene, as `rows`, to do with as one likes."""
        return self.rows.copy()

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row per perturbation and gene: statistics of control, as predicted, and as observed where cells are known.

        `mean_low` to `mean_high` holds the mean with the share `level`; `spread` is the standard deviation of the
        predicted mean over members; `w1` is the distance from control, `beyond_mean` what it has beyond the shift of
        the mean. All are of log-normalized expression.
        """
        n, sources = len(self), {"control": self.control, "predicted": self.predicted}
        if self.observed is not None:
            sources["observed"] = self.observed
        columns: dict[str, np.ndarray] = {
            "perturbation": np.repeat(self.perturbations, len(self.genes)),
            "gene": np.tile(self.genes, n),
            "is_perturbed": self._is_perturbed.reshape(-1),
        }
        for statistic in _STATISTICS:
            for name, source in sources.items():
                values = getattr(source, statistic)
                columns[f"{name}_{statistic}"] = np.broadcast_to(values, (n, len(self.genes))).reshape(-1)
            if statistic == "mean":
                columns |= {name: getattr(self, name).reshape(-1) for name in ("mean_low", "mean_high", "spread")}
        columns["mean_shift"] = self._change("mean").reshape(-1)
        columns["w1"] = self.predicted.w1.reshape(-1)
        columns["beyond_mean"] = self._change("shape").reshape(-1)
        if self.observed is not None:
            columns["observed_w1"] = self.observed.w1.reshape(-1)
        return pd.DataFrame(columns)

    def to_anndata(self) -> anndata.AnnData:
        """Control and perturbations in `obs`, genes in `var`; `X` has means, `layers` the other statistics."""
        from anndata import AnnData  # noqa: PLC0415 (takes a while)

        def with_control(statistic: str) -> np.ndarray:
            return np.concatenate([getattr(self.control, statistic), getattr(self.predicted, statistic)])

        obs = pd.concat([pd.DataFrame({"perturbation": ["control"]}), self.trust], ignore_index=True)
        obs["trained_on"] = obs["trained_on"].astype("boolean")
        obs.index = pd.Index(["control", *self.perturbations])
        var = pd.DataFrame({"lower": self.lower, "width": self.width}, index=pd.Index(self.genes))
        layers = {name: with_control(name) for name in ("variance", "skewness", "kurtosis", "p_zero", "w1")}
        at_control = self.control.mean
        layers |= {
            "mean_low": np.concatenate([at_control, self.mean_low]),
            "mean_high": np.concatenate([at_control, self.mean_high]),
            "spread": np.concatenate([np.zeros_like(at_control), self.spread]),
        }
        return AnnData(with_control("mean"), obs=obs, var=var, layers=layers, uns={"level": self.level})

    def write_histograms(self, path: Path) -> None:
        """Write predicted bin masses as Arrow (Feather), a row per perturbation and gene, control first.

        Columns: `perturbation`, `gene`, `lower` (left edge of the first bin), `width` (of the bins), `predicted` (a
        list of masses) and, beside cells, `observed`, which is null where a perturbation has none.
        """
        n_groups, n_genes = 1 + len(self), len(self.genes)
        columns = {
            "perturbation": _labels(np.repeat(np.arange(n_groups), n_genes), ("control", *self.perturbations)),
            "gene": _labels(np.tile(np.arange(n_genes), n_groups), self.genes),
            "lower": pa.array(np.tile(self.lower, n_groups)),
            "width": pa.array(np.tile(self.width, n_groups)),
            "predicted": _lists(np.concatenate([self.control.masses, self.predicted.masses])),
        }
        if self.observed is not None:
            nothing = np.full_like(self.control.masses, np.nan)
            columns["observed"] = _lists(np.concatenate([nothing, self.observed.masses]))
        table = pa.table(columns)
        write_atomically(path, lambda beside: feather.write_feather(table, str(beside), "uncompressed"))

    def top(self, perturbation: str, by: TopBy = "w1", n_genes: int = 10) -> pd.DataFrame:
        """Rows of `table` of the genes that a perturbation changes most; those that it perturbs are left out.

        Raises:
            InputError: No such perturbation or order.
        """
        if by not in get_args(TopBy):
            raise InputError(f"--top-by {by}: give one of {', '.join(get_args(TopBy))}")
        number = self._number(perturbation)
        size = np.nan_to_num(np.abs(self._change(by)[number]), nan=0.0)
        in_zero_bin = np.minimum(self.control.p_zero[0], self.predicted.p_zero[number])
        seen = ~(in_zero_bin > 1 - LEAST_DETECTED) & ~self.constant & ~self._is_perturbed[number]
        order = np.argsort(-size, kind="stable")
        chosen = order[seen[order] & (size[order] > 0)][:n_genes]
        return self.rows.iloc[number * len(self.genes) + chosen].reset_index(drop=True)

    def figure(
        self, perturbation: str, by: TopBy = "w1", n_genes: int = SHOWN_GENES, genes: Sequence[str] = ()
    ) -> Figure:
        """Changes of all genes, and histograms of the top ones or of those named: `figures.response_figure`."""
        from histpert.ensembles.figures import response_figure  # noqa: PLC0415 (matplotlib takes a while)

        return response_figure(self, perturbation, by=by, n_genes=n_genes, genes=genes)

    def _change(self, by: TopBy) -> Float[np.ndarray, "perturbation gene"]:
        """From control, by what genes are put in order by."""
        match by:
            case "w1":
                return self.predicted.w1
            case "shape":
                return np.maximum(self.predicted.w1 - np.abs(self._change("mean")), 0)
        return getattr(self.predicted, by) - getattr(self.control, by)

    @cached_property
    def _is_perturbed(self) -> Bool[np.ndarray, "perturbation gene"]:
        return np.array([np.isin(self.genes, genes_of(name)) for name in self.perturbations])

    def _number(self, perturbation: str) -> int:
        if perturbation not in self.perturbations:
            raise InputError(f"{perturbation} is not among those predicted: {some(self.perturbations)}")
        return self.perturbations.index(perturbation)


def _labels(numbers: np.ndarray, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(names, pa.string()))


def _lists(masses: Float[np.ndarray, "perturbation gene bin"]) -> pa.Array:
    """Lists of bin masses; null where there are none."""
    n_bins = masses.shape[-1]
    rows = masses.reshape(-1, n_bins).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), n_bins, mask=pa.array(np.isnan(rows[:, 0])))
