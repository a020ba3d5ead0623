"""What `histpert doctor` says of a screen, held against anndata, SciPy and pandas on the same file."""

import getpass
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tyro

from histpert.command_line import parsed
from histpert.doctor import examination
from histpert.doctor.examination import Examination, Examined, examine
from histpert.doctor.facts import ScreenFacts
from histpert.doctor_command import Doctor
from histpert.embeddings import EmbeddingOptions
from histpert.embeddings.learned import write_learned
from histpert.errors import exit_status
from histpert.screens import ReadOptions
from histpert.settings import ModelSettings

HISTPERT = Path(sys.executable).parent / "histpert"
GENES = [f"GENE{number}" for number in range(40)]
TARGETS = GENES[:20]
PAIRS = [f"{one}+{other}" for one, other in pairwise(TARGETS[:6])]
N_CONTROL, N_CELLS, N_PAIRED = 250, 30, 20
NAMES = ["control"] * N_CONTROL + np.repeat(TARGETS, N_CELLS).tolist()


def counts_of(names, seed=0):
    """Counts of cells, each perturbed gene at a tenth of what it is elsewhere."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.3, 3, len(GENES)) * rng.uniform(0.5, 2, (len(names), 1))
    for row, name in enumerate(names):
        for gene in set(name.split("+")) & set(GENES):
            rates[row, GENES.index(gene)] *= 0.1
    return rng.poisson(rates).astype(np.float32)


def write(path, names=NAMES, counts=None, genes=GENES, var=None, **columns):
    counts = counts_of(names) if counts is None else counts
    index = [f"cell{number}" for number in range(len(names))]
    obs = pd.DataFrame({"perturbation": names, **columns}, index=index)
    anndata.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(var, index=genes)).write_h5ad(path)
    return path


def vectors(path, genes=TARGETS, seed=1):
    np.savez(path, genes=np.array(genes), vectors=np.random.default_rng(seed).normal(size=(len(genes), 6)))
    return path


def main(arguments) -> int:
    """The command as `histpert` runs it."""
    config = (tyro.conf.OmitArgPrefixes,)
    return exit_status(lambda: parsed(Doctor, args=arguments[1:], prog="histpert doctor", config=config).run())


def looked(screen, *embeddings, folds=9, read=None) -> Examined:
    return examine(Examination(screen, embeddings, EmbeddingOptions(), read or ReadOptions(), folds, ModelSettings()))


def facts_of(screen, **read) -> ScreenFacts:
    found = looked(screen, read=ReadOptions(**read)).facts
    assert found is not None
    return found


def doubts_of(screen, **read):
    return {doubt.what: doubt for doubt in looked(screen, read=ReadOptions(**read)).doubts}


def one_that_says(doubts, words):
    (found,) = [doubt for what, doubt in doubts.items() if words in what]
    assert found.means
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A screen with pairs, all of whose perturbations have an embedding but one; what the command says as JSON."""
    folder = tmp_path_factory.mktemp("whole")
    names = [*NAMES, *np.repeat(PAIRS, N_PAIRED).tolist(), "GENE5", *["GENE30"] * 4]
    screen = write(folder / "s.h5ad", names)
    embeddings = vectors(folder / "e.npz", [gene for gene in TARGETS if gene != "GENE19"] + ["GENE-19"])
    before = sorted(path for path in folder.rglob("*"))
    temporary = folder.parent / "temporary"
    temporary.mkdir()
    command = [HISTPERT, "doctor", screen, "--embeddings", embeddings, "--gpu", "a10", "--json", "--epochs", "3"]
    compiled = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"  # once for all that torch compiles
    environment = os.environ | {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(compiled)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path for path in folder.rglob("*")) == before
    assert list(temporary.iterdir()) == []
    return screen, embeddings, json.loads(done.stdout)


def test_what_the_file_holds_is_what_anndata_and_pandas_count(whole):
    screen, _, said = whole
    data = anndata.read_h5ad(screen)
    single = ~data.obs["perturbation"].str.contains("+", regex=False).to_numpy()
    counts, names = data.X.toarray()[single], data.obs["perturbation"][single].astype(str)
    sizes = names[names != "control"].value_counts()
    found = said["screen"]
    assert found["file"] == str(screen)
    assert (found["matrix"], found["perturbation_column"], found["control_labels"]) == (
        "X",
        "perturbation",
        ["control"],
    )
    assert found["n_cells_in_file"] == data.n_obs
    assert (found["n_cells"], found["n_control"], found["n_genes"]) == (single.sum(), N_CONTROL, len(GENES))
    assert found["left_out"] == {"of combinations of perturbations": int((~single).sum())}
    assert found["n_perturbations"] == len(sizes)
    assert found["n_combinations"] == found["n_known_pairs"] == len(PAIRS)
    assert found["cells_per_perturbation"] == [sizes.min(), sizes.median(), sizes.max()]
    assert found["few_cells"] == {"GENE30": 4}
    assert found["zeros"] == pytest.approx((counts == 0).mean())
    low, median, high = np.percentile(counts.sum(1), [5, 50, 95])
    assert found["library_size"] == pytest.approx({"low": low, "median": median, "high": high})


def test_perturbations_without_an_embedding_and_likely_names_are_told(whole):
    said = whole[2]["embeddings"]
    assert said["missing"] == ["GENE19", "GENE30"]
    assert sorted(said["found"]) == sorted(TARGETS[:19])
    assert any("GENE19 -> GENE-19" in note for note in said["notes"])


def test_each_study_is_forecast_and_fits(whole):
    said = whole[2]
    assert [each["study"] for each in said["studies"]] == [
        *("bin_sweep", "methods", "loss_weights", "open_choices", "search"),
    ]
    for each in said["studies"]:
        assert each["lacks"] == ""
        assert 2 < each["seconds"] < 3600
        assert 1e8 < each["own_bytes"] <= each["memory_bytes"] < 1e11
        assert 1e5 < each["disk_bytes"] < 1e9
    assert said["folds"] == {"folds": 9, "fewest": 2, "most": 3, "trained_on": 16}
    assert said["pair_folds"] is None  # of five pairs


def test_a_gpu_is_computed_from_its_data_sheet(whole):
    said = whole[2]
    assert said["gpu"]["gigabytes"] == 24
    assert all(each["fits"] and each["trial_bytes"] < 24e9 for each in said["studies_on_gpu"])


def test_the_next_command_is_a_study_with_the_same_options(whole):
    screen, embeddings, said = whole
    assert said["can_run"]
    assert said["next"] == f"python studies/bin_sweep.py --screen {screen} --embeddings {embeddings} --epochs 3"


def test_without_embeddings_no_study_can_run_and_it_says_what_to_give(tmp_path, capsys):
    screen = write(tmp_path / "a screen.h5ad")
    assert main(["doctor", str(screen), "--control-label", "control"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("A study cannot run: no embeddings are given")
    assert lines[-1] == f"Next: histpert doctor '{screen}' --embeddings FILE --control-label control"
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)
    assert max(map(len, lines[:-1])) <= 100


def test_the_text_and_the_object_tell_the_same(tmp_path, capsys, monkeypatch):
    screen = write(tmp_path / "s.h5ad")
    found = looked(screen, vectors(tmp_path / "e.npz", TARGETS[:5]))
    monkeypatch.setattr(examination, "examine", lambda what, told: found)
    command = ["doctor", str(screen), "--embeddings", str(tmp_path / "e.npz")]
    assert (main(command), main([*command, "--json"])) == (1, 1)
    text, _, said = capsys.readouterr().out.partition("{")
    said = json.loads("{" + said)
    words = " ".join(text.split())
    assert f"{said['screen']['n_cells']:,} of {said['screen']['n_cells_in_file']:,} are used" in words
    assert all(doubt["what"] in words and doubt["means"] in words and doubt["do"] in words for doubt in said["doubts"])
    assert f"found {len(said['embeddings']['found'])} of {len(TARGETS)} perturbations" in words
    assert all(reason in words for reason in said["reasons"])
    assert f"Next: {said['next']}" in text


def test_too_few_perturbations_with_embeddings_cannot_fill_the_folds(tmp_path, capsys):
    screen, embeddings = write(tmp_path / "s.h5ad"), vectors(tmp_path / "e.npz", TARGETS[:5])
    assert main(["doctor", str(screen), "--embeddings", str(embeddings)]) == 1
    out = capsys.readouterr().out
    assert "5 perturbations with an embedding cannot fill 9 folds" in out
    assert out.splitlines()[-1].endswith("--folds 2")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["unknown", *TARGETS], "has no control cells labelled"),
        (["control"] * 20, "no cell with a single perturbation"),
    ],
)
def test_a_screen_without_control_or_perturbed_cells_is_read_and_unfit(tmp_path, capsys, names, reason):
    screen, embeddings = write(tmp_path / "s.h5ad", names), vectors(tmp_path / "e.npz")
    assert main(["doctor", str(screen), "--embeddings", str(embeddings), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert reason in said["reasons"][0]
    assert said["screen"] is None


def test_embeddings_of_no_perturbation_are_unfit(tmp_path):
    found = looked(write(tmp_path / "s.h5ad"), vectors(tmp_path / "e.npz", ["P53", "P54"]))
    assert found.reasons == ("none of the 20 perturbations has an embedding in e",)


def test_embeddings_that_have_learned_from_the_perturbations_are_unfit(tmp_path):
    rng = np.random.default_rng(0)
    write_learned(tmp_path / "e.parquet", TARGETS, rng.normal(size=(20, 4)).astype(np.float32), TARGETS[:3])
    found = looked(write(tmp_path / "s.h5ad"), tmp_path / "e.parquet")
    assert found.coverage.learned_from == tuple(sorted(TARGETS[:3]))
    assert "has learned from signatures of" in found.reasons[0]


@pytest.mark.parametrize(
    "arguments", [["none.h5ad"], ["s.h5ad", "--embeddings", "none.npz"], ["s.h5ad", "--gpu", "B7"]]
)
def test_what_cannot_be_read_ends_with_2_and_one_line(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "s.h5ad")
    assert main(["doctor", *arguments, "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


def test_a_sound_screen_gives_little_reason_for_doubt(tmp_path):
    assert set(doubts_of(write(tmp_path / "s.h5ad"))) == {
        "cells are normalized by the sum over 40 genes",
        "20 perturbations in 9 folds",
    }


def test_few_control_cells_small_groups_and_empty_cells(tmp_path):
    names = ["control"] * 150 + np.repeat(TARGETS[:3], [30, 9, 8]).tolist()
    counts = counts_of(names)
    counts[5] = 0
    doubts = doubts_of(write(tmp_path / "s.h5ad", names, counts))
    one_that_says(doubts, "few control cells: 150")
    assert one_that_says(doubts, "fewer than 10 cells").what.endswith("GENE1 (9), GENE2 (8)")
    one_that_says(doubts, "1 cells have no value")


def test_names_of_genes(tmp_path):
    ids = [f"ENSG{number:011d}" for number in range(40)]
    doubts = doubts_of(write(tmp_path / "ids.h5ad", genes=ids))
    assert "--gene-column" in one_that_says(doubts, "named by Ensembl ids").do
    assert "20 of 20 perturbed genes" in one_that_says(doubts, "are not measured").what
    symbols = ["SAME", "SAME", *GENES[2:]]
    doubts = doubts_of(write(tmp_path / "twice.h5ad", genes=ids, var={"gene_name": symbols}))
    one_that_says(doubts, "share a name with another")


def test_genes_that_are_hardly_ever_seen(tmp_path):
    counts = counts_of(NAMES)
    counts[:, 30:33] = 0
    counts[:2, 30] = 1  # 2 of 250
    counts[:3, 31] = 1  # 3 of 250, more than 1%
    doubt = one_that_says(doubts_of(write(tmp_path / "s.h5ad", counts=counts)), "are seen in 1%")
    assert doubt.what.startswith("2 of 40 genes")
    kept = facts_of(tmp_path / "s.h5ad", min_control_detection=0.01)
    assert (kept.n_genes, kept.n_genes_in_file) == (38, 40)


def test_a_column_that_may_be_the_library_size_is_proposed(tmp_path):
    counts = counts_of(NAMES)
    totals = counts.sum(1).astype(int)
    columns = {"n_umi_full": 7 * totals + 1, "guide_count": np.ones(len(NAMES)), "odd_total": totals + 0.5}
    doubt = one_that_says(doubts_of(write(tmp_path / "s.h5ad", counts=counts, **columns)), "normalized by the sum")
    assert doubt.do == "--library-size-column n_umi_full"
    doubts = doubts_of(write(tmp_path / "t.h5ad", counts=counts, library_size=totals / 2))
    one_that_says(doubts, "has less than the sum")


def test_values_that_were_not_scaled(tmp_path):
    counts = counts_of(NAMES)
    scaled = np.log1p(counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4)
    assert not [what for what in doubts_of(write(tmp_path / "s.h5ad", counts=scaled)) if "stand for" in what]
    one_that_says(doubts_of(write(tmp_path / "t.h5ad", counts=2 * scaled)), "log-normalized values stand for")
    assert facts_of(tmp_path / "s.h5ad").library_size is None


def test_targets_that_do_not_change_in_their_own_cells(tmp_path):
    counts = counts_of(["control"] * len(NAMES))
    doubts = doubts_of(write(tmp_path / "s.h5ad", counts=counts))
    expected = []
    normalized = counts / counts.sum(1, keepdims=True) * 1e4
    for gene, name in enumerate(TARGETS):
        own = normalized[np.array(NAMES) == name, gene].mean()
        expected.append(np.log2((own + 0.01) / (normalized[:N_CONTROL, gene].mean() + 0.01)))
    found = one_that_says(doubts, "own expression hardly changes").what
    assert f"{np.median(expected):+.2f} over {len(TARGETS)} targets" in found


def test_batches_without_control_and_perturbations_of_one_batch(tmp_path):
    batch = np.where(np.arange(len(NAMES)) < N_CONTROL + 30, "one", "two")
    doubt = one_that_says(doubts_of(write(tmp_path / "s.h5ad", gem_group=batch)), "'gem_group'")
    assert "20 perturbations are in one batch only" in doubt.what
    assert "no control cells in two" in doubt.what
    mixed = np.resize(["one", "two"], len(NAMES))
    assert not [what for what in doubts_of(write(tmp_path / "t.h5ad", batch=mixed)) if "batch" in what]


def test_cells_that_are_left_out_are_counted_by_the_reason(tmp_path):
    names = [*NAMES, *["A+B"] * 5]
    labelled = pd.Series(names, dtype=object)
    labelled[:200] = None
    screen = write(tmp_path / "s.h5ad", labelled.tolist(), counts_of(names), kept=np.arange(len(names)) % 50 > 0)
    found = facts_of(screen, cell_filter="kept")
    rows = pd.DataFrame({"name": labelled, "kept": np.arange(len(names)) % 50 > 0})
    assert found.left_out == {
        "by the cell filter": int((~rows["kept"]).sum()),
        "without a label": int((rows["kept"] & rows["name"].isna()).sum()),
        "of combinations of perturbations": int((rows["kept"] & (rows["name"] == "A+B")).sum()),
    }
    assert found.n_cells + sum(found.left_out.values()) == found.n_cells_in_file
