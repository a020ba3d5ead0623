"""How Tune's workers take up trials, on a real Ray."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

N_TRIALS = 200


@pytest.mark.ray
def test_trials_keep_their_order_and_the_workers_that_were_started_for_them(isolated):
    command = [sys.executable, Path(__file__).parent / "many_trials.py", str(N_TRIALS)]
    environment = isolated | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert len(set(found["processes"])) == 2
    assert sorted(found["started"]) == list(range(N_TRIALS))
    # A trial waits for its own worker while later ones are taken up by another, but no longer than a start takes.
    first_half = set(found["started"][: N_TRIALS // 2])
    assert len(first_half & set(range(N_TRIALS // 2))) >= N_TRIALS // 2 - 2
