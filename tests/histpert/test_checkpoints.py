"""Trainings that are cut short and go on, held against ones that ran through."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from test_models import QUICK, problem

from histpert.checkpoints import Checkpoint
from histpert.models import METHODS

SETTINGS = replace(QUICK, epochs=9, dropout=0.3, weight_decay=0.1)


def trained(checkpoint=None, stop_after=None):
    """Predictions in bytes, or what was yielded until it was stopped."""
    model = METHODS["MLP+Hist"](SETTINGS)
    losses = []
    for loss in model.fit(problem(), checkpoint):
        losses.append(loss.item())
        if len(losses) == stop_after:
            return None, losses
    return model.predict(problem().embeddings).masses.numpy().tobytes(), losses


@pytest.mark.parametrize("stops", [[1], [4], [8], [9], [2, 3, 1]], ids=str)
def test_a_training_that_goes_on_ends_with_the_same_bytes(tmp_path, stops):
    whole, losses = trained()
    for stop in stops:
        trained(Checkpoint(tmp_path / "made" / "state.pt", 0.0), stop)
    end, rest = trained(Checkpoint(tmp_path / "made" / "state.pt", 0.0))
    assert end == whole
    assert len(rest) < len(losses)
    assert losses[-len(rest) :] == rest


def test_the_time_of_processes_that_died_is_counted(tmp_path):
    first = Checkpoint(tmp_path / "state.pt", 0.0)
    time.sleep(0.2)
    trained(first, stop_after=1)
    second = Checkpoint(tmp_path / "state.pt", 0.0)
    trained(second)
    assert 0.2 <= second.seconds_before < 20
    third = Checkpoint(tmp_path / "state.pt", 0.0)
    trained(third)
    assert third.seconds_before > second.seconds_before


def test_nothing_is_kept_before_its_time(tmp_path):
    trained(Checkpoint(tmp_path / "state.pt", 3600.0))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_was_writing_goes_with_the_checkpoint(tmp_path):
    path = tmp_path / "state.pt"
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    code = f"""
from pathlib import Path
from histpert.results import written_atomically
with written_atomically(Path({str(path)!r})) as beside:
    beside.write_bytes(b"half")
    {kill}
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    (tmp_path / ".other.pt.1.2").write_bytes(b"of another training")
    assert len(list(tmp_path.glob(".state.pt.*"))) == 1
    Checkpoint(path, 0.0).remove()
    assert [found.name for found in tmp_path.iterdir()] == [".other.pt.1.2"]


def test_a_checkpoint_is_removed_when_the_result_is_kept(tmp_path):
    checkpoint = Checkpoint(tmp_path / "state.pt", 0.0)
    trained(checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    checkpoint.remove()
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: b"", lambda content: b"x" * 5000])
def test_a_damaged_checkpoint_is_named_and_the_training_starts_anew(tmp_path, capsys, damage):
    path = tmp_path / "state.pt"
    trained(Checkpoint(path, 0.0), stop_after=5)
    path.write_bytes(damage(path.read_bytes()))
    end, losses = trained(Checkpoint(path, 0.0))
    assert (end, losses) == trained()
    assert capsys.readouterr().out.count(str(path)) == 1


def test_a_checkpoint_that_would_run_code_is_not_taken(tmp_path, capsys):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    torch.save({"epochs": 3, "seconds": 1.0, "network": Harmful()}, tmp_path / "state.pt")
    assert Checkpoint(tmp_path / "state.pt", 0.0).load() is None
    assert not (tmp_path / "harmed").exists()
    assert "state.pt" in capsys.readouterr().out


def test_where_nothing_can_be_written_the_training_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert trained(Checkpoint(tmp_path / "file" / "state.pt", 0.0)) == trained()
    assert "cannot be kept" in capsys.readouterr().out
