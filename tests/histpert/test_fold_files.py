"""Folds as a file: written, read again, and what no such file may be."""

import hashlib
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from histpert.errors import InputError
from histpert.screens import assign_cluster_folds, assign_folds
from histpert.screens.fold_files import fold_fingerprint, folds_of, read_fold_file, write_fold_file
from histpert.settings import ModelSettings
from studies.combinations import SIMULATION
from studies.data import Pairs, prepare
from studies.options import StudyOptions

ROOT = Path(__file__).parents[2]
GENES = [f"G{number}" for number in range(12)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    obs = pd.DataFrame({"perturbation": ["control"] * 30 + GENES * 5}, index=[f"c{n}" for n in range(90)])
    screen = anndata.AnnData(random.poisson(2.0, (90, 8)).astype(np.float32), obs=obs)
    screen.var_names = [f"G{n}" for n in range(8)]
    screen.write_h5ad(folder / "screen.h5ad")
    vectors = random.normal(size=(11, 4)).astype(np.float32)  # the last has none
    np.savez(folder / "emb.npz", genes=np.array(GENES[:11]), vectors=vectors)
    return folder


def histpert(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "histpert.cli", "folds", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("hold_out", ["random", "clusters"])
def test_a_study_draws_the_folds_that_the_command_writes_and_takes_them_from_the_file(files, tmp_path, hold_out):
    out, inputs = tmp_path / "folds.csv", ("--embeddings", files / "emb.npz", "--folds", 3, "--seed", 4)
    run = histpert(files / "screen.h5ad", *inputs, "--hold-out", hold_out, "--out", out)
    assert run.returncode == 0, run.stderr
    said = run.stdout
    assert "left out 1 perturbations without an embedding: G11" in said
    table = pd.read_csv(out)
    assert list(table.columns) == ["perturbation", "fold"]
    rows = "\n".join(sorted(f"{row.perturbation},{row.fold}" for row in table.itertuples()))
    assert f"sha256 {hashlib.sha256(rows.encode()).hexdigest()}" in said
    given = {"screen": str(files / "screen.h5ad"), "embeddings": (files / "emb.npz",), "out": tmp_path}
    settings = ModelSettings(seed=4)
    drawn = prepare(StudyOptions(**given, folds=3, model=settings, hold_out=hold_out), [5])
    assert dict(zip(drawn.perturbations, drawn.folds.tolist(), strict=True)) == dict(table.to_numpy().tolist())
    other = table.assign(fold=(table["fold"] + 1) % 3)
    other.to_csv(tmp_path / "other.csv", index=False)
    options = StudyOptions(**given, folds_file=tmp_path / "other.csv")
    assert options.fold_numbers == (0, 1, 2)
    taken = prepare(options, [5])
    assert taken.folds.tolist() == ((drawn.folds + 1) % 3).tolist()


def test_folds_over_pairs_are_those_that_the_study_draws_and_takes_from_the_file(tmp_path):
    random, genes = np.random.default_rng(0), GENES[:6]
    pairs = [f"{first}+{second}" for first, second in combinations(genes, 2)]
    names = [*genes, *pairs[:8], f"{genes[0]}+{GENES[7]}", f"{genes[1]}+{GENES[8]}"]  # G7 not alone; no vector of G8
    obs = pd.DataFrame({"perturbation": ["control"] * 30 + names * 5})
    obs.index = obs.index.map(str)
    screen = anndata.AnnData(random.poisson(2.0, (len(obs), 8)).astype(np.float32), obs=obs)
    screen.var_names = [f"G{n}" for n in range(8)]
    screen.write_h5ad(tmp_path / "screen.h5ad")
    np.savez(tmp_path / "emb.npz", genes=np.array(GENES[:8]), vectors=random.normal(size=(8, 4)).astype(np.float32))
    inputs = "--embeddings", tmp_path / "emb.npz", "--hold-out", "pairs", "--folds", 3, "--out", tmp_path / "folds.csv"
    run = histpert(tmp_path / "screen.h5ad", *inputs)
    assert run.returncode == 0, run.stderr
    assert "left out 1 perturbations without an embedding: G1+G8" in run.stdout
    written = read_fold_file(tmp_path / "folds.csv")
    assert sorted(written) == sorted(pairs[:8])
    given = {"screen": str(tmp_path / "screen.h5ad"), "embeddings": (tmp_path / "emb.npz",), "out": tmp_path}
    over_pairs = Pairs(False, SIMULATION, None)
    drawn = prepare(StudyOptions(**given, folds=3), [5], pairs=over_pairs)
    assert set(drawn.perturbations) == set(names) - {"G1+G8"}
    expected = {name: written.get(name, 3) for name in drawn.perturbations}
    assert dict(zip(drawn.perturbations, drawn.folds.tolist(), strict=True)) == expected
    taken = prepare(StudyOptions(**given, folds_file=tmp_path / "folds.csv"), [5], pairs=over_pairs)
    assert taken.folds.tolist() == drawn.folds.tolist()


def test_without_embeddings_all_perturbations_have_a_fold(files, tmp_path):
    assert histpert(files / "screen.h5ad", "--out", tmp_path / "f.csv", "--folds", 4).returncode == 0
    folds = read_fold_file(tmp_path / "f.csv")
    names = sorted(GENES)
    assert set(folds) == set(names)
    assert np.bincount(list(folds.values())).tolist() == [3, 3, 3, 3]
    assert folds_of(folds, GENES[:12], tmp_path / "f.csv").tolist() == [folds[name] for name in GENES]


def test_a_fingerprint_is_of_what_is_in_which_fold():
    folds = assign_folds(GENES, 3, 0)
    assert fold_fingerprint(GENES, folds) == fold_fingerprint(GENES[::-1], folds[::-1])
    assert fold_fingerprint(GENES, folds) != fold_fingerprint(GENES, (folds + 1) % 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("perturbation,part\nA,0\nB,1\n", "has no column fold"),
        ("perturbation,fold\nA,0\nB,one\n", "fold 'one' is no number"),
        ("perturbation,fold\nA,0\nB,-1\n", "fold '-1' is no number"),
        ("perturbation,fold\nA,0\nA,1\n", "A twice"),
        ("perturbation,fold\nA,0\nB,2\n", "nothing is in fold 1"),
        ("perturbation,fold\nA,0\nB,0\n", "at least 2 folds"),
    ],
)
def test_what_no_fold_file_may_be(tmp_path, text, said):
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_fold_file(path)


def test_what_does_not_fit_the_screen_is_named(tmp_path):
    with pytest.raises(InputError, match="no fold for 1 perturbations of the screen: C"):
        folds_of({"A": 0, "B": 1}, ["A", "B", "C"], tmp_path)
    with pytest.raises(InputError, match="fold 2 holds out no perturbation"):
        folds_of({"A": 0, "B": 1, "D": 2}, ["A", "B"], tmp_path)
    with pytest.raises(InputError, match="leave out --hold-out"):
        StudyOptions(folds_file=tmp_path / "f.csv", hold_out="clusters")
    with pytest.raises(InputError, match=r"written as \.csv"):
        write_fold_file(tmp_path / "folds.txt", ["A"], np.zeros(1, dtype=np.int64))


def test_clusters_need_embeddings(files, tmp_path):
    run = histpert(files / "screen.h5ad", "--hold-out", "clusters", "--out", tmp_path / "f.csv")
    assert run.returncode == 2
    assert run.stderr == "error: --hold-out clusters needs --embeddings\n"
    assert assign_cluster_folds(np.eye(6), 2, 0).max() == 1
