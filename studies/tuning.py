"""Runs trials on Ray Tune, in reused worker processes that write their own ledger entries."""

from __future__ import annotations

import gc
import logging
import math
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from histpert.errors import InputError
from histpert.histograms import HistogramStore
from histpert.trial_memory import gpu_share, memory_fraction
from studies.ledger import Entry, Ledger, is_done
from studies.options import StudyOptions
from studies.packing import trial_bytes
from studies.plan import Job, Plan
from studies.stacks import can_stack, run_stack, stack_bytes
from studies.trial import open_store, run_trial

__all__ = ["Config", "Trials", "gpu_bytes_of_a_trial", "grid", "tune_trials"]

MAX_DEATHS = 3
"""How often a trial is taken up again after its worker died; one that kills its workers must end."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Trials:
    """What Tune is to run.

    Attributes:
        jobs_of: The jobs of a trial, by its configuration.
        space: Tune's search space; empty where `search` has its own.
        n_trials: Samples that Tune draws: 1 where the space is a grid.
        n_jobs: Jobs in all.
        n_folds: Folds on which each configuration is tried.
        known: The jobs, longest first, as far as they are known before.
        searcher: One of Tune's, that proposes configurations.
        scheduler: One of Tune's, that may stop trials by what they report.
        objectives: Metrics that a trial reports after each job, averaged over those so far; it ends at the first job
            that has no result. Without any it reports once, when all its jobs have been tried.
    """

    jobs_of: Callable[[Config], Sequence[Job]]
    space: Config
    n_trials: int
    n_jobs: int
    n_folds: int
    known: Sequence[Job] = ()
    searcher: Any = None
    scheduler: Any = None
    objectives: tuple[str, ...] = ()


def grid(bundles: Sequence[tuple[Job, ...]], n_folds: int) -> Trials:
    """A trial for each of these bundles of jobs, started in this order."""
    from ray import tune

    jobs = [job for bundle in bundles for job in bundle]
    one_each = _BundleOfGrid(tuple(map(pickle.dumps, bundles)))
    space = {"bundle": tune.grid_search(list(range(len(bundles))))}
    return Trials(one_each, space, 1, len(jobs), n_folds, jobs)


@dataclass(frozen=True)
class _BundleOfGrid:
    """The jobs that a grid's configuration numbers.

    A worker gets all of them with each trial, and loads those that it is asked for: 1,350 take longer than some do.
    """

    pickled: tuple[bytes, ...]

    def __call__(self, config: Config) -> tuple[Job, ...]:
        return pickle.loads(self.pickled[config["bundle"]])


def tune_trials(
    plan: Plan,
    trials: Trials,
    options: StudyOptions,
    own_folder: Path | None,
    done: Sequence[Entry] = (),
    *,
    alone: bool = False,
) -> set[Job]:
    """Run the trials; returns the jobs that have no result because their worker died, and not for what they raised.

    Tune takes up again what a worker or node that died had begun. It does not where it had only just given the worker
    its next trial, as it handles that death twice; and it gives up on what kills every worker.

    Args:
        plan: What they share.
        trials: The trials.
        options: From the command line.
        own_folder: Temporary folder of a Ray of our own; None on a cluster.
        done: Entries of the study that were there before, which the progress counts.
        alone: One after the other, each with a whole GPU.

    Raises:
        InputError: Resources are asked for that this machine does not have, or the ledger cannot be written.
    """
    from ray import tune

    # Tune misses log files that are turned off, and names a way to resume that is not ours.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").addFilter(lambda record: "Tuner.restore" not in record.getMessage())

    # Ray is imported once its environment is set.
    from studies.progress import StopWhenUnwritten, TrialProgress
    from studies.scheduler import PatientFIFOScheduler

    resources = _Resources(plan, trials, options, is_local=own_folder is not None, alone=alone)
    progress = TrialProgress(plan, trials, done)
    # Tune insists on a folder for its state that all nodes see; nothing in it is kept.
    scratch = (own_folder or plan.folder) / ".tune"
    run = tune.RunConfig(
        name="trials",
        storage_path=str(scratch),
        verbose=0,
        callbacks=[progress],
        stop=StopWhenUnwritten(progress),
        # Of workers and nodes that die: what a trial raises is an entry. It goes on from its checkpoint.
        failure_config=tune.FailureConfig(max_failures=0 if alone else MAX_DEATHS),
    )
    trainable = tune.with_parameters(
        _trainable,
        plan=plan,
        jobs_of=trials.jobs_of,
        objectives=trials.objectives,
        gpu_bytes=resources.gpu_bytes,
    )
    how = tune.TuneConfig(
        reuse_actors=True,
        max_concurrent_trials=1 if alone else options.max_concurrent_trials or resources.n_at_once,
        num_samples=trials.n_trials,
        search_alg=trials.searcher,
        scheduler=trials.scheduler or PatientFIFOScheduler(),
    )
    trainable = tune.with_resources(trainable, resources.wanted)
    try:
        tune.Tuner(trainable, param_space=dict(trials.space), tune_config=how, run_config=run).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # not empty: of trainings that go on next time
            (plan.folder / "checkpoints").rmdir()
    if progress.unwritten:
        raise InputError(
            f"results cannot be written into {plan.ledger} ({progress.unwritten}): make room and run the same command "
            "again, finished trials are in the ledger"
        )
    return progress.died


def _trainable(
    config: dict[str, Any],
    plan: Plan,
    jobs_of: Callable[[Config], Sequence[Job]],
    objectives: tuple[str, ...],
    gpu_bytes: int,
) -> None:
    """Tune's function trainable: the jobs of one configuration, those that the ledger lacks."""
    from ray import tune

    device, ledger = _device(gpu_bytes), Ledger(plan.ledger)
    scores: list[list[float]] = []
    jobs = jobs_of(config)
    for job in jobs:
        try:
            if job is jobs[0] and device.type == "cuda":
                _run_together(plan, jobs, device, ledger)
            entry = ledger.read(plan.trial_id(job))
            if not plan.is_done(entry, job):
                entry = run_trial(plan, job, device)
                ledger.write(entry)
        except OSError as error:  # no failure of the trial, which would be tried again
            tune.report({"status": "unwritten", "error": str(error)} | dict.fromkeys(objectives, math.nan))
            return
        plan.checkpoint(job).remove()  # also where a worker died right before it did
        # Tune frees the worker at a report that says "done", and else at a call of its own once this has returned.
        is_last = job is jobs[-1]
        if objectives:
            is_last |= not is_done(entry)
            scores.append([_score(entry, name) for name in objectives])
            means = [sum(column) / len(scores) for column in zip(*scores, strict=True)]
            tune.report({"status": "tried", "done": is_last} | dict(zip(objectives, means, strict=True)))
        elif is_last:
            tune.report({"status": "tried", "done": True})
        if is_last:
            return


def _run_together(plan: Plan, jobs: Sequence[Job], device: torch.device, ledger: Ledger) -> None:
    """Train as one what the ledger lacks, if it can be; what has no result of it is tried alone afterwards."""
    missing = [job for job in jobs if not plan.is_done(ledger.read(plan.trial_id(job)), job)]
    if len(missing) > 1 and all(can_stack(plan, missing[0], job) for job in missing):
        for entry in run_stack(plan, missing, device):
            ledger.write(entry)


def _score(entry: Entry, name: str) -> float:
    value = entry["trial"].get(name)
    return math.nan if value is None else value


def _device(gpu_bytes: int) -> torch.device:
    """What Ray gave this process; of a GPU that others use too, no more than its share."""
    from ray import tune

    resources: Any = tune.get_context().get_trial_resources()
    share = resources.required_resources.get("GPU", 0.0)
    if not share:
        return torch.device("cpu")
    # Of the trial before, in a process that goes on; the first compilation leaves a cycle that holds its tensors.
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(memory_fraction(share, gpu_bytes))
    return torch.device("cuda")


class _Resources:
    """CPU threads and share of a GPU of each trial, which Tune asks for; what this machine lacks is an error."""

    def __init__(self, plan: Plan, trials: Trials, options: StudyOptions, is_local: bool, alone: bool):
        import ray

        there = ray.cluster_resources()
        self._plan, self._jobs_of = plan, trials.jobs_of
        self._cpus, self._gpus = float(options.threads_per_trial), options.gpus_per_trial
        if self._gpus is None and not there.get("GPU", 0):
            self._gpus = 0.0
        for kind, amount in (("CPU", self._cpus), ("GPU", self._gpus or 0.0)):
            # A cluster may start more nodes when they are asked for; this machine has what it has.
            if is_local and amount > there.get(kind, 0):
                option = "--threads-per-trial" if kind == "CPU" else "--gpus-per-trial"
                has = there.get(kind, 0)
                raise InputError(f"{option} {amount:g}: this machine has {has:g} {kind}s for Ray, give no more")
        # More than run at once Tune asks for and cancels, over and over; a cluster may grow by what is asked for.
        self.n_at_once = int(there.get("CPU", 0) / self._cpus) if is_local else None
        self.gpu_bytes = _gpu_bytes() if self._gpus != 0 else 0
        if alone and self._gpus != 0:
            self._gpus = 1.0

    @property
    def wanted(self) -> Any:
        """What Tune is to ask for: the same for each trial where that is known, else by its configuration."""
        return self._by_configuration if self._gpus is None else self._with(self._gpus)

    def _by_configuration(self, config: Config) -> Any:
        jobs = self._jobs_of(config)
        if can_stack(self._plan, jobs[0], jobs[-1]):
            n_bytes = stack_bytes(self._plan, jobs, self._store_of(jobs[0]))
        else:
            n_bytes = max(trial_bytes(self._plan, job, self._store_of(job)) for job in jobs)
        return self._with(gpu_share(n_bytes, self.gpu_bytes))

    def _store_of(self, job: Job) -> HistogramStore:
        return open_store(self._plan.data_of(job).store)

    def _with(self, gpus: float) -> Any:
        from ray import tune

        return tune.PlacementGroupFactory([{"CPU": self._cpus} | ({"GPU": gpus} if gpus else {})])


def gpu_bytes_of_a_trial(options: StudyOptions) -> int:
    """Memory of the GPU, or of the share of one, that a trial may have; 0 where there is none."""
    import ray

    if options.gpus_per_trial == 0 or not ray.cluster_resources().get("GPU", 0):
        return 0
    return int(min(options.gpus_per_trial or 1.0, 1.0) * _gpu_bytes())


@cache
def _gpu_bytes() -> int:
    """Memory of a GPU that Ray has.

    Raises:
        InputError: torch does not see it.
    """
    import ray

    def ask() -> int:
        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0

    n_bytes = ray.get(ray.remote(num_cpus=0, num_gpus=0.0001)(ask).remote())
    if not n_bytes:
        raise InputError("Ray has a GPU that torch does not see: install its CUDA build, or say --gpus-per-trial 0")
    return n_bytes
