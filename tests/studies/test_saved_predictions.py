"""Files of predictions: a study that keeps them, what is in them, and when trials are run again for them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis import perturbation, zero_bin
from analysis.predicted import Response, SavedStudy
from analysis.zero_bin import split_likelihood
from histpert.histograms import HistogramStore
from histpert.prediction_files import read_predictions
from histpert.settings import ModelSettings
from studies.bin_sweep import BinSweep
from studies.data import prepare
from studies.options import StudyOptions
from studies.plan import OBSERVED, Job, Plan
from studies.rerun import _read, _settings
from studies.trial import run_trial

CPU = torch.device("cpu")
SHAPE = ("--folds", "3", "--bins", "5", "--epochs", "30")
KEPT = ("MLP+Hist", "Ctrl Hist", "Non-Ctrl Hist")


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    out = tmp_path_factory.mktemp("out")
    return Plan("test", prepare(StudyOptions(out=out, folds=3), [5]), 3, 1, out / "test", 3600.0, True)


def job(method="MLP+Hist") -> Job:
    return Job(method, 5, 1, ModelSettings(epochs=2))


@pytest.fixture(scope="module")
def saved(plan):
    def run(method):
        entry = run_trial(plan, job(method), CPU)
        assert entry["trial"]["status"] == "ok", entry["trial"]["error"]
        return entry, read_predictions(plan.predictions_file(job(method)))

    return {method: run(method) for method in (*KEPT, "MLP+Mean")}


@pytest.mark.parametrize("method", KEPT)
def test_the_likelihood_of_the_file_is_that_of_the_trial(saved, method):
    entry, one = saved[method]
    nll = split_likelihood(one).nll[:, ~one.constant].mean(-1)
    np.testing.assert_allclose(nll, [row["nll"] for row in entry["perturbations"]], rtol=1e-6)
    assert list(one.perturbations) == [row["perturbation"] for row in entry["perturbations"]]
    assert list(one.n_cells) == [row["n_cells"] for row in entry["perturbations"]]


def test_scores_of_the_file_are_those_of_the_trial(saved):
    for entry, one in saved.values():
        shift = one.predicted_mean - one.predicted_control_mean
        observed = one.observed_mean - one.control_mean
        rmae = np.abs(shift - observed).sum(-1) / np.abs(observed).sum(-1)
        np.testing.assert_allclose(rmae, [row["rmae_mean"] for row in entry["perturbations"]], rtol=1e-9)


def test_observed_masses_are_the_counts_of_the_store(plan, saved):
    store = HistogramStore(plan.data.store)
    counts = store.fold(1, 5)
    for _, one in saved.values():
        np.testing.assert_array_equal(np.rint(one.observed * one.n_cells[:, None, None]), counts.held_out_counts)
        np.testing.assert_array_equal(np.rint(one.control * one.n_control), counts.control_counts)
        np.testing.assert_array_equal(one.lower, counts.edges.lower)
        assert one.genes == store.genes


def test_the_methods_own_view_of_control_is_the_smoothed_one(saved):
    _, one = saved["Ctrl Hist"]
    expected = (1 - one.control_smoothing) * one.control + one.control_smoothing / one.n_bins
    np.testing.assert_allclose(one.predicted_control, expected, atol=1e-7)
    assert (Response(one, 0).predicted_shift == 0).all()


def test_a_method_of_means_leaves_its_means_beside_what_was_observed(saved):
    _, one = saved["MLP+Mean"]
    assert one.predicted is None
    np.testing.assert_array_equal(one.observed, saved["MLP+Hist"][1].observed)
    np.testing.assert_array_equal(one.predicted_control_mean.astype(np.float32), one.control_mean.astype(np.float32))


def test_a_trial_is_done_with_its_file_where_one_is_asked_for(plan, saved):
    entry, _ = saved["Ctrl Hist"]
    path = plan.predictions_file(job("Ctrl Hist"))
    assert plan.is_done(entry, job("Ctrl Hist"))
    kept = path.read_bytes()
    path.unlink()
    assert not plan.is_done(entry, job("Ctrl Hist"))
    assert replace(plan, save_predictions=False).is_done(entry, job("Ctrl Hist"))
    assert plan.is_done(entry, job(OBSERVED))  # which predicts nothing
    assert not plan.is_done(None, job(OBSERVED))
    path.write_bytes(kept)


def test_a_file_that_cannot_be_written_is_no_failure_of_the_trial(plan, tmp_path):
    (tmp_path / "predictions").write_text("in its place")
    with pytest.raises(OSError, match="predictions"):
        run_trial(replace(plan, folder=tmp_path), job("Ctrl Hist"), CPU)


@pytest.fixture(scope="module")
def finished(bin_sweep, tmp_path_factory):
    """A study that kept its predictions."""
    out = tmp_path_factory.mktemp("study")
    run = bin_sweep(*SHAPE, "--save-predictions", "--out", out)
    assert run.returncode == 0, run.stderr
    return out / "bin_sweep"


def names(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "predictions").iterdir()}


@pytest.mark.ray
def test_a_study_has_a_file_for_each_trial_that_predicts(finished):
    trials = pd.read_parquet(finished / "trials.parquet")
    assert names(finished) == set(trials.loc[trials["method"] != OBSERVED, "trial_id"])
    for saved in SavedStudy(finished, "MLP+Hist").folds():
        row = trials.set_index("trial_id").loc[saved.trial_id]
        assert (saved.method, saved.fold, saved.n_bins) == (row["method"], row["fold"], row["n_bins"])
        nll = split_likelihood(saved).nll[:, ~saved.constant].mean(-1)
        assert nll.mean() == pytest.approx(row["nll"], rel=1e-6)
    assert _settings(BinSweep, _read(finished / "study.json"), finished / "study.json").save_predictions


@pytest.mark.ray
def test_figures_are_drawn_from_a_study(finished, tmp_path, capsys):
    assert perturbation.main([str(finished), "--out", str(tmp_path)]) == 0
    assert zero_bin.main([str(finished), "--out", str(tmp_path)]) == 0
    assert all(Path(path).stat().st_size for path in capsys.readouterr().out.split() if path.startswith("/"))
    table = pd.read_csv(tmp_path / "tables" / "zero_bin.csv")
    trials = pd.read_parquet(finished / "trials.parquet").groupby("method")["nll"].mean()
    assert table["nll_1"].mean() == pytest.approx(trials["MLP+Hist"], rel=1e-6)
    assert table["nll_2"].mean() == pytest.approx(trials["Non-Ctrl Hist"], rel=1e-6)


@pytest.mark.ray
@pytest.mark.chaos
def test_a_trial_without_its_file_is_run_again_when_asked_to(finished, bin_sweep, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished, out / "bin_sweep")
    shutil.copytree(finished.parent / "stores", out / "stores")
    first = sorted((out / "bin_sweep" / "predictions").iterdir())[0]
    content = first.read_bytes()
    first.unlink()
    unasked = bin_sweep(*SHAPE, "--out", out)
    assert "12 done before, 0 to run" in unasked.stdout
    assert not first.exists()
    asked = bin_sweep(*SHAPE, "--save-predictions", "--out", out)
    assert asked.returncode == 0, asked.stderr
    assert "11 done before, 1 to run" in asked.stdout
    assert first.read_bytes() == content
    assert json.loads((out / "bin_sweep" / "study.json").read_text())["settings"]["save_predictions"] is True
