"""The store against counting straight from dense cells, and what it does when files are damaged or wanted twice."""

import json
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from histpert.errors import InputError
from histpert.histograms import HistogramStore, bin_edges, open_or_build
from histpert.histograms.store import FORMAT
from histpert.screens import Screen, group_cells

FOLDS = np.array([0, 1, 2, 0, 1, 2, 1])


def make_screen():
    """40 control cells and 7 perturbations of 30; the cells of one perturbation hold the extremes of two genes."""
    random = np.random.default_rng(0)
    labels = [""] * 40 + [f"P{number}" for number in range(7) for _ in range(30)]
    dense = np.log1p(random.poisson(1.0, (250, 12)) / random.uniform(0.5, 2, (250, 1)))
    dense[:, 2] = 0
    dense[:, 3] = dense[:, 3] + 0.5
    dense[40, 4] = 9
    dense[41:70, 5] = 0.5
    dense[41, 5] = 7
    return group_cells(sp.csr_matrix(dense), labels, [f"G{number}" for number in range(12)], "made", ())


@pytest.fixture(scope="module")
def screen():
    return make_screen()


@pytest.fixture
def store(screen, tmp_path):
    return open_or_build(tmp_path, screen, FOLDS, [5, 8])


def assert_holds_the_counts(store, screen, bin_counts):
    """Every fold against histograms of the dense cells on edges from the training cells."""
    dense = screen.expression.toarray().astype(np.float64)
    group = np.repeat(np.arange(len(screen.n_cells)), screen.n_cells)
    for n_bins in bin_counts:
        for fold in np.unique(FOLDS):
            found = store.fold(int(fold), n_bins)
            training, held_out = np.flatnonzero(fold != FOLDS), np.flatnonzero(fold == FOLDS)
            assert found.training.tolist() == training.tolist()
            assert found.held_out.tolist() == held_out.tolist()
            seen = dense[np.isin(group, [0, *(training + 1)])]
            edges = bin_edges(seen.min(axis=0), seen.max(axis=0), n_bins).edges
            np.testing.assert_array_equal(found.edges.edges, edges)

            def histograms(number, edges=edges):
                cells = np.clip(dense[group == number], edges[:, 0], edges[:, -1])
                return [np.histogram(cells[:, gene], edges[gene])[0] for gene in range(dense.shape[1])]

            np.testing.assert_array_equal(found.control_counts, histograms(0))
            np.testing.assert_array_equal(found.training_counts, [histograms(p + 1) for p in training])
            np.testing.assert_array_equal(found.held_out_counts, [histograms(p + 1) for p in held_out])
            beyond = (dense < edges[:, 0]) | (dense > edges[:, -1])
            np.testing.assert_array_equal(
                found.held_out_outside, [beyond[group == p + 1].sum(axis=0) for p in held_out]
            )


def snapshot(path):
    """What changes when a file is written again, by name."""
    return {
        file.name: (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()) for file in sorted(path.iterdir())
    }


def test_every_fold_is_what_counting_its_cells_gives(store, screen):
    assert_holds_the_counts(store, screen, [5, 8])
    # Both kinds of genes are there: a fold that holds out the extremes, and one that does not.
    widths = np.array([store.fold(fold, 5).edges.width for fold in range(3)])
    changed = (widths != widths.max(axis=0)).any(axis=0)
    assert changed[[4, 5]].all()
    assert not changed.all()
    assert store.fold(0, 5).held_out_outside[:, [4, 5]].sum() == 2


def test_moments_of_the_store_are_those_of_the_cells(store, screen):
    dense = screen.expression.toarray().astype(np.float64)
    for group, cells in enumerate(np.split(dense, screen.group_start[1:-1])):
        assert store.moments.n_cells[group] == len(cells)
        np.testing.assert_allclose(store.moments.power_sums[3][group], np.sum(cells**4, axis=0), rtol=1e-12)
        np.testing.assert_array_equal(store.moments.minimum[group], cells.min(axis=0))
        np.testing.assert_array_equal(store.moments.n_detected[group], np.count_nonzero(cells, axis=0))
    assert store.genes == screen.genes
    assert store.perturbations == screen.perturbations


def test_another_bin_count_is_added_without_touching_the_others(store, screen, tmp_path):
    before = snapshot(store.folder.path)
    grown = open_or_build(tmp_path, screen, FOLDS, [11])
    after = snapshot(grown.folder.path)
    assert grown.folder.path == store.folder.path
    assert {name for name in before if after[name] != before[name]} <= {"manifest.json", "lock"}
    assert "counts_B11.arrow" in after.keys() - before.keys()
    assert_holds_the_counts(grown, screen, [5, 8, 11])


def test_asking_again_builds_nothing(store, screen, tmp_path):
    before = snapshot(store.folder.path)
    again = open_or_build(tmp_path, screen, FOLDS, [8, 5])
    after = snapshot(again.folder.path)
    assert {name for name in before if after[name] != before[name]} <= {"manifest.json"}  # says when it was used
    assert after["manifest.json"][2] == before["manifest.json"][2]
    assert list(tmp_path.iterdir()) == [store.folder.path]


def test_other_cells_or_folds_get_a_folder_of_their_own(store, screen, tmp_path):
    changed = screen.expression.copy()
    changed.data[0] *= 1.5
    other_cells = open_or_build(tmp_path, replace(screen, expression=changed), FOLDS, [5])
    other_folds = open_or_build(tmp_path, screen, FOLDS[::-1].copy(), [5])
    assert len({store.folder.path, other_cells.folder.path, other_folds.folder.path}) == 3


def flip(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


DAMAGES = {"flipped": flip, "truncated": lambda content: content[:-8], "empty": lambda content: b""}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["moments.arrow", "counts_B5.arrow", "reference.arrow"])
def test_a_damaged_file_is_named(store, screen, tmp_path, name, damage):
    file = store.folder.path / name
    file.write_bytes(damage(file.read_bytes()))
    reopened = open_or_build(tmp_path, screen, FOLDS, [5])
    with pytest.raises(InputError, match=f"{name}.*damaged"):
        _ = reopened.fold(0, 5).held_out_reference


def test_a_missing_file_is_named(store):
    (store.folder.path / "counts_B8.arrow").unlink()
    with pytest.raises(InputError, match=r"counts_B8\.arrow.*missing"):
        HistogramStore(store.folder.path).fold(0, 8)


def test_a_bin_count_that_was_never_built_is_named(store):
    with pytest.raises(InputError, match="counts_B99"):
        store.fold(0, 99)


def test_a_store_of_another_format_is_refused(store, screen, tmp_path):
    manifest = json.loads((store.folder.path / "manifest.json").read_text())
    manifest["format"] += 1
    (store.folder.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"format {FORMAT + 1}"):
        HistogramStore(store.folder.path)
    with pytest.raises(InputError, match=f"format {FORMAT + 1}"):
        open_or_build(tmp_path, screen, FOLDS, [5])


def test_a_torn_manifest_is_named(store, screen, tmp_path):
    manifest = store.folder.path / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_or_build(tmp_path, screen, FOLDS, [5])


def test_a_folder_without_a_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="no histogram store"):
        HistogramStore(tmp_path)


def test_a_file_where_the_folder_should_be_is_an_input_error(screen, tmp_path):
    (tmp_path / "stores").write_text("not a folder")
    with pytest.raises(InputError, match="stores"):
        open_or_build(tmp_path / "stores", screen, FOLDS, [5])


def test_a_folder_without_write_permission_is_an_input_error(screen, tmp_path):
    root = tmp_path / "stores"
    root.mkdir(mode=0o500)
    if os.access(root, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(InputError, match="--store"):
        open_or_build(root, screen, FOLDS, [5])


def test_groups_of_many_cells_do_not_overflow(tmp_path):
    expression = sp.csr_matrix(np.ones((40_100, 1), dtype=np.float32))
    expression.data[40_000:40_050] = 2
    expression.data[40_050:] = 3
    screen = Screen("many", expression, ("G",), ("P", "Q"), np.array([0, 40_000, 40_050, 40_100]))
    counts = open_or_build(tmp_path, screen, np.array([0, 0]), [2]).fold(0, 2)
    assert counts.control_counts.tolist() == [[40_000, 0]]
    assert counts.held_out_counts.tolist() == [[[0, 50]], [[0, 50]]]


def test_a_fold_that_holds_out_no_extreme_is_stored(tmp_path):
    expression = sp.csr_matrix(np.arange(1, 9, dtype=np.float32)[:, None])
    screen = Screen("even", expression[[0, 7, 1, 2, 3, 4]], ("G",), ("P", "Q"), np.array([0, 2, 4, 6]))
    counts = open_or_build(tmp_path, screen, np.array([0, 1]), [8]).fold(0, 8)
    assert counts.control_counts.tolist() == [[1, 0, 0, 0, 0, 0, 0, 1]]
    assert counts.training_counts.tolist() == [[[0, 0, 0, 1, 1, 0, 0, 0]]]
    assert counts.held_out_counts.tolist() == [[[0, 1, 1, 0, 0, 0, 0, 0]]]
    assert counts.held_out_outside.tolist() == [[0]]


def build(root, bin_counts, barrier):
    screen = make_screen()
    open_or_build(root / f"warm-up-{bin_counts[0]}", screen, FOLDS, [5])  # loads all code, so that the two then collide
    barrier.wait(60)
    root = root / "shared"
    assert_holds_the_counts(open_or_build(root, screen, FOLDS, bin_counts), screen, bin_counts)


def test_two_processes_at_once_leave_one_valid_store(screen, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    wanted = [5, 8], [11, 5]
    processes = [context.Process(target=build, args=(tmp_path, bin_counts, barrier)) for bin_counts in wanted]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0]
    (path,) = (tmp_path / "shared").iterdir()
    assert_holds_the_counts(HistogramStore(path), screen, [5, 8, 11])
    manifest = json.loads((path / "manifest.json").read_text())
    assert {file.name for file in path.iterdir()} - {"lock"} == {*manifest["files"], "manifest.json"}
