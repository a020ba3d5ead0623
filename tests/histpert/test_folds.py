"""Folds are a partition of the perturbations, as even as can be, and repeatable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histpert.errors import InputError
from histpert.screens import assign_folds


def names(number):
    return [f"GENE{i}" for i in range(number)]


@given(st.integers(2, 12), st.integers(0, 60), st.integers(0, 2**32))
def test_each_perturbation_is_held_out_once_in_folds_of_even_size(n_folds, n_more, seed):
    folds = assign_folds(names(n_folds + n_more), n_folds, seed)
    assert len(folds) == n_folds + n_more
    assert set(folds) == set(range(n_folds))
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 1


@given(st.integers(0, 2**32))
def test_the_seed_decides_the_folds(seed):
    assert np.array_equal(assign_folds(names(30), 4, seed), assign_folds(names(30), 4, seed))
    assert not np.array_equal(assign_folds(names(30), 4, seed), assign_folds(names(30), 4, seed + 1))


def test_folds_are_not_the_order_of_the_names():
    folds = assign_folds(names(60), 3, 0)
    assert not np.array_equal(folds, np.arange(60) % 3)
    assert not np.array_equal(folds, np.arange(60) // 20)


def test_drawing_random_numbers_elsewhere_changes_no_fold():
    before = assign_folds(names(20), 5, 7)
    np.random.default_rng().random(3)
    np.random.random(3)
    assert np.array_equal(assign_folds(names(20), 5, 7), before)


@pytest.mark.parametrize(("n_perturbations", "n_folds"), [(10, 1), (10, 0), (10, -3), (4, 5), (0, 2)])
def test_folds_that_cannot_be_filled_are_refused(n_perturbations, n_folds):
    with pytest.raises(InputError, match="--folds"):
        assign_folds(names(n_perturbations), n_folds, 0)
