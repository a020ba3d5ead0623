"""Where arrays lie that may be larger than memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histpert.errors import InputError

__all__ = ["WorkingSpace"]


@dataclass(frozen=True)
class WorkingSpace:
    """Memory, and above a limit a file in a folder: it has no name, so that it goes when the process does."""

    limit_bytes: int | None = None
    """The most that arrays of one call take of memory; None: no limit."""
    folder: Path | None = None
    """Where the file is; None: the system's folder for temporary files, which may itself be in memory."""

    def holds(self, n_bytes: int) -> bool:
        """Whether so much goes into memory."""
        return self.limit_bytes is None or n_bytes <= self.limit_bytes

    def arrays(self, length: int, *dtypes: np.dtype) -> list[np.ndarray]:
        """Arrays of one length, of any content.

        Raises:
            InputError: They go into a file, for which there is no room.
        """
        if self.holds(sum(length * dtype.itemsize for dtype in dtypes)):
            return [np.empty(length, dtype=dtype) for dtype in dtypes]
        try:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            return [self._in_file(length, dtype) for dtype in dtypes]
        except OSError as error:
            n_bytes = sum(length * dtype.itemsize for dtype in dtypes)
            raise InputError(
                f"{self.folder or tempfile.gettempdir()}: no room for {n_bytes / 1e9:.1f} GB of values that are more "
                f"than --memory-gb allows ({error.strerror}): make room, or name another folder with --store"
            ) from error

    def _in_file(self, length: int, dtype: np.dtype) -> np.ndarray:
        n_bytes = length * dtype.itemsize
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.truncate(n_bytes)
            if hasattr(os, "posix_fallocate"):  # macOS has none
                # Taken from the disk now: a mapped file that finds the disk full ends the process.
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            return np.frombuffer(mmap.mmap(file.fileno(), n_bytes), dtype=dtype)
