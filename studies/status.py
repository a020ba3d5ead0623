"""How far are the studies in a folder of results? For another shell than the one that runs them.

`python studies/status.py results`
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import tyro

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.results import read_table
from studies.ledger import PROGRESS
from studies.options import Outcome, default_out, run_script


@dataclass(frozen=True)
class Status:
    """Options."""

    out: tyro.conf.Positional[Path] = field(default_factory=default_out)
    """The --out of the studies."""


def main(options: Status) -> Outcome:
    """Print a line for each study."""
    out = absolute(options.out)
    studies = sorted(path.parent for path in out.glob("*/ledger"))
    if not studies:
        raise InputError(f"{out} holds no study: name the --out of one")
    said = {folder.name: _running(folder) or _ended(folder) for folder in studies}
    for name, line in said.items():
        print(f"{name}: {line}")
    return Outcome(0, {"folder": out, "studies": said})


def _running(folder: Path) -> str:
    """What a study that runs told last; it leaves nothing of that when it ends."""
    path = folder / PROGRESS
    try:
        told, age = json.loads(path.read_text(encoding="utf-8")), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return ""
    if told["host"] == socket.gethostname() and not _is_alive(told["process"]):
        return f"its process died after: {told['line']}; the same command goes on"
    return f"{told['line']} (process {told['process']} on {told['host']}, {timedelta(seconds=round(age))} ago)"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _ended(folder: Path) -> str:
    n_kept = sum(1 for _ in (folder / "ledger").glob("*.json"))
    if not (folder / "trials.parquet").exists():
        return f"not running, {n_kept} trials done; the same command goes on"
    counted = Counter(read_table(folder / "trials.parquet")["status"].to_pylist())
    return "ended, " + ", ".join(f"{n_trials} trials {status}" for status, n_trials in counted.most_common())


if __name__ == "__main__":
    run_script(Status, main, __doc__)
