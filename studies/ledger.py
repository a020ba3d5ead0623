"""The ledger: one file per finished (configuration, fold), written atomically; what is in it is not trained again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeGuard

from histpert.results import write_json

__all__ = ["PROGRESS", "Entry", "Ledger", "is_done"]

PROGRESS = "progress.json"
"""In a study's folder while it runs: how far it is."""


class Entry(TypedDict):
    """What a trial leaves: its row of `trials.parquet` and those of `perturbations.parquet`."""

    trial: dict[str, Any]
    perturbations: list[dict[str, Any]]


def is_done(entry: Entry | None) -> TypeGuard[Entry]:
    """Whether a trial has a result."""
    return entry is not None and entry["trial"]["status"] == "ok"


class Ledger:
    """Entries in a folder.

    Args:
        folder: Made with the first entry.
        rows: What an entry calls its rows, beside `trial`.
    """

    def __init__(self, folder: Path, rows: str = "perturbations"):
        self.folder, self._rows = folder, rows

    def write(self, entry: Mapping[str, Any]) -> None:
        """Keep an entry; one of the same trial is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(entry["trial"]["trial_id"]), entry, indent=None)

    def read(self, trial_id: str) -> Entry | None:
        """The entry of a trial, or None where there is none. A damaged entry is named and counts as none."""
        path = self._path(trial_id)
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            if entry["trial"]["trial_id"] == trial_id and isinstance(entry[self._rows], list):
                return entry
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            pass
        print(f"ledger entry {path} is damaged and is done again", flush=True)
        return None

    def _path(self, trial_id: str) -> Path:
        return self.folder / f"{trial_id}.json"
