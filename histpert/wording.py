"""Names and causes in messages: short, and on one line."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["every", "reason", "some"]


def some(names: Iterable[object], shown: int = 5) -> str:
    """The first few names, and how many there are where not all are shown."""
    listed = [" ".join(str(name).split()) for name in names]
    rest = f", ... ({len(listed):,} in all)" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + rest


def every(names: Iterable[object]) -> str:
    """All names, or that there are none."""
    return ", ".join(map(str, names)) or "none"


def reason(error: BaseException) -> str:
    """What an error of a library says, or its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
