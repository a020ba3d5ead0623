"""Simulated embeddings of unlike quality, and what is to be told about their genes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from histpert.embeddings import GeneEmbeddings
from histpert.errors import InputError
from histpert.perturbert.simulated import gene_modules
from histpert.results import write_atomically

__all__ = ["simulated_genes"]

N_GENES, N_MODULES, N_FEATURES, N_PAIRS = 300, 6, 32, 2_000
NOISE = {"Good": 2.0, "Poor": 4.0}
"""Deviation of what modules do not tell, in that of what they do."""


def simulated_genes(folder: Path, seed: int) -> dict[str, tuple[str, ...]]:
    """Write embeddings that tell genes' modules well and poorly, modules as labels, and pairs of one module.

    Returns:
        Options `sources` and `labels`.

    Raises:
        InputError: They cannot be written.
    """
    random = np.random.default_rng([seed, 10])
    genes = tuple(f"G{number:03d}" for number in range(1, N_GENES + 1))
    module = gene_modules(N_GENES, N_MODULES, seed)
    centers = random.standard_normal((N_MODULES, N_FEATURES))
    pairs = random.integers(N_GENES, size=(8 * N_PAIRS, 2))
    together = module[pairs[:, 0]] == module[pairs[:, 1]]
    chosen = np.concatenate([np.flatnonzero(together == kind)[: N_PAIRS // 2] for kind in (True, False)])
    labels = {"gene": genes, "label": [f"module {number + 1}" for number in module]}
    paired = {"gene_a": np.array(genes)[pairs[chosen, 0]], "gene_b": np.array(genes)[pairs[chosen, 1]]}
    tables = {
        "modules.csv": pd.DataFrame(labels),
        "module_1.csv": pd.DataFrame(labels | {"label": (module == 0).astype(int)}),
        "pairs.csv": pd.DataFrame(paired | {"label": together[chosen].astype(int)}),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, noise in NOISE.items():
            vectors = centers[module] + noise * random.standard_normal((N_GENES, N_FEATURES))
            embeddings = GeneEmbeddings(name, genes, vectors.astype(np.float32))
            write_atomically(folder / f"{name}.npz", embeddings.save)
        for name, table in tables.items():
            write_atomically(folder / name, lambda beside, table=table: table.to_csv(beside, index=False))
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another --out") from error
    print(f"SIMULATED, not measured: {N_GENES} genes in {N_MODULES} modules, in {folder}", flush=True)
    return {
        "sources": tuple(f"{name}={folder / name}.npz" for name in NOISE),
        "labels": tuple(f"{name.removesuffix('.csv')}={folder / name}" for name in tables),
    }
