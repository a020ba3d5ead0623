"""Where the files of a store lie: a folder of this machine, or one on object storage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from histpert.errors import InputError
from histpert.histograms.remote import Cache, RemoteFolder, is_remote

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
            InputError: It is missing, or is not what was written.
        """
        path = self.path / name
        if not path.is_file() or checksum_of(path) != checksum:
            raise InputError(
                f"{path} is missing or damaged (its checksum does not fit): delete {self.path} and run again"
            )
        return pa.memory_map(str(path))


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
