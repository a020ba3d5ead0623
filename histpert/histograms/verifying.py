"""Whether a store is what was written, and whether what was written can be true: file by file, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from histpert.errors import DamagedError
from histpert.histograms.content import Content
from histpert.histograms.folders import Folder
from histpert.histograms.inventory import Entry
from histpert.histograms.remote import Cache, RemoteFolder

__all__ = ["problems"]

NEEDED = ("moments.arrow", "ranges.arrow", "reference.arrow")


def problems(entry: Entry, advance: Callable[[int], object] = lambda n_bytes: None) -> Iterator[str]:
    """What is wrong with a whole store, each thing in a line that begins with the file's name.

    Files on object storage are downloaded, one after the other, into a folder of their own beside the cache, and
    removed again: what the cache holds is neither trusted nor thrown out.

    Args:
        entry: The store.
        advance: Told the bytes of each file when its checksum is verified, and again when its content is.
    """
    checksums: Mapping[str, Mapping[str, Any]] = entry.manifest["files"]
    yield from (f"{name}: manifest.json does not name it" for name in NEEDED if name not in checksums)
    tables: dict[str, pa.Table] = {}
    # What the others are compared with comes first.
    for name in sorted(checksums, key=lambda name: (name not in NEEDED[:2], name)):
        try:
            tables[name] = pa.ipc.open_file(_fetched(entry.folder, name, checksums[name])).read_all()
        except DamagedError:
            there = name in entry.files
            yield f"{name}: damaged, its checksum is not that in manifest.json" if there else f"{name}: missing"
            continue
        except pa.ArrowException as error:
            yield f"{name}: no Arrow file ({str(error).splitlines()[0]})"
            continue
        finally:
            advance(int(checksums[name]["bytes"]))
        try:
            yield from (f"{name}: {problem}" for problem in Content(entry.manifest, tables).problems(name))
        except (KeyError, AttributeError, TypeError, ValueError, pa.ArrowException) as error:
            yield f"{name}: columns are not those of a store ({type(error).__name__}: {str(error).splitlines()[0]})"
        if name not in NEEDED[:2]:
            del tables[name]
        advance(int(checksums[name]["bytes"]))


def _fetched(folder: Folder, name: str, checksum: Mapping[str, Any]) -> pa.MemoryMappedFile:
    """A file, mapped, its checksum verified; one from object storage takes disk space as long as it is mapped."""
    if not isinstance(folder, RemoteFolder):
        return folder.fetch(name, checksum)
    cache = Cache(folder.cache.folder / "verify", folder.cache.limit_bytes)
    downloaded = cache.path(str(checksum["sha256"]))
    downloaded.unlink(missing_ok=True)  # left by a process that was killed
    try:
        return RemoteFolder(folder.uri, cache).fetch(name, checksum)
    finally:
        downloaded.unlink(missing_ok=True)
