"""Live progress of reading a screen and building its store: bars in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from histpert.threads import Progress as Told

__all__ = ["bars_on", "store_progress"]

SECONDS_BETWEEN_LINES = 15


@contextmanager
def store_progress() -> Iterator[Told]:
    """What reading and building tell what they do."""
    console = Console()
    if not console.is_terminal:
        yield _Lines()
        return
    with bars_on(console) as told:
        yield told


@contextmanager
def bars_on(console: Console) -> Iterator[Told]:
    """A bar for each stage, where somebody looks at a terminal; nothing elsewhere."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done)

        yield told


class _Lines:
    def __init__(self):
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not total:
            print(stage, flush=True)
        elif now - self._last > SECONDS_BETWEEN_LINES:
            print(f"{stage}: {done:,} of {total:,}", flush=True)
            self._last = now
