"""Live progress of a study: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.text import Text

from histpert.models import METHODS
from histpert.results import write_json
from studies.ledger import Entry, Ledger
from studies.trial import Job, Plan, failed_entry

__all__ = ["PROGRESS", "StopWhenUnwritten", "TrialProgress"]

SECONDS_BETWEEN_LINES = 15
SECONDS_BETWEEN_NOTES = 1

PROGRESS = "progress.json"
"""In a study's folder while it runs: how far it is."""


class TrialProgress(tune.Callback):
    """Counts trials as Tune reports them, and enters those whose worker died into the ledger.

    Args:
        plan: What the trials share.
        jobs: The jobs, in Tune's order.
        n_done: Trials of the study that were done before.
    """

    def __init__(self, plan: Plan, jobs: Sequence[Job], n_done: int):
        self._plan, self._jobs, self._n_done = plan, jobs, n_done
        self._ledger = Ledger(plan.ledger)
        self._start = time.monotonic()
        self._started: dict[str, float] = {}
        self._n_workers = 0
        self._seconds: dict[tuple[str, int], list[float]] = {}
        self._ended: Counter[str] = Counter()
        self._left = Counter((job.method, job.n_bins) for job in jobs)
        self._last_line = self._last_told = 0.0
        self._peak_memory_mb = 0.0
        self._scores: dict[tuple[Any, ...], list[float]] = {}
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

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial's worker died; Tune will start the trial again."""
        self._started.pop(trial.trial_id, None)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial left its entry in the ledger."""
        job = self._jobs[trial.config["job"]]
        if trial.last_result.get("status") == "unwritten":
            self.unwritten = trial.last_result["error"]
            return
        entry = self._ledger.read(self._plan.trial_id(job))
        if entry is None:
            entry = failed_entry(
                self._plan,
                job,
                f"its worker's ledger entry is not in {self._ledger.folder}: name an --out that all nodes see",
            )
            self._write(entry)
        self._end(trial.trial_id, job, entry)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial's worker died each time, or could not start."""
        job = self._jobs[trial.config["job"]]
        said = str(trial.get_error() or "the worker process died").strip()
        status = "oom" if "OutOfMemory" in said else "failed"  # Ray's own watch over a node's memory
        entry = failed_entry(self._plan, job, said.splitlines()[-1] if said else "the worker process died", status)
        self._write(entry)
        self._end(trial.trial_id, job, entry)

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

    def _end(self, trial_id: str, job: Job, entry: Entry) -> None:
        kind, trial = (job.method, job.n_bins), entry["trial"]
        self._left[kind] -= 1
        self._ended["ok" if trial["status"] == "ok" else "failed"] += 1
        self._seconds.setdefault(kind, []).append(time.monotonic() - self._started.pop(trial_id, time.monotonic()))
        if trial["status"] == "ok":
            self._peak_memory_mb = max(self._peak_memory_mb, trial["peak_memory_mb"] or 0.0)
            if job.method in METHODS and trial["crps"] is not None:
                self._scores.setdefault((job.method, job.n_bins, job.settings), []).append(trial["crps"])
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
        n_running = min(self._n_workers, len(self._jobs) - n_ended)  # a worker that ended one takes up the next at once
        parts = [f"{n_ended}/{len(self._jobs)} trials ended", f"{n_running} running"]
        if self._n_done:
            parts.append(f"{self._n_done} done before")
        if self._ended["failed"]:
            parts.append(f"{self._ended['failed']} FAILED")
        parts.append(f"{_clock(elapsed)} passed")
        longest_is_known = any(method == self._jobs[0].method for method, _ in self._seconds)  # jobs come longest first
        if longest_is_known and n_ended < len(self._jobs):
            parts.append(f"about {_clock(self._seconds_left())} left")
        if self._peak_memory_mb:
            parts.append(f"{self._peak_memory_mb:,.0f} MB at most")
        if best := self._best():
            parts.append(best)
        return ", ".join(parts)

    def _best(self) -> str:
        """The configuration with the least CRPS, of those that all folds have tried."""
        whole = {
            key: sum(folds) / len(folds) for key, folds in self._scores.items() if len(folds) == self._plan.n_folds
        }
        if not whole:
            return ""
        method, n_bins, _ = min(whole, key=whole.__getitem__)
        return f"best CRPS {min(whole.values()):.4f} ({method}, {n_bins} bins)"

    def _seconds_left(self) -> float:
        """Trials left at their kind's average time so far (a kind not seen yet: its method's), over workers."""
        by_method: dict[str, list[float]] = {}
        for (method, _), seconds in self._seconds.items():
            by_method.setdefault(method, []).extend(seconds)
        work = 0.0
        for (method, n_bins), n_left in self._left.items():
            seconds = self._seconds.get((method, n_bins)) or by_method.get(method) or [0.0]
            work += n_left * sum(seconds) / len(seconds)
        return work / max(self._n_workers, 1)


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
