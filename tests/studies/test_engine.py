"""What the engine does when things go wrong, on a real local Ray."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from running import N_SHORT, ROOT, SHORT, assert_same, entries, tables, wait_for, workers

pytestmark = pytest.mark.ray


@pytest.mark.chaos
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes through /proc")
def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint(started, isolated, tmp_path):
    # Long enough to be met in the middle of a training.
    arguments = ("--folds", "3", "--bins", "5", "--epochs", "200", "--checkpoint-seconds", "0.1")
    whole = started(*arguments, "--out", tmp_path / "whole")
    assert whole.wait(200) == 0
    study = started(*arguments, "--out", tmp_path / "killed")
    kept = wait_for(lambda: list((tmp_path / "killed" / "bin_sweep" / "checkpoints").glob("*.pt")))
    victims = wait_for(lambda: workers(isolated))
    os.kill(victims[0], signal.SIGKILL)
    assert study.wait(200) == 0, study.stdout.read()
    assert kept
    assert not (tmp_path / "killed" / "bin_sweep" / "checkpoints").exists()
    assert_same(tables(tmp_path / "killed"), tables(tmp_path / "whole"))


def test_a_study_whose_driver_is_killed_goes_on_and_trains_nothing_twice(undisturbed, started, isolated, tmp_path):
    ledger = tmp_path / "bin_sweep" / "ledger"
    study = started(*SHORT, "--out", tmp_path)
    wait_for(lambda: len(list(ledger.glob("*.json"))) >= 2)
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    wait_for(lambda: not workers(isolated))
    done = entries(tmp_path)
    assert 2 <= len(done) < N_SHORT
    again = started(*SHORT, "--out", tmp_path)
    said = again.communicate(timeout=200)[0]
    assert again.returncode == 0, said
    assert f"{N_SHORT} trials, {len(done)} done before, {N_SHORT - len(done)} to run" in said
    assert done.items() <= entries(tmp_path).items()
    assert_same(tables(tmp_path), undisturbed)


def test_a_second_driver_in_the_same_folder_is_refused(started, bin_sweep, tmp_path):
    first = started("--folds", "3", "--bins", "5", "--epochs", "400", "--out", tmp_path)
    wait_for((tmp_path / "bin_sweep" / "ledger" / "lock").exists)
    second = bin_sweep(*SHORT, "--out", tmp_path)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "another process is at work in" in second.stderr
    assert first.poll() is None


@pytest.mark.chaos
def test_what_runs_out_of_memory_is_tried_once_more_alone_and_is_a_row(bin_sweep, tmp_path):
    run = bin_sweep("--folds", "3", "--bins", "5", "--epochs", "1", "--hidden", "400000", "400000", "--out", tmp_path)
    assert run.returncode == 1
    assert "3 trials ran out of memory or lost their worker: each is tried once more" in run.stdout
    trials = pd.read_parquet(tmp_path / "bin_sweep" / "trials.parquet")
    assert trials.groupby("method")["status"].unique().map(list).to_dict() == {
        "MLP+Hist": ["oom"],
        "Ctrl Hist": ["ok"],
        "Non-Ctrl Hist": ["ok"],
        "Observed Hist": ["ok"],
    }


@pytest.mark.chaos
def test_how_far_a_study_is_can_be_read_while_it_runs(started, tmp_path):
    study = started("--folds", "3", "--bins", "5", "--epochs", "1000", "--out", tmp_path)
    told = tmp_path / "bin_sweep" / "progress.json"
    wait_for(told.exists)
    said = json.loads(told.read_text())
    assert "trials ended" in said["line"]
    assert said["process"] == study.pid
    assert re.search(rf"bin_sweep: \d+/12 trials ended.* \(process {study.pid} on ", status(tmp_path))
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    assert "its process died after: " in status(tmp_path)
    assert started(*SHORT, "--out", tmp_path).wait(200) == 0
    assert not told.exists()
    assert status(tmp_path) == f"bin_sweep: ended, {N_SHORT} trials ok\n"


def status(out: Path) -> str:
    command = [sys.executable, ROOT / "studies" / "status.py", out]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
