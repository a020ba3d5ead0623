"""Where figures and tables go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from histpert.errors import InputError

__all__ = ["output_folders"]


@contextmanager
def output_folders(out: Path) -> Iterator[tuple[Path, Path]]:
    """The folders `figures/` and `tables/` of `out`, made where they are missing.

    Raises:
        InputError: Something in there cannot be written.
    """
    out = Path(out).resolve()
    try:
        for name in ("figures", "tables"):
            (out / name).mkdir(parents=True, exist_ok=True)
        yield out / "figures", out / "tables"
    except OSError as error:
        raise InputError(f"cannot write into {out} ({error}): give another folder") from error
