"""Removing what no study will read again: what killed processes left, stores of an older format, unused stores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from histpert.errors import InputError
from histpert.histograms.folders import Folder, LocalFolder
from histpert.histograms.inventory import LOCK, MANIFEST, Entry, entry_at, is_locked, stores_in
from histpert.histograms.remote import RemoteFolder
from histpert.histograms.store import FORMAT
from histpert.wording import reason

__all__ = ["Removal", "removals", "remove"]

DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Removal:
    """Files that can go, all in one folder.

    Attributes:
        folder: Where they are.
        name: Of the folder.
        why: What makes them useless.
        files: Bytes of each file, by name.
        whole: Whether the folder goes as well, if it holds nothing else.
    """

    folder: Folder
    name: str
    why: str
    files: Mapping[str, int]
    whole: bool

    @property
    def n_bytes(self) -> int:
        """What the files take."""
        return sum(self.files.values())


def removals(root: Folder, unused_days: float | None = None) -> Iterator[Removal]:
    """What could go under a root. Links are left alone, and so is what a process builds.

    On object storage nothing tells what killed processes left from what is on its way there, which is left alone too.

    Args:
        root: Folder of stores.
        unused_days: Name also stores that no study has opened for so long.

    Raises:
        InputError: There is no such folder, or it cannot be read; or object storage is asked when a store was read.
    """
    if unused_days is not None and not isinstance(root, LocalFolder):
        raise InputError(f"{root}: object storage does not tell when a store was last read: leave out --unused-days")
    for entry in stores_in(root):
        if (removal := _of(entry, unused_days)) and not is_locked(entry.folder):
            yield removal


def remove(removal: Removal, unused_days: float | None = None) -> int:
    """Remove what `removals` named, as far as it can still go; returns the bytes that are free now.

    Raises:
        InputError: It cannot be removed.
    """
    folder = removal.folder
    if not isinstance(folder, LocalFolder):
        return _remove_remote(removal, folder)
    try:
        with FileLock(folder.path / LOCK).acquire(timeout=0):
            # Nobody builds it now; what was built since it was named is kept.
            now = _again(removal, unused_days)
            # A folder without a manifest is no store, however much of it is left; the lock is held to the end.
            for name in sorted(now.files, key=lambda name: (name != MANIFEST, name == LOCK)) if now else ():
                (folder.path / name).unlink(missing_ok=True)
    except Timeout:
        return 0
    except OSError as error:
        raise InputError(f"{folder} cannot be removed ({reason(error)})") from error
    if now and now.whole:
        with suppress(OSError):  # it holds something else, which stays
            folder.path.rmdir()
    return now.n_bytes if now else 0


def _remove_remote(removal: Removal, folder: RemoteFolder) -> int:
    if now := _again(removal, None):
        folder.delete()
    return now.n_bytes if now else 0


def _again(removal: Removal, unused_days: float | None) -> Removal | None:
    entry = entry_at(removal.folder, removal.name)
    return _of(entry, unused_days) if entry else None


def _of(entry: Entry, unused_days: float | None) -> Removal | None:
    """What can go of a folder that nobody builds in."""
    folder = entry.folder
    if isinstance(folder, RemoteFolder):
        # There a folder goes with all that is in it.
        whole = _is_older(entry) and not entry.others
        return Removal(folder, entry.name, entry.state, entry.files, whole) if whole else None
    if _has_links(folder.path):
        return None
    if _is_older(entry) or entry.state in ("unfinished", "damaged manifest"):
        why = entry.state
    elif entry.is_whole and unused_days is not None and (days := _days_unused(folder.path)) >= unused_days:
        why = f"unused for {days:,.0f} days"
    elif entry.is_whole and (left := entry.files.keys() - {*entry.manifest["files"], MANIFEST, LOCK}):
        files = {name: entry.files[name] for name in sorted(left)}
        return Removal(folder, entry.name, "left by a killed process", files, whole=False)
    else:
        return None
    return Removal(folder, entry.name, why, entry.files, whole=True)


def _is_older(entry: Entry) -> bool:
    """Whether it is of a format that is written no more; a later one may be read by those who have a later version."""
    return entry.manifest.get("format", FORMAT) < FORMAT


def _has_links(path: Path) -> bool:
    return path.is_symlink() or any(inside.is_symlink() for inside in path.iterdir())


def _days_unused(path: Path) -> float:
    """Since a study last opened the store, which sets the time of the manifest."""
    return (time.time() - (path / MANIFEST).stat().st_mtime) / DAY
