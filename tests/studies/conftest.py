import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def isolated(tmp_path_factory) -> dict[str, str]:
    """Environment with a home and a temporary folder of its own, short enough for Ray's socket names."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "home").mkdir()
    (folder / "tmp").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "RAY_USAGE_STATS_ENABLED": "0"}


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
