"""The trials that each study runs by default on a screen, and what its store holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

from histpert.doctor.coverage import FoldSizes
from histpert.models import METHODS, WHOLE_CELLS
from histpert.models.celltarnet import CellSettings
from histpert.settings import ModelSettings, weight_triples
from histpert.study_defaults import (
    ABLATION_FOLDS,
    ABLATIONS,
    BIN_COUNTS,
    BINS,
    CEILING,
    COMBINATION_METHODS,
    FLOORS,
    INNER_FOLDS,
    JUDGING_FOLDS,
    LARGEST_LAYER,
    N_REPLICATES,
    OBSERVED,
    ON_GRAPH,
    SEARCH_TRIALS,
    SMALLEST_LAYER,
    SUBJECT,
    SWEPT_METHODS,
    VARIED,
)

__all__ = [
    "COMBINATIONS",
    "SEARCHED",
    "ScreenShape",
    "Store",
    "Study",
    "Trials",
    "combination_study",
    "searched_settings",
    "studies",
]

COMBINATIONS = "combinations"

SEARCHED = "MLP+Hist, searched"
"""MLP+Hist with a network as a search tries on average."""


class Trials(NamedTuple):
    """Trials that take the same."""

    method: str
    n_bins: int
    n: int
    """How many."""
    epochs: int
    folds: FoldSizes
    """Of which they are tried on one each."""


class ScreenShape(NamedTuple):
    """A screen as a study takes it."""

    n_cells: int
    n_genes: int
    n_features: int
    """Length of an embedding."""
    with_cells: bool
    """Whether predictions are compared with the cells one by one."""


class Store(NamedTuple):
    """What the store of a study holds beside moments, ranges and a reference."""

    bin_counts: tuple[int, ...]
    n_replicates: int = 0
    has_apart: bool = False
    has_cells: bool = False


@dataclass(frozen=True)
class Study:
    """A study with its default settings.

    Attributes:
        name: Of its script.
        trials: In the order in which they are started.
        store: What its store holds.
        n_stores: Stores that it builds, each after reading the screen.
        left_out: What it does not run here, and why; empty where it runs all.
    """

    name: str
    trials: tuple[Trials, ...]
    store: Store
    n_stores: int = 1
    left_out: str = ""

    @property
    def n_trials(self) -> int:
        """In all."""
        return sum(trials.n for trials in self.trials)


def studies(folds: FoldSizes, settings: ModelSettings) -> list[Study]:
    """Those of single perturbations."""
    makers: Sequence[Callable[[FoldSizes, ModelSettings], Study]] = (
        *(_bin_sweep, _methods, _loss_weights, _open_choices, _search),
    )
    return [make(folds, settings) for make in makers]


def _bin_sweep(folds: FoldSizes, settings: ModelSettings) -> Study:
    bins = sorted(BIN_COUNTS, reverse=True)
    trials = [Trials(method, n, folds.folds, settings.epochs, folds) for method in SWEPT_METHODS for n in bins]
    return Study("bin_sweep", tuple(trials), Store(BIN_COUNTS))


def _methods(folds: FoldSizes, settings: ModelSettings) -> Study:
    methods = [name for name in METHODS if name not in (*WHOLE_CELLS, *ON_GRAPH)]
    trials = [Trials(name, BINS, folds.folds, settings.epochs, folds) for name in (*methods, OBSERVED, CEILING)]
    return Study("methods", tuple(trials), Store((BINS,), N_REPLICATES, has_apart=True), left_out=_WITHOUT_GRAPH)


_WITHOUT_GRAPH = f"without {', '.join(ON_GRAPH)}, which needs --gene-sets"


def _loss_weights(folds: FoldSizes, settings: ModelSettings) -> Study:
    n = len(weight_triples()) * folds.folds
    return Study("loss_weights", (Trials(SUBJECT, BINS, n, settings.epochs, folds),), Store((BINS,)))


def _open_choices(folds: FoldSizes, settings: ModelSettings) -> Study:
    values = {name: len(others) for name, (_, others) in VARIED.items()}
    n_variants = 1 + sum(values.values()) + 2  # held-out clusters, and permuted embeddings
    of_floors = n_variants - values["output_scale"]  # floors have no output layer
    n_of = {SUBJECT: n_variants} | dict.fromkeys(FLOORS, of_floors)
    trials = [Trials(name, BINS, n * folds.folds, settings.epochs, folds) for name, n in n_of.items()]
    return Study("open_choices", tuple(trials), Store((BINS,), N_REPLICATES), n_stores=2)


def _search(folds: FoldSizes, settings: ModelSettings) -> Study:
    """A configuration's folds are tried one after the other, which is the same in all."""
    n_judged = len(JUDGING_FOLDS)
    searched = folds.trained_on + folds.most - n_judged * folds.most
    largest = -(-searched // INNER_FOLDS)
    inner = FoldSizes(INNER_FOLDS, searched // INNER_FOLDS, largest, searched - largest)
    each, rest = divmod(SEARCH_TRIALS * INNER_FOLDS, len(BIN_COUNTS))
    tried = [
        Trials(SEARCHED, n_bins, each + (place < rest), settings.epochs, inner)
        for place, n_bins in enumerate(sorted(BIN_COUNTS, reverse=True))
    ]
    judged = [
        Trials(SEARCHED, BINS, n_judged, settings.epochs, folds),
        Trials(SUBJECT, BINS, n_judged, settings.epochs, folds),
        Trials("Non-Ctrl Hist", BINS, n_judged, settings.epochs, folds),
    ]
    return Study("search", (*tried, *judged), Store(BIN_COUNTS), n_stores=2)


def searched_settings() -> Mapping[str, tuple[int, ...]]:
    """Hidden layers as a search tries on average: two, of the mean width of a uniform logarithm."""
    width = (LARGEST_LAYER - SMALLEST_LAYER) / log(LARGEST_LAYER / SMALLEST_LAYER)
    return {"hidden": (round(width),) * 2}


def combination_study(folds: FoldSizes, settings: ModelSettings, cells: CellSettings) -> Study:
    """That of pairs of genes perturbed together."""
    n_flows = folds.folds + len(ABLATIONS) * ABLATION_FOLDS
    others = [name for name in COMBINATION_METHODS if name not in ("CellTARNet", *ON_GRAPH)]
    trials = [
        Trials("CellTARNet", BINS, n_flows, cells.epochs, folds),
        *(Trials(name, BINS, folds.folds, settings.epochs, folds) for name in others),
    ]
    return Study(COMBINATIONS, tuple(trials), Store((BINS,), has_cells=True), left_out=_WITHOUT_GRAPH)
