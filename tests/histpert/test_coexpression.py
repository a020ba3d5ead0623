"""Co-expression of training cells, beside numpy's correlations."""

import numpy as np
import pytest
import scipy.sparse as sp
from test_store import FOLDS, make_screen

from histpert.histograms import open_or_build
from histpert.histograms.coexpression import SampledCells, coexpression


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_the_most_correlated_genes_of_training_cells_are_kept(tmp_path, fold):
    screen = make_screen()
    store = open_or_build(tmp_path, screen, FOLDS, [5], with_coexpression=True)
    neighbor, correlation = store.fold(fold, 5).coexpression()
    group = np.repeat(np.arange(len(screen.n_cells)), screen.n_cells)
    training = np.append(0, np.flatnonzero(fold != FOLDS) + 1)
    dense = screen.expression.toarray().astype(float)[np.isin(group, training)]
    constant = dense.std(axis=0) == 0
    assert constant.tolist() == [gene == 2 for gene in range(12)]
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.corrcoef(dense.T))
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(correlation, np.take_along_axis(expected, neighbor, axis=1), atol=1e-5)
    assert (np.sort(neighbor, axis=1) == np.arange(12)).all()
    assert (neighbor[:, 0] == np.arange(12)).all()
    assert (np.diff(np.abs(correlation), axis=1) <= 0).all()


def test_of_many_genes_twenty_are_kept():
    random = np.random.default_rng(0)
    cells = sp.csr_matrix((random.normal(size=(300, 4)) @ random.normal(size=(4, 50))).astype(np.float32))
    neighbor, _ = coexpression(cells[:100], [cells[100:200], cells[200:]], np.array([0, 1]))
    assert neighbor.shape == (2, 50, 21)
    dense = np.concatenate([cells[:100].toarray(), cells[200:].toarray()]).astype(float)
    size = np.abs(np.corrcoef(dense.T))
    for gene in range(50):
        assert set(neighbor[0, gene]) == set(np.argsort(-size[gene])[:21])


def test_a_sample_is_a_share_of_the_cells_and_the_same_each_time():
    random = np.random.default_rng(0)
    cells = sp.random(4_000, 30, 0.3, "csr", dtype=np.float32, random_state=random)
    cells.data += np.arange(cells.nnz) / cells.nnz
    found = SampledCells(0.25)(cells)
    assert abs(found.shape[0] - 1_000) < 4 * np.sqrt(4_000 * 0.25 * 0.75)
    assert (found != SampledCells(0.25)(cells)).nnz == 0
    rows = {tuple(row) for row in cells.toarray()}
    assert all(tuple(row) in rows for row in found.toarray())
    assert SampledCells(1.3)(cells) is cells


def test_the_store_gives_what_was_asked_for_later(tmp_path):
    open_or_build(tmp_path, make_screen(), FOLDS, [5])
    store = open_or_build(tmp_path, make_screen(), FOLDS, [5], with_coexpression=True)
    assert store.fold(0, 5).coexpression().neighbor.shape == (12, 12)
