"""A study of many short trials, through all of the engine, beside a process for each; and two workers beside one.

The floor of 1,350 trials that train nothing is Ray's: to start it and its workers, which import torch, and per trial
two calls of a worker (to take a trial up, to report it), with the driver between them. On disk a trial leaves one
file, written once: 2.7 kB and one fsync, beside which its JSON costs 0.1 ms. The driver reads each entry three times,
before, for the progress and for the tables, at less than 0.1 ms each; a rerun reads each once and starts no Ray.

Two workers gave 1.87 times the trials of one on a quiet machine with a core for each, and two plain processes without
Ray, printed beside them, 2.01, their start counted in: scheduling costs little at trials of some seconds. A busy
machine makes all of it void; how busy it was is printed too.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # studies is run from the checkout, not installed

N_FOLDS, BINS, QUARTERS = 9, range(5, 55, 5), 4
SMALL = "--n-perturbations=27 --n-genes=40 --n-cells=1200 --n-control=200 --min-cells=20 --max-cells=60"
SAMPLE = 24
FOLDS_OF_MLP = (0, 1, 2)


def short_trials(screen: Path, out: Path):
    """Options, bin counts and jobs of the study of trials that train nothing: all loss weights in steps of 0.25."""
    from histpert.settings import ModelSettings  # noqa: PLC0415
    from studies.options import StudyOptions  # noqa: PLC0415
    from studies.plan import Job  # noqa: PLC0415

    settings = [
        ModelSettings(weight_ce=a / QUARTERS, weight_wass=b / QUARTERS, weight_mse=(QUARTERS - a - b) / QUARTERS)
        for a in range(QUARTERS + 1)
        for b in range(QUARTERS + 1 - a)
    ]
    options = StudyOptions(screen=str(screen), embeddings=(screen.with_suffix(".good.npz"),), folds=N_FOLDS, out=out)
    jobs = [Job("Ctrl Hist", bins, fold, each) for each in settings for bins in BINS for fold in range(N_FOLDS)]
    return options, list(BINS), jobs


def mlp_trials(out: Path, n_workers: int | None, folds: Sequence[int]):
    """Options, bin counts and jobs of `make study`'s trials that train, on some of its folds."""
    from studies.bin_sweep import BinSweep  # noqa: PLC0415
    from studies.plan import Job  # noqa: PLC0415

    options = BinSweep(out=out, max_concurrent_trials=n_workers)
    bins = sorted(options.bins, reverse=True)
    return options, bins, [Job("MLP+Hist", n, fold, options.model) for n in bins for fold in folds]


class Clock:
    """Seconds of the stages of a study, by what was called."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.trial_times: list[float] = []

    def time(self, owner, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def timed(*arguments, **named):
            with self.stage(stage):
                return function(*arguments, **named)

        setattr(owner, name, timed)

    def note(self, owner, name: str) -> None:
        function = getattr(owner, name)

        def noted(*arguments, **named):
            self.trial_times.append(time.perf_counter())
            return function(*arguments, **named)

        setattr(owner, name, noted)

    @contextmanager
    def stage(self, name: str):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def run_here(study: Callable) -> None:
    """Run a study in this process as its script would, and print the seconds of its stages as the last line."""
    clock = Clock()
    with clock.stage("imports"):
        from studies import engine  # noqa: PLC0415
        from studies.data import prepare  # noqa: PLC0415

        options, bins, jobs = study()
    with clock.stage("screen and store"):
        data = prepare(options, bins)
    session, tune_trials = engine.ray_session, engine.tune_trials

    @contextmanager
    def timed_session():
        opened = session()
        with clock.stage("start of Ray"):
            own_folder = opened.__enter__()
        try:
            yield own_folder
        finally:
            with clock.stage("end of Ray"):
                opened.__exit__(None, None, None)

    def timed_trials(*arguments, **named):
        from studies.progress import TrialProgress  # noqa: PLC0415

        clock.note(TrialProgress, "on_trial_start")
        clock.note(TrialProgress, "on_trial_complete")
        start = time.perf_counter()
        died = tune_trials(*arguments, **named)
        first, last, end = clock.trial_times[0], clock.trial_times[-1], time.perf_counter()
        clock.seconds |= {"start of a worker": first - start, "trials": last - first, "end of Tune": end - last}
        return died

    engine.ray_session, engine.tune_trials = timed_session, timed_trials
    clock.time(engine.Ledger, "read", "reading the ledger")
    clock.time(engine, "_write_results", "tables")
    done = engine.run_study("study", options, data, jobs)
    assert not done.unfinished
    print(json.dumps(clock.seconds))


def run_apart(*arguments: object) -> tuple[float, dict[str, float]]:
    """This file in a process of its own: its seconds, and what it printed last."""
    start = time.perf_counter()
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout)
    return time.perf_counter() - start, json.loads(done.stdout.splitlines()[-1])


def many_short_trials(folder: Path) -> None:
    screen, out = folder / "screen.h5ad", folder / "results"
    simulate = [sys.executable, "-m", "histpert.cli", "simulate", str(screen), *SMALL.split()]
    subprocess.run(simulate, check=True, stdout=subprocess.DEVNULL)
    n_trials = len(short_trials(screen, out)[2])
    with under_load() as load:
        seconds, stages = run_apart("short", screen, out)
    print(f"{n_trials:,} trials that train nothing, command to tables: {seconds:.1f} s{load()}")
    print(f"  {', '.join(f'{stage} {spent:.1f}' for stage, spent in stages.items() if spent >= 0.05)}")
    entries = list((out / "study" / "ledger").glob("*.json"))
    n_bytes = sum(entry.stat().st_size for entry in entries)
    print(f"  {1000 * stages['trials'] / n_trials:.1f} ms per trial; ledger {n_bytes / 1e6:.1f} MB")
    plan = one_after_the_other(screen, folder)
    with under_load() as load:
        apart = process_per_trial(plan, screen, folder) / SAMPLE
    ratio = apart * n_trials / seconds
    print(f"  a process per trial, two at a time: {apart:.2f} s per trial, {ratio:.0f} times as long in all{load()}")
    with under_load() as load:
        seconds, stages = run_apart("short", screen, out)
    read = stages["reading the ledger"] + stages["tables"]
    print(f"  again, all trials done before: {seconds:.1f} s, of it ledger and tables {read:.1f}{load()}")


def one_after_the_other(screen: Path, folder: Path):
    """What the trials cost without an engine, in this process; returns what they share."""
    import torch  # noqa: PLC0415

    from studies.data import prepare  # noqa: PLC0415
    from studies.ledger import Ledger  # noqa: PLC0415
    from studies.plan import Plan  # noqa: PLC0415
    from studies.trial import run_trial  # noqa: PLC0415

    options, bins, jobs = short_trials(screen, folder / "results")
    with open(os.devnull, "w") as nowhere, redirected(nowhere):
        data = prepare(options, bins)
    plan = Plan("study", data, N_FOLDS, options.threads_per_trial, folder / "apart", options.checkpoint_seconds)
    run = partial(run_trial, plan, device=torch.device("cpu"))
    run(jobs[0])  # compiles, opens the store
    sample = jobs[:: len(jobs) // (8 * SAMPLE)]
    start = time.perf_counter()
    entries = [run(job) for job in sample]
    ran = milliseconds(start, sample)
    ledger = Ledger(folder / "ledger")
    start = time.perf_counter()
    for entry in entries:
        ledger.write(entry)
    written = milliseconds(start, sample)
    sync, os.fsync = os.fsync, lambda file: None
    unsynced_ledger = Ledger(folder / "unsynced")  # a file that takes the place of another is synced by ext4 itself
    start = time.perf_counter()
    for entry in entries:
        unsynced_ledger.write(entry)
    unsynced = milliseconds(start, sample)
    os.fsync = sync
    start = time.perf_counter()
    for entry in entries:
        ledger.read(entry["trial"]["trial_id"])
    read = milliseconds(start, sample)
    print(
        f"  of a trial, alone in a process: {ran:.1f} ms the trial, {written:.2f} writing its entry "
        f"({unsynced:.2f} without fsync), {read:.2f} reading it"
    )
    return plan


@contextmanager
def redirected(file):
    before, sys.stdout = sys.stdout, file
    try:
        yield
    finally:
        sys.stdout = before


def milliseconds(start: float, each: Sequence) -> float:
    return 1000 * (time.perf_counter() - start) / len(each)


ONE_TRIAL = """
import pickle, sys
import torch
from studies.ledger import Ledger
from studies.trial import run_trial
with open(sys.argv[1], "rb") as file:
    plan, jobs = pickle.load(file)
for job in jobs:
    Ledger(plan.ledger).write(run_trial(plan, job, torch.device("cpu")))
"""


def in_process(plan, jobs: Sequence, file: Path) -> None:
    file.write_bytes(pickle.dumps((plan, jobs)))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", ONE_TRIAL, str(file)], check=True, env=environment)


def process_per_trial(plan, screen: Path, folder: Path) -> float:
    jobs = short_trials(screen, folder)[2]
    sample = jobs[:: len(jobs) // SAMPLE][:SAMPLE]
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as two:
        list(two.map(lambda job: in_process(plan, [job], folder / f"{jobs.index(job)}.pkl"), sample))
    seconds = time.perf_counter() - start
    assert len(list(plan.ledger.glob("*.json"))) == SAMPLE
    return seconds


def two_workers(folder: Path, repeats: int) -> None:
    runs: dict[int, list[float]] = {1: [], 2: []}
    n_trials = len(mlp_trials(folder, None, FOLDS_OF_MLP)[2])
    with under_load() as load:
        for repeat in range(repeats):
            for n_workers in (1, 2) if repeat % 2 == 0 else (2, 1):
                _, stages = run_apart("mlp", folder / f"{repeat}_{n_workers}", n_workers)
                runs[n_workers].append(3600 * n_trials / stages["trials"])
    one, two = (sum(rates) / repeats for rates in runs.values())
    said = "; ".join(f"{name} {' '.join(f'{rate:.0f}' for rate in runs[n])}" for n, name in ((1, "one"), (2, "two")))
    print(f"{n_trials} trials of MLP+Hist, 500 epochs, first start to last end, trials/h by workers: {said}")
    print(f"  two over one: {two / one:.2f}{load()}")
    with under_load() as load:
        ceiling = plain_processes(folder)
    print(f"  the same of two plain processes with a fold each, over one with two: {ceiling:.2f}{load()}")


def plain_processes(folder: Path) -> float:
    """How much more two processes train than one, where nothing schedules them."""
    from studies.data import prepare  # noqa: PLC0415
    from studies.plan import Plan  # noqa: PLC0415

    seconds = []
    for name, n_processes in (("alone", 1), ("beside", 2)):
        options, bins, _ = mlp_trials(folder, None, ())
        with open(os.devnull, "w") as nowhere, redirected(nowhere):
            data = prepare(options, bins)
        plan = Plan("study", data, options.folds, 1, folder / name, options.checkpoint_seconds)
        parts = [mlp_trials(folder, None, [fold])[2] for fold in range(n_processes)]
        start = time.perf_counter()
        with ThreadPoolExecutor(n_processes) as pool:
            files = [folder / f"fold{fold}.pkl" for fold in range(n_processes)]
            list(pool.map(partial(in_process, plan), parts, files))
        seconds.append((time.perf_counter() - start) / n_processes)
    return seconds[0] / seconds[1]


@contextmanager
def under_load():
    """Says, at the end of a line, how many cores others were using right before and after."""
    before = busy_cores()
    after: list[float] = []
    yield lambda: f" (others: {before:.1f} cores before, {after[0]:.1f} after)"
    after.append(busy_cores())


def busy_cores(seconds: float = 2.0) -> float:
    first = busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - first) / seconds


def busy_seconds() -> float:
    ticks = [int(count) for count in Path("/proc/stat").read_text(encoding="ascii").split()[1:8]]
    idle, waiting = ticks[3:5]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2, help="runs with one worker and with two, in turns")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        many_short_trials(Path(name))
        two_workers(Path(name) / "mlp", given.repeats)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["short", screen, out]:
            run_here(lambda: short_trials(Path(screen), Path(out)))
        case ["mlp", out, n_workers]:
            run_here(lambda: mlp_trials(Path(out), int(n_workers), FOLDS_OF_MLP))
        case _:
            main()
