"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from histpert.errors import InputError

__all__ = ["only_process_in"]


@contextmanager
def only_process_in(folder: Path, busy: str, unwritable: Callable[[OSError], str]) -> Iterator[None]:
    """Be the only process that holds a folder, which is made where it is missing, and goes if nothing came of it.

    Args:
        folder: The folder.
        busy: What to say where another process holds it.
        unwritable: What to say where it cannot be written.

    Raises:
        InputError: One of the two.
    """
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(busy) from None
    except OSError as error:
        raise InputError(unwritable(error)) from error
    try:
        yield
    finally:
        if folder.is_dir() and [path.name for path in folder.iterdir()] == ["lock"]:
            with suppress(OSError):
                (folder / "lock").unlink()
                folder.rmdir()
        lock.release()
