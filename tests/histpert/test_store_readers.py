"""The examples of docs/store.md, run as they stand on a real store, against what our own reader finds."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_store import FOLDS, make_screen

from histpert.histograms import bin_edges, open_or_build

DOCUMENT = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split("^### ", DOCUMENT, flags=re.MULTILINE)}
GENE, UNDER = 4, 0
"""`G4` and `P0`, which the examples name: its cells hold extremes of that gene."""


def blocks(reader):
    return re.findall("^```python\n(.*?)^```", SECTIONS[reader], re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_or_build(tmp_path_factory.mktemp("stores"), make_screen(), FOLDS, [5, 8], n_replicates=3)


@pytest.fixture(scope="module")
def means(store):
    return store.moments.power_sums[0] / store.moments.n_cells[:, None]


def run(reader, number, store):
    """An example's variables, after `store` was set to the folder."""
    variables = {"store": str(store.folder)}
    exec(blocks(reader)[number], variables)
    return variables


def histogram_of(store, fold):
    """Edges and counts of the gene and the perturbation of the examples."""
    found = store.fold(fold, 8)
    (where,) = np.flatnonzero(np.append(found.training, found.held_out) == UNDER)
    counts = np.concatenate([found.training_counts, found.held_out_counts])[where, GENE]
    return found.edges.edges[GENE], counts


def over_all_cells(store):
    edges = bin_edges(store.moments.minimum.min(axis=0), store.moments.maximum.max(axis=0), 8)
    return edges.edges[GENE], store.fold(0, 8).on_all_cells[UNDER + 1, GENE]


def test_every_example_is_run_but_those_of_r():
    assert [len(blocks(reader)) for reader in ("pandas", "polars", "DuckDB", "R")] == [3, 2, 2, 0]
    assert DOCUMENT.count("```python") == 7


def test_pandas_means(store, means):
    found = run("pandas", 0, store)
    np.testing.assert_allclose(found["means"].to_numpy(), means, rtol=1e-12)
    assert found["means"].columns.tolist() == list(store.genes)
    assert found["shift"]["P3"] == pytest.approx(means[4, GENE] - means[0, GENE], rel=1e-12)


def test_pandas_histogram_with_edges(store):
    histogram = run("pandas", 1, store)["histogram"]
    edges, counts = over_all_cells(store)
    np.testing.assert_array_equal(histogram.to_numpy(), counts)
    np.testing.assert_allclose([*histogram.index.left, histogram.index.right[-1]], edges, rtol=1e-12)
    # A value is found in its bin.
    assert histogram.loc[store.moments.minimum[1, GENE]] == counts[0] > 0


@pytest.mark.parametrize("fold", range(3))
def test_arrow_counts_of_a_fold(store, fold):
    variables = {"store": str(store.folder)}
    exec(blocks("pandas")[2].replace("fold = 0", f"fold = {fold}"), variables)
    expected = store.fold(fold, 8)
    np.testing.assert_array_equal(variables["in_fold"][0], expected.control_counts)
    np.testing.assert_array_equal(variables["in_fold"][expected.held_out + 1], expected.held_out_counts)
    np.testing.assert_array_equal(variables["in_fold"][expected.training + 1], expected.training_counts)


def test_polars_means_and_shifts(store, means):
    found = run("polars", 0, store)
    np.testing.assert_allclose(found["means"]["mean"].to_numpy().reshape(means.shape), means, rtol=1e-12)
    shifts = np.abs(means[1:] - means[0])
    for fold in range(3):
        of_fold = found["shifts"].filter(fold=fold)
        expected = shifts[fold == FOLDS].mean(axis=0)
        got = dict(zip(of_fold["gene"], of_fold["shift"], strict=True))
        np.testing.assert_allclose([got[gene] for gene in store.genes], expected, rtol=1e-9)
        assert of_fold["gene"][0] == store.genes[int(expected.argmax())]


def test_polars_held_out_cells_beyond_ranges(store):
    outside = run("polars", 1, store)["outside"]
    found = {(row["perturbation"], row["fold"], row["gene"]): row["outside"] for row in outside.to_dicts()}
    expected = {}
    for fold in range(3):
        counts = store.fold(fold, 8)
        for row, gene in np.argwhere(counts.held_out_outside):
            key = store.perturbations[counts.held_out[row]], fold, store.genes[gene]
            expected[key] = counts.held_out_outside[row, gene]
    assert found == expected
    assert found["P0", 0, "G4"] == 1


def test_duckdb_means(store, means):
    found = run("DuckDB", 0, store)["means"]
    by_name = found.set_index("perturbation")
    names = ["control", *store.perturbations]
    np.testing.assert_allclose(by_name.loc[names, "mean"], means[:, GENE], rtol=1e-12)
    detected = store.moments.n_detected[:, GENE] / store.moments.n_cells
    np.testing.assert_allclose(by_name.loc[names, "detected"], detected, rtol=1e-12)
    assert found["mean"].is_monotonic_decreasing
    assert by_name.loc[list(store.perturbations), "fold"].tolist() == FOLDS.tolist()


def test_duckdb_histograms_on_every_range(store):
    found = run("DuckDB", 1, store)["histogram"]
    assert sorted(set(found["fold"])) == [-1, 0]
    for fold, (edges, counts) in {-1: over_all_cells(store), 0: histogram_of(store, 0)}.items():
        rows = found[found["fold"] == fold]
        np.testing.assert_array_equal(rows["cells"], counts)
        np.testing.assert_allclose(rows["lower"], edges[:-1], rtol=1e-12)
