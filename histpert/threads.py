"""Work on all cores of this machine, in threads: for compiled code that lets others run meanwhile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["for_each", "in_order"]

Task = TypeVar("Task")
Done = TypeVar("Done")


def in_order(function: Callable[[Task], Done], tasks: Iterable[Task]) -> Iterator[Done]:
    """What `function` makes of each task, in their order; a few tasks are taken ahead, here, while threads work."""
    n_threads, coming = _n_threads(), iter(tasks)
    with ThreadPoolExecutor(n_threads) as pool:
        running = deque(pool.submit(function, task) for task in islice(coming, n_threads + 1))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(function, task) for task in islice(coming, 1))


def for_each(function: Callable[[Task], object], tasks: Iterable[Task]) -> None:
    """Call `function` with all tasks, which are taken at once; a long one holds up no other."""
    with ThreadPoolExecutor(_n_threads()) as pool:
        for _ in pool.map(function, tasks):
            pass


def _n_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
