"""Runs the trials of a study on Ray Tune: what the ledger lacks is trained, then all of it becomes tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from histpert.errors import InputError
from histpert.histograms.remote import without_secrets
from histpert.locks import only_process_in
from histpert.provenance import provenance
from histpert.results import PERTURBATION_SCHEMA, TRIAL_SCHEMA, write_json, write_table
from studies.bundles import bundles
from studies.data import StudyData
from studies.ended import Study
from studies.ledger import Entry, Ledger
from studies.local_ray import ray_session
from studies.options import StudyOptions
from studies.plan import External, Job, Plan
from studies.tuning import gpu_bytes_of_a_trial, grid, tune_trials

__all__ = ["alone_in", "plan_of", "run_study"]


def plan_of(
    name: str,
    options: StudyOptions,
    data: StudyData,
    variants: Mapping[str, StudyData] | None = None,
    external: Mapping[str, External] | None = None,
    of_method: Mapping[str, StudyData] | None = None,
) -> Plan:
    """What the trials of a study share."""
    folder = options.out / name
    how = options.threads_per_trial, folder, options.checkpoint_seconds, options.save_predictions
    return Plan(name, data, options.folds, *how, variants or {}, external or {}, of_method or {})


def run_study(
    name: str,
    options: StudyOptions,
    data: StudyData,
    jobs: Sequence[Job],
    before: Mapping[str, Any] | None = None,
    variants: Mapping[str, StudyData] | None = None,
    external: Mapping[str, External] | None = None,
    of_method: Mapping[str, StudyData] | None = None,
) -> Study:
    """Train what the ledger lacks, then write `trials.parquet`, `perturbations.parquet` and `study.json`.

    The tables hold the jobs asked for here; the ledger keeps every trial that ever finished in this folder.

    Args:
        name: Of the study; its folder in `--out`.
        options: From the command line.
        data: What the trials share.
        jobs: Configurations and folds, in the order to start them.
        before: The `study.json` of a run that this one repeats: data that are not those of then are named first.
        variants: Other folds or embeddings of the screen, by the variant of the jobs that take them.
        external: Files of predictions that were made elsewhere, by the method of the jobs that take them.
        of_method: Data of methods that take others than the rest.

    Raises:
        InputError: Resources are asked for that Ray does not have, or another process is at work in the folder.
    """
    folder = options.out / name
    with alone_in(folder):
        for line in _other_data(before, data) if before else ():
            print(f"differs: {line}", flush=True)
        return _run_study(plan_of(name, options, data, variants, external, of_method), options, jobs)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only driver at work in a study's folder: two would train the same trials twice.

    Raises:
        InputError: Another one is, or the folder cannot be written.
    """
    busy = f"another process is at work in {folder}: wait for it (studies/status.py shows it), or name another --out"
    try:
        with only_process_in(
            folder / "ledger", busy, lambda error: f"--out {folder} cannot be written ({error}): name another folder"
        ):
            yield
    finally:
        with suppress(OSError):  # where nothing came of it, nothing is left of it
            folder.rmdir()


def _run_study(plan: Plan, options: StudyOptions, jobs: Sequence[Job]) -> Study:
    folder, ledger = plan.folder, Ledger(plan.ledger)
    found = {job: ledger.read(plan.trial_id(job)) for job in jobs}
    done = [entry for job, entry in found.items() if plan.is_done(entry, job)]
    missing = [job for job, entry in found.items() if not plan.is_done(entry, job)]
    n_folds = len({job.fold for job in jobs})
    print(f"{len(jobs)} trials, {len(done)} done before, {len(missing)} to run; results in {folder}", flush=True)
    if missing:
        with ray_session() as own_folder:
            died = tune_trials(
                plan, grid(bundles(plan, missing, gpu_bytes_of_a_trial(options)), n_folds), options, own_folder, done
            )
            found |= {job: ledger.read(plan.trial_id(job)) for job in missing}
            again = [job for job in missing if job in died or _ran_out_of_memory(found[job])]
            if again:
                print(
                    f"{len(again)} trials ran out of memory or lost their worker: each is tried once more, with "
                    "nothing beside it",
                    flush=True,
                )
                tune_trials(plan, grid([(job,) for job in again], n_folds), options, own_folder, done, alone=True)
                found |= {job: ledger.read(plan.trial_id(job)) for job in again}
    _say_what_is_replaced(folder, plan.data)
    _write_results(folder, [entry for entry in found.values() if entry], _record(plan.study, options, plan.data))
    unfinished = [_reason(job, entry) for job, entry in found.items() if not plan.is_done(entry, job)]
    return Study(folder, len(jobs), tuple(unfinished))


def _other_data(before: Mapping[str, Any], data: StudyData) -> Iterator[str]:
    if before["screen"]["sha256"] != data.screen_fingerprint:
        yield f"the cells: screen {data.screen} has not those that {before['screen']['name']} had then"
    if before["embeddings"]["sha256"] != data.embeddings_fingerprint:
        yield f"the embeddings: {data.embeddings} has not the vectors that {before['embeddings']['name']} had then"
    if before["folds"] != dict(zip(data.perturbations, data.folds.tolist(), strict=True)):
        yield "the folds: other perturbations, or in other folds"


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


def _ran_out_of_memory(entry: Entry | None) -> bool:
    return entry is not None and entry["trial"]["status"] == "oom"


def _reason(job: Job, entry: Entry | None) -> str:
    error = entry["trial"].get("error") if entry else None  # none where it ended before, without its predictions
    variant = f" ({job.variant})" if job.variant else ""
    return f"{job.method}{variant}, {job.n_bins} bins, fold {job.fold}: {error or 'stopped before it ended'}"


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
