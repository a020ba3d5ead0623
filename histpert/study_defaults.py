"""What studies try by default: one home for the scripts that run it and for the forecast of what it takes. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ABLATIONS",
    "ABLATION_FOLDS",
    "BINS",
    "BIN_COUNTS",
    "CEILING",
    "COMBINATION_FOLDS",
    "COMBINATION_GENES",
    "COMBINATION_METHODS",
    "FLOORS",
    "FOLDS",
    "INNER_FOLDS",
    "INTERVAL_LEVEL",
    "JUDGING_FOLDS",
    "LARGEST_LAYER",
    "MEMBER_FOLDS",
    "N_REPLICATES",
    "OBSERVED",
    "ON_GENES",
    "ON_GRAPH",
    "REPEATS",
    "SEARCH_TRIALS",
    "SHOWN_GENES",
    "SMALLEST_LAYER",
    "SUBJECT",
    "SWEPT_METHODS",
    "VARIED",
]

FOLDS = 9
"""Folds of the cross-validation over perturbations."""

BINS = 15
"""Number of bins where it is not what a study varies."""

BIN_COUNTS = (5, 10, 15, 20, 25, 35)
"""Those that the bin sweep compares and the search chooses from."""

SUBJECT = "MLP+Hist"
FLOORS = ("Ctrl Hist", "Non-Ctrl Hist")

MEMBER_FOLDS, REPEATS = 5, 3
"""Of a final model: 15 networks are each trained on four fifths of the perturbations; of each perturbation 3 know
nothing."""

INTERVAL_LEVEL = 0.8
"""Share of intervals that hold the mean."""

SHOWN_GENES = 6
"""Genes whose predicted histograms are shown."""

OBSERVED = "Observed Hist"
"""Not a method: the held-out cells' own histogram, scored like a prediction. What binning alone costs."""

CEILING = "Ceiling"
"""Not a method either: what a perfect prediction would score, given the sampling of the cells. Needs replicates."""

N_REPLICATES = 16
"""Bootstrap replicates of the cells in studies that need them: for the ceiling, for reliabilities and for shifts from
two halves of control. On a fold of Papalexi 2021 the standard error of a ceiling over 16 is 0.004 at most for RMAE and
correlations, 0.014 for `de_spearman`; reliabilities move by 0.01 to 0.04 (docs/metrics.md)."""

ON_GRAPH = ("GEARS",)
"""Methods whose embeddings are rows of a graph of gene sets, without which they are left out."""

SWEPT_METHODS = (SUBJECT, *FLOORS, OBSERVED)
"""Those of the bin sweep."""

VARIED: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "control_smoothing": ("control smoothing", (1e-6, 1e-3, 1e-2)),
    "output_scale": ("output scale", (0.1, 1.0)),
    "nll_floor": ("NLL floor", (1e-8, 1e-4)),
}
"""Settings that the paper leaves open, what they are called, and their other values."""

SEARCH_TRIALS = 40
"""Configurations that a search tries."""

JUDGING_FOLDS = (0, 1, 2)
"""Folds whose perturbations a search does not see, and which judge what it chose."""

INNER_FOLDS = 4
"""Folds of a search's own cross-validation over the other perturbations."""

SMALLEST_LAYER, LARGEST_LAYER = 32, 1024
"""The widths of hidden layers that a search tries, by their logarithm."""

COMBINATION_FOLDS = 10
"""Folds over pairs of genes perturbed together."""

COMBINATION_GENES = 1_000
"""The most expressed ones in control cells, which models of whole cells are run on."""

ON_GENES = ("Additive", "Ridge", "CellTARNet")
"""Methods that are told which genes are perturbed, and no more; the others take embeddings, averaged."""

COMBINATION_METHODS = ("Ctrl Hist", "MLP+Hist", "MLP+Hist copula", "GEARS", *ON_GENES)

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "without contrast": {"contrast_weight": 0.0},
    "without prior": {"sparse_k": 0, "low_rank_k": 0},
    "sparse prior alone": {"low_rank_k": 0},
    "low-rank prior alone": {"sparse_k": 0},
    "without denoising": {"denoise_weight": 0.0, "noise": 0.0},
    "noise without denoising": {"denoise_weight": 0.0},
}
"""What CellTARNet is tried without."""

ABLATION_FOLDS = 1
"""Folds in which it is."""
