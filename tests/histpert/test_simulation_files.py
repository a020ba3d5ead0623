"""Simulated screens in files: the same as in memory, and nothing left behind where a file cannot be written."""

from __future__ import annotations

import json
from dataclasses import replace

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from simulated import EDGES, PAIRED, TINY

from histpert.embeddings import read_embeddings
from histpert.errors import InputError
from histpert.screens import read_screen
from histpert.screens.simulation import ScreenTruth, simulate_screen, write_screen
from histpert.screens.simulation.drawing import draw_screen

SOURCES = ("good", "poor", "permuted")
KINDS = {"screen": "h5ad", "truth": "truth.npz", **{source: f"{source}.npz" for source in SOURCES}} | {
    f"{source} gene sets": f"{source}.gmt" for source in SOURCES
}
# Four blocks of cells.
IN_BLOCKS = replace(PAIRED, n_genes=2000, n_cells=1700, max_cells=200, log_rate_mean=-3.0)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_written_screen_is_read_by_anndata(tmp_path):
    paths = write_screen(tmp_path / "new" / "folder" / "s.h5ad", 1, PAIRED)
    assert {kind: path.name for kind, path in paths.items()} == {kind: f"s.{end}" for kind, end in KINDS.items()}
    assert names_in(tmp_path / "new" / "folder") == sorted(f"s.{end}" for end in KINDS.values())
    data = anndata.read_h5ad(paths["screen"])
    truth, _ = draw_screen(1, PAIRED)
    assert data.shape == (900, 30)
    assert tuple(data.var_names) == truth.genes
    assert data.obs_names.is_unique
    assert list(data.obs) == ["perturbation", "library_size"]
    assert data.obs["perturbation"].value_counts()["control"] == 100
    assert set(data.obs["perturbation"]) == {"control", *truth.perturbations}
    assert set(data.obs["library_size"]) <= set(truth.library_sizes.tolist())
    assert sp.isspmatrix_csr(data.X)
    np.testing.assert_array_equal(data.X.data, np.rint(data.X.data))
    assert data.uns["simulation"]["seed"] == 1
    assert json.loads(data.uns["simulation"]["settings"])["n_pairs"] == 5
    # Cells are in no order: about a ninth of either half is control.
    of_half = (data.obs["perturbation"] == "control").to_numpy().reshape(2, 450).sum(axis=1)
    assert of_half.min() > 30


@pytest.mark.parametrize("simulation", [TINY, PAIRED, IN_BLOCKS], ids=["singles", "pairs", "blocks"])
def test_the_screen_in_a_file_is_the_screen_in_memory(tmp_path, simulation):
    done = []
    write_screen(tmp_path / "s.h5ad", 2, simulation, done.append)
    assert sum(done) == simulation.n_cells
    assert len(done) == (4 if simulation is IN_BLOCKS else 1)
    read, made = read_screen(tmp_path / "s.h5ad"), simulate_screen(2, simulation)
    assert read.fingerprint() == made.screen.fingerprint()
    assert read.n_cells[0] == simulation.n_control
    assert len(read.perturbations) == simulation.n_perturbations
    assert any("SIMULATED" in note for note in made.screen.notes)
    for source, embeddings in made.embeddings.items():
        with np.load(tmp_path / f"s.{source}.npz") as archive:
            assert archive["genes"].tolist() == list(embeddings.genes)
            np.testing.assert_array_equal(archive["vectors"], embeddings.vectors)
        found = read_embeddings([tmp_path / f"s.{source}.npz"])
        assert found.genes == embeddings.genes
        # Readers may bring sources to one scale.
        factor = np.linalg.norm(found.vectors) / np.linalg.norm(embeddings.vectors)
        np.testing.assert_allclose(found.vectors, factor * embeddings.vectors, rtol=1e-5)


def test_the_truth_in_a_file_is_the_truth_in_memory(tmp_path):
    write_screen(tmp_path / "s.h5ad", 3, PAIRED)
    loaded, drawn = ScreenTruth.load(str(tmp_path / "s.truth.npz")), draw_screen(3, PAIRED)[0]
    assert (loaded.simulation, loaded.seed, loaded.interactions) == (PAIRED, 3, drawn.interactions)
    for name in ("control", *drawn.perturbations):
        assert loaded.moments(name).equals(drawn.moments(name))
    pair = drawn.perturbations[-1]
    np.testing.assert_array_equal(loaded.histogram(pair, EDGES), drawn.histogram(pair, EDGES))
    assert (loaded.sample(pair, 100, 0).counts != drawn.sample(pair, 100, 0).counts).nnz == 0


@pytest.mark.parametrize("end", KINDS.values())
def test_no_file_is_overwritten(tmp_path, end):
    there = tmp_path / f"s.{end}"
    there.write_text("mine")
    with pytest.raises(InputError) as failure:
        write_screen(tmp_path / "s.h5ad", 0, TINY)
    assert str(failure.value).startswith(f"{there} exists already")
    assert there.read_text() == "mine"
    assert names_in(tmp_path) == [there.name]


@pytest.mark.parametrize("name", ["s.h5", "s", "s.h5ad.gz", ".h5ad"])
def test_a_screen_is_written_under_its_own_suffix_only(tmp_path, name):
    with pytest.raises(InputError, match=r"name a file that ends in \.h5ad"):
        write_screen(tmp_path / name, 0, TINY)
    assert names_in(tmp_path) == []


def test_a_screen_that_is_stopped_half_way_leaves_nothing_behind(tmp_path):
    done = []

    def stop(n_cells):
        done.append(n_cells)
        if len(done) == 2:
            assert len(names_in(tmp_path)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_screen(tmp_path / "s.h5ad", 0, IN_BLOCKS, stop)
    assert len(done) == 2
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("end", KINDS.values())
def test_a_file_that_cannot_be_put_in_place_leaves_no_others_behind(tmp_path, end):
    # Somebody makes a folder of that name while the cells are drawn.
    with pytest.raises(InputError, match=r"s\.h5ad cannot be written"):
        write_screen(tmp_path / "s.h5ad", 0, TINY, lambda n_cells: (tmp_path / f"s.{end}").mkdir())
    assert names_in(tmp_path) == [f"s.{end}"]


def test_a_place_where_no_files_can_be_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file" / "s.h5ad", tmp_path / f"{300 * 's'}.h5ad"):
        with pytest.raises(InputError) as failure:
            write_screen(path, 0, TINY)
        assert str(failure.value).startswith(f"{path} cannot be written")


def truth_file(folder, simulation=TINY):
    path = folder / "s.truth.npz"
    draw_screen(0, simulation)[0].save(path)
    return path


def rewritten(folder, change):
    """A truth file whose arrays, and settings, were changed."""
    path = truth_file(folder)
    with np.load(path) as archive:
        arrays = dict(archive)
    words = json.loads(str(arrays["settings"]))
    change(words, arrays)
    np.savez(path, **{**arrays, "settings": np.array(json.dumps(words))})
    return path


def contents(folder, content):
    path = folder / "s.truth.npz"
    path.write_bytes(content)
    return path


def an_array(folder):
    np.save(folder / "array.npy", np.zeros(3))
    return folder / "array.npy"


def embeddings_file(folder):
    draw_screen(0, TINY)[1]["good"].save(folder / "s.good.npz")
    return folder / "s.good.npz"


BAD_TRUTHS = {
    "missing": (lambda folder: folder / "gone.truth.npz", "does not exist"),
    "folder": (lambda folder: folder, "is not the parameter file"),
    "empty": (lambda folder: contents(folder, b""), "is not the parameter file"),
    "text": (lambda folder: contents(folder, b"no archive\n"), "is not the parameter file"),
    "truncated": (lambda folder: contents(folder, truth_file(folder).read_bytes()[:2000]), "is not the parameter file"),
    "one array": (an_array, "is not the parameter file"),
    "embeddings": (embeddings_file, "is not the parameter file"),
    "array missing": (
        lambda folder: rewritten(folder, lambda words, arrays: arrays.pop("loadings")),
        "is not the parameter file",
    ),
    "setting missing": (
        lambda folder: rewritten(folder, lambda words, arrays: words.pop("simulation")),
        "is not the parameter file",
    ),
    "unknown setting": (
        lambda folder: rewritten(folder, lambda words, arrays: words["simulation"].update(n_moons=2)),
        "is not the parameter file",
    ),
    "other version": (
        lambda folder: rewritten(folder, lambda words, arrays: words.update(format=0)),
        "was written by another version of histpert",
    ),
}


@pytest.mark.parametrize("case", BAD_TRUTHS)
def test_a_file_that_is_no_truth_is_named_in_one_line(tmp_path, case):
    make, words = BAD_TRUTHS[case]
    path = make(tmp_path)
    with pytest.raises(InputError) as failure:
        ScreenTruth.load(path)
    assert str(failure.value).startswith(f"{path} {words}")
    assert not str(failure.value).endswith(": ")


def test_a_truth_file_with_a_damaged_byte_is_refused_or_tells_the_truth_all_the_same(tmp_path):
    path = truth_file(tmp_path, replace(TINY, n_genes=12, n_programs=2))
    content, truth = path.read_bytes(), ScreenTruth.load(path).moments("control")
    n_refused = 0
    for place in range(5, len(content), len(content) // 300):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            loaded = ScreenTruth.load(path)
        except InputError:
            n_refused += 1
        else:
            assert loaded.moments("control").equals(truth)
    assert n_refused > 200
