"""Runs the trials of a study on Ray Tune: what the ledger lacks is trained, then all of it becomes tables."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from histpert.errors import InputError
from histpert.histograms.remote import without_secrets
from histpert.results import PERTURBATION_SCHEMA, TRIAL_SCHEMA, write_json, write_table
from studies.data import StudyData
from studies.ledger import Entry, Ledger
from studies.local_ray import ray_session
from studies.options import StudyOptions
from studies.provenance import provenance
from studies.trial import Job, Plan, run_trial

__all__ = ["Study", "run_study"]

MAX_DEATHS = 3
"""How often a trial is taken up again after its worker died; one that kills its workers must end."""

SHOWN = {".md": "table", ".png": "figure"}
"""Files to name at the end of a study; their other formats lie beside them."""


@dataclass(frozen=True)
class Study:
    """A study that has ended.

    Attributes:
        folder: Where its tables are.
        n_trials: Trials asked for.
        unfinished: Per trial that has no result, the reason.
    """

    folder: Path
    n_trials: int
    unfinished: tuple[str, ...]

    @property
    def has_results(self) -> bool:
        """Whether any trial has a result to draw."""
        return len(self.unfinished) < self.n_trials

    def report(self, written: Sequence[Path]) -> int:
        """Say what came out, of the files that were written, and how to go on; returns the exit status."""
        print(f"results: {self.folder}/trials.parquet, {self.folder}/perturbations.parquet")
        for path in written:
            if path.suffix in SHOWN:
                print(f"{SHOWN[path.suffix]}: {path}")
        if not self.unfinished:
            return 0
        print(
            f"error: {len(self.unfinished)} of {self.n_trials} trials have no result; the first: {self.unfinished[0]}\n"
            "Run the same command again: it trains only what is missing."
        )
        return 1


def run_study(name: str, options: StudyOptions, data: StudyData, jobs: Sequence[Job]) -> Study:
    """Train what the ledger lacks, then write `trials.parquet`, `perturbations.parquet` and `study.json`.

    The tables hold the jobs asked for here; the ledger keeps every trial that ever finished in this folder.

    Args:
        name: Of the study; its folder in `--out`.
        options: From the command line.
        data: What the trials share.
        jobs: Configurations and folds, in the order to start them.

    Raises:
        InputError: Resources are asked for that Ray does not have, or another process is at work in the folder.
    """
    folder = options.out / name
    with _alone_in(folder):
        return _run_study(name, options, data, jobs, folder)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two drivers would train the same trials twice."""
    lock = FileLock(folder / "ledger" / "lock")
    try:
        (folder / "ledger").mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process is at work in {folder}: wait for it (studies/status.py shows it), or name another --out"
        ) from None
    except OSError as error:
        raise InputError(f"--out {folder} cannot be written ({error}): name another folder") from error
    try:
        yield
    finally:
        if [path.name for path in (folder / "ledger").iterdir()] == ["lock"]:
            with suppress(OSError):  # nothing came of it: nothing is left of it
                (folder / "ledger" / "lock").unlink()
                (folder / "ledger").rmdir()
                folder.rmdir()
        lock.release()


def _run_study(name: str, options: StudyOptions, data: StudyData, jobs: Sequence[Job], folder: Path) -> Study:
    plan = Plan(name, data, options.folds, options.threads_per_trial, folder, options.checkpoint_seconds)
    ledger = Ledger(plan.ledger)
    missing = [job for job in jobs if not _is_done(ledger.read(plan.trial_id(job)))]
    print(
        f"{len(jobs)} trials, {len(jobs) - len(missing)} done before, {len(missing)} to run; results in {folder}",
        flush=True,
    )
    if missing:
        with ray_session() as own_folder:
            _tune(plan, missing, options, own_folder, n_done=len(jobs) - len(missing))
            short = [job for job in missing if _ran_out_of_memory(ledger.read(plan.trial_id(job)))]
            if short:
                print(
                    f"{len(short)} trials ran out of memory: each is tried once more, with nothing beside it",
                    flush=True,
                )
                _tune(plan, short, options, own_folder, n_done=len(jobs) - len(short), alone=True)
    _say_what_is_replaced(folder, data)
    entries = [(job, ledger.read(plan.trial_id(job))) for job in jobs]
    _write_results(folder, [entry for _, entry in entries if entry], _record(name, options, data))
    unfinished = [_reason(job, entry) for job, entry in entries if not _is_done(entry)]
    return Study(folder, len(jobs), tuple(unfinished))


def _write_results(folder: Path, entries: Sequence[Entry], record: dict[str, Any]) -> None:
    rows = [row for entry in entries for row in entry["perturbations"]]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / "trials.parquet", [entry["trial"] for entry in entries], TRIAL_SCHEMA)
        write_table(folder / "perturbations.parquet", rows, PERTURBATION_SCHEMA)
        write_json(folder / "study.json", record)
    except OSError as error:
        raise InputError(
            f"results cannot be written into {folder} ({error}): make room and run the same command again, "
            "finished trials are in the ledger"
        ) from error


def _say_what_is_replaced(folder: Path, data: StudyData) -> None:
    """Tables of another screen in the same folder make room for this one's; the ledger keeps their trials."""
    try:
        before = json.loads((folder / "study.json").read_text(encoding="utf-8"))["screen"]
    except (OSError, ValueError, KeyError):
        return
    if before["sha256"] != data.screen_fingerprint:
        print(f"replaces the tables of {before['name']}, whose trials stay in the ledger; --out keeps screens apart")


def _is_done(entry: Entry | None) -> bool:
    return entry is not None and entry["trial"]["status"] == "ok"


def _ran_out_of_memory(entry: Entry | None) -> bool:
    return entry is not None and entry["trial"]["status"] == "oom"


def _reason(job: Job, entry: Entry | None) -> str:
    error = entry["trial"]["error"] if entry else "stopped before it ended"
    return f"{job.method}, {job.n_bins} bins, fold {job.fold}: {error}"


def _tune(
    plan: Plan, jobs: Sequence[Job], options: StudyOptions, own_folder: Path | None, n_done: int, alone: bool = False
) -> None:
    """Run the jobs as Tune trials in reused worker processes, which write their own ledger entries."""
    from ray import tune

    # Tune misses log files that are turned off, and names a way to resume that is not ours.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").addFilter(lambda record: "Tuner.restore" not in record.getMessage())

    from studies.progress import StopWhenUnwritten, TrialProgress  # Ray is imported once its environment is set

    resources = _resources(options, is_local=own_folder is not None)
    if alone and resources["gpu"]:
        resources["gpu"] = 1.0
    progress = TrialProgress(plan, jobs, n_done)
    # Tune insists on a folder for its state that all nodes see; nothing in it is kept.
    scratch = (own_folder or plan.ledger.parent) / ".tune"
    run = tune.RunConfig(
        name="trials",
        storage_path=str(scratch),
        verbose=0,
        callbacks=[progress],
        stop=StopWhenUnwritten(progress),
        # Of workers and nodes that die: what a trial raises is an entry. It goes on from its checkpoint.
        failure_config=tune.FailureConfig(max_failures=0 if alone else MAX_DEATHS),
    )
    trainable = tune.with_parameters(_trainable, plan=plan, jobs=tuple(jobs), use_gpu=resources["gpu"] > 0)
    try:
        tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"job": tune.grid_search(list(range(len(jobs))))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1 if alone else None),
            run_config=run,
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # not empty: of trainings that go on next time
            (plan.folder / "checkpoints").rmdir()
    if progress.unwritten:
        raise InputError(
            f"results cannot be written into {plan.ledger} ({progress.unwritten}): make room and run the same command "
            "again, finished trials are in the ledger"
        )


def _trainable(config: dict[str, Any], plan: Plan, jobs: Sequence[Job], use_gpu: bool) -> dict[str, str]:
    """Tune's function trainable: one job of the plan."""
    if use_gpu and not torch.cuda.is_available():
        raise RuntimeError("Ray gave this trial a GPU, but torch sees none: install the CUDA build of torch")
    job = jobs[config["job"]]
    entry = run_trial(plan, job, torch.device("cuda" if use_gpu else "cpu"))
    try:
        Ledger(plan.ledger).write(entry)
    except OSError as error:  # no failure of the trial, which would be tried again
        return {"status": "unwritten", "error": str(error)}
    plan.checkpoint(job).remove()
    return {"status": entry["trial"]["status"]}


def _resources(options: StudyOptions, is_local: bool) -> dict[str, float]:
    """CPU threads and share of a GPU for a trial; what this machine cannot give is an error, not an endless wait."""
    import ray

    there = ray.cluster_resources()
    gpus = options.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if there.get("GPU", 0) else 0.0
    wanted = {"cpu": float(options.threads_per_trial), "gpu": gpus}
    for kind, amount in wanted.items():
        # A cluster may start more nodes when they are asked for; this machine has what it has.
        if is_local and amount > there.get(kind.upper(), 0):
            option = "--threads-per-trial" if kind == "cpu" else "--gpus-per-trial"
            raise InputError(
                f"{option} {amount:g}: this machine has {there.get(kind.upper(), 0):g} {kind.upper()}s for Ray"
            )
    return wanted


def _record(name: str, options: StudyOptions, data: StudyData) -> dict[str, Any]:
    """What is needed to run the study again."""
    settings = asdict(options)
    settings |= {"out": str(options.out), "store_cache": str(options.store_cache)}
    settings["store"] = without_secrets(options.store)
    settings["embeddings"] = [str(path) for path in options.embeddings]
    return {
        "study": name,
        "settings": settings,
        "screen": {"name": data.screen, "sha256": data.screen_fingerprint, "notes": data.notes},
        "embeddings": {"name": data.embeddings, "sha256": data.embeddings_fingerprint},
        "folds": dict(zip(data.perturbations, data.folds.tolist(), strict=True)),
        "store": str(data.store),
        "n_cpus": os.cpu_count(),
        **provenance(),
    }
