"""What the engine does when things go wrong, on a real local Ray."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
MEASURED = ["train_seconds", "peak_memory_mb"]
SHORT = ("--folds", "3", "--bins", "5", "--epochs", "30")


@pytest.fixture(scope="module")
def undisturbed(bin_sweep, tmp_path_factory):
    """Tables of a study that ran through."""
    out = tmp_path_factory.mktemp("undisturbed")
    run = bin_sweep(*SHORT, "--out", out)
    assert run.returncode == 0, run.stderr
    return tables(out)


def tables(out: Path) -> list[pd.DataFrame]:
    return [
        pd.read_parquet(out / "bin_sweep" / f"{name}.parquet").drop(columns=MEASURED, errors="ignore")
        for name in ("trials", "perturbations")
    ]


def assert_same(one: list[pd.DataFrame], other: list[pd.DataFrame]) -> None:
    for left, right in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


@pytest.fixture
def started(isolated):
    """Starts the study, and leaves nothing running."""
    running = []

    def start(*arguments) -> subprocess.Popen[str]:
        command = [sys.executable, ROOT / "studies" / "bin_sweep.py", *map(str, arguments)]
        running.append(
            subprocess.Popen(
                command,
                env=isolated,
                cwd=isolated["HOME"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found


def workers(environment: dict[str, str]) -> list[int]:
    """Processes that run a trial, of studies in this environment."""
    found, mark = [], f"TMPDIR={environment['TMPDIR']}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_bytes()
            if title.startswith(b"ray::ImplicitFunc"):  # Tune's name for a worker with a trial
                found += [int(path.name)] if mark in (path / "environ").read_bytes().split(b"\0") else []
        except OSError:
            continue
    return found


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
    done = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in ledger.glob("*.json")}
    assert 2 <= len(done) < 12
    again = started(*SHORT, "--out", tmp_path)
    said = again.communicate(timeout=200)[0]
    assert again.returncode == 0, said
    assert f"12 trials, {len(done)} done before, {12 - len(done)} to run" in said
    after = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in ledger.glob("*.json")}
    assert done.items() <= after.items()
    assert_same(tables(tmp_path), undisturbed)


def test_a_second_driver_in_the_same_folder_is_refused(started, bin_sweep, tmp_path):
    first = started("--folds", "3", "--bins", "5", "--epochs", "400", "--out", tmp_path)
    wait_for((tmp_path / "bin_sweep" / "ledger" / "lock").exists)
    second = bin_sweep(*SHORT, "--out", tmp_path)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "another process is at work in" in second.stderr
    assert first.poll() is None


def test_what_runs_out_of_memory_is_tried_once_more_alone_and_is_a_row(bin_sweep, tmp_path):
    run = bin_sweep("--folds", "3", "--bins", "5", "--epochs", "1", "--hidden", "400000", "400000", "--out", tmp_path)
    assert run.returncode == 1
    assert "3 trials ran out of memory: each is tried once more" in run.stdout
    trials = pd.read_parquet(tmp_path / "bin_sweep" / "trials.parquet")
    assert trials.groupby("method")["status"].unique().map(list).to_dict() == {
        "MLP+Hist": ["oom"],
        "Ctrl Hist": ["ok"],
        "Non-Ctrl Hist": ["ok"],
        "Observed Hist": ["ok"],
    }


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
    assert status(tmp_path) == "bin_sweep: ended, 12 trials ok\n"


def status(out: Path) -> str:
    command = [sys.executable, ROOT / "studies" / "status.py", out]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
