"""Studies that are not of histogram models: independent pieces of work on Ray, a ledger of what is done, and tables."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.live import Live

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.provenance import content_id, provenance
from histpert.results import write_json, write_table
from histpert.settings import LARGEST_SEED
from studies.ended import Study
from studies.engine import alone_in
from studies.ledger import PROGRESS, Ledger
from studies.local_ray import ray_session
from studies.options import default_out

__all__ = ["SCORES", "Unit", "UnitOptions", "run_units"]

SCORES = "scores.parquet"
"""Rows of all units of a study; which unit ended how stands in trials.parquet."""

SECONDS_BETWEEN_LINES = 15

Entry = dict[str, Any]
"""What a unit leaves: `trial`, its row of trials.parquet, and its `rows`."""

_TRIAL_FIELDS = (
    ("trial_id", pa.string()),
    ("study", pa.string()),
    ("status", pa.string()),
    ("error", pa.string()),
    ("seconds", pa.float64()),
)


@dataclass(frozen=True)
class UnitOptions:
    """Common to these studies."""

    out: Path = field(default_factory=default_out)
    """Results go to a folder named after the study in here. On a cluster, one that all nodes see."""
    seed: int = 0
    """Of everything that is drawn."""
    threads_per_trial: int = 1
    """CPU threads of each piece of work. The number may change the last digits of results."""
    smoke: bool = False
    """Run a small shape of the study, to see that everything works."""

    def __post_init__(self):
        object.__setattr__(self, "out", absolute(self.out, "--out"))
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"--seed {self.seed}: must be 0 to {LARGEST_SEED:,}")
        if self.threads_per_trial < 1:
            raise InputError(f"--threads-per-trial {self.threads_per_trial}: must be 1 or more")


@dataclass(frozen=True)
class Unit:
    """A piece of work.

    Attributes:
        key: Columns that say which it is, in each of its rows.
        content: All else that its result depends on: fingerprints of data, settings. With the key it is its name in
            the ledger.
        work: Called with what all units share, in a process of Ray; returns rows of numbers and text.
        files: That it leaves: it is done again where one is gone.
        told: A text file in which the work says how far it is, where it takes long.
    """

    key: Mapping[str, str | int | float]
    content: Mapping[str, Any]
    work: Callable[[Any], list[dict[str, Any]]]
    files: tuple[Path, ...] = ()
    told: Path | None = None

    def trial_id(self, n_threads: int) -> str:
        """Name by content."""
        return content_id({"key": dict(self.key), "content": dict(self.content), "n_threads": n_threads})

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.key.items())


def run_units(
    name: str,
    options: UnitOptions,
    units: Sequence[Unit],
    schema: pa.Schema,
    *,
    inputs: Mapping[str, str],
    shared: Any = None,
    before: Mapping[str, Any] | None = None,
    n_gpus: float = 0.0,
    in_turn: bool = False,
) -> Study:
    """Do what the ledger lacks, then write `trials.parquet`, `scores.parquet` and `study.json`.

    Args:
        name: Of the study; its folder in `--out`.
        options: From the command line.
        units: In the order to start them, the longest first.
        schema: Of the rows, key columns among them.
        inputs: Fingerprints of what was read, by name.
        shared: Given to each unit's work.
        before: The `study.json` of a run that this one repeats: inputs that are not those of then are named first.
        n_gpus: Share of a GPU for each unit.
        in_turn: One unit at a time, which takes no resources itself: it asks Ray for workers of its own.

    Raises:
        InputError: Another process is at work in the folder, or it cannot be written.
    """
    folder = options.out / name
    with alone_in(folder):
        for what, fingerprint in (before or {}).get("inputs", {}).items():
            if inputs.get(what) != fingerprint:
                print(f"differs: {what} is not what it was then", flush=True)
        ledger = Ledger(folder / "ledger", "rows")
        ids = {unit.trial_id(options.threads_per_trial): unit for unit in units}
        missing = {one: unit for one, unit in ids.items() if not _is_done(_read(ledger, one), unit)}
        n_done = len(ids) - len(missing)
        print(f"{len(ids)} trials, {n_done} done before, {len(missing)} to run; results in {folder}", flush=True)
        if missing:
            resources = (0, 0.0) if in_turn else (options.threads_per_trial, n_gpus)
            _run(name, folder, missing, ledger, shared, *resources)
        entries = {one: entry for one in ids if (entry := _read(ledger, one))}
        _write(name, folder, options, ids, entries, schema, inputs)
    unfinished = [
        f"{unit}: {entries[one]['trial']['error'] if one in entries else 'stopped before it ended'}"
        for one, unit in ids.items()
        if not _is_done(entries.get(one), unit)
    ]
    return Study(folder, len(ids), tuple(unfinished), ("trials.parquet", SCORES))


def _read(ledger: Ledger, trial_id: str) -> Entry | None:
    entry: Any = ledger.read(trial_id)
    return entry


def _is_ok(entry: Entry | None) -> bool:
    return entry is not None and entry["trial"]["status"] == "ok"


def _is_done(entry: Entry | None, unit: Unit) -> bool:
    return _is_ok(entry) and all(path.exists() for path in unit.files)


def _run(
    name: str, folder: Path, units: Mapping[str, Unit], ledger: Ledger, shared: Any, n_threads: int, n_gpus: float
) -> None:
    with ray_session():
        import ray

        remote: Any = ray.remote(_timed)
        remote = remote.options(num_cpus=n_threads, num_gpus=n_gpus, max_retries=1)
        sent = ray.put(shared)
        n_at_once = _at_once(ray.cluster_resources(), n_threads, n_gpus)
        waiting, running = iter(units.items()), {}
        progress = _Progress(len(units), folder)
        with progress.shown():
            while True:
                while len(running) < n_at_once and (following := next(waiting, None)):
                    running[remote.remote(following[1].work, sent, n_threads)] = following
                if not running:
                    return
                progress.tell([unit for _, unit in running.values()])
                ended, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
                for task in ended:
                    one, unit = running.pop(task)
                    progress.count(_keep(ledger, _entry(name, one, unit, task)))


def _at_once(resources: Mapping[str, float], n_threads: int, n_gpus: float) -> int:
    n_cpus, has_gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    if not n_threads:
        return 1
    if n_threads > n_cpus:
        raise InputError(f"--threads-per-trial {n_threads}: Ray has {n_cpus:.0f} CPUs in all, give no more")
    if n_gpus > has_gpus:
        raise InputError(f"a trial asks for {n_gpus:g} GPUs: Ray has {has_gpus:g} in all")
    fits = [n_cpus / n_threads] + ([has_gpus / n_gpus] if n_gpus else [])
    return max(1, int(min(fits)))


def _timed(work: Callable[[Any], list[dict[str, Any]]], shared: Any, n_threads: int) -> tuple[list, float]:
    """In a worker: the rows, and the seconds they took."""
    if n_threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)
    start = time.perf_counter()
    return work(shared), time.perf_counter() - start


def _entry(study: str, trial_id: str, unit: Unit, task: Any) -> Entry:
    """What became of a unit; what it raised is an entry too."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    about = {"trial_id": trial_id, "study": study, **unit.key}
    try:
        rows, seconds = ray.get(task)
    except RayTaskError as error:
        return _failed(about, f"{type(error.cause).__name__}: {error.cause}")
    except RayError as error:  # its worker died, twice
        return _failed(about, str(error))
    trial = about | {"status": "ok", "error": None, "seconds": seconds}
    return {"trial": trial, "rows": [{**unit.key, **row} for row in rows]}


def _failed(about: dict[str, Any], error: str) -> Entry:
    return {"trial": about | {"status": "failed", "error": " ".join(error.split())}, "rows": []}


def _keep(ledger: Ledger, entry: Entry) -> Entry:
    try:
        ledger.write(entry)
    except OSError as error:
        raise InputError(
            f"the ledger {ledger.folder} cannot be written ({error.strerror}): make room and run the same command "
            "again, finished trials are kept"
        ) from error
    return entry


class _Progress:
    """How far the units are: a line that changes in a terminal, lines now and then in a log."""

    def __init__(self, n_units: int, folder: Path):
        self._n_units, self._told = n_units, folder / PROGRESS
        self._n_ok = self._n_failed = 0
        self._running: Sequence[Unit] = ()
        self._start, self._last_line, self._last_note = time.monotonic(), time.monotonic(), 0.0
        console = Console()
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def shown(self) -> Any:
        """For the length of the work."""
        return self._live or nullcontext()

    def count(self, entry: Entry) -> None:
        """A unit has ended."""
        if _is_ok(entry):
            self._n_ok += 1
        else:
            self._n_failed += 1
        if self._n_ok + self._n_failed == self._n_units:
            print(self._line(), flush=True)
            self._told.unlink(missing_ok=True)

    def tell(self, running: Sequence[Unit]) -> None:
        """These are at work."""
        self._running, now = running, time.monotonic()
        if self._live:
            self._live.update(self._line())
        elif now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(self._line(), flush=True)
        if now - self._last_note > 1:
            self._last_note = now
            with suppress(OSError):
                write_json(self._told, {"line": self._line(), "process": os.getpid(), "host": socket.gethostname()})

    def _line(self) -> str:
        n_ended, passed = self._n_ok + self._n_failed, time.monotonic() - self._start
        parts = [f"{n_ended}/{self._n_units} trials ended"]
        if n_ended < self._n_units:
            parts.append(f"{len(self._running)} running")
        if self._n_failed:
            parts.append(f"{self._n_failed} FAILED")
        parts.append(f"{timedelta(seconds=round(passed))} passed")
        if 0 < n_ended < self._n_units:
            left = passed / n_ended * (self._n_units - n_ended)
            parts.append(f"about {timedelta(seconds=round(left))} left")
        return "; ".join([", ".join(parts), *self._said()] if n_ended < self._n_units else [", ".join(parts)])

    def _said(self) -> Iterator[str]:
        """What running units say of themselves."""
        for unit in self._running:
            with suppress(OSError):
                if unit.told is not None:
                    yield unit.told.read_text(encoding="utf-8")


def _write(
    name: str,
    folder: Path,
    options: UnitOptions,
    units: Mapping[str, Unit],
    entries: Mapping[str, Entry],
    schema: pa.Schema,
    inputs: Mapping[str, str],
) -> None:
    keys = [schema.field(column) for column in next(iter(units.values())).key]
    record = {
        "study": name,
        "settings": json.loads(json.dumps(asdict(options), default=str)),
        "inputs": dict(inputs),
        "n_cpus": os.cpu_count(),
        **provenance(),
    }
    try:
        trials = [entry["trial"] for entry in entries.values()]
        write_table(folder / "trials.parquet", trials, pa.schema([*_TRIAL_FIELDS, *keys]))
        write_table(folder / SCORES, [row for entry in entries.values() for row in entry["rows"]], schema)
        write_json(folder / "study.json", record)
    except OSError as error:
        raise InputError(
            f"results cannot be written into {folder} ({error}): make room and run the same command again, "
            "finished trials are in the ledger"
        ) from error
