"""Embeddings of which each fold has files of its own."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from histpert.embeddings import EmbeddingOptions
from histpert.embeddings.fold_files import FoldFiles
from histpert.embeddings.learned import learned_from_of, telling_of, write_learned
from histpert.errors import InputError
from histpert.screens.simulation import PRESETS, write_screen
from histpert.settings import ModelSettings
from studies.data import prepare, with_permuted_embeddings
from studies.engine import plan_of
from studies.options import StudyOptions
from studies.plan import Job


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """A screen of ten perturbations in a file, and their names."""
    path = tmp_path_factory.mktemp("screen") / "screen.h5ad"
    simulation = replace(PRESETS["easy"], n_perturbations=10, n_genes=20, n_cells=1_100, n_control=100)
    write_screen(path, 0, simulation)
    with np.load(path.with_suffix(".good.npz")) as archive:
        return path, tuple(archive["genes"].tolist())


def write(folder, genes, folds=(0, 1), learned_from=lambda fold: (), width=lambda fold: 4) -> str:
    for fold in folds:
        vectors = np.random.default_rng(fold).standard_normal((len(genes), width(fold))).astype(np.float32)
        write_learned(folder / f"e.{fold}.parquet", genes, vectors, learned_from(fold))
    return folder / "e.{fold}.parquet"


def options(screen, path, **more) -> StudyOptions:
    return StudyOptions(screen=str(screen), embeddings=(path,), folds=2, out=path.parent / "out", **more)


def test_each_fold_has_the_vectors_of_its_file(screen, tmp_path):
    path, genes = screen
    data = prepare(options(path, write(tmp_path, genes)), [5])
    plan = plan_of("test", options(path, tmp_path / "e.{fold}.parquet"), data)
    jobs = [Job("MLP+Hist", 5, fold, ModelSettings()) for fold in (0, 1)]
    for fold, job in enumerate(jobs):
        raw = pd.read_parquet(tmp_path / f"e.{fold}.parquet").set_index("gene").loc[list(data.perturbations)].to_numpy()
        scale = np.sqrt(np.square(raw - raw.mean(axis=0)).mean())
        np.testing.assert_allclose(plan.data_of(job).vectors, raw / scale, rtol=1e-5)
    assert plan.trial_id(jobs[0]) != plan.trial_id(jobs[1])
    before = plan.trial_id(jobs[0])
    # another file for fold 1 leaves the trials of fold 0 as they are
    write(tmp_path, genes[::-1], folds=(1,))
    again = plan_of("test", options(path, tmp_path / "e.{fold}.parquet"), prepare(plan_options(path, tmp_path), [5]))
    assert again.trial_id(jobs[0]) == before
    assert again.trial_id(jobs[1]) != plan.trial_id(jobs[1])


def plan_options(path, tmp_path) -> StudyOptions:
    return options(path, tmp_path / "e.{fold}.parquet")


def test_permuted_embeddings_are_permuted_alike_in_each_fold(screen, tmp_path):
    path, genes = screen
    data = prepare(options(path, write(tmp_path, genes)), [5])
    dealt = with_permuted_embeddings(data, 0)
    order = [int(np.flatnonzero((data.of_fold[0] == row).all(axis=1))[0]) for row in dealt.of_fold[0]]
    assert sorted(order) == list(range(10))
    assert all(place != number for number, place in enumerate(order))
    np.testing.assert_array_equal(dealt.of_fold[1], data.of_fold[1][order])


def test_only_the_files_of_the_folds_that_run_are_needed(screen, tmp_path):
    path, genes = screen
    data = prepare(options(path, write(tmp_path, genes, folds=(1,)), only_folds=(1,)), [5])
    assert list(data.of_fold) == [1]
    with pytest.raises(InputError, match=r"e\.0\.parquet does not exist"):
        prepare(options(path, tmp_path / "e.{fold}.parquet"), [5])


def test_a_fold_whose_file_lacks_a_gene_or_has_another_width(screen, tmp_path):
    path, genes = screen
    write(tmp_path, genes)
    write(tmp_path, genes[1:], folds=(1,))
    with pytest.raises(InputError, match=rf"e\.1\.parquet: no embedding of {genes[0]}, which other folds have"):
        prepare(options(path, tmp_path / "e.{fold}.parquet"), [5])
    write(tmp_path, genes, width=lambda fold: 4 + fold)
    with pytest.raises(InputError, match="5 features, and files of other folds have 4"):
        prepare(options(path, tmp_path / "e.{fold}.parquet"), [5])


def test_folds_cannot_be_drawn_of_embeddings_that_follow_from_them(screen, tmp_path):
    path, genes = screen
    with pytest.raises(InputError, match="folds are drawn of embeddings here"):
        prepare(options(path, write(tmp_path, genes), hold_out="clusters"), [5])


def test_embeddings_that_have_seen_what_a_fold_holds_out_are_refused(screen, tmp_path):
    path, genes = screen
    data = prepare(options(path, write(tmp_path, genes)), [5])
    held_out = [name for name, fold in zip(data.perturbations, data.folds, strict=True) if fold == 1]
    allowed = [name for name in genes if name not in held_out]
    write(tmp_path, genes, folds=(1,), learned_from=lambda fold: [*allowed, "X", "X+Y"])
    prepare(options(path, tmp_path / "e.{fold}.parquet"), [5])
    write(tmp_path, genes, folds=(1,), learned_from=lambda fold: [*allowed, f"X+{held_out[0]}"])
    with pytest.raises(
        InputError, match=rf"e\.1\.parquet has learned from signatures of X\+{held_out[0]}, which fold 1"
    ):
        prepare(options(path, tmp_path / "e.{fold}.parquet"), [5])
    # one file for all folds is looked at as well
    write_learned(tmp_path / "all.parquet", genes, np.eye(10, dtype=np.float32), genes)
    with pytest.raises(InputError, match=r"all\.parquet has learned from signatures of"):
        prepare(options(path, tmp_path / "all.parquet"), [5])


def test_what_tells_of_a_perturbation():
    known = ["A", "B", "A+B", "B+C", "AB", "C+D"]
    assert telling_of(["A"], known) == ["A", "A+B"]
    assert telling_of(["C+B"], known) == ["B+C"]
    assert telling_of([], known) == []


def test_a_file_that_does_not_say_what_it_learned_from(tmp_path):
    pd.DataFrame({"gene": ["A"], "x": [1.0]}).to_parquet(tmp_path / "e.parquet")
    assert learned_from_of(tmp_path / "e.parquet") == frozenset()
    assert learned_from_of(tmp_path / "e.npz") == frozenset()
    (tmp_path / "e.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot be read as \.parquet"):
        learned_from_of(tmp_path / "e.parquet")


def test_joined_files_of_a_fold(tmp_path):
    write(tmp_path, "ABC")
    write_learned(tmp_path / "one.parquet", "ABC", np.eye(3, dtype=np.float32), ())
    files = FoldFiles((tmp_path / "e.{fold}.parquet", tmp_path / "one.parquet"), EmbeddingOptions(), (0, 1))
    assert files.of(1) == [tmp_path / "e.1.parquet", tmp_path / "one.parquet"]
    vectors = files.vectors("AC")
    assert {fold: found.shape for fold, found in vectors.items()} == {0: (2, 7), 1: (2, 7)}
    np.testing.assert_array_equal(vectors[0][:, 4:], vectors[1][:, 4:])
    assert not np.array_equal(vectors[0], vectors[1])
