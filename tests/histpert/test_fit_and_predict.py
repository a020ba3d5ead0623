"""`histpert fit` and `histpert predict`, as a user runs them."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import unchecked_main

from histpert import read_ensemble
from histpert.best_settings import best_settings
from histpert.errors import InputError
from histpert.results import TRIAL_SCHEMA, write_json, write_table
from histpert.screens.simulation import Simulation, write_screen
from histpert.settings import ModelSettings

HISTPERT = Path(sys.executable).parent / "histpert"
SMALL = Simulation(n_perturbations=12, n_genes=30, n_cells=900, n_control=200, min_cells=20, max_cells=120)
main = unchecked_main()
SHORT = ["--epochs", "20", "--folds", "2", "--repeats", "2"]


def run(folder, *arguments):
    done = subprocess.run([HISTPERT, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stdout + done.stderr
    return done


def of_trial(crps, fold, n_bins=15, **settings):
    known = asdict(ModelSettings(hidden=(32, 16), **settings))
    ran = {"method": "MLP+Hist", "status": "ok", "fold": fold, "n_bins": n_bins, "crps": crps}
    return known | ran | {"variant": "", "trial_id": f"{n_bins}-{settings.get('dropout', 0)}-{fold}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A screen, a study with settings that were best, and a model."""
    place = tmp_path_factory.mktemp("fit")
    write_screen(place / "screen.h5ad", 0, SMALL)
    rows = [of_trial(crps, fold, dropout=dropout) for fold in (0, 1) for dropout, crps in ((0.1, 0.2), (0.3, 0.1))]
    rows.append(of_trial(0.01, 0, dropout=0.4) | {"status": "failed"})
    (place / "study").mkdir()
    write_table(place / "study" / "trials.parquet", rows, TRIAL_SCHEMA)
    fitted = run(
        place, "fit", "screen.h5ad", "--embeddings", "screen.good.npz", *SHORT, "--settings-of", "study", "--bins", 8
    )
    assert fitted.returncode == 0, fitted.stderr
    (place / "said").write_text(fitted.stdout)
    return place


def perturbation_of(folder, number=0):
    return read_ensemble(folder / "model.safetensors").perturbations[number]


def test_a_fit_takes_the_best_settings_of_a_study_and_what_is_given_beside_them(folder):
    model = read_ensemble(folder / "model.safetensors")
    assert (model.settings.dropout, model.settings.hidden) == (0.3, (32, 16))
    assert (model.settings.epochs, model.n_bins, len(model.networks)) == (20, 8, 4)
    assert sorted(path.name for path in folder.glob("model*")) == [
        "model.calibration.png",
        "model.calibration.svg",
        "model.safetensors",
    ]


def test_a_fit_says_what_it_did_and_what_to_do_next(folder):
    said = (folder / "said").read_text()
    assert "4 members trained on 12 perturbations" in said
    assert "80% intervals hold" in said
    assert said.splitlines()[-1].startswith(f"next: histpert predict {folder}/model.safetensors --genes ")


def test_what_is_predicted_is_written_and_told(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    known = perturbation_of(folder)
    genes = ["--genes", known, f"{known}+{perturbation_of(folder, 1)}", "NOBODY"]
    assert main(["predict", "model.safetensors", *genes, "--screen", "screen.h5ad", "--out", "all", "--json"]) == 0
    said = capfd.readouterr()
    outcome = json.loads(said.out)
    assert outcome["missing"] == ["NOBODY"]
    assert "no embedding, not predicted: NOBODY" in said.err
    assert all(Path(path).stat().st_size for path in (*outcome["tables"], *outcome["figures"]))
    table = pd.read_csv(folder / "all" / "responses.csv")
    assert len(table) == 2 * 30
    ours = table[table["perturbation"] == known]
    assert np.isfinite(ours["observed_mean"]).all()
    trust = pd.read_csv(folder / "all" / "perturbations.csv", index_col="perturbation")
    assert trust.loc[known, "n_members"] == 2
    assert trust["trained_on"].tolist() == [True, False]


def test_quiet_says_nothing(folder):
    done = run(folder, "predict", "model.safetensors", "--genes", perturbation_of(folder), "--out", "q", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "q" / "responses.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "model.safetensors"], "needs --genes"),
        (["predict", "screen.h5ad", "--genes", "A"], "screen.h5ad is no model of histpert"),
        (["predict", "model.safetensors", "--genes", "NOBODY"], "no embedding of NOBODY in screen.good"),
        (["predict", "model.safetensors", "--genes", "KNOWN", "--show", "NOTHING"], "NOTHING: not among the 30 genes"),
        (["fit", "screen.h5ad"], "histpert fit needs --embeddings"),
        (["fit", "screen.h5ad", "--embeddings", "screen.good.npz", "--out", "model.pt"], "ends in .safetensors"),
        (["fit", "screen.h5ad", "--embeddings", "x.{fold}.npz"], "a final model has no folds of its own"),
        (
            ["fit", "screen.h5ad", "--embeddings", "screen.good.npz", "--settings-of", "nothing"],
            "trials.parquet is missing",
        ),
        (["fit", "screen.h5ad", "--embeddings", "screen.good.npz", "--json", "--quiet"], "--quiet --json: give one"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(folder, arguments, said, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    known = perturbation_of(folder)
    assert main([known if word == "KNOWN" else word for word in arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1


def test_folds_that_not_all_configurations_have_do_not_count(tmp_path):
    rows = [of_trial(crps, fold, dropout=dropout) for fold in (0, 1) for dropout, crps in ((0.1, 0.2), (0.3, 0.1))]
    write_table(tmp_path / "trials.parquet", [*rows, of_trial(0.0, 2, dropout=0.1)], TRIAL_SCHEMA)
    settings, n_bins = best_settings(tmp_path)
    assert (settings.dropout, n_bins) == (0.3, 15)


def test_of_a_search_what_it_chose_is_taken(tmp_path):
    rows = [of_trial(0.2, 0, 10, dropout=0.1), of_trial(0.1, 0, 15, dropout=0.3)]
    write_table(tmp_path / "trials.parquet", rows, TRIAL_SCHEMA)
    write_json(tmp_path / "choice.json", {"trial_ids": {"chosen": ["10-0.1-0"], "given": ["15-0.3-0"]}})
    settings, n_bins = best_settings(tmp_path)
    assert (settings.dropout, n_bins) == (0.1, 10)


def test_a_study_without_the_method_is_refused(tmp_path):
    write_table(tmp_path / "trials.parquet", [of_trial(0.2, 0) | {"method": "Ridge"}], TRIAL_SCHEMA)
    with pytest.raises(InputError, match=r"no finished trial of MLP\+Hist"):
        best_settings(tmp_path)
