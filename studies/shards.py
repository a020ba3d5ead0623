"""A screen read and counted on several nodes: each Ray actor has the cells of some perturbations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from histpert.errors import InputError
from histpert.screens import GroupedCells, open_screen
from histpert.screens.opened import Decision, OpenScreen, ShareFacts
from histpert.screens.screen import for_each_group
from studies.local_ray import ray_session
from studies.options import StudyOptions

__all__ = ["SharedScreen", "shared_out"]

GROUPS_AT_ONCE = 16
"""Groups whose results are sent together: some 40 MB for six bin counts of 5,000 genes."""

Result = TypeVar("Result")


@contextmanager
def shared_out(opened: OpenScreen, options: StudyOptions) -> Iterator[SharedScreen]:
    """The cells of an open screen, read by `options.shards` actors for the length of the block.

    Raises:
        InputError: The screen cannot be used, or an actor does not see its file or dies.
    """
    with ray_session() as own_folder:
        import ray

        n_cpus = int(ray.cluster_resources().get("CPU", 0))
        if own_folder is not None and options.shards > n_cpus:
            raise InputError(f"--shards {options.shards}: this machine has {n_cpus} CPUs for Ray, give no more")
        actor: Any = ray.remote(_Shard)
        actor = actor.options(num_cpus=1, max_concurrency=2, scheduling_strategy="SPREAD")
        shares = _shares(opened.groups.start, options.shards)
        shards = [actor.remote() for _ in shares]
        what = ray.put(options), opened.perturbations, len(shares)
        facts = _all([shard.read.remote(*what, share) for shard, share in zip(shards, shares, strict=True)])
        decision = opened.decision(ShareFacts.joined(facts))
        largest = max(_all([shard.settle.remote(ray.put(decision)) for shard in shards]))
        yield SharedScreen(opened, decision, largest, shards, shares)


def _shares(group_start: Int[np.ndarray, "bound"], n_shards: int) -> list[slice]:
    """Groups that follow each other, with about as many cells in each share."""
    wanted = np.searchsorted(group_start, np.linspace(0, group_start[-1], n_shards + 1))
    bounds = np.unique([0, *wanted[1:-1], len(group_start) - 1]).tolist()
    return [slice(first, end) for first, end in pairwise(bounds)]


def _all(tasks: Sequence[Any]) -> list[Any]:
    """What all tasks return; what one raises is raised here as it was there."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(list(tasks))
    except RayTaskError as error:
        raise error.cause from None
    except RayActorError as error:
        raise InputError(
            f"a process that counts for --shards died ({str(error).splitlines()[0]}): run again; if its memory was "
            "too small, with a smaller --memory-gb"
        ) from error


class SharedScreen(GroupedCells):
    """Cells that Ray actors have."""

    def __init__(
        self, opened: OpenScreen, decision: Decision, largest: float, shards: Sequence[Any], shares: Sequence[slice]
    ):
        self.name, self.perturbations = opened.name, opened.perturbations
        self.genes, self.notes = opened.genes(decision), opened.notes_on(decision, largest)
        self._n_cells = np.diff(opened.groups.start)
        self._shards, self._shares = shards, shares

    @property
    def n_cells(self) -> Int[np.ndarray, "group"]:
        """Cells per group, control first."""
        return self._n_cells

    def for_each_group(self, work: Callable[[sp.csr_matrix], Result], done: Callable[[int, Result], object]) -> None:
        """Call `work` where the cells are, and `done` here."""
        import ray

        sent = ray.put(work)
        left = [iter(range(share.start, share.stop, GROUPS_AT_ONCE)) for share in self._shares]
        running: dict[Any, int] = {}

        def start(number: int) -> None:
            first = next(left[number], None)
            if first is not None:
                groups = slice(first, min(first + GROUPS_AT_ONCE, self._shares[number].stop))
                running[self._shards[number].each.remote(sent, groups)] = number

        for number in [*range(len(self._shards))] * 2:  # one is counted while the other is sent
            start(number)
        while running:
            (task,), _ = ray.wait(list(running), num_returns=1)
            start(running.pop(task))
            (results,) = _all([task])
            for group, result in results.items():
                done(group, result)


class _Shard:
    """An actor with the cells of some groups."""

    def read(self, options: StudyOptions, perturbations: Sequence[str], n_shards: int, groups: slice) -> ShareFacts:
        """Read the cells; returns what they say about all."""
        self._file = ExitStack()
        space = options.working_space(n_shards)
        opened = self._file.enter_context(open_screen(options.screen, options.read, space))
        self._share = opened.with_perturbations(perturbations).share(groups)
        return self._share.facts

    def settle(self, decision: Decision) -> float:
        """Take what holds for all cells; returns the largest value."""
        self._expression, largest = self._share.on(decision)
        self._file.close()
        return largest

    def each(self, work: Callable[[sp.csr_matrix], Result], groups: slice) -> dict[int, Result]:
        """What `work` makes of each group."""
        results: dict[int, Result] = {}
        first = groups.start - self._share.first
        start = self._share.group_start[first : first + groups.stop - groups.start + 1]
        for_each_group(
            self._expression, start, work, lambda number, result: results.__setitem__(groups.start + number, result)
        )
        return results
