"""From files of signatures to one corpus that trainings share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histpert.errors import InputError
from histpert.perturbert.corpus import Corpus, SignatureSource, read_corpus, write_corpus
from histpert.perturbert.reading import SignatureOptions, read_signatures, read_vocabulary
from histpert.perturbert.simulated import gene_modules, simulate_signatures
from histpert.results import write_atomically

__all__ = ["prepared_corpus"]

N_GENES, N_MODULES = 200, 10


def prepared_corpus(
    signatures: Sequence[str], how: SignatureOptions, seed: int, folder: Path, n_simulated: int
) -> Corpus:
    """All signatures, in `corpus.arrow` of the folder; a corpus of ours that is given alone stays where it is.

    Args:
        signatures: Files, as `checked_signatures` leaves them; none for a simulated corpus.
        how: They are read.
        seed: Of what is drawn.
        folder: Of the study.
        n_simulated: Perturbations of the simulated corpus, in each cell line.

    Raises:
        InputError: A file cannot be used.
    """
    if len(signatures) == 1 and signatures[0].endswith(".arrow") and how.vocabulary is None:
        corpus = read_corpus(Path(signatures[0].rpartition("=")[2]))
    else:
        corpus = _written(signatures, how, seed, folder, n_simulated)
    print(f"{corpus.path}: {corpus}", flush=True)
    return corpus


def _written(signatures: Sequence[str], how: SignatureOptions, seed: int, folder: Path, n_simulated: int) -> Corpus:
    genes = None if how.vocabulary is None else read_vocabulary(how.vocabulary)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sources = [read_signatures(given, how, seed, genes) for given in signatures]
        sources = sources or [_simulated(seed, folder, n_simulated)]
        for source in sources:
            print(f"signatures of {source.name}: {len(source.genes):,} genes", flush=True)
            for note in source.notes:
                print(f"  {note}", flush=True)
        return write_corpus(folder / "corpus.arrow", sources, genes)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): make room, or name another --out") from error


def _simulated(seed: int, folder: Path, n_perturbations: int) -> SignatureSource:
    """Signatures of genes in modules; which gene is in which goes beside them, as labels for gene_properties.py."""
    genes = [f"G{number:03d}" for number in range(1, N_GENES + 1)]
    module = gene_modules(N_GENES, N_MODULES, seed)
    weight = np.random.default_rng([seed, 5]).uniform(0.5, 1.5, (N_GENES, 1))
    labels = pd.DataFrame({"gene": genes, "label": [f"module {number}" for number in module]})
    write_atomically(folder / "modules.csv", lambda beside: labels.to_csv(beside, index=False))
    print(f"SIMULATED, not measured; modules of genes: {folder / 'modules.csv'}", flush=True)
    return simulate_signatures(genes, np.eye(N_MODULES)[module] * weight, n_perturbations=n_perturbations, seed=seed)
