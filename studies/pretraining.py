"""One training of PerturBERT, from a corpus to its files: in this process, or in several that Ray Train starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import distributed

from histpert.checkpoints import Checkpoint
from histpert.embeddings.learned import write_learned
from histpert.errors import InputError
from histpert.perturbert.corpus import Corpus, read_corpus
from histpert.perturbert.gene_vectors import contextual_embeddings, gene_table, principal_components
from histpert.perturbert.network import PerturBERT
from histpert.perturbert.network_files import WEIGHTS, write_network
from histpert.perturbert.pretraining import marginal_score, pretrain, validation_score
from histpert.perturbert.settings import BertSettings
from histpert.perturbert.tokens import Parts, Tokens, fit_edges, split_corpus, tokenize
from histpert.results import write_atomically
from histpert.wording import some
from studies.units import Unit
from studies.workers import on_workers

__all__ = ["Pretraining", "put_in_place", "train_in_process", "training_unit"]

EMBEDDINGS = ("table", "contextual", "pca")
"""The gene table, contextual embeddings, and for comparison the principal components of the same signatures."""


@dataclass(frozen=True)
class Pretraining:
    """What one training needs to know.

    Attributes:
        corpus: File of all signatures.
        left_out: Held-out perturbations, of which no signature may tell.
        settings: Of the network and its training.
        folder: For its files.
        checkpoint: Where its state is kept.
        checkpoint_seconds: Time between states.
        n_threads: CPU threads of each worker.
        uses_gpu: Train on a GPU.
    """

    corpus: Path
    left_out: tuple[str, ...]
    settings: BertSettings
    folder: Path
    checkpoint: Path
    checkpoint_seconds: float
    n_threads: int
    uses_gpu: bool

    @property
    def told(self) -> Path:
        """Says how far it is."""
        return self.folder / "told.txt"

    @property
    def files(self) -> tuple[Path, ...]:
        """What it leaves."""
        return (*(self.folder / f"{name}.parquet" for name in EMBEDDINGS), self.folder / WEIGHTS)


def training_unit(
    key: Mapping[str, str | int | float],
    corpus: Corpus,
    left_out: tuple[str, ...],
    settings: BertSettings,
    folder: Path,
    checkpoint_seconds: float,
    n_threads: int,
    n_workers: int,
    uses_gpu: bool,
) -> Unit:
    """A training in a study's folder. Its name is of the signatures that it may learn from, and of no others.

    Raises:
        InputError: These cannot be split or binned.
    """
    _parts_and_edges(corpus, left_out, settings)
    content = {
        "signatures": corpus.fingerprint(corpus.without(left_out)),
        "settings": asdict(settings),
        "workers": n_workers,
        "gpu": uses_gpu,
    }
    name = Unit(key, content, train_in_process).trial_id(n_threads)
    checkpoint = folder / "checkpoints" / f"{name}.pt"
    how = folder / "models" / name, checkpoint, checkpoint_seconds, n_threads, uses_gpu
    training = Pretraining(corpus.path, left_out, settings, *how)
    work = partial(train_in_process, training)
    if n_workers > 1:
        work = partial(on_workers, work, n_workers, training.folder, n_threads, uses_gpu)
    return Unit(key, content, work, training.files, training.told)


def put_in_place(folder: Path, units: Sequence[Unit], without_fold: int) -> Iterator[Path]:
    """Copy embeddings to where a user looks for them, `table.parquet` or `table.0.parquet`; yields their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for unit in units:
        fold = "" if unit.key["fold"] == without_fold else f".{unit.key['fold']}"
        for name, path in zip(EMBEDDINGS, unit.files, strict=False):
            if path.exists():
                to = folder / f"{name}{fold}.parquet"
                write_atomically(to, lambda beside, path=path: shutil.copyfile(path, beside))
                yield to


def train_in_process(training: Pretraining, _: Any = None) -> list[dict[str, Any]]:
    """Train and write the files; returns a row for each epoch. Called by each of several workers, the first writes.

    Raises:
        InputError: The signatures that are left cannot be split or binned.
    """
    torch.set_num_threads(training.n_threads)
    training.folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda", torch.cuda.current_device()) if training.uses_gpu else torch.device("cpu")
    corpus, settings = read_corpus(training.corpus), training.settings
    parts, edges = _parts_and_edges(corpus, training.left_out, settings)
    lines = tuple(np.unique(corpus.cell_lines[parts.training]).tolist())
    tokens = [tokenize(corpus, part, edges, lines) for part in parts]
    torch.manual_seed(settings.seed)
    network = PerturBERT(len(corpus.genes), len(lines), settings).to(device)
    checkpoint = Checkpoint(training.checkpoint, training.checkpoint_seconds)
    is_first = not distributed.is_initialized() or distributed.get_rank() == 0
    epochs = _epochs(network, tokens, settings, checkpoint, training.told if is_first else None)
    if is_first:
        learned_from = corpus.perturbations[np.concatenate(parts)]
        _write(training, network, corpus, parts.training, tokens[0], edges, learned_from)
        checkpoint.remove()
        training.told.unlink(missing_ok=True)
    return epochs


def _parts_and_edges(
    corpus: Corpus, left_out: Sequence[str], settings: BertSettings
) -> tuple[Parts, Float[np.ndarray, "edge"]]:
    """The signatures of a training, and the edges of its bins."""
    rows = corpus.without(left_out)
    if not len(rows):
        raise InputError(
            f"no signature is left that tells nothing of {some(left_out)}, which are held out: give more --signatures, "
            "or hold out less in --folds-file"
        )
    parts = split_corpus(corpus, rows, settings.split, settings.held_out, settings.seed)
    return parts, fit_edges(corpus, parts.training, settings.unchanged, settings.seed)


def _epochs(
    network: PerturBERT, tokens: Sequence[Tokens], settings: BertSettings, checkpoint: Checkpoint, told: Path | None
) -> list[dict[str, Any]]:
    """A row for each epoch; the last has the score of the test."""
    marginal, marginal_test = (marginal_score(tokens[0], held_out, settings) for held_out in tokens[1:])
    known = {
        "n_training": len(tokens[0]),
        "n_genes": tokens[0].responses.shape[1],
        "n_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "marginal_loss": marginal.loss,
        "marginal_accuracy": marginal.accuracy,
    }
    n_tokens = min(settings.genes_per_signature or known["n_genes"], known["n_genes"])
    rows = []
    for epoch in pretrain(network, tokens[0], tokens[1], settings, checkpoint):
        rows.append(
            known
            | {
                "epoch": epoch.epoch,
                "training_loss": epoch.training_loss,
                "validation_loss": epoch.validation.loss,
                "validation_accuracy": epoch.validation.accuracy,
                "seconds": epoch.seconds,
                "tokens_per_second": known["n_training"] * n_tokens / epoch.seconds,
            }
        )
        if told is not None:
            line = (
                f"epoch {epoch.epoch + 1} of {settings.epochs}, validation {epoch.validation.loss:.4f}, marginal "
                f"{marginal.loss:.4f}, {rows[-1]['tokens_per_second']:,.0f} tokens/s"
            )
            write_atomically(told, lambda beside, line=line: beside.write_text(line, encoding="utf-8"))
    if rows:
        test = validation_score(network, tokens[2], settings)
        rows[-1] |= {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_marginal_loss": marginal_test.loss}
    return rows


def _write(
    training: Pretraining,
    network: PerturBERT,
    corpus: Corpus,
    rows: np.ndarray,
    tokens: Tokens,
    edges: np.ndarray,
    learned_from: np.ndarray,
) -> None:
    settings = training.settings
    n_components = min(settings.width, len(corpus.genes), len(rows))
    vectors = (
        gene_table(network),
        contextual_embeddings(network, tokens, settings),
        principal_components(corpus, rows, n_components),
    )
    for path, found in zip(training.files, vectors, strict=False):
        write_learned(path, corpus.genes, found, learned_from)
    write_network(training.folder, network, settings, corpus.genes, tokens.lines, edges)
