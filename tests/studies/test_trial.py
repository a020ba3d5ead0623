"""Trials without Ray: their rows, their failures, their names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from histpert.results import METRICS
from histpert.settings import ModelSettings
from studies.data import prepare
from studies.ledger import Ledger
from studies.options import StudyOptions
from studies.plan import CEILING, OBSERVED, Job, Plan
from studies.trial import run_trial

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    options = StudyOptions(out=tmp_path_factory.mktemp("out"), folds=3)
    return Plan("test", prepare(options, [5]), 3, 1, Path("unused"), 3600.0)


def table(entry) -> pd.DataFrame:
    """Its rows of perturbations."""
    return pd.DataFrame(entry["perturbations"])


def job(method: str = "MLP+Hist", **settings) -> Job:
    return Job(method, 5, 1, ModelSettings(epochs=2, **settings))


def test_holds_out_the_perturbations_of_its_fold(plan):
    entry = run_trial(plan, job(), CPU)
    expected = [name for name, fold in zip(plan.data.perturbations, plan.data.folds, strict=True) if fold == 1]
    assert [row["perturbation"] for row in entry["perturbations"]] == expected
    assert entry["trial"]["n_perturbations"] == 30
    assert entry["trial"]["hidden"] == [128, 64]
    n_weights = 64 * 128 + 128 * 64 + 64 * 200 * 5
    n_biases = 3 * 128 + 3 * 64 + 200 * 5  # with LayerNorm's scale and shift
    assert entry["trial"]["n_parameters"] == n_weights + n_biases


def test_the_same_trial_twice_gives_identical_metrics(plan):
    first, second = (table(run_trial(plan, job(), CPU)) for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_a_trial_after_another_one_is_as_if_it_were_alone(plan):
    alone = table(run_trial(plan, job(), CPU))
    run_trial(plan, job(seed=5, dropout=0.5), CPU)
    torch.rand(3)
    pd.testing.assert_frame_equal(table(run_trial(plan, job(), CPU)), alone, check_exact=True)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"dropout": 0.1}, {"hidden": (8,)}, {"weight_wass": 0.5, "weight_mse": 0.5}]
)
def test_another_setting_is_another_trial(plan, change):
    assert plan.trial_id(job(**change)) != plan.trial_id(job())


def test_another_thread_count_fold_or_screen_is_another_trial(plan):
    names = {
        plan.trial_id(job()),
        replace(plan, n_threads=2).trial_id(job()),
        plan.trial_id(replace(job(), fold=0)),
        replace(plan, data=replace(plan.data, screen_fingerprint="other")).trial_id(job()),
        replace(plan, data=replace(plan.data, embeddings_fingerprint="other")).trial_id(job()),
    }
    assert len(names) == 5
    assert replace(plan, study="renamed").trial_id(job()) in names


def test_a_trial_is_the_same_whatever_folds_the_other_perturbations_are_in(plan):
    others = np.flatnonzero(plan.data.folds != 1)
    folds = plan.data.folds.copy()
    folds[others] = np.arange(len(others)) % 5 + 2
    assert replace(plan, data=replace(plan.data, folds=folds)).trial_id(job()) == plan.trial_id(job())
    folds[others[0]] = 1
    assert replace(plan, data=replace(plan.data, folds=folds)).trial_id(job()) != plan.trial_id(job())


def test_binning_alone_costs_nothing_in_distance_and_something_in_the_moments(plan):
    row = run_trial(plan, job(OBSERVED), CPU)["trial"]
    assert row["w1"] == 0
    assert 0 < row["rmae_var"] < 1


@pytest.fixture(scope="module")
def plan_with_replicates(tmp_path_factory) -> Plan:
    options = StudyOptions(out=tmp_path_factory.mktemp("replicates"), folds=3)
    return Plan("test", prepare(options, [5], n_replicates=4), 3, 1, Path("unused"), 3600.0)


def test_replicates_tell_what_is_noise(plan, plan_with_replicates):
    without, rows = (run_trial(which, job("Non-Ctrl Hist"), CPU) for which in (plan, plan_with_replicates))
    assert without["trial"]["trial_id"] != rows["trial"]["trial_id"]
    tables = table(without), table(rows)
    of_replicates = ["pearson_delta_split", *(f"reliability_{name}" for name in ("mean", "var", "skew", "kurt"))]
    assert tables[0][of_replicates].isna().all(axis=None)
    assert tables[1]["pearson_delta_split"].notna().all()
    assert tables[1]["reliability_mean"].between(0, 1).all()
    assert tables[1]["pearson_delta_split"].mean() < tables[1]["pearson_delta"].mean()
    same = [name for name in tables[0] if name not in {*of_replicates, "trial_id"}]
    pd.testing.assert_frame_equal(tables[0][same], tables[1][same], check_exact=True)
    assert (tables[1]["n_significant"] > 0).all()


def test_the_ceiling_is_above_what_is_predicted_and_the_same_each_time(plan_with_replicates):
    ceiling, again = (run_trial(plan_with_replicates, job(CEILING), CPU) for _ in range(2))
    assert ceiling["trial"]["status"] == "ok", ceiling["trial"]["error"]
    pd.testing.assert_frame_equal(table(ceiling), table(again), check_exact=True)
    predicted = run_trial(plan_with_replicates, job("Non-Ctrl Hist"), CPU)["trial"]
    for name in ("rmae_mean", "rmae_var", "w1", "crps", "mse", "mse_corrected", "energy_distance"):
        assert ceiling["trial"][name] < predicted[name]
    for name in ("pearson_delta", "pearson_delta_split", "de_spearman", "pds"):
        assert ceiling["trial"][name] > predicted[name]


def test_a_ceiling_without_replicates_is_an_entry_with_its_reason(plan):
    entry = run_trial(plan, job(CEILING), CPU)
    assert entry["trial"]["status"] == "failed"
    assert "needs 2 or more" in entry["trial"]["error"]


def test_perturbations_without_a_correlation_of_fold_changes_are_counted(plan):
    trial = run_trial(plan, job("Ctrl Hist"), CPU)["trial"]
    assert trial["n_de_undefined"] == trial["n_perturbations"]
    trial = run_trial(plan, job("Non-Ctrl Hist"), CPU)["trial"]
    assert trial["n_de_undefined"] < trial["n_perturbations"] / 2


def test_a_trial_that_diverges_is_an_entry_with_its_reason(plan):
    entry = run_trial(plan, job(learning_rate=1e30), CPU)
    assert entry["trial"]["status"] == "failed"
    assert "lower --learning-rate" in entry["trial"]["error"]
    assert entry["perturbations"] == []


def test_a_real_failure_to_allocate_is_out_of_memory(plan):
    entry = run_trial(plan, job(hidden=(10**9, 10**6)), CPU)
    assert entry["trial"]["status"] == "oom", entry["trial"]["error"]


def test_a_method_that_raises_is_an_entry_with_its_reason(plan):
    entry = run_trial(plan, job("No Such Method"), CPU)
    assert entry["trial"]["status"] == "failed"
    assert "No Such Method" in entry["trial"]["error"]


def test_memory_is_measured_for_each_trial_alone(plan):
    large = run_trial(plan, job(hidden=(4096, 4096)), CPU)["trial"]["peak_memory_mb"]
    small = run_trial(plan, job(), CPU)["trial"]["peak_memory_mb"]
    weights_mb = 4096 * 4096 * 4 / 2**20
    assert small < large - weights_mb


def test_the_ledger_gives_back_what_was_written_and_names_what_is_damaged(plan, tmp_path, capsys):
    entry, ledger = run_trial(plan, job("Ctrl Hist"), CPU), Ledger(tmp_path / "ledger")
    name = entry["trial"]["trial_id"]
    assert ledger.read(name) is None
    ledger.write(entry)
    read = ledger.read(name)
    assert read is not None
    assert np.isnan(entry["trial"]["pearson_top20"])
    undefined = [name for name in METRICS if np.isnan(entry["trial"][name])]
    assert read["trial"] == entry["trial"] | dict.fromkeys(undefined)
    path = tmp_path / "ledger" / f"{name}.json"
    path.write_bytes(path.read_bytes()[:100])
    assert ledger.read(name) is None
    assert str(path) in capsys.readouterr().out
