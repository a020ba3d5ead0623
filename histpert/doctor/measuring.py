"""Measures what a study is made of: a store in a temporary folder, and trials of a few steps beside each other."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

import histpert
from histpert.doctor.extrapolation import TrialCost
from histpert.doctor.machine import Memory, sampled
from histpert.doctor.probe import Request, Task
from histpert.errors import InputError
from histpert.histograms import open_or_build
from histpert.multi_hot import multi_hot
from histpert.screens import Screen

__all__ = ["MOST_PROBES", "MeasuredStore", "MeasuredTrials", "measured_store", "measured_trials"]

MOST_PROBES = 16
"""Processes that try trials beside each other; where a study runs more at once, memory is taken for as many."""


@dataclass(frozen=True)
class MeasuredStore:
    """A store that was built.

    Attributes:
        folder: Where it is.
        stages: Seconds of each stage of building it, and of the rest.
        n_bytes: Size of each of its files.
        n_counted: Numbers of bins that it was counted in, the reference included.
        own_bytes: The most memory that this process took while it was built.
    """

    folder: Path
    stages: Mapping[str, float]
    n_bytes: Mapping[str, int]
    n_counted: int
    own_bytes: int


@dataclass(frozen=True)
class MeasuredTrials:
    """Trials that were tried.

    Attributes:
        start_seconds: From the start of a process to when it can try one.
        costs: Seconds of a trial by method and number of bins, alone or beside others as a study runs them.
        own_bytes: The most memory of one process during it, by the same.
        library_bytes: Memory of libraries, of all processes together.
        n_at_once: Processes that were tried beside each other.
    """

    start_seconds: float
    costs: Mapping[str, Mapping[int, TrialCost]]
    own_bytes: Mapping[str, Mapping[int, int]]
    library_bytes: int
    n_at_once: int


@dataclass
class _Stages:
    """Seconds of stages, by who is told of progress."""

    seconds: dict[str, float] = field(default_factory=dict)
    _stage: str = "rest"
    _since: float = field(default_factory=time.perf_counter)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = (stage, now) if done < total else ("rest", now)


def measured_store(
    root: Path,
    screen: Screen,
    folds: Int[np.ndarray, "perturbation"],
    bin_counts: Sequence[int],
    n_replicates: int = 0,
    apart: Sequence[int] = (),
    with_cells: bool = False,
) -> MeasuredStore:
    """Build a store; the arguments are those of `open_or_build`."""
    stages = _Stages()
    with sampled([os.getpid()]) as seen:
        store = open_or_build(root, screen, folds, bin_counts, stages, None, n_replicates, apart, False, with_cells)
    stages("end", 0, 0)
    folder = Path(str(store.folder))
    n_bytes = {path.name: path.stat().st_size for path in folder.iterdir()}
    own = max(memory.own for memory in seen)
    return MeasuredStore(folder, stages.seconds, n_bytes, len(set(bin_counts)) + 1, own)


def measured_trials(
    store: MeasuredStore,
    names: Sequence[str],
    vectors: Float[np.ndarray, "perturbation feature"],
    tasks: Sequence[Task],
    n_training: int,
    n_at_once: int,
    n_replicates: int = 0,
    with_cells: bool = False,
    on_gpu: bool = False,
) -> MeasuredTrials:
    """Try trials on a store in as many processes at once as a study would, up to `MOST_PROBES`.

    Raises:
        InputError: A process ended before it was through.
    """
    n = min(n_at_once, MOST_PROBES)
    request = Request(
        store.folder, vectors, multi_hot(names), tuple(tasks), n_training, n_replicates, with_cells, on_gpu
    )
    with _probes(n, request) as probes, sampled([probe.process.pid for probe in probes]) as seen:
        said = [_said(probe) for probe in probes]
    ready = [lines[0]["ready"] - lines[0]["begun"] for lines in said]
    costs: dict[str, dict[int, TrialCost]] = {}
    own: dict[str, dict[int, int]] = {}
    for number, task in enumerate(tasks, start=1):
        lines = [each[number] for each in said]
        costs.setdefault(task.name, {})[task.n_bins] = TrialCost(
            *(fmean(line[part] for line in lines) for part in TrialCost._fields)
        )
        begun, ended = min(line["begun"] for line in lines), max(line["ended"] for line in lines)
        own.setdefault(task.name, {})[task.n_bins] = _peak(seen, begun, ended) // n
    first = max(lines[0]["ready"] for lines in said)
    libraries = max((memory.files for memory in seen if memory.at <= first), default=seen[0].files)
    return MeasuredTrials(fmean(ready), costs, own, libraries, n)


def _peak(seen: Sequence[Memory], begun: float, ended: float) -> int:
    """The most between two times, or at the look next to them."""
    during = [memory for memory in seen if begun <= memory.at <= ended]
    return max(memory.own for memory in during or [min(seen, key=lambda memory: abs(memory.at - ended))])


class _Probe(NamedTuple):
    """A process that tries trials."""

    process: subprocess.Popen[bytes]
    begun: float
    errors: IO[bytes]


@contextmanager
def _probes(n: int, request: Request) -> Iterator[list[_Probe]]:
    """Processes that were sent a request; none of them is left after the block."""
    package = str(Path(histpert.__file__).parents[1])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}  # as Ray has it
    command = [sys.executable, "-m", "histpert.doctor.probe"]
    with ExitStack() as stack:
        probes = []
        for _ in range(n):
            errors = stack.enter_context(tempfile.TemporaryFile())
            begun, pipe = time.time(), subprocess.PIPE
            process = stack.enter_context(
                subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment)
            )
            stack.callback(process.kill)
            probes.append(_Probe(process, begun, errors))
        for probe in probes:
            with suppress(BrokenPipeError):  # it has died: what it said is read later
                pickle.dump(request, probe.process.stdin)  # pyright: ignore[reportArgumentType]
                probe.process.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
        yield probes


def _said(probe: _Probe) -> list[dict[str, Any]]:
    out = probe.process.stdout.read()  # pyright: ignore[reportOptionalMemberAccess]
    if probe.process.wait():
        probe.errors.seek(0)
        lines = probe.errors.read().decode(errors="replace").strip().splitlines()
        raise InputError(
            f"trials could not be tried: {lines[-1] if lines else 'a process was killed, memory is short'}"
        )
    first, *lines = map(json.loads, out.splitlines())
    return [{**first, "begun": probe.begun}, *lines]
