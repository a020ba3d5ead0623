"""Folds are a partition of the perturbations, as even as can be, and repeatable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histpert.errors import InputError
from histpert.screens import assign_cluster_folds, assign_folds


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
    with pytest.raises(InputError, match="--folds"):
        assign_cluster_folds(np.eye(n_perturbations, 4), n_folds, 0)


def clustered(n_clusters=12, n_each=6, seed=0):
    """Embeddings in clusters that lie far apart, shuffled, and the cluster of each."""
    random = np.random.default_rng(seed)
    cluster = random.permutation(np.repeat(np.arange(n_clusters), n_each))
    centers = random.normal(size=(n_clusters, 20))
    return centers[cluster] + 0.01 * random.normal(size=(len(cluster), 20)), cluster


def test_clusters_are_held_out_whole_in_folds_of_even_size():
    embeddings, cluster = clustered()
    folds = assign_cluster_folds(embeddings, 4, 0)
    assert np.bincount(folds).tolist() == [18] * 4
    for number in range(12):
        assert len(set(folds[cluster == number])) == 1
    assert np.array_equal(assign_cluster_folds(embeddings, 4, 0), folds)


def test_what_a_fold_holds_out_is_further_from_its_training_than_at_random():
    embeddings = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)

    def nearest(folds):
        distance = np.linalg.norm(embeddings[:, None] - embeddings, axis=-1)
        return np.where(folds[:, None] == folds, np.inf, distance).min(1).mean()

    at_random = assign_folds(names(90), 5, 0)
    assert nearest(assign_cluster_folds(embeddings, 5, 0)) > 1.05 * nearest(at_random)


def test_perturbations_of_one_embedding_fill_no_folds():
    with pytest.raises(InputError, match="--hold-out clusters: 1 different"):
        assign_cluster_folds(np.ones((10, 4)), 3, 0)
