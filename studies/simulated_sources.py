"""A simulated screen and signatures of the same genes, and the embeddings that are learned from them, fold by fold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from histpert.embeddings import read_embeddings
from histpert.errors import InputError
from histpert.perturbert.corpus import write_corpus
from histpert.perturbert.settings import PRESETS as BERT_PRESETS
from histpert.perturbert.simulated import simulate_signatures
from histpert.results import PRETRAINING_SCHEMA
from histpert.screens import PRESETS, assign_folds
from histpert.screens.fold_files import write_fold_file
from histpert.screens.simulation import write_screen
from studies.options import StudyOptions
from studies.pretraining import put_in_place, training_unit
from studies.units import UnitOptions, run_units

__all__ = ["simulated_sources"]

N_FACTORS = 10
"""Of the genes' embeddings in the screen, which the simulated signatures follow."""
SIGNATURES_PER_GENE = 4
PRETRAIN = "pretrain"


def simulated_sources(options: StudyOptions, folder: Path) -> dict[str, Any]:
    """Options of a study of a simulated screen: its file, its folds, and sources of embeddings of its perturbed genes.

    Signatures of the same perturbations, in two other cell lines, follow the factors that the embeddings `good` show;
    PerturBERT and principal components learn from those of them that tell nothing of what a fold holds out.

    Args:
        options: Of the study.
        folder: For all files.

    Raises:
        InputError: They cannot be written.
    """
    seed, screen = options.model.seed, folder / f"screen_{options.model.seed}.h5ad"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not screen.exists():
            write_screen(screen, seed, PRESETS["easy"])
        good = read_embeddings([screen.with_suffix(".good.npz")])
        folds = assign_folds(good.genes, options.folds, seed)
        folds_file = folder / "folds.csv"
        write_fold_file(folds_file, good.genes, folds)
        factors = _factors(good.vectors)
        n_perturbations = SIGNATURES_PER_GENE * len(good.genes)
        source = simulate_signatures(good.genes, factors, n_perturbations=n_perturbations, seed=seed)
        corpus = write_corpus(folder / "signatures.arrow", [source])
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another --out") from error
    bert = replace(BERT_PRESETS["small"], seed=seed, epochs=3 if options.smoke else 30)
    how = folder / PRETRAIN, options.checkpoint_seconds, options.threads_per_trial, 1, False
    units = []
    for fold in range(options.folds):
        held_out = tuple(name for name, its in zip(good.genes, folds.tolist(), strict=True) if its == fold)
        units.append(training_unit({"fold": fold}, corpus, held_out, bert, *how))
    print(f"SIMULATED, not measured; PerturBERT learns from {corpus}, once per fold", flush=True)
    common = UnitOptions(out=folder, seed=seed, threads_per_trial=options.threads_per_trial)
    run_units(PRETRAIN, common, units, PRETRAINING_SCHEMA, inputs={"signatures": corpus.fingerprint()})
    learned = folder / PRETRAIN / "embeddings"
    list(put_in_place(learned, units, -1))
    bert_files, of_screen = learned / "contextual.{fold}.parquet", screen.with_suffix("")
    return {
        "screen": str(screen),
        "folds_file": folds_file,
        "sources": (
            f"Good={of_screen}.good.npz",
            f"Poor={of_screen}.poor.npz",
            f"PerturBERT table={learned}/table.{{fold}}.parquet",
            f"PerturBERT={bert_files}",
            f"PCA={learned}/pca.{{fold}}.parquet",
            f"Poor + PerturBERT={of_screen}.poor.npz+{bert_files}",
        ),
    }


def _factors(vectors: np.ndarray) -> np.ndarray:
    """The first principal components of embeddings, each gene's of a length of about 1."""
    left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    scores = (left * values)[:, :N_FACTORS]
    return scores / np.sqrt(np.square(scores).sum(axis=1).mean())
