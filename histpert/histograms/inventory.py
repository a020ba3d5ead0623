"""What lies under a root of stores: whole stores, stores of another format, and what killed processes left."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from histpert.errors import InputError
from histpert.histograms.folders import Folder, LocalFolder
from histpert.histograms.store import FORMAT, sealed

__all__ = ["LOCK", "MANIFEST", "Entry", "entry_at", "is_locked", "is_ours", "stores_in"]

LOCK, MANIFEST = "lock", "manifest.json"

_ARROW = r"(moments|ranges|reference|coexpression|cells|counts_B\d+(_fold\d+)?|replicates_R\d+|apart_B\d+)\.arrow"
_OURS = re.compile(rf"{LOCK}|{re.escape(MANIFEST)}|{_ARROW}|\.({_ARROW}|{re.escape(MANIFEST)})\.\d+\.[0-9a-f]{{8}}")
_FOLDER = re.compile(r"(.*-)?[0-9a-f]{16}")
_ENTRIES = {"format": int, "screen": str, "fingerprint": str, "files": dict}
_CONTENT = {"genes": list, "perturbations": list, "n_cells": list, "folds": list}


@dataclass(frozen=True)
class Entry:
    """A folder that is a store, or becomes one, or was to become one.

    Attributes:
        folder: Where it is.
        name: Of the folder.
        state: `whole`, `format 3`, `unfinished`, `damaged manifest` or `not readable`.
        files: Bytes of each file with a name that stores give, by name.
        others: Names of what else lies in the folder.
        manifest: What a whole store holds; what one of another format says.
    """

    folder: Folder
    name: str
    state: str
    files: Mapping[str, int]
    others: tuple[str, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether this version can read it."""
        return self.state == "whole"

    @property
    def n_bytes(self) -> int:
        """What its files take, partial ones included."""
        return sum(self.files.values())

    @property
    def bin_counts(self) -> list[int]:
        """Bin counts of a whole store."""
        return sorted(int(name[8:-6]) for name in self.manifest["files"] if name.startswith("counts_B"))

    def built(self) -> datetime | None:
        """When the store was built; bin counts may have come later."""
        return self.folder.written().get("moments.arrow")


def stores_in(root: Folder) -> list[Entry]:
    """The stores under a root, by name, with what was left unfinished there; of a store's own folder that one.

    Raises:
        InputError: There is no such folder, or it cannot be read.
    """
    if isinstance(root, LocalFolder) and not root.path.is_dir():
        raise InputError(f"{root}: no such folder")
    if root.read(MANIFEST) is not None and (own := entry_at(root, str(root))):
        return [own]
    return [entry for name in root.folders() if (entry := entry_at(root / name, name))]


def entry_at(folder: Folder, name: str) -> Entry | None:
    """The store in a folder, in whatever state, or None for a folder that is none of ours.

    It is ours with a manifest of ours, or where it is named as stores are and holds nothing but files so named.
    """
    named_as_stores = _FOLDER.fullmatch(Path(name).name) is not None
    try:
        files, content = folder.files(), folder.read(MANIFEST)
        others = (*(file for file in files if not is_ours(file)), *folder.folders())
    except InputError:
        if not isinstance(folder, LocalFolder):
            raise
        return Entry(folder, name, "not readable", {}) if named_as_stores else None
    ours = {file: n_bytes for file, n_bytes in files.items() if is_ours(file)}
    manifest = _read(content)
    if manifest is None:
        state = "unfinished" if content is None else "damaged manifest"
        return Entry(folder, name, state, ours) if named_as_stores and not others else None
    state = f"format {manifest['format']}"
    if manifest["format"] == FORMAT:
        state = "whole" if _is_complete(manifest) and manifest == sealed(manifest) else "damaged manifest"
    return Entry(folder, name, state, ours, others, manifest)


def is_ours(name: str) -> bool:
    """Whether stores give this name to a file: whole, partial, lock or manifest."""
    return _OURS.fullmatch(name) is not None


def is_locked(folder: Folder) -> bool:
    """Whether a process builds the store, as far as this machine can tell."""
    if not isinstance(folder, LocalFolder) or not (folder.path / LOCK).is_file():
        return False
    try:
        with FileLock(folder.path / LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # one may read what one may not lock
        return False


def _read(content: bytes | None) -> dict[str, Any] | None:
    """A manifest of ours, of any format."""
    try:
        manifest = json.loads(content or b"null")
    except ValueError:
        return None
    ours = isinstance(manifest, dict) and all(isinstance(manifest.get(key), kind) for key, kind in _ENTRIES.items())
    return manifest if ours else None


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest of this format has all that is read of it."""
    return (
        all(isinstance(manifest.get(key), kind) for key, kind in _CONTENT.items())
        and len(manifest["n_cells"]) == len(manifest["perturbations"]) + 1 == len(manifest["folds"]) + 1
        and all(isinstance(number, int) for number in (*manifest["n_cells"], *manifest["folds"]))
        and all(
            is_ours(name) and isinstance(checksum, dict) and checksum.keys() == {"bytes", "sha256"}
            for name, checksum in manifest["files"].items()
        )
    )
