"""Where the files of a store lie: a folder of this machine, or one on object storage."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from histpert.errors import DamagedError, InputError
from histpert.histograms.remote import Cache, RemoteFolder, is_remote
from histpert.wording import reason

__all__ = ["Folder", "LocalFolder", "checksum_of", "folder_at"]


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine, or one that it shares with others."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> LocalFolder:
        """A folder inside."""
        return LocalFolder(self.path / name)

    def read(self, name: str) -> bytes | None:
        """The content of a small file, or None where there is none.

        Raises:
            InputError: It cannot be read.
        """
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{self.path / name} cannot be read ({error.strerror})") from error

    def fetch(self, name: str, checksum: Mapping[str, Any]) -> pa.MemoryMappedFile:
        """A file, mapped, after its checksum was verified.

        Raises:
            DamagedError: It is missing, or is not what was written.
        """
        path = self.path / name
        if not path.is_file() or checksum_of(path) != checksum:
            raise DamagedError(
                f"{path} is missing or damaged (its checksum does not fit): delete {self.path} and run again"
            )
        return pa.memory_map(str(path))

    def folders(self) -> list[str]:
        """Names of the folders inside.

        Raises:
            InputError: They cannot be listed.
        """
        return sorted(entry.name for entry in self._listed() if entry.is_dir())

    def files(self) -> dict[str, int]:
        """Names and sizes of the files in this folder, in bytes."""
        return {name: status.st_size for name, status in self._files()}

    def written(self) -> dict[str, datetime]:
        """When each file in this folder was written."""
        return {name: datetime.fromtimestamp(status.st_mtime, UTC) for name, status in self._files()}

    def schema(self, name: str) -> pa.Schema:
        """Columns of an Arrow file, of which nothing else is read.

        Raises:
            InputError: It cannot be read.
        """
        try:
            with pa.memory_map(str(self.path / name)) as file:
                return pa.ipc.open_file(file).schema
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self.path / name} cannot be read ({reason(error)})") from error

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        for entry in self._listed():
            with suppress(FileNotFoundError):  # removed meanwhile
                if entry.is_file():
                    yield entry.name, entry.stat()

    def _listed(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                return list(entries)
        except OSError as error:
            raise InputError(f"{self.path} cannot be listed ({error.strerror})") from error


Folder = LocalFolder | RemoteFolder
"""What a store is read from."""


def folder_at(location: str | Path, cache: Cache | None = None) -> Folder:
    """The folder that a path or a URI names.

    Args:
        location: A path, or a URI that `pyarrow.fs` knows: `s3://bucket/stores`.
        cache: Where files behind a URI are kept on this node.

    Raises:
        ValueError: A URI, and no cache.
    """
    if not is_remote(str(location)):
        return LocalFolder(Path(location))
    if cache is None:
        raise ValueError("what is fetched from object storage needs a cache")
    return RemoteFolder(str(location), cache)


def checksum_of(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
