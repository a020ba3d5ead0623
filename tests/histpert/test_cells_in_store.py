"""Cells one by one in the store, beside those of the screen, and which of them a fold's training can reach."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from test_store import FOLDS, make_screen

from histpert.errors import InputError
from histpert.histograms import open_or_build
from histpert.screens import assign_pair_folds, group_cells
from histpert.targets import training_targets

NAMES = ("A", "A+B", "A+C", "A+D", "B", "B+C", "C")


def of_pairs():
    """Cells of single genes and of pairs; each value tells its cell and gene."""
    labels = ["", *NAMES] * 3
    values = (np.arange(len(labels) * 4, dtype=np.float32) + 1).reshape(len(labels), 4) / 50
    values[:, 2] *= np.arange(len(labels)) % 2
    return group_cells(sp.csr_matrix(values), labels, tuple("WXYZ"), "pairs")


def test_cells_are_those_of_the_screen_group_after_group(tmp_path):
    screen = make_screen()
    store = open_or_build(tmp_path, screen, FOLDS, [5], with_cells=True)
    expression, start = store.cells()
    assert expression.dtype == np.float32
    np.testing.assert_array_equal(expression, screen.expression.toarray())
    np.testing.assert_array_equal(start, screen.group_start)
    assert not expression.flags.owndata  # a view of the mapped file
    assert not expression.flags.writeable


def test_cells_are_added_to_a_store_without_them(tmp_path):
    screen = make_screen()
    store = open_or_build(tmp_path, screen, FOLDS, [5])
    assert not store.has_cells
    with pytest.raises(InputError, match=r"has no cells\.arrow"):
        store.cells()
    added = open_or_build(tmp_path, screen, FOLDS, [5], with_cells=True)
    assert added.folder == store.folder
    assert added.has_cells


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_training_reaches_the_cells_of_control_and_training_perturbations_alone(tmp_path, fold):
    screen = make_screen()
    store = open_or_build(tmp_path, screen, FOLDS, [5], with_cells=True)
    vectors = np.zeros((len(FOLDS), 2), dtype=np.float32)
    expression = training_targets(store.fold(fold, 5), store.moments, vectors, torch.device("cpu")).expression()
    dense, bounds = screen.expression.toarray(), screen.group_start
    training = np.flatnonzero(fold != FOLDS)
    assert len(expression) == len(training)
    np.testing.assert_array_equal(expression.of_control(), dense[: bounds[1]])
    for number, perturbation in enumerate(training):
        np.testing.assert_array_equal(expression.of(number), dense[bounds[perturbation + 1] : bounds[perturbation + 2]])
    with pytest.raises(IndexError):
        expression.of(len(training))


def test_what_is_in_no_fold_over_pairs_is_trained_on_in_each(tmp_path):
    screen = of_pairs()
    assert screen.perturbations == NAMES
    folds = assign_pair_folds(NAMES, 3, 0)
    assert sorted(folds[[1, 2, 5]]) == [0, 1, 2]  # A+D is no candidate, D was not perturbed alone
    assert set(folds[[0, 3, 4, 6]]) == {3}
    store = open_or_build(tmp_path, screen, folds, [15], with_cells=True, with_coexpression=True)
    for fold in range(3):
        counts = store.fold(fold, 15)
        assert counts.held_out.tolist() == np.flatnonzero(folds == fold).tolist()
        assert {0, 3, 4, 6} < {*counts.training.tolist()}
        training = np.isin(np.repeat(np.arange(8), 3), np.append(0, counts.training + 1))
        seen = screen.expression.toarray()[training].astype(float)
        np.testing.assert_allclose(counts.edges.centers[:, 0], seen.min(axis=0), atol=1e-6)
        np.testing.assert_allclose(counts.edges.centers[:, -1], seen.max(axis=0), atol=1e-6)
        assert (counts.training_counts.sum(-1) == 3).all()
