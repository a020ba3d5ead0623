"""Pretraining on a real local Ray, in small shapes: alone and on two workers, by fold, killed, and from bad input."""

import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import running
from test_faults import listeners

from histpert.embeddings import read_embeddings
from histpert.embeddings.learned import learned_from_of
from histpert.errors import InputError
from histpert.perturbert.settings import PRESETS
from studies.pretrain import Pretrain, main

LOSSES = ["epoch", "training_loss", "validation_loss", "validation_accuracy", "test_loss", "marginal_loss"]
TINY = (
    *("--width", "16", "--heads", "2", "--feed-forward", "32", "--layers", "1", "--batch-size", "16"),
    *("--genes-per-signature", "0", "--held-out", "0.1"),
)


def scores(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "pretrain" / "scores.parquet")


@pytest.fixture(scope="module")
def alone(script, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("alone") / "out"
    done = script("pretrain", "--smoke", "--dropout", "0", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@pytest.mark.ray
def test_a_training_leaves_embeddings_a_table_and_a_figure(alone):
    out, said = alone
    embeddings = [Path(path) for path in re.findall(r"^embeddings: (.*)$", said, re.MULTILINE)]
    assert [path.name for path in embeddings] == ["table.parquet", "contextual.parquet", "pca.parquet"]
    modules = pd.read_csv(out / "pretrain" / "modules.csv")
    for path in embeddings:
        found = read_embeddings([path])
        assert sorted(found.genes) == sorted(modules["gene"])
        assert found.vectors.shape == (200, 96)
        assert learned_from_of(path) == set(modules["gene"])
    rows = scores(out)
    assert rows["epoch"].tolist() == [0, 1, 2]
    assert (rows[["marginal_loss", "marginal_accuracy", "n_parameters"]].nunique() == 1).all()
    assert rows["test_loss"].isna().tolist() == [True, True, False]
    table = pd.read_csv(out / "pretrain" / "tables" / "pretraining.csv")
    last = rows.iloc[-1]
    assert table["validation_gain"][0] == pytest.approx(1 - last["validation_loss"] / last["marginal_loss"])
    assert (out / "pretrain" / "figures" / "pretraining.png").stat().st_size > 10_000
    assert not (out / "pretrain" / "checkpoints").exists()


@pytest.mark.chaos
@pytest.mark.ray
def test_two_workers_go_the_way_of_one_and_listen_on_loopback_only(alone, isolated, tmp_path):
    study = running.start(isolated, "--smoke", "--dropout", "0", "--workers", "2", "--out", tmp_path, name="pretrain")
    heard = {}
    try:
        while study.poll() is None:
            heard |= listeners(running.processes(isolated))
            time.sleep(0.1)
        assert study.returncode == 0, study.stdout.read()
    finally:
        running.end(study)
    one, two = scores(alone[0])[LOSSES], scores(tmp_path)[LOSSES]
    np.testing.assert_allclose(two, one, atol=1e-4, rtol=0)
    assert len(heard) > 3
    assert set(heard.values()) <= {"127.0.0.1", "::1"}
    vectors = [
        read_embeddings([out / "pretrain" / "embeddings" / "table.parquet"]).vectors for out in (alone[0], tmp_path)
    ]
    np.testing.assert_allclose(*vectors, atol=1e-3)


@pytest.mark.chaos
@pytest.mark.ray
def test_the_same_command_trains_nothing_and_a_rerun_gives_the_same(alone, script):
    out, _ = alone
    again = script("pretrain", "--smoke", "--dropout", "0", "--out", out)
    assert "1 trials, 1 done before, 0 to run" in again.stdout
    run = script("rerun", out / "pretrain" / "study.json")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "all 3 rows are the same to the last digit"
    assert not [line for line in run.stdout.splitlines() if line.startswith("differs: ") and "code" not in line]


def write_table(path: Path, changed: tuple[str, ...] = ()) -> None:
    random = np.random.default_rng(0)
    rows = [
        {"cell_line": line, "perturbation": f"P{p}", "gene": f"P{g}", "z_score": random.normal(0, 3)}
        for line in ("K562", "RPE1")
        for p in range(40)
        for g in range(12)
    ]
    table = pd.DataFrame(rows)
    table.loc[table["perturbation"].isin(changed), "z_score"] *= -5
    table.to_csv(path, index=False)


@pytest.mark.ray
def test_a_fold_learns_nothing_of_what_it_holds_out(script, tmp_path):
    folds = pd.DataFrame({"perturbation": [f"P{number}" for number in range(8)], "fold": [0, 1] * 4})
    folds.to_csv(tmp_path / "folds.csv", index=False)
    command = (
        *("pretrain", "--signatures", tmp_path / "z.csv", "--folds-file", tmp_path / "folds.csv", "--epochs", "2"),
        *(*TINY, "--out", tmp_path / "out"),
    )
    write_table(tmp_path / "z.csv")
    first = script(*command)
    assert first.returncode == 0, first.stdout + first.stderr
    folder = tmp_path / "out" / "pretrain" / "embeddings"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.{fold}.parquet" for name in ("contextual", "pca", "table") for fold in (0, 1)
    ]
    learned = [learned_from_of(folder / f"table.{fold}.parquet") for fold in (0, 1)]
    everything = {f"P{number}" for number in range(40)}
    assert learned == [everything - {"P0", "P2", "P4", "P6"}, everything - {"P1", "P3", "P5", "P7"}]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    # what fold 0 holds out is measured otherwise: its training stands as it is
    write_table(tmp_path / "z.csv", changed=("P0", "P4"))
    again = script(*command)
    assert "2 trials, 1 done before, 1 to run" in again.stdout
    assert {name for name, content in before.items() if (folder / name).read_bytes() != content} == {
        "contextual.1.parquet",
        "pca.1.parquet",
        "table.1.parquet",
    }


@pytest.mark.chaos
def test_a_killed_training_goes_on_to_the_same_end(script, isolated, tmp_path):
    write_table(tmp_path / "z.csv")
    epochs = 150
    arguments = ("--signatures", tmp_path / "z.csv", *TINY, "--epochs", epochs, "--checkpoint-seconds", "0")
    study = running.start(isolated, *arguments, "--out", tmp_path / "killed", name="pretrain")
    try:
        running.wait_for(lambda: list((tmp_path / "killed" / "pretrain").glob("checkpoints/*.pt")))
        for process in running.processes(isolated):
            os.kill(process, signal.SIGKILL)
    finally:
        running.end(study)
    assert not (tmp_path / "killed" / "pretrain" / "scores.parquet").exists()
    for out in ("killed", "whole"):
        done = script("pretrain", *map(str, arguments), "--out", tmp_path / out)
        assert done.returncode == 0, done.stdout + done.stderr
    one, other = (scores(tmp_path / out)[LOSSES] for out in ("killed", "whole"))
    assert len(one) == epochs
    pd.testing.assert_frame_equal(one, other)
    vectors = [(tmp_path / out / "pretrain/embeddings/table.parquet").read_bytes() for out in ("killed", "whole")]
    assert vectors[0] == vectors[1]


# ---- bad input, before Ray is started


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"only_folds": (0,)}, "--only-folds goes with --folds-file"),
        ({"workers": 3}, "--batch-size 32: must be a multiple of --workers 3"),
        ({"workers": 0}, "--workers must be 1 or more"),
        ({"signatures": ("K562=",)}, "give FILE, or CELL_LINE=FILE"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(InputError, match=said):
        Pretrain(**options)


def test_signatures_that_cannot_be_used(tmp_path):
    def run(**options) -> None:
        main(Pretrain(out=tmp_path / "out", **options))

    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        run(signatures=(str(tmp_path / "nowhere.csv"),))
    write_table(tmp_path / "z.csv")
    given = (str(tmp_path / "z.csv"),)
    with pytest.raises(InputError, match="--split cell_line: the corpus has 2 cell lines"):
        run(signatures=given, bert=replace(PRESETS["small"], split="cell_line"))
    with pytest.raises(InputError, match="below -90 standard errors: lower --unchanged"):
        run(signatures=given, bert=replace(PRESETS["small"], unchanged=90.0))
    names = [*(f"P{number},0" for number in range(40)), "Q,1"]
    (tmp_path / "f.csv").write_text("\n".join(["perturbation,fold", *names]) + "\n")
    with pytest.raises(InputError, match="no signature is left that tells nothing of P0, P1"):
        run(signatures=given, folds_file=tmp_path / "f.csv")
    with pytest.raises(InputError, match=r"--only-folds 3: .* has 0 to 1"):
        run(signatures=given, folds_file=tmp_path / "f.csv", only_folds=(3,))
