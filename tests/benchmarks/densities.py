"""Likelihood and gradient of TG and ZITG from sums, beside the same over all cells with torch and autograd.

The floor of the dense form is one read of the cells, 19 MB at 32 x 150 x 1,000, beside some thirty operations on each.
From sums an operation is on 32 x 1,000 numbers; only cells within half a bin of zero, without being 0, are gone over.
Memory is that of a process that trains for a few steps at the published shape, beside MLP+Hist.
"""

import math
import multiprocessing
import time
from collections import deque
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import scipy.sparse as sp
import torch

from histpert.cell_sums import CellSums
from histpert.cells import Cells
from histpert.densities import Density
from histpert.histograms import bin_edges, group_moments
from histpert.histograms.cells_apart import CellsApart, limits
from histpert.models import METHODS, ModelSettings, TrainingSet

N_PERTURBATIONS, N_CELLS, N_GENES, N_BINS, REPEATS = 32, 150, 1_000, 15, 7
PUBLISHED = 1_076, 5_000, 2_560
"""Perturbations, genes and numbers of an embedding."""


def drawn() -> np.ndarray:
    """Log-normalized counts, perturbation x cell x gene, some 60% zeros; depths are those of a screen."""
    random = np.random.default_rng(0)
    depth = random.lognormal(9.2, 0.35, (N_PERTURBATIONS, N_CELLS, 1))
    counts = random.poisson(depth * random.lognormal(-9.3, 1.2, N_GENES))
    return np.log1p(counts / depth * 1e4).astype(np.float32)


def known(cells: np.ndarray) -> tuple[CellSums, Density]:
    """What is known of the cells, and a density to try."""
    rows, start = sp.csr_matrix(cells.reshape(-1, N_GENES)), np.arange(N_PERTURBATIONS + 1) * N_CELLS
    moments = group_moments(rows, start)
    edges = bin_edges(moments.minimum.min(0), moments.maximum.max(0), N_BINS)
    keep = limits(edges, np.arange(N_GENES), N_GENES)
    kept = [keep(rows[first : first + N_CELLS]) for first in start[:-1]]
    first = np.cumsum([0, *(len(gene) for gene, _ in kept)])
    apart = CellsApart(first, *(np.concatenate(arrays) for arrays in zip(*kept, strict=True)))
    print(f"{first[-1]:,} of {rows.nnz:,} values other than 0 are within half a bin of 0")
    groups = np.arange(N_PERTURBATIONS)
    sums = CellSums(groups, moments, apart, edges, torch.device("cpu"), torch.float32)
    ends = (torch.from_numpy(end).float() for end in (edges.lower, edges.edges[:, -1], edges.width / 2))
    mu, sigma, log_odds = torch.rand(3, N_PERTURBATIONS, N_GENES) + 0.5
    return sums, Density(mu, sigma, *ends, log_odds)  # pyright: ignore[reportCallIssue]


def dense(density: Density, cells: torch.Tensor) -> torch.Tensor:
    """Eq. 11 over all cells, as one would write it."""
    mu, sigma = density.mu[:, None], density.sigma[:, None]
    normal = torch.distributions.Normal(mu, sigma)
    log_density = normal.log_prob(cells) - (normal.cdf(density.upper) - normal.cdf(density.lower)).log()
    if density.log_odds is not None:
        share = density.log_odds.sigmoid()[:, None]
        spike = (cells.abs() <= density.spike) / (2 * density.spike)
        log_density = (share * spike + (1 - share) * log_density.exp()).log()
    return -log_density.mean()


def milliseconds(step) -> float:
    """Of CPU, when the same step came before, as in training."""
    step()
    start = time.process_time()
    for _ in range(5):
        step()
    return 200 * (time.process_time() - start)


def gradient(likelihood, learned: list[torch.Tensor]) -> None:
    torch.autograd.grad(likelihood(), learned)


def speed() -> None:
    cells = drawn()
    sums, density = known(cells)
    values, every = torch.from_numpy(cells), torch.arange(N_PERTURBATIONS)
    shape = f"{N_PERTURBATIONS} perturbations x {N_CELLS} cells x {N_GENES:,} genes"
    print(f"{shape}, one thread; median ms of CPU of {REPEATS} interleaved repeats, with reading")
    print(f"{'':6}{'all cells':>10}{'sums':>8}{'ratio':>7}  difference")
    for name, log_odds in (("TG", None), ("ZITG", density.log_odds)):
        learned = [part.clone().requires_grad_() for part in (density.mu, density.sigma, log_odds) if part is not None]
        tried = density._replace(mu=learned[0], sigma=learned[1], log_odds=None if log_odds is None else learned[2])
        forms = {
            "all cells": lambda tried=tried: dense(tried, values),
            "sums": lambda tried=tried: tried.negative_log_likelihood(sums[every]).mean(),
        }
        times: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(REPEATS):
            for form, likelihood in forms.items():
                times[form].append(milliseconds(partial(gradient, likelihood, learned)))
        slow, fast = (median(times[form]) for form in forms)
        exact = [form().item() for form in forms.values()]
        print(f"{name:6}{slow:10.1f}{fast:8.2f}{slow / fast:7.0f}  {abs(exact[0] - exact[1]) / abs(exact[0]):.1e}")


def training() -> TrainingSet:
    """Of the published shape; cells are described by sums alone, as in the store."""
    n_perturbations, n_genes, n_features = PUBLISHED
    masses = torch.full((n_perturbations, n_genes, N_BINS), 1 / N_BINS, dtype=torch.float16)
    genes, none = torch.ones(n_genes), torch.zeros(0, dtype=torch.int64)

    class Masses:
        def __len__(self) -> int:
            return n_perturbations

        def __getitem__(self, numbers: torch.Tensor, /) -> torch.Tensor:
            return masses[numbers].float()

    class Rows:
        def __len__(self) -> int:
            return n_perturbations

        def __getitem__(self, numbers: torch.Tensor, /) -> Cells:
            parts = (torch.full((len(numbers), n_genes), value) for value in (0.5, 0.5, 2.0, 1.0))
            return Cells(*parts, none, none, none.float(), none.float())  # pyright: ignore[reportCallIssue]

    return TrainingSet(
        embeddings=torch.randn(n_perturbations, n_features),
        masses=Masses(),
        means=torch.ones(n_perturbations, n_genes),
        n_cells=torch.full((n_perturbations,), 150.0),
        cells=Rows,
        control=torch.full((n_genes, N_BINS), 1 / N_BINS),
        control_mean=genes,
        lower=-genes / 5,
        width=genes / 2.5,
        control_cells=lambda: Rows()[torch.tensor([0])],
        spread=lambda: None,  # pyright: ignore
        control_spread=lambda: None,  # pyright: ignore
        coexpression=lambda: None,  # pyright: ignore
        expression=lambda: None,  # pyright: ignore
    )


def resident(what: str) -> float:
    """MiB of this process, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


def one_epoch(method: str, send) -> None:
    torch.set_num_threads(1)
    given = training()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
    before, start = resident("VmRSS"), time.process_time()
    model = METHODS[method](ModelSettings(epochs=1))
    deque(model.fit(given), maxlen=0)
    seconds = time.process_time() - start
    send.send((model.n_parameters, seconds, resident("VmHWM") - before))


def memory() -> None:
    print(f"one epoch, {math.ceil(PUBLISHED[0] / 32)} steps, at {PUBLISHED[0]:,} x {PUBLISHED[1]:,} genes, one thread")
    print(f"{'':10}{'parameters':>12}{'seconds':>9}{'MiB':>7}")
    for method in ("MLP+Hist", "TG", "ZITG"):
        receive, send = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=one_epoch, args=(method, send))
        process.start()
        n_parameters, seconds, mib = receive.recv()
        process.join()
        print(f"{method:10}{n_parameters:12,}{seconds:9.1f}{mib:7,.0f}")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    speed()
    memory()


if __name__ == "__main__":
    main()
