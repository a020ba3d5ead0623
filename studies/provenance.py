"""Which code made a result: package versions, and the commit where the code runs from a checkout."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import histpert

__all__ = ["provenance"]

PACKAGES = ("histpert", "torch", "numpy", "scipy", "pandas", "pyarrow", "anndata", "numba", "ray")


def provenance() -> dict[str, Any]:
    """Versions, commit (None outside a checkout) and whether the checkout differed from it."""
    commit = _git("rev-parse", "HEAD")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit,
        "uncommitted_changes": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from an uploaded folder without being installed
        return histpert.__version__ if package == "histpert" else None


def _git(*arguments: str) -> str | None:
    """What git says of the checkout that this code runs from; None where it is not in one."""
    home = Path(histpert.__file__).parents[1]
    if not (home / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", home, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
