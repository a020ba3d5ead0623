"""Jobs that are trained as one, on a CPU: their entries are those of trials alone."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_packing import DeviceMemory, as_on_a_gpu

from histpert.results import METRICS
from histpert.settings import ModelSettings, weight_triples
from histpert.trial_memory import CONTEXT_BYTES
from studies import stacks
from studies.bundles import bundles
from studies.data import prepare
from studies.options import StudyOptions
from studies.plan import Job, Plan
from studies.stacks import run_stack, stack_bytes
from studies.trial import open_store, run_trial

CPU = torch.device("cpu")
SETTINGS = ModelSettings(epochs=3)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    out = tmp_path_factory.mktemp("out")
    return Plan("test", prepare(StudyOptions(out=out, folds=4), [5, 15]), 4, 1, out, 3600.0)


def grid(n_bins: int = 5, settings: ModelSettings = SETTINGS, n_triples: int = 15) -> list[Job]:
    return [
        Job("MLP+Hist", n_bins, fold, replace(settings, weight_ce=ce, weight_wass=wass, weight_mse=mse))
        for ce, wass, mse in weight_triples()[:n_triples]
        for fold in range(4)
    ]


def test_entries_are_those_of_trials_alone(plan):
    jobs = grid(n_triples=3)
    for job, entry in zip(jobs, run_stack(plan, jobs, CPU), strict=True):
        alone = run_trial(plan, job, CPU)
        measured = {"train_seconds", "peak_memory_mb"}
        for part, other in ((entry["trial"], alone["trial"]), *zip(entry["perturbations"], alone["perturbations"])):  # noqa: B905
            names = part.keys() - measured
            assert names == other.keys() - measured
            for name in names:
                if name in METRICS:
                    assert part[name] == pytest.approx(other[name], rel=1e-3, abs=1e-3, nan_ok=True), name
                else:
                    assert part[name] == other[name] or (part[name] != part[name]), name
        assert entry["trial"]["train_seconds"] > 0


def test_what_does_not_fit_is_an_entry_for_each_with_its_reason(plan):
    jobs = grid(settings=replace(SETTINGS, hidden=(400_000, 400_000)), n_triples=1)
    entries = list(run_stack(plan, jobs, CPU))
    assert [entry["trial"]["status"] for entry in entries] == ["oom"] * 4
    assert {entry["trial"]["trial_id"] for entry in entries} == {plan.trial_id(job) for job in jobs}


def test_a_training_that_diverges_is_an_entry_with_its_reason(plan):
    jobs = grid(settings=replace(SETTINGS, learning_rate=1e30), n_triples=1)
    for entry in run_stack(plan, jobs, CPU):
        assert entry["trial"]["status"] == "failed"
        assert "lower --learning-rate" in entry["trial"]["error"]


def test_a_gpu_is_given_as_many_together_as_it_holds(plan):
    jobs = [*grid(15), *grid(5), Job("TG", 5, 0, SETTINGS), Job("Ctrl Hist", 5, 0, SETTINGS)]
    store = open_store(plan.data.store)
    assert [len(bundle) for bundle in bundles(plan, jobs, 80 << 30)] == [60, 60, 1, 1]
    assert [len(bundle) for bundle in bundles(plan, jobs)] == [1] * 122
    room = CONTEXT_BYTES + stack_bytes(plan, jobs[:7], store) + 1
    made = bundles(plan, jobs[:60], room)
    assert [job for bundle in made for job in bundle] == jobs[:60]
    assert 9 <= len(made) <= 10
    for bundle, after in pairwise(made):
        assert stack_bytes(plan, bundle, store) + CONTEXT_BYTES < room
        assert stack_bytes(plan, (*bundle, after[0]), store) + CONTEXT_BYTES >= room
    large = [replace(job, settings=replace(job.settings, hidden=(4096, 4096))) for job in jobs[:8]]
    assert [len(bundle) for bundle in bundles(plan, large, 80 << 30)] == [1] * 8


@pytest.mark.parametrize(("n_bins", "hidden"), [(5, (128, 64)), (15, (128, 64)), (15, (512, 512))])
def test_a_stack_needs_no_more_than_was_forecast(plan, monkeypatch, n_bins, hidden):
    jobs = grid(n_bins, replace(SETTINGS, hidden=hidden), n_triples=2)
    with as_on_a_gpu() as memory:
        assert isinstance(memory, DeviceMemory)
        monkeypatch.setattr(stacks, "training_targets", memory.sent(stacks.training_targets))
        entries = list(run_stack(plan, jobs, CPU))
    assert pd.Series([entry["trial"]["status"] for entry in entries]).eq("ok").all()
    forecast = stack_bytes(plan, jobs, open_store(plan.data.store)) - stacks.STACK_ROOM * 8 * (128 << 20)
    assert 0.4 * forecast < memory.peak < forecast


def test_no_job_of_another_kind_joins_a_stack(plan):
    one, path = grid()[0], Path("unused")
    assert stacks.can_stack(plan, one, replace(one, fold=3))
    for other in (replace(one, n_bins=15), replace(one, method="TG"), replace(one, variant="x")):
        assert not stacks.can_stack(replace(plan, folder=path), one, other)
