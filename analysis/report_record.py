"""What a page says of a study's record and trials: in short, setting by setting, and what failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from histpert.results import read_table

__all__ = ["Record", "facts_of", "failed_rows", "made_by_rows", "part_of", "settings_rows"]

Record = Mapping[str, Any]
"""What stands in a study's study.json."""

_KEYS = ("method", "variant", "n_bins", "weight_ce", "weight_wass", "weight_mse", "number", "fold", "source", "task")
_KEYS += ("form", "split", "seed")
"""What tells one trial from another."""


def part_of(record: Record, name: str) -> Record:
    """Of a record that says more than the name of something, what it says."""
    value = record.get(name)
    return value if isinstance(value, dict) else {} if value is None else {"name": str(value)}


def facts_of(record: Record, trials: pd.DataFrame | None) -> Iterator[str]:
    """What a study is of, and how many of its trials ended, in short phrases."""
    if screen := part_of(record, "screen").get("name"):
        yield f"Screen: {Path(screen).name}"
    if embeddings := part_of(record, "embeddings").get("name"):
        yield f"Embeddings: {embeddings}"
    if folds := record.get("folds"):
        yield f"{len(folds):,} perturbations in {len(set(folds.values()))} folds"
    if trials is not None:
        n_ok = int((trials["status"] == "ok").sum())
        yield f"{n_ok:,} of {len(trials):,} trials finished" if n_ok < len(trials) else f"{n_ok:,} trials finished"


def failed_rows(folder: Path, trials: pd.DataFrame | None) -> Iterator[tuple[str, str]]:
    """Trials, and configurations of a search, that have no result: which, and why."""
    if trials is not None:
        yield from _reasons(trials[trials["status"] != "ok"])
    if (folder / "configurations.parquet").exists():
        configurations = read_table(folder / "configurations.parquet").to_pandas()
        yield from _reasons(configurations[configurations["error"].notna()])


def _reasons(failed: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for row in failed.to_dict("records"):
        known = {key: row[key] for key in _KEYS if pd.notna(row.get(key)) and row[key] != ""}
        which = ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in known.items())
        yield which, str(row["error"] or row.get("status") or "stopped before it ended")


def settings_rows(settings: Record, within: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, those within others as `model.epochs`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from settings_rows(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_shown, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not set"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def made_by_rows(record: Record) -> Iterator[tuple[str, str]]:
    """Fingerprints of data, commit and versions."""
    for name in ("screen", "embeddings"):
        of = part_of(record, name)
        if "sha256" in of:
            yield f"{name.capitalize()} {of['name']}, SHA-256", str(of["sha256"])
    yield from ((f"{name}, fingerprint", str(value)) for name, value in record.get("inputs", {}).items())
    if "commit" in record:
        changed = ", with changes that no commit holds" if record.get("uncommitted_changes") else ""
        yield "Commit", f"{record['commit'] or 'none: not run from a checkout'}{changed}"
    for name, called in {"python": "Python", "platform": "Platform", "n_cpus": "CPUs", "store": "Store"}.items():
        if record.get(name) is not None:
            yield called, str(record[name])
    yield from ((name, str(value)) for name, value in record.get("versions", {}).items() if value is not None)
