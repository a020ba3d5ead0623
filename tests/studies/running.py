"""Studies that run in processes of their own, and what tests see of them from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parents[2]
SHORT = ("--folds", "3", "--bins", "5", "6", "7", "--epochs", "30")
N_SHORT = 36
"""Trials of that shape: four methods on three folds."""
MEASURED = ["train_seconds", "peak_memory_mb"]


def isolated_in(folder: Path) -> dict[str, str]:
    """Environment with a home and a temporary folder of its own, short enough for Ray's socket names."""
    (folder / "home").mkdir()
    (folder / "tmp").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "RAY_USAGE_STATS_ENABLED": "0"}


def start(
    environment: dict[str, str],
    *arguments: Any,
    name: str = "bin_sweep",
    path: Path | None = None,
    within: Sequence[str] = (),
    **how: Any,
) -> subprocess.Popen[str]:
    """A script of studies/, or another, as the leader of a process group, run by the command `within`."""
    command = [*within, sys.executable, path or ROOT / "studies" / f"{name}.py", *map(str, arguments)]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | how
    return subprocess.Popen(command, env=environment, cwd=environment["HOME"], text=True, start_new_session=True, **how)


def end(process: subprocess.Popen[str]) -> None:
    """Leave nothing of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    latest = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < latest, "it did not come"
        time.sleep(0.02)
    return found


def processes(environment: dict[str, str]) -> dict[int, bytes]:
    """Processes of studies in this environment, with their titles; Ray's too, whoever is their parent by now."""
    found, mark = {}, f"TMPDIR={environment['TMPDIR']}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = (path / "cmdline").read_bytes()
        except OSError:
            continue
    return found


def workers(environment: dict[str, str]) -> list[int]:
    """Those that run a trial, by Tune's name for them."""
    return [pid for pid, title in processes(environment).items() if title.startswith(b"ray::ImplicitFunc")]


def tables(out: Path) -> list[pd.DataFrame]:
    return [
        pd.read_parquet(out / "bin_sweep" / f"{name}.parquet").drop(columns=MEASURED, errors="ignore")
        for name in ("trials", "perturbations")
    ]


def assert_same(one: list[pd.DataFrame], other: list[pd.DataFrame]) -> None:
    for left, right in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


def entries(out: Path) -> dict[str, tuple[int, int]]:
    """The ledger's entries, each of which is whole, and what changes when one is written again."""
    found = {}
    for path in (out / "bin_sweep" / "ledger").glob("*.json"):
        assert json.loads(path.read_text())["trial"]["trial_id"] == path.stem
        found[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found
