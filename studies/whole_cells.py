"""What a study of whole cells takes beside what all take: perturbed genes, memory, and the attention prior."""

from __future__ import annotations

import os
from bisect import bisect_right

import torch

from histpert.celltarnet.prior import attention_prior
from histpert.correlations import pearson_correlations
from histpert.errors import InputError
from histpert.histograms import HistogramStore
from histpert.memory import available_bytes
from histpert.models.celltarnet import CellSettings
from histpert.multi_hot import multi_hot
from histpert.targets import training_targets
from histpert.trial_memory import whole_cell_bytes
from studies.data import StudyData
from studies.options import StudyOptions

__all__ = ["check_memory", "on_genes", "say_density"]


def on_genes(data: StudyData) -> StudyData:
    """The same data, each perturbation as the genes that it perturbs."""
    return data.with_embeddings("perturbed genes", multi_hot(data.perturbations))


def check_memory(options: StudyOptions, data: StudyData, store: HistogramStore, settings: CellSettings) -> None:
    """See that trials of CellTARNet fit into memory, where they do not run on a GPU.

    Raises:
        InputError: They do not.
    """
    if torch.cuda.is_available() and options.gpus_per_trial != 0:
        return
    at_once = options.max_concurrent_trials or max(1, (os.cpu_count() or 1) // options.threads_per_trial)
    room, n_cells = available_bytes() // at_once, int(store.moments.n_cells.sum())

    def needed(n_genes: int) -> int:
        return whole_cell_bytes(settings, n_genes, n_cells, data.vectors.shape[1], len(data.perturbations))

    n_genes = len(store.genes)
    if needed(n_genes) > room:
        largest = bisect_right(range(n_genes), room, lo=1, key=needed) - 1
        raise InputError(
            f"--n-genes {n_genes}: CellTARNet takes some {needed(n_genes) / 1e9:.1f} GB a trial, and "
            f"{room / 1e9:.1f} GB are free for each of {at_once} trials; {largest} genes fit, or give a smaller "
            "--max-concurrent-trials"
        )


def say_density(data: StudyData, store: HistogramStore, settings: CellSettings, n_bins: int) -> None:
    """Print how many genes a gene attends to, by what is trained on in the first fold."""
    attended = None if data.attended is None else torch.from_numpy(data.attended)
    if attended is None:
        training = training_targets(store.fold(0, n_bins), store.moments, data.vectors, torch.device("cpu"))
        expression = training.expression()
        groups = [expression.of_control(), *(expression.of(number) for number in range(len(expression)))]
        attended = attention_prior(pearson_correlations(torch.cat(groups)), settings.flow)
    print(f"CellTARNet: a gene attends to {attended.sum(1).double().mean():.1f} of {len(attended)} genes", flush=True)
