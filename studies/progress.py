"""Live progress of a study: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.text import Text

from histpert.models import METHODS
from histpert.results import write_json
from histpert.settings import ModelSettings
from studies.ledger import PROGRESS, Entry, Ledger, is_done
from studies.plan import Job, Plan
from studies.trial import failed_entry
from studies.tuning import Trials

__all__ = ["StopWhenUnwritten", "TrialProgress"]

SECONDS_BETWEEN_LINES = 15
SECONDS_BETWEEN_NOTES = 1

SETTINGS = {field.name for field in fields(ModelSettings)}


class TrialProgress(tune.Callback):
    """Counts what Tune reports, and enters trials whose worker died into the ledger.

    Args:
        plan: What the trials share.
        trials: What Tune runs.
        done: Entries of the study that were there before.
    """

    def __init__(self, plan: Plan, trials: Trials, done: Sequence[Entry]):
        self._plan, self._jobs_of, self._n_jobs = plan, trials.jobs_of, trials.n_jobs
        self._ends_early = bool(trials.objectives)
        self._n_done, self._n_folds = len(done), trials.n_folds
        self._ledger = Ledger(plan.ledger)
        self._start = time.monotonic()
        self._started: dict[str, float] = {}
        self._n_workers = 0
        self._seconds: dict[tuple[str, int], list[float]] = {}
        self._ended: Counter[str] = Counter()
        self._left = Counter(map(_kind, trials.known))
        self._longest = trials.known[0].method if trials.known else None
        self._last_line = self._last_told = 0.0
        self._peak_memory_mb = 0.0
        self._scores: dict[str, list[float]] = {}
        for entry in done:
            self._score(entry)
        self.died: set[Job] = set()
        """Jobs whose worker died, and which Tune does not take up again."""
        self.unwritten = ""
        """Why the ledger cannot be written, if it cannot."""
        console = Console()
        self._live = Live(self, console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks, which a live display cannot be."""
        return self.__dict__ | {"_live": None}

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        """Tune begins."""
        if self._live:
            self._live.start()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A worker took up a trial."""
        self._started[trial.trial_id] = time.monotonic()
        self._n_workers = max(self._n_workers, len(self._started))
        self._tell()

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial's worker died; Tune will start the trial again."""
        self._started.pop(trial.trial_id, None)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial left its entries in the ledger."""
        if trial.last_result.get("status") == "unwritten":
            self.unwritten = trial.last_result["error"]
            return
        n_jobs = len(self._jobs_of(trial.config))
        if self._ends_early:  # a scheduler may have stopped it
            n_jobs = trial.last_result.get("training_iteration", 0)
        self._end(
            trial,
            n_jobs,
            f"its worker's ledger entry is not in {self._ledger.folder}: name an --out that all nodes see",
        )

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial's worker died each time, or could not start."""
        said = str(trial.get_error() or "").strip() or "the worker process died"
        status = "oom" if "OutOfMemory" in said else "failed"  # Ray's own watch over a node's memory
        self._end(trial, len(self._jobs_of(trial.config)), said.splitlines()[-1], status, died=True)

    def _write(self, entry: Entry) -> None:
        try:
            self._ledger.write(entry)
        except OSError as error:
            self.unwritten = str(error)

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        """Tune is through."""
        if self._live:
            self._live.stop()
        print(self._line(), flush=True)
        self._told.unlink(missing_ok=True)

    def __rich__(self) -> Text:
        return Text(self._line())

    def _end(self, trial: Any, n_ended: int, error: str, status: str = "failed", died: bool = False) -> None:
        """Count the jobs that a trial tried; what left no entry gets this error."""
        jobs, n_counted = self._jobs_of(trial.config), 0
        seconds = time.monotonic() - self._started.pop(trial.trial_id, time.monotonic())
        for job in jobs[:n_ended]:
            entry = self._ledger.read(self._plan.trial_id(job))
            if entry is None or (died and not is_done(entry)):  # what an earlier run said of it is past
                entry = failed_entry(self._plan, job, error, status)
                self._write(entry)
                if died:
                    self.died.add(job)
            self._count(job, entry, seconds / n_ended)
            n_counted += 1
            if self._ends_early and not is_done(entry):
                break
        self._ended["skipped"] += len(jobs) - n_counted
        self._tell()

    def _count(self, job: Job, entry: Entry, seconds: float) -> None:
        self._left -= Counter([_kind(job)])
        self._ended["ok" if is_done(entry) else "failed"] += 1
        self._seconds.setdefault(_kind(job), []).append(seconds)
        self._score(entry)

    def _score(self, entry: Entry) -> None:
        trial = entry["trial"]
        if trial["status"] == "ok":
            self._peak_memory_mb = max(self._peak_memory_mb, trial["peak_memory_mb"] or 0.0)
            if trial["method"] in METHODS and trial["crps"] is not None:
                settings = {name: value for name, value in trial.items() if name in SETTINGS}
                key = json.dumps([trial["method"], trial["n_bins"], settings], sort_keys=True)
                self._scores.setdefault(key, []).append(trial["crps"])

    def _tell(self) -> None:
        now = time.monotonic()
        if not self._live and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(self._line(), flush=True)
        if now - self._last_told > SECONDS_BETWEEN_NOTES:
            self._last_told = now
            with suppress(OSError):
                write_json(self._told, {"line": self._line(), "process": os.getpid(), "host": socket.gethostname()})

    @property
    def _told(self) -> Path:
        """What `studies/status.py` shows, while the study runs."""
        return self._plan.folder / PROGRESS

    def _line(self) -> str:
        n_ended = self._ended.total()
        elapsed = time.monotonic() - self._start
        n_running = min(self._n_workers, self._n_jobs - n_ended)  # a worker that ended one takes up the next at once
        parts = [f"{n_ended}/{self._n_jobs} trials ended", f"{n_running} running"]
        if self._n_done:
            parts.append(f"{self._n_done} done before")
        if self._ended["failed"]:
            parts.append(f"{self._ended['failed']} FAILED")
        if self._ended["skipped"]:
            parts.append(f"{self._ended['skipped']} skipped")
        parts.append(f"{_clock(elapsed)} passed")
        # Jobs come longest first: before one of those has ended, nothing is known of what is left.
        longest_is_known = any(self._longest in (None, method) for method, _ in self._seconds)
        if longest_is_known and n_ended < self._n_jobs:
            parts.append(f"about {_clock(self._seconds_left())} left")
        if self._peak_memory_mb:
            parts.append(f"{self._peak_memory_mb:,.0f} MB at most")
        if best := self._best():
            parts.append(best)
        return ", ".join(parts)

    def _best(self) -> str:
        """The configuration with the least CRPS, of those that all folds have tried."""
        whole = {key: sum(folds) / len(folds) for key, folds in self._scores.items() if len(folds) == self._n_folds}
        if not whole:
            return ""
        method, n_bins, _ = json.loads(min(whole, key=whole.__getitem__))
        return f"best CRPS {min(whole.values()):.4f} ({method}, {n_bins} bins)"

    def _seconds_left(self) -> float:
        """Jobs left at their kind's average time so far (a kind not seen yet: its method's; any: all), over workers."""
        by_method: dict[str, list[float]] = {}
        for (method, _), seconds in self._seconds.items():
            by_method.setdefault(method, []).extend(seconds)
        every = [second for seconds in by_method.values() for second in seconds]
        n_unknown = self._n_jobs - self._ended.total() - self._left.total()
        work = n_unknown * sum(every) / len(every)
        for (method, n_bins), n_left in self._left.items():
            seconds = self._seconds.get((method, n_bins)) or by_method.get(method) or [0.0]
            work += n_left * sum(seconds) / len(seconds)
        return work / max(self._n_workers, 1)


def _kind(job: Job) -> tuple[str, int]:
    """Jobs of a kind take about as long as each other."""
    return job.method, job.n_bins


class StopWhenUnwritten(tune.Stopper):
    """Ends a study whose ledger cannot be written: all that it trains would be lost."""

    def __init__(self, progress: TrialProgress):
        self._progress = progress

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped for what it reports."""
        return False

    def stop_all(self) -> bool:
        """Whether nothing more should be started."""
        return bool(self._progress.unwritten)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
