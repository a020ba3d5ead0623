"""What does a method cost: time, memory and parameters, and how far is a step from what the device can do?

Trains methods that have steps for a few epochs on one fold, each alone in a process of its own with all cores or the
GPU, and measures the device beside them. Seconds per fold are those of all `--epochs` at that speed.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from analysis.resources import draw_resources
from histpert.errors import InputError
from histpert.models import METHODS
from histpert.output_layer import OutputLayer
from histpert.provenance import provenance
from histpert.results import write_json
from histpert.step_costs import bytes_per_step, operations_per_step
from histpert.targets import training_targets
from studies.data import StudyData, check_writable, prepare
from studies.device_rates import bytes_per_second, operations_per_second
from studies.ended import Study
from studies.engine import alone_in
from studies.options import Outcome, StudyOptions, run_script
from studies.trial import open_store, peak_memory_mb

NAME = "resources"
WITH_STEPS = ("MLP+Mean", "TG", "ZITG", "MLP+Hist")
FOLD = 0


@dataclass(frozen=True)
class Resources(StudyOptions):
    """Options of the measurement."""

    methods: tuple[str, ...] = WITH_STEPS
    """Methods to measure."""
    bins: tuple[int, ...] = (15,)
    """Bin counts to measure at."""
    timed_epochs: int = 2
    """Epochs to time, after one that compiles and touches memory for the first time."""
    threads: int = torch.get_num_threads()
    """CPU threads; all cores by default."""

    def __post_init__(self):
        super().__post_init__()
        if unknown := [name for name in self.methods if name not in WITH_STEPS]:
            raise InputError(f"--methods {', '.join(unknown)}: give some of {', '.join(WITH_STEPS)}, which have steps")
        if self.timed_epochs < 1:
            raise InputError(f"--timed-epochs {self.timed_epochs}: must be 1 or more")
        if not self.bins or min(self.bins) < 2:
            raise InputError(f"--bins {' '.join(map(str, self.bins))}: give one or more numbers from 2 on")


def main(options: Resources) -> Outcome:
    """Measure and write the table."""
    if options.smoke:
        options = replace(options, timed_epochs=1)
    check_writable(options.out, NAME)
    bins = sorted(set(options.bins))
    data = prepare(options, bins, apart=bins if {"TG", "ZITG"} & {*options.methods} else ())
    folder = options.out / NAME
    with alone_in(folder):
        rows = [
            _in_a_process(data, method, n_bins, options)
            for n_bins in bins
            for method in WITH_STEPS
            if method in options.methods
        ]
        rates = _in_a_process(data, None, 0, options)
        record = {"study": NAME, "screen": data.screen, "rates": rates, **provenance()}
        write_json(folder / "study.json", record)
        table = pd.DataFrame(rows).assign(screen=data.screen, **rates)
        written = draw_resources(table, folder)
        print(next(path for path in written if path.suffix == ".md").read_text(encoding="utf-8"))
        return Study(folder, len(rows), (), ()).report(written)


def _in_a_process(data: StudyData, method: str | None, n_bins: int, options: Resources) -> Mapping[str, Any]:
    """What a process measures that does nothing else: a method, or the device."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(send, data, method, n_bins, options))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        raise InputError(f"{method or 'the device'} could not be measured: see above") from None
    finally:
        process.join()


def _measure(send: Any, data: StudyData, method: str | None, n_bins: int, options: Resources) -> None:
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() and options.gpus_per_trial != 0 else "cpu")
    if method is None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} threads"
        rates = {"bytes_per_second": bytes_per_second(device), "operations_per_second": operations_per_second(device)}
        send.send({"device": name, **rates})
        return
    store = open_store(data.store)
    counts = store.fold(FOLD, n_bins)
    settings = replace(options.model, epochs=1 + options.timed_epochs)
    with peak_memory_mb(device) as memory:
        training = training_targets(counts, store.moments, data.in_fold(FOLD).vectors, device)
        model = METHODS[method](settings)
        epochs = model.fit(training)
        next(epochs).item()
        start = time.perf_counter()
        for loss in epochs:
            loss.item()
        seconds = (time.perf_counter() - start) / options.timed_epochs
    n_steps = -(-len(counts.training) // settings.batch_size)
    network: Any = model.network  # pyright: ignore[reportAttributeAccessIssue]
    output = next(layer for layer in network.modules() if isinstance(layer, OutputLayer))
    n_weights, n_outputs = model.n_parameters, output.out_features
    n_updated = output.weight.numel() if device.type == "cpu" else 0
    batch = min(settings.batch_size, len(counts.training))
    send.send(
        {
            "method": method,
            "n_bins": n_bins,
            "n_perturbations": len(counts.training),
            "n_genes": len(store.genes),
            "seconds_per_fold": seconds * options.model.epochs,
            "steps_per_second": n_steps / seconds,
            "peak_memory_mb": memory[0],
            "n_parameters": n_weights,
            "bytes_per_step": bytes_per_step(n_weights, n_outputs, batch, n_updated),
            "operations_per_step": operations_per_step(n_weights, batch),
        }
    )


if __name__ == "__main__":
    run_script(Resources, main, __doc__)
