import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def isolated(tmp_path_factory) -> dict[str, str]:
    return running.isolated_in(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def script(isolated) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of the scripts as a user would, named by its file."""

    def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "studies" / f"{name}.py", *arguments]
        return subprocess.run(
            command, env=isolated, cwd=isolated["HOME"], capture_output=True, text=True, timeout=300, check=False
        )

    return run


@pytest.fixture(scope="module")
def bin_sweep(script) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the bin sweep."""
    return partial(script, "bin_sweep")


@pytest.fixture
def started(isolated) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a study, and leaves nothing running."""
    processes = []

    def start(*arguments: Any, environment: dict[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
        processes.append(running.start(isolated | (environment or {}), *arguments, **how))
        return processes[-1]

    yield start
    for process in processes:
        running.end(process)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> list[pd.DataFrame]:
    """Tables of a study of the short shape that ran through."""
    folder = tmp_path_factory.mktemp("undisturbed")
    study = running.start(running.isolated_in(folder), *running.SHORT, "--out", folder)
    assert study.wait(200) == 0, study.stdout.read()
    return running.tables(folder)
