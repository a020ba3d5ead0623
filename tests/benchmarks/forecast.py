"""The forecast of `histpert doctor` beside what studies take: three of unlike kind and size, on simulated screens.

Memory is the proportional set size of all processes of a study, Ray's own among them, looked at over and over: shared
pages are counted once. A busy machine makes times void; how busy it was is printed too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from engine import under_load

ROOT = Path(__file__).parents[2]
MARK = "HISTPERT_FORECAST_BENCHMARK"
FACTOR = 2
"""Of forecast to measured, either way, that is held."""


class Case(NamedTuple):
    study: str
    screen: str
    options: str = ""


CASES = {
    "small": Case("bin_sweep", "--like papalexi"),
    "medium": Case(
        "methods",
        "--like easy --n-perturbations 150 --n-genes 300 --n-cells 16500 --n-control 1500",
        "--folds 5 --epochs 200",
    ),
    "larger": Case(
        "loss_weights",
        "--like easy --n-perturbations 400 --n-genes 1000 --n-cells 30000 --n-control 3000",
        "--folds 3 --epochs 20",
    ),
}
"""Screens as `histpert simulate` writes them, and options of both the study and the forecast."""


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the most bytes that it and all that it started took at a time."""
    mark = f"{MARK}={uuid.uuid4()}"
    start, most, others = time.perf_counter(), 0, set()
    with tempfile.TemporaryFile() as said:
        environment = os.environ | dict([mark.split("=")])
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT, env=environment)
        while process.poll() is None:
            most = max(most, sum(proportional_bytes(pid) for pid in marked(mark.encode(), others)))
            time.sleep(0.2)
        seconds = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            sys.exit(said.read().decode())
    return seconds, most


def marked(mark: bytes, others: set[str]) -> list[str]:
    """Processes whose environment has the mark; those that have another are remembered, and not looked at again."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid in others:
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if mark in environment:
            found.append(pid)
        elif environment:
            others.add(pid)
    return found


def proportional_bytes(pid: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def compare(name: str, case: Case, screen: Path, out: Path) -> bool:
    """Print forecast and measured; whether both are within the factor."""
    files = [str(screen), "--embeddings", str(screen.with_suffix(".good.npz"))]
    start = time.perf_counter()
    with under_load() as load:
        doctor = [sys.executable, "-m", "histpert.cli", "doctor", *files, *case.options.split(), "--json"]
        told = subprocess.run(doctor, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True).stdout
    print(f"{name}: doctor took {time.perf_counter() - start - 4:.0f} s{load()}", flush=True)
    forecast = next(each for each in json.loads(told)["studies"] if each["study"] == case.study)
    command = [sys.executable, f"studies/{case.study}.py", "--screen", *files, *case.options.split(), "--out", str(out)]
    with under_load() as load:
        seconds, n_bytes = measured(command)
    on_disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    ratios = forecast["seconds"] / seconds, forecast["memory_bytes"] / n_bytes, forecast["disk_bytes"] / on_disk
    print(f"  {case.study} {case.options}, {forecast['n_trials']} trials{load()}")
    print(f"  time:   forecast {forecast['seconds']:8.0f} s   measured {seconds:8.0f} s   ratio {ratios[0]:.2f}")
    for what, forecast_bytes, measured_bytes, ratio in (
        ("memory", forecast["memory_bytes"], n_bytes, ratios[1]),
        ("disk", forecast["disk_bytes"], on_disk, ratios[2]),
    ):
        line = f"forecast {forecast_bytes / 1e6:8.0f} MB  measured {measured_bytes / 1e6:8.0f} MB  ratio {ratio:.2f}"
        print(f"  {what + ':':7} {line}", flush=True)
    return all(1 / FACTOR <= ratio <= FACTOR for ratio in ratios[:2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"some of {', '.join(CASES)}; default: all")
    held = True
    for name in parser.parse_args().cases:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            screen = Path(folder) / "screen.h5ad"
            simulate = [sys.executable, "-m", "histpert.cli", "simulate", str(screen), *case.screen.split()]
            subprocess.run(simulate, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            held &= compare(name, case, screen, Path(folder) / "results")
    print(f"all within a factor of {FACTOR}" if held else f"not all within a factor of {FACTOR}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
