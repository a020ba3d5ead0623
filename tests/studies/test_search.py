"""The search for settings: what it tries, what it may see, what it chooses, and that nothing of it is lost."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution
from optuna_dashboard import wsgi
from running import wait_for, workers
from werkzeug.test import Client

from histpert.errors import InputError
from histpert.results import METRICS
from histpert.settings import ModelSettings, weight_triples
from studies import search
from studies.configurations import ConfigurationJobs, SearchRecord, search_space
from studies.data import prepare
from studies.engine import plan_of
from studies.ledger import Ledger
from studies.options import StudyOptions
from studies.trial import failed_entry

BINS = (5, 15)


def entries(folder):
    return {path.name: json.loads(path.read_text()) for path in (folder / "ledger").glob("*.json")}


def optuna_study(folder):
    path = f"sqlite:///{folder / 'search.db'}"
    return optuna.load_study(study_name=None, storage=path)


# What is tried


def test_loss_weights_are_the_grid_of_the_paper():
    triples = weight_triples()
    assert len(set(triples)) == 15
    assert all(sum(triple) == 1 and min(triple) >= 0 for triple in triples)
    assert {(0.0, 0.75, 0.25), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25)} <= set(triples)


def test_whatever_is_proposed_can_be_trained():
    space, jobs_of = search_space(BINS, 64), ConfigurationJobs(ModelSettings(epochs=7, seed=3), (0, 2))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    tried = [jobs_of(study.ask(space).params) for _ in range(100)]
    for jobs in tried:
        assert [job.fold for job in jobs] == [0, 2]
        settings = jobs[0].settings
        assert (settings.epochs, settings.seed) == (7, 3)
        assert settings.hidden
        assert len(set(settings.hidden)) == 1
        assert 32 <= settings.hidden[0] <= 64
    assert {job.n_bins for jobs in tried for job in jobs} == set(BINS)
    assert {len(jobs[0].settings.hidden or ()) for jobs in tried} == {1, 2, 3}


# What is chosen


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    options = StudyOptions(out=tmp_path_factory.mktemp("out"), folds=2)
    plan = plan_of("search", options, prepare(options, BINS))
    plan.folder.mkdir()
    return plan


@pytest.fixture
def record(plan, tmp_path):
    """A record in which four configurations were tried, the last on one fold only."""

    def make(*objectives, scores):
        own = replace(plan, folder=tmp_path)
        space, jobs_of = search_space(BINS, 64), ConfigurationJobs(ModelSettings(), (0, 1))
        found = SearchRecord(own, jobs_of, space, objectives)
        study = optuna_study(tmp_path)
        for values in scores:
            trial = study.ask(space)
            for job, row in zip(jobs_of(trial.params), values, strict=False):
                entry = failed_entry(own, job, "")
                entry["trial"] |= {"status": "ok", "train_seconds": 1.0, **dict.fromkeys(METRICS), **row}
                Ledger(own.ledger).write(entry)
            study.tell(trial, [1.0] * len(objectives))
        return found

    return make


def test_the_least_mean_error_over_all_folds_is_chosen(record):
    scores = [[{"crps": 3}, {"crps": 5}], [{"crps": 1}, {"crps": 6}], [{"crps": 4}, {"crps": 4.5}], [{"crps": 0}]]
    found = record("crps", scores=scores)
    assert found.choice()["number"] == 1
    assert [row["crps"] for row in found.rows()] == [4, 3.5, 4.25, 0]
    assert [row["n_folds"] for row in found.rows()] == [2, 2, 2, 1]


def test_higher_is_better_where_it_is(record):
    scores = [[{"pearson_top20": value}] * 2 for value in (0.1, 0.7, 0.4)]
    assert record("pearson_top20", scores=scores).choice()["number"] == 1


def test_several_objectives_choose_by_mean_rank(record):
    # Ranks 1 + 4, 2 + 2, 3 + 3, 4 + 1: sums 5, 4, 6, 5.
    pairs = [(0.1, 0.1), (0.2, 0.8), (0.3, 0.7), (0.9, 0.9)]
    scores = [[{"crps": crps, "pearson_top20": pearson}] * 2 for crps, pearson in pairs]
    assert record("crps", "pearson_top20", scores=scores).choice()["number"] == 1


def test_a_score_that_is_undefined_is_not_chosen(record):
    scores = [[{"crps": None}, {"crps": 0.1}], [{"crps": 2}, {"crps": 2}]]
    assert record("crps", scores=scores).choice()["number"] == 1


def test_another_space_or_objective_is_another_search(plan):
    jobs_of = ConfigurationJobs(ModelSettings(), (0, 1))
    of_bins, of_more = search_space(BINS, 64), search_space((5, 15, 25), 64)
    names = {
        SearchRecord(plan, jobs_of, of_bins, ["crps"]).name,
        SearchRecord(plan, jobs_of, of_more, ["crps"]).name,
        SearchRecord(plan, jobs_of, of_bins, ["w1"]).name,
        SearchRecord(plan, replace(jobs_of, settings=ModelSettings(epochs=1)), of_bins, ["crps"]).name,
    }
    assert len(names) == 4
    assert isinstance(of_more["n_bins"], CategoricalDistribution)


# The study


def test_more_inner_folds_than_perturbations_is_said(tmp_path):
    with pytest.raises(InputError, match="--inner-folds 61: 60 perturbations are left"):
        search.main(search.Search(out=tmp_path, inner_folds=61))


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    run = script("search", "--smoke", "--objectives", "crps", "rmae_skew", "--out", out)
    assert run.returncode == 0, run.stderr
    return run, out / "search"


@pytest.mark.ray
def test_ends_with_a_figure_and_a_table(finished):
    run, folder = finished
    assert f"figure: {folder}/figures/search.png" in run.stdout
    assert (folder / "figures" / "search.png").read_bytes().startswith(b"\x89PNG")
    table = (folder / "tables" / "search.md").read_text()
    assert "| chosen | " in table
    assert "chosen less given" in table
    assert run.stderr == ""


@pytest.mark.ray
def test_perturbations_that_judge_are_seen_by_no_trial_of_the_search(finished):
    folder = finished[1]
    judged = set(pd.read_parquet(folder / "perturbations.parquet")["perturbation"])
    folds = json.loads((folder / "study.json").read_text())["folds"]
    assert judged == {name for name, fold in folds.items() if fold == 0}
    ids = set(pd.read_parquet(folder / "trials.parquet")["trial_id"])
    inner = [entry for entry in entries(folder).values() if entry["trial"]["trial_id"] not in ids]
    assert len(inner) == 8
    for entry in inner:
        names = {row["perturbation"] for row in entry["perturbations"]}
        assert names
        assert names.isdisjoint(judged)
    # Nor do bin edges know them: the search's store has no such group.
    stores = [json.loads(path.read_text()) for path in (folder.parent / "stores").glob("*/manifest.json")]
    assert sorted(len(store["perturbations"]) for store in stores) == [60, 90]
    assert set(min(stores, key=lambda store: len(store["perturbations"]))["perturbations"]).isdisjoint(judged)


@pytest.mark.ray
def test_the_record_is_optunas_and_its_dashboard_opens_it(finished):
    folder = finished[1]
    study = optuna_study(folder)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    rows = pd.read_parquet(folder / "configurations.parquet").set_index("number")
    for trial in study.trials:
        assert trial.values == pytest.approx(rows.loc[trial.number, ["crps", "rmae_skew"]].to_list())
    seen = Client(wsgi(f"sqlite:///{folder / 'search.db'}")).get("/api/studies")
    assert [found["study_name"] for found in seen.json["study_summaries"]] == [study.study_name]


@pytest.mark.ray
@pytest.mark.chaos
def test_a_search_that_is_killed_goes_on_where_it_was(started, script, isolated, tmp_path):
    arguments = ("--folds", "3", "--judging-folds", "0", "--inner-folds", "2", "--bins", "5", "--trials", "5")
    arguments += ("--largest-layer", "32", "--epochs", "40", "--out", tmp_path)
    folder = tmp_path / "search"
    first = started(*arguments, name="search")
    wait_for(lambda: len(list((folder / "ledger").glob("*.json"))) >= 3)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: not workers(isolated))
    before = {path: path.stat().st_mtime_ns for path in (folder / "ledger").glob("*.json")}
    running = [trial.params for trial in optuna_study(folder).trials if trial.state.name == "RUNNING"]
    run = script("search", *arguments)
    assert run.returncode == 0, run.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
    states = [trial.state.name for trial in optuna_study(folder).trials]
    assert states.count("COMPLETE") == 5
    assert "RUNNING" not in states
    tried = [trial.params for trial in optuna_study(folder).trials if trial.state.name == "COMPLETE"]
    assert running
    # Of one that the process died proposing, the record has the parameters drawn until then.
    assert not [params for params in running if not any(params.items() <= found.items() for found in tried)]
    again = script("search", *arguments)
    assert "5 tried before, 0 to try" in again.stdout
    assert "0 to run" in again.stdout
    assert len(pd.read_parquet(folder / "configurations.parquet")) == 5


@pytest.mark.ray
@pytest.mark.chaos
def test_a_configuration_that_cannot_be_trained_is_a_row_and_unpromising_ones_are_left(script, tmp_path):
    run = script("search", "--smoke", "--prune", "--batch-size", "1", "--weight-decay", "0", "--out", tmp_path)
    assert run.returncode == 0, run.stderr
    rows = pd.read_parquet(tmp_path / "search" / "configurations.parquet")
    assert rows["n_folds"].between(1, 2).all()
    whole = rows[rows["n_folds"] == 2]
    choice = json.loads((tmp_path / "search" / "choice.json").read_text())
    assert choice["chosen"]["number"] == whole.loc[whole["crps"].idxmin(), "number"]
    assert np.isfinite(choice["chosen"]["crps"])
