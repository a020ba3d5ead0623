"""A training step of MLP+Hist at the published shape on a CPU, beside a plain loop and the products it consists of.

The floor: the output layer has 76.8 M weights, 307 MB. Forward it reads them; backward it reads weights and two moments
and writes them, 1.8 GB; and each of three products is 4.9 GFLOP. The three products alone, into memory that is there,
read the weights twice and write a gradient of their size. The plain loop writes and reads more: gradients set to zero,
an optimizer that goes over them operation by operation, losses of some thirty arrays.

On a GPU it also times a fold of the published run, beside what its bytes take at the bandwidth measured then, and nine
folds x 15 loss weights of a screen of Norman's size, trained as one.

`--genes` and `--threads` ask for another shape. Times are of single epochs of a few steps, in turns,
each in a process of its own. Peak memory is
that of a process with one of the two. `--folds` trains both on so many folds of the simulated screen, from the same
weights, with the same batches and dropout: what is left between their scores is rounding, which 500 epochs blow up.
"""

import argparse
import math
import multiprocessing
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from plain_loop import plain_loss, plain_network, plain_steps, three_products

from histpert.checkpoints import Checkpoint
from histpert.losses import weighted_loss
from histpert.metric_columns import METRICS
from histpert.models import METHODS, TrainingSet
from histpert.models.mlp_hist import BatchDropout, HistogramNetwork, MLPHist, n_parameters
from histpert.settings import ModelSettings, weight_triples
from histpert.targets import CountedMasses
from histpert.training import batch_orders, train

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies is run from the checkout, not installed
from studies.device_rates import bytes_per_second
from studies.resources import PASSES

N_BINS, N_CELLS, N_FEATURES, N_STEPS = 15, 150, 2_560, 2
UNTIMED = 3
"""Repeats in which code is compiled, memory touched for the first time, and on a GPU a step recorded."""
CPU = torch.device("cpu")


class Counts:
    """What `CountedMasses` reads of a fold: so many cells in the bins of each gene."""

    def __init__(self, n_training: int, n_genes: int):
        counts = np.random.default_rng(0).multinomial(N_CELLS, [1 / N_BINS] * N_BINS, (n_training + 1, n_genes))
        self.training = np.arange(n_training)
        self.on_all_cells = counts.astype(np.uint16)
        self.own_genes = np.arange(0, n_genes, 10)
        self.own = self.on_all_cells[:, self.own_genes].copy()


def data(n_training: int, n_genes: int, device: torch.device = CPU) -> dict:
    """The masses themselves, for a DataLoader, lie on the host; all else on the device."""
    counts = Counts(n_training, n_genes)
    masses, counted = (
        CountedMasses(counts, np.full(n_training + 1, N_CELLS), place)  # pyright: ignore
        for place in (CPU, device)
    )
    return {
        "embeddings": torch.randn(n_training, N_FEATURES),
        "masses": masses[torch.arange(n_training)],
        "counted": counted,
        "means": torch.rand(n_training, n_genes),
        "log_control": torch.full((n_genes, N_BINS), 1 / N_BINS).log(),
        "lower": torch.zeros(n_genes),
        "width": torch.rand(n_genes) + 0.1,
    }


def plain_epochs(given: dict, settings: ModelSettings, n_genes: int, device: torch.device = CPU) -> Iterator[float]:
    torch.manual_seed(0)
    hidden = settings.hidden_sizes(1_000)
    network = plain_network(N_FEATURES, hidden, n_genes, N_BINS, settings.dropout).to(device)
    weights = settings.weight_ce, settings.weight_wass, settings.weight_mse
    how = settings.batch_size, settings.learning_rate, settings.weight_decay, weights
    steps = plain_steps(network, {name: value for name, value in given.items() if name != "counted"}, *how)
    while True:
        yield sum(next(steps) for _ in range(N_STEPS)) / N_STEPS


def fast_epochs(given: dict, settings: ModelSettings, device: torch.device = CPU) -> Iterator[float]:
    torch.manual_seed(0)
    network = HistogramNetwork(given["log_control"].exp(), N_FEATURES, settings.layers(1_000)).to(device)
    weights = settings.weight_ce, settings.weight_wass, settings.weight_mse
    embeddings, of_means, lower, width = (given[name].to(device) for name in ("embeddings", "means", "lower", "width"))

    def loss_of(logits, batch):
        return weighted_loss(logits, given["counted"][batch], of_means[batch], lower, width, weights)

    for loss in train(network, loss_of, embeddings, settings):
        yield loss.item()


class PlainMLPHist(MLPHist):
    """MLP+Hist, trained by a plain loop from the same weights, with the same batches and the same dropout."""

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[torch.Tensor]:
        settings = self._settings
        self._settings = replace(settings, epochs=0)
        deque(super().fit(training), maxlen=0)
        plain = plain_network(
            training.embeddings.shape[1],
            settings.hidden_sizes(len(training.embeddings)),
            *training.control.shape,
            settings.dropout,
        )
        for place, layer in enumerate(plain):
            if isinstance(layer, torch.nn.Dropout):
                plain[place] = BatchDropout(settings.dropout, settings.batch_size)
        plain.load_state_dict(self.network.shift.state_dict())
        optimizer = torch.optim.AdamW(plain.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        weights = settings.weight_ce, settings.weight_wass, settings.weight_mse
        loss = torch.zeros(())
        for epoch, order in enumerate(batch_orders(len(training.embeddings), settings)):
            torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch)).generate_state(1)[0]))
            for batch in order.split(settings.batch_size):
                optimizer.zero_grad()
                logits = plain(training.embeddings[batch]) + self.network.log_control
                targets = training.masses[batch], training.means[batch]
                loss = plain_loss(logits, *targets, training.lower, training.width, weights)
                loss.backward()
                optimizer.step()
            yield loss.detach()
        self.network.shift.load_state_dict(plain.state_dict())


def scores(n_folds: int, device: torch.device) -> None:
    """Of both on the simulated screen."""
    from studies.data import prepare  # noqa: PLC0415
    from studies.options import StudyOptions  # noqa: PLC0415
    from studies.plan import Job, Plan  # noqa: PLC0415
    from studies.trial import run_trial  # noqa: PLC0415

    METHODS["plain loop"] = PlainMLPHist  # pyright: ignore[reportIndexIssue]
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan("training", prepare(StudyOptions(out=Path(folder)), [N_BINS]), 9, 1, Path(folder), math.inf)
        found = {
            name: [
                run_trial(plan, Job(name, N_BINS, fold, ModelSettings()), device)["trial"] for fold in range(n_folds)
            ]
            for name in ("MLP+Hist", "plain loop")
        }
    print(f"scores of {n_folds} folds, 500 epochs: difference over standard deviation over folds")
    for metric in METRICS:
        fast, plain = (np.array([row[metric] for row in rows], float) for rows in found.values())
        if np.isfinite(fast).all():
            print(f"{metric:24}{plain.mean():9.4f}{(fast - plain).mean() / plain.std(ddof=1):9.3f}")


def peak_mib(name: str, n_genes: int) -> float:
    """Of a process that trains some steps, less what it had before."""
    receive, send = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=train_some, args=(name, n_genes, send))
    process.start()
    found = receive.recv()
    process.join()
    return found


def train_some(name: str, n_genes: int, send) -> None:
    settings = ModelSettings(epochs=3)
    given = data(N_STEPS * settings.batch_size, n_genes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
    before = resident("VmRSS")
    epochs = fast_epochs(given, settings) if name == "histpert" else plain_epochs(given, settings, n_genes)
    for _ in range(3):
        next(epochs)
    send.send(resident("VmHWM") - before)


def resident(what: str) -> float:
    """MiB of this process, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


def milliseconds(step: Callable[[], object], n_steps: int, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - start) / n_steps


def step_times(asked: argparse.Namespace, device: torch.device) -> None:
    times: dict[str, list[float]] = {}
    workers = {}
    for name in ("three products", "histpert", "plain loop"):  # each with memory and threads of its own
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=take_turns, args=(theirs, name, asked.genes, asked.threads, device.type))
        process.start()
        workers[name] = process, ours
        times[name] = []
    for _ in range(asked.repeats + UNTIMED):
        for name, (_, worker) in workers.items():
            worker.send("go")
            times[name].append(worker.recv())
    for process, worker in workers.values():
        worker.send("end")
        process.join()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{asked.threads} threads"
    print(f"{asked.genes:,} genes x {N_BINS} bins, {where}; ms a step, {asked.repeats} repeats in turns")
    print(f"{'':16}{'median':>8}{'least':>8}")
    middle = {}
    for name, every in times.items():
        middle[name] = median(every[UNTIMED:])
        print(f"{name:16}{middle[name]:8.2f}{min(every[UNTIMED:]):8.2f}")
    ours = middle["histpert"]
    print(f"three products x {ours / middle['three products']:.2f}; plain loop / {middle['plain loop'] / ours:.2f}")


def take_turns(pipe: Any, name: str, n_genes: int, n_threads: int, device_type: str) -> None:
    """Time an epoch each time that one is asked for."""
    torch.set_num_threads(n_threads)
    device, settings = torch.device(device_type), ModelSettings(epochs=1_000)
    n_steps, hidden = N_STEPS, settings.hidden_sizes(1_000)
    if name == "three products":
        n_steps, step = 1, three_products(settings.batch_size, hidden[-1], n_genes * N_BINS, device)
    else:
        given = data(N_STEPS * settings.batch_size, n_genes, device)
        is_ours = name == "histpert"
        epochs = fast_epochs(given, settings, device) if is_ours else plain_epochs(given, settings, n_genes, device)

        def step() -> None:
            assert math.isfinite(next(epochs))

    while pipe.recv() == "go":
        pipe.send(milliseconds(step, n_steps, device))


def on_a_gpu(asked: argparse.Namespace, device: torch.device) -> None:
    """A fold of the published run beside its floor, and a grid of small networks trained as one."""
    rate, n_weights = bytes_per_second(device), n_parameters(N_FEATURES, (1024, 512, 1024), asked.genes * N_BINS)
    floor = 1000 * 4 * PASSES * n_weights / rate
    settings = ModelSettings(epochs=500)
    given = data(956, asked.genes, device)
    start = time.perf_counter()
    deque(fast_epochs(given, settings, device), maxlen=0)
    seconds = time.perf_counter() - start
    step = 1000 * seconds / (500 * 30)
    print(f"a fold of 15,000 steps: {seconds:.1f} s; a step {step:.2f} ms")
    print(f"  its bytes at {rate / 1e12:.2f} TB/s: {floor:.2f} ms, ratio {step / floor:.2f}")
    folds = [norman_fold(seed, device) for seed in range(9)]
    jobs = [
        (fold, replace(settings, weight_ce=ce, weight_wass=wass, weight_mse=mse))
        for ce, wass, mse in weight_triples()
        for fold in folds
    ]
    start = time.perf_counter()
    losses = deque(MLPHist.fit_together([MLPHist(each) for _, each in jobs], [fold for fold, _ in jobs]), maxlen=1)
    assert losses[0].isfinite().all()
    print(f"nine folds x 15 weights of 102 perturbations x 5,045 genes, as one: {time.perf_counter() - start:.1f} s")


def norman_fold(seed: int, device: torch.device) -> TrainingSet:
    """A training set of the size of the paper's Norman screen."""
    torch.manual_seed(seed)
    n_training, n_genes = 90, 5_045
    masses = CountedMasses(Counts(n_training, n_genes), np.full(n_training + 1, N_CELLS), device)  # pyright: ignore
    genes = torch.ones(n_genes, device=device)
    return TrainingSet(
        embeddings=torch.randn(n_training, N_FEATURES, device=device),
        masses=masses,
        means=torch.rand(n_training, n_genes, device=device),
        n_cells=torch.full((n_training,), float(N_CELLS), device=device),
        cells=lambda: None,  # pyright: ignore
        control=torch.full((n_genes, N_BINS), 1 / N_BINS, device=device),
        control_mean=genes,
        lower=-genes / 5,
        width=genes / 2.5,
        control_cells=lambda: None,  # pyright: ignore
        spread=lambda: None,  # pyright: ignore
        control_spread=lambda: None,  # pyright: ignore
        coexpression=lambda: None,  # pyright: ignore
        expression=lambda: None,  # pyright: ignore
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=5_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--folds", type=int, default=9, help="to compare scores on; 0 leaves that out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    step_times(asked, device)
    if device.type == "cuda":
        on_a_gpu(asked, device)
    else:
        peaks = ", ".join(f"{name} {peak_mib(name, asked.genes):,.0f} MiB" for name in ("histpert", "plain loop"))
        print(f"peak memory beside the data: {peaks}")
    if asked.folds:
        scores(asked.folds, device)


if __name__ == "__main__":
    main()
