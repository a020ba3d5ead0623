"""What a fold holds out is seen by nothing that is fitted or chosen in it.

A screen's file and a copy in which the cells of fold 0's held-out perturbations are others: in fold 0 everything up to
the predictions is the same byte for byte, in a fold that trains on these cells it is not.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from histpert.histograms import FoldCounts, HistogramStore, open_or_build
from histpert.models import METHODS, ModelSettings, TrainingSet
from histpert.screens import ReadOptions, Screen, assign_folds, read_screen
from histpert.targets import held_out_targets, training_targets

CPU = torch.device("cpu")
N_FOLDS, FOLD, OTHER_FOLD = 4, 0, 1
N_GENES, N_CONTROL, N_CELLS = 40, 60, 20
NAMES = [f"P{number:02}" for number in range(12)]
LABELS = np.array(["control"] * N_CONTROL + [name for name in NAMES for _ in range(N_CELLS)])
VECTORS = np.random.default_rng(7).normal(size=(12, 8)).astype(np.float32)
SETTINGS = ModelSettings(hidden=(16, 8), epochs=6, batch_size=4)


def held_out_in(fold: int) -> list[str]:
    folds = assign_folds(NAMES, N_FOLDS, 0)
    return [name for name, number in zip(NAMES, folds, strict=True) if number == fold]


HELD_OUT = held_out_in(FOLD)


@dataclass
class Side:
    """One of the two files, read and counted."""

    screen: Screen
    store: HistogramStore

    def training(self, fold: int, n_bins: int, vectors: np.ndarray = VECTORS) -> tuple[FoldCounts, TrainingSet]:
        counts = self.store.fold(fold, n_bins)
        return counts, training_targets(counts, self.store.moments, vectors, CPU)


def written(folder: Path, counts: np.ndarray) -> Path:
    folder.mkdir()
    obs = pd.DataFrame({"perturbation": LABELS}, index=[f"cell{number}" for number in range(len(LABELS))])
    var = pd.DataFrame(index=[f"gene{number}" for number in range(N_GENES)])
    anndata.AnnData(counts.astype(np.float32), obs=obs, var=var).write_h5ad(folder / "screen.h5ad")
    return folder / "screen.h5ad"


def altered(counts: np.ndarray) -> np.ndarray:
    """Other cells for the held-out perturbations: new extremes, other genes detected, zeros elsewhere."""
    random = np.random.default_rng(1)
    counts, rows = counts.copy(), np.isin(LABELS, HELD_OUT)
    others = np.zeros((rows.sum(), N_GENES), dtype=counts.dtype)
    others[np.arange(len(others)), np.arange(len(others)) % 10] = 5000
    others[::3, 30:] = random.poisson(30, others[::3, 30:].shape)
    counts[rows] = others
    return counts


def side(path: Path) -> Side:
    screen = read_screen(path, ReadOptions(min_control_detection=0.3))
    folds = assign_folds(screen.perturbations, N_FOLDS, 0)
    return Side(
        screen,
        open_or_build(
            path.parent / "stores", screen, folds, (5, 15), apart=(5, 15), with_coexpression=True, with_cells=True
        ),
    )


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    rates = np.geomspace(5, 0.05, N_GENES) * np.random.default_rng(2).uniform(0.5, 2, (len(LABELS), 1))
    counts = np.random.default_rng(0).poisson(rates)
    counts[:, [0, 20]] += 5  # genes whose smallest value is not 0
    for fold in range(N_FOLDS):  # a gene of each fold's own has its largest value there
        counts[np.isin(LABELS, held_out_in(fold)[0]), 4 + fold] = 50
    folder = tmp_path_factory.mktemp("no_leak")
    return side(written(folder / "original", counts)), side(written(folder / "altered", altered(counts)))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def as_bytes(values: Any) -> bytes:
    return np.ascontiguousarray(values).tobytes() + str((values.dtype, tuple(values.shape))).encode()


def unlike(left: dict[str, Any], right: dict[str, Any]) -> set[str]:
    """Names of the arrays that are not the same byte for byte."""
    assert left.keys() == right.keys()
    return {name for name in left if as_bytes(left[name]) != as_bytes(right[name])}


def fold_arrays(counts: FoldCounts, training: TrainingSet) -> dict[str, Any]:
    """All that a fold's training reads."""
    read = {"spread", "control_spread", "coexpression", "expression"}
    assert training.attended is None  # from a file, if at all
    names = [field.name for field in fields(training) if field.name not in {*read, "attended"}]
    return {
        "lower": counts.edges.lower,
        "width": counts.edges.width,
        "constant": counts.edges.constant,
        "training_counts": counts.training_counts,
        "control_counts": counts.control_counts,
        **{f"training set {name}": tensor(getattr(training, name)) for name in names if "cells" not in name},
        "training set n_cells": training.n_cells,
        "spread": every(training.spread()),
        "control spread": training.control_spread(),
        **training.coexpression()._asdict(),
        "expression of control": training.expression().of_control(),
        **{f"expression of {number}": training.expression().of(number) for number in range(len(counts.training))},
        **{f"cells {name}": values for name, values in every(training.cells())._asdict().items()},
        **{f"control cells {name}": values for name, values in training.control_cells()._asdict().items()},
    }


def every(rows):
    return rows[torch.arange(len(rows))]


def tensor(values: Any) -> torch.Tensor:
    """All rows, also of what works them out when it is asked."""
    return values if isinstance(values, torch.Tensor) else every(values)


def outcome(side: Side, method: str, fold: int, n_bins: int, epochs: int) -> dict[str, Any]:
    """Weights and predictions of a method that was fitted to its end."""
    counts, training = side.training(fold, n_bins)
    model: Any = METHODS[method](ModelSettings(hidden=SETTINGS.hidden, epochs=epochs, batch_size=SETTINGS.batch_size))
    losses = list(model.fit(training))
    weights = model.network.state_dict() if hasattr(model, "network") else {}
    predicted = model.predict(torch.from_numpy(VECTORS[counts.held_out]))
    assert bool(weights) == (method.startswith("MLP") or method.endswith("TG") or method in ("GEARS", "CellTARNet"))
    assert torch.isfinite(predicted.moments.mean).all()
    return {
        "losses": np.array([loss.item() for loss in losses]),
        "control": predicted.control_mean,
        "predicted": predicted.moments.mean if predicted.masses is None else predicted.masses,
        **{f"weight {name}": weight for name, weight in weights.items()},
    }


def test_the_altered_cells_are_others_in_extremes_and_in_detected_genes(sides):
    original, changed = sides
    assert set(HELD_OUT) < set(original.screen.perturbations)
    assert original.screen.fingerprint() != changed.screen.fingerprint()
    groups = np.flatnonzero(original.store.folds == FOLD) + 1
    before, after = original.store.moments, changed.store.moments
    assert (after.maximum[groups].max(0) > before.maximum.max(0)).any()
    assert (after.minimum[groups].min(0) < before.minimum.min(0)).any()
    assert (after.n_detected[groups] != before.n_detected[groups]).any(0).all()


def test_a_fold_that_holds_out_no_extreme_cell_is_counted_too(tmp_path):
    counts = np.tile([1, 3], (len(LABELS), N_GENES // 2))
    counts[0], counts[1] = np.tile([3, 0], N_GENES // 2), np.tile([0, 3], N_GENES // 2)
    same = side(written(tmp_path / "flat", counts))
    folds = [same.training(fold, 5)[0] for fold in range(N_FOLDS)]
    for fold in folds:
        np.testing.assert_array_equal(fold.edges.lower, folds[0].edges.lower)
        assert (fold.training_counts.sum(-1) == N_CELLS).all()
        assert fold.held_out_outside.sum() == 0


def test_genes_and_folds_are_the_same(sides):
    original, changed = sides
    assert 0 < len(original.screen.genes) < N_GENES
    assert original.screen.genes == changed.screen.genes
    assert original.store.folds.tolist() == changed.store.folds.tolist()


@pytest.mark.parametrize("n_bins", [5, 15])
def test_edges_counts_and_training_tensors_are_the_same(sides, n_bins):
    arrays = [fold_arrays(*side.training(FOLD, n_bins)) for side in sides]
    assert unlike(*arrays) == set()


@pytest.mark.parametrize("n_bins", [5, 15])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epochs", [0, SETTINGS.epochs], ids=["untrained", "trained"])
def test_weights_and_predictions_are_the_same(sides, method, n_bins, epochs):
    assert unlike(*(outcome(side, method, FOLD, n_bins, epochs) for side in sides)) == set()


@pytest.mark.parametrize("n_bins", [5, 15])
def test_embeddings_of_held_out_perturbations_are_not_trained_on(sides, n_bins):
    vectors = VECTORS.copy()
    vectors[sides[0].store.folds == FOLD] += 100
    arrays = [fold_arrays(*sides[0].training(FOLD, n_bins, given)) for given in (VECTORS, vectors)]
    assert unlike(*arrays) == set()


@pytest.mark.parametrize("n_bins", [5, 15])
def test_the_held_out_cells_themselves_are_scored_as_altered(sides, n_bins):
    counts = [side.training(FOLD, n_bins)[0] for side in sides]
    assert counts[0].held_out.tolist() == counts[1].held_out.tolist()
    assert (counts[0].held_out_counts != counts[1].held_out_counts).any()
    assert counts[1].held_out_outside.sum() > counts[0].held_out_outside.sum()
    targets = [held_out_targets(side.store, fold, CPU) for fold, side in zip(counts, sides, strict=True)]
    assert unlike(*({"lower": target.lower, "width": target.width} for target in targets)) == set()
    assert unlike(*({"control_mean": target.control_mean} for target in targets)) == set()
    assert not torch.equal(targets[0].moments.mean, targets[1].moments.mean)


@pytest.mark.parametrize("n_bins", [5, 15])
@pytest.mark.parametrize("method", METHODS)
def test_a_fold_that_trains_on_the_altered_cells_differs(sides, method, n_bins):
    arrays = [fold_arrays(*side.training(OTHER_FOLD, n_bins)) for side in sides]
    seen = {"lower", "width", "training_counts", "control_counts", "training set masses", "training set means"}
    assert seen <= unlike(*arrays)
    outcomes = [outcome(side, method, OTHER_FOLD, n_bins, 2) for side in sides]
    # The mean of control cells, from which methods for means start, is not one of what they train on.
    of_edges = {"control"} if method.endswith("Hist") else set()
    assert {"predicted"} | of_edges <= unlike(*outcomes)
