"""Which code made a result: package versions, and the commit where the code runs from a checkout; names by content."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import histpert

__all__ = ["content_id", "differences", "provenance"]

PACKAGES = ("histpert", "torch", "numpy", "scipy", "pandas", "pyarrow", "anndata", "numba", "optuna", "ray")
PACKAGES += ("scikit-learn", "lightgbm", "umap-learn")


def content_id(content: Mapping[str, Any]) -> str:
    """A short name that is the same for the same content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


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


def differences(record: Mapping[str, Any]) -> Iterator[str]:
    """What is not as it was when the record was made, a line each."""
    now = provenance()
    for name in ("python", "platform", "commit"):
        if record.get(name) != now[name]:
            yield f"{name}: {record.get(name)} then, {now[name]} now"
    if record.get("uncommitted_changes"):
        yield "code: with changes then that no commit holds"
    if now["uncommitted_changes"]:
        yield "code: with changes now that no commit holds"
    then = record.get("versions", {})
    for name, version_now in now["versions"].items():
        if then.get(name) != version_now:
            yield f"{name}: {then.get(name)} then, {version_now} now"


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
