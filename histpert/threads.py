"""Work on all cores of this machine, in threads: for compiled code that lets others run meanwhile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["Progress", "for_each", "in_order", "n_cores", "silent"]

Progress = Callable[[str, int, int], object]
"""Told what is done now, how much of it is through, and of how much; 0 of 0 while waiting."""

Task = TypeVar("Task")
Done = TypeVar("Done")


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""


def in_order(function: Callable[[Task], Done], tasks: Iterable[Task]) -> Iterator[Done]:
    """What `function` makes of each task, in their order; a few tasks are taken ahead, here, while threads work."""
    n_threads, coming = n_cores(), iter(tasks)
    with ThreadPoolExecutor(n_threads) as pool:
        running = deque(pool.submit(function, task) for task in islice(coming, n_threads + 1))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(function, task) for task in islice(coming, 1))


def for_each(
    function: Callable[[Task], object],
    tasks: Iterable[Task],
    told: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Call `function` with all tasks, which are taken at once; a long one holds up no other.

    Args:
        function: Called in threads.
        tasks: What it is called with.
        told: How many tasks are through, of how many; called here.
    """
    taken = list(tasks)
    with ThreadPoolExecutor(n_cores()) as pool:
        for done, _ in enumerate(pool.map(function, taken), start=1):
            told(done, len(taken))


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
