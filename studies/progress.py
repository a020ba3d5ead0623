"""Live progress of a study: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.text import Text

from studies.ledger import Ledger
from studies.trial import Job, Plan, failed_entry

__all__ = ["TrialProgress"]

SECONDS_BETWEEN_LINES = 15


class TrialProgress(tune.Callback):
    """Counts trials as Tune reports them, and enters those whose worker died into the ledger.

    Args:
        plan: What the trials share.
        jobs: The jobs, in Tune's order.
    """

    def __init__(self, plan: Plan, jobs: Sequence[Job]):
        self._plan, self._jobs = plan, jobs
        self._ledger = Ledger(plan.ledger)
        self._start = time.monotonic()
        self._started: dict[str, float] = {}
        self._n_workers = 0
        self._seconds: dict[tuple[str, int], list[float]] = {}
        self._ended: Counter[str] = Counter()
        self._left = Counter((job.method, job.n_bins) for job in jobs)
        self._last_line = 0.0
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
        entry = self._ledger.read(self._plan.trial_id(job))
        if entry is None:
            entry = failed_entry(
                self._plan,
                job,
                f"its worker's ledger entry is not in {self._ledger.folder}: name an --out that all nodes see",
            )
            self._ledger.write(entry)
        self._end(trial.trial_id, job, entry["trial"]["status"])

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial's worker died, or could not start."""
        job = self._jobs[trial.config["job"]]
        lines = str(trial.get_error() or "the worker process died").strip().splitlines()
        # Where the ledger cannot be written either, the trial is left without an entry: it counts as not run.
        with suppress(OSError):
            self._ledger.write(failed_entry(self._plan, job, lines[-1] if lines else "the worker process died"))
        self._end(trial.trial_id, job, "failed")

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        """Tune is through."""
        if self._live:
            self._live.stop()
        print(self._line(), flush=True)

    def __rich__(self) -> Text:
        return Text(self._line())

    def _end(self, trial_id: str, job: Job, status: str) -> None:
        kind = (job.method, job.n_bins)
        self._left[kind] -= 1
        self._ended["ok" if status == "ok" else "failed"] += 1
        self._seconds.setdefault(kind, []).append(time.monotonic() - self._started.pop(trial_id, time.monotonic()))
        if not self._live and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(self._line(), flush=True)

    def _line(self) -> str:
        n_ended = self._ended.total()
        elapsed = time.monotonic() - self._start
        n_running = min(self._n_workers, len(self._jobs) - n_ended)  # a worker that ended one takes up the next at once
        parts = [f"{n_ended}/{len(self._jobs)} trials ended", f"{n_running} running"]
        if self._ended["failed"]:
            parts.append(f"{self._ended['failed']} FAILED")
        parts.append(f"{_clock(elapsed)} passed")
        longest_is_known = any(method == self._jobs[0].method for method, _ in self._seconds)  # jobs come longest first
        if longest_is_known and n_ended < len(self._jobs):
            parts.append(f"about {_clock(self._seconds_left())} left")
        return ", ".join(parts)

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


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
