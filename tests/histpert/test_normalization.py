"""Normalization of counts, against scanpy; values that are neither counts nor log-normalized."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from histpert.errors import InputError
from histpert.screens import ReadOptions, read_screen
from histpert.screens.matrices import CellMatrix
from histpert.screens.normalization import log_normalize

pytestmark = pytest.mark.filterwarnings("ignore:Some cells have zero counts")

LABELS = ["control"] * 5 + ["A"] * 5
COUNTS = np.random.default_rng(3).negative_binomial(1, 0.1, (10, 6)).astype(np.float64)
COUNTS[2] = 0  # a cell without counts
LOG_VALUES = np.log1p(COUNTS / 3)


def screen_file(folder, values, **obs):
    """Path of a screen whose cells are in the order of its groups already."""
    table = pd.DataFrame({"perturbation": LABELS, **obs}, index=[f"cell{number}" for number in range(values.shape[0])])
    path = folder / "screen.h5ad"
    anndata.AnnData(values, obs=table).write_h5ad(path)
    return path


def scanpy_says(counts):
    data = anndata.AnnData(np.array(counts, dtype=np.float64))
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    return np.asarray(data.X)


def test_counts_of_a_file_are_normalized_as_scanpy_does(tmp_path):
    screen = read_screen(screen_file(tmp_path, sp.csr_matrix(COUNTS)))
    np.testing.assert_allclose(screen.expression.toarray(), scanpy_says(COUNTS), rtol=1e-6)
    assert any("raw counts" in note for note in screen.notes)


@settings(deadline=None)
@given(hnp.arrays(np.int64, (4, 3), elements=st.integers(0, 100_000)))
def test_any_counts_are_normalized_as_scanpy_does(counts):
    expression, _ = log_normalize(CellMatrix.of(sp.csr_matrix(counts)), None)
    np.testing.assert_allclose(expression.toarray(), scanpy_says(counts), rtol=1e-6)
    assert expression.nnz == np.count_nonzero(counts)


def test_the_sum_is_over_all_genes_of_the_file_also_those_left_out_later(tmp_path):
    counts = COUNTS.copy()
    counts[:5, 0] = 0
    screen = read_screen(screen_file(tmp_path, counts), ReadOptions(min_control_detection=0.01))
    assert len(screen.genes) == 5
    np.testing.assert_allclose(screen.expression.toarray(), scanpy_says(counts)[:, 1:], rtol=1e-6)


def test_a_library_size_column_takes_the_place_of_the_sum(tmp_path):
    sizes = np.arange(1, 11) * 1000
    screen = read_screen(screen_file(tmp_path, COUNTS, umis=sizes), ReadOptions(library_size_column="umis"))
    np.testing.assert_allclose(screen.expression.toarray(), np.log1p(COUNTS / sizes[:, None] * 10_000), rtol=1e-6)


def test_library_sizes_go_with_their_cells_through_filter_and_grouping(tmp_path):
    sizes = np.arange(1, 11) * 1000
    labels = ["A", "control"] * 5
    path = screen_file(tmp_path, COUNTS, umis=sizes, condition=labels)
    options = ReadOptions(
        perturbation_column="condition", library_size_column="umis", cell_filter="umis > 2500 and umis != 6000"
    )
    rows = [3, 7, 9, 2, 4, 6, 8]
    expected = np.log1p(COUNTS[rows] / sizes[rows, None] * 10_000)
    np.testing.assert_allclose(read_screen(path, options).expression.toarray(), expected, rtol=1e-6)


FORTY = np.tile(COUNTS, (4, 1))
TOTALS = FORTY.sum(axis=1)
MORE = 3 * TOTALS + 7
"""Counts of forty cells, what they add to, and what a cell may have over all of its genes."""


def changed(values, value, *place):
    values = values.copy()
    values[place or (1, 1)] = value
    return values


GUESSES = {
    "more than the sums": (MORE, True),
    "the sums themselves": (np.maximum(TOTALS, 1), True),
    "less in one cell": (changed(MORE, 1, 5), True),
    "less in a twentieth of the cells": (changed(MORE, 1, [5, 30]), False),
    "factors around 1": (np.linspace(0.3, 2.5, 40), False),
    "means per gene": (np.maximum(TOTALS, 1) / 6, False),
    "one zero": (changed(MORE, 0, 5), False),
    "one below zero": (changed(MORE, -1, 5), False),
    "one missing": (changed(MORE, np.nan, 5), False),
    "words": (np.array(["many"] * 40), False),
}


@pytest.mark.parametrize("case", GUESSES)
def test_a_column_that_nobody_named_is_the_library_size_where_it_can_be(tmp_path, case):
    sizes, taken = GUESSES[case]
    path = screen_file(tmp_path, FORTY, perturbation=["control"] * 15 + ["A"] * 25, library_size=sizes)
    screen = read_screen(path)
    expected = np.log1p(FORTY / sizes[:, None] * 10_000) if taken else scanpy_says(FORTY)
    np.testing.assert_allclose(screen.expression.toarray(), expected, rtol=1e-6)
    (note,) = [note for note in screen.notes if "raw counts" in note]
    assert "librar" in note
    assert ("their sum per cell" in note) == (not taken)


def test_a_column_that_nobody_named_is_looked_at_in_the_cells_that_are_used(tmp_path):
    sizes = MORE.copy()
    sizes[::10] = 0
    left_out = np.arange(40) % 10 == 0
    sizes[1], label = 0, ["control"] * 15 + ["A"] * 25
    label[1] = "A+B"
    path = screen_file(tmp_path, FORTY, perturbation=label, library_size=sizes, good=~left_out)
    rows = np.flatnonzero(sizes)
    expected = np.log1p(FORTY[rows] / sizes[rows, None] * 10_000)
    screen = read_screen(path, ReadOptions(cell_filter="good"))
    np.testing.assert_allclose(screen.expression.toarray(), expected, rtol=1e-6)


def test_a_named_library_size_column_is_taken_also_where_it_is_less_than_the_sum(tmp_path):
    sizes = np.linspace(0.3, 2.5, 10)
    path = screen_file(tmp_path, COUNTS, library_size=sizes)
    screen = read_screen(path, ReadOptions(library_size_column="library_size"))
    np.testing.assert_allclose(screen.expression.toarray(), np.log1p(COUNTS / sizes[:, None] * 10_000), rtol=1e-6)


def test_log_normalized_values_have_no_use_for_a_column_that_nobody_named(tmp_path):
    path = screen_file(tmp_path, LOG_VALUES, library_size=[0.0, np.nan, *range(8)])
    np.testing.assert_array_equal(read_screen(path).expression.toarray(), LOG_VALUES.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_normalized_values_are_kept(tmp_path, dtype):
    screen = read_screen(screen_file(tmp_path, LOG_VALUES.astype(dtype)))
    np.testing.assert_array_equal(screen.expression.toarray(), LOG_VALUES.astype(np.float32))
    assert any("log-normalized" in note for note in screen.notes)


def test_normalizing_what_was_normalized_changes_nothing():
    once, _ = log_normalize(CellMatrix.of(sp.csr_matrix(COUNTS)), None)
    twice, _ = log_normalize(CellMatrix.of(once), None)
    np.testing.assert_array_equal(twice.toarray(), once.toarray())


BAD_VALUES = {
    "NaN": (changed(COUNTS, np.nan), {}, {}, ("screen.h5ad", "1 ", "NaN")),
    "infinite": (changed(LOG_VALUES, np.inf), {}, {}, ("screen.h5ad", "infinite")),
    "negative counts": (changed(COUNTS, -2), {}, {}, ("screen.h5ad", "negative", "-2")),
    "scaled values": (LOG_VALUES - LOG_VALUES.mean(axis=0), {}, {}, ("screen.h5ad", "negative")),
    "neither counts nor logarithms": (changed(COUNTS, 250.5), {}, {}, ("screen.h5ad", "250.5", "neither")),
    "library size column missing": (
        COUNTS,
        {"umis": range(1, 11)},
        {"library_size_column": "n_umi"},
        ("screen.h5ad", "'n_umi'", "--library-size-column", "perturbation, umis"),
    ),
    "library size of zero": (
        COUNTS,
        {"umis": [0.0, np.nan, *range(8)]},
        {"library_size_column": "umis"},
        ("screen.h5ad", "'umis'", "3 cells"),
    ),
    "library size below zero": (
        COUNTS,
        {"library_size": [-1.0, *range(5_000, 5_009)]},
        {"library_size_column": "library_size"},
        ("screen.h5ad", "'library_size'", "1 cells"),
    ),
    "library size that is text": (
        COUNTS,
        {"umis": ["many"] * 10},
        {"library_size_column": "umis"},
        ("screen.h5ad", "'umis'", "10 cells"),
    ),
    "library size for log-normalized values": (
        LOG_VALUES,
        {"umis": range(1, 11)},
        {"library_size_column": "umis"},
        ("screen.h5ad", "log-normalized already", "--library-size-column"),
    ),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_values_that_cannot_be_used_are_named_in_one_line(tmp_path, case):
    values, obs, options, words = BAD_VALUES[case]
    path = screen_file(tmp_path, values, **obs)
    with pytest.raises(InputError) as failure:
        read_screen(path, ReadOptions(**options))
    message = str(failure.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_values_of_cells_that_the_filter_drops_do_not_matter(tmp_path):
    path = screen_file(tmp_path, changed(COUNTS, np.nan), good=[number != 1 for number in range(10)])
    screen = read_screen(path, ReadOptions(cell_filter="good"))
    np.testing.assert_allclose(screen.expression.toarray(), scanpy_says(np.delete(COUNTS, 1, axis=0)), rtol=1e-6)
