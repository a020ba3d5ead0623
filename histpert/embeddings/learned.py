"""Embeddings that were learned from perturbations: their files say which."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from histpert.errors import InputError
from histpert.multi_hot import genes_of
from histpert.results import write_atomically
from histpert.wording import reason

__all__ = ["learned_from_of", "telling_of", "write_learned"]

_LEARNED_FROM = b"learned_from"


def write_learned(
    path: Path, genes: Sequence[str], vectors: Float[np.ndarray, "gene feature"], learned_from: Iterable[str]
) -> None:
    """Write a `.parquet` of embeddings: a column `gene`, and one for each feature.

    Args:
        path: The file.
        genes: Names.
        vectors: A row for each.
        learned_from: Perturbations whose signatures were learned from, kept with the table.
    """
    columns = {"gene": pa.array(genes, pa.string())}
    columns |= {f"feature_{number}": pa.array(column) for number, column in enumerate(vectors.T)}
    table = pa.table(columns).replace_schema_metadata({_LEARNED_FROM: json.dumps(sorted(set(learned_from)))})
    write_atomically(path, lambda beside: pq.write_table(table, beside))


def telling_of(held_out: Iterable[str], perturbations: Iterable[str]) -> list[str]:
    """The perturbations that tell what held-out ones do, in whatever cells.

    Of a gene, all that perturb it, alone or with others; of a combination, the same combination: its genes alone may be
    known.
    """
    wanted = [frozenset(genes_of(name)) for name in held_out]
    alone, together = {gene for genes in wanted if len(genes) == 1 for gene in genes}, set(wanted)
    return [
        name for name in perturbations if not alone.isdisjoint(genes := genes_of(name)) or frozenset(genes) in together
    ]


def learned_from_of(path: Path) -> frozenset[str]:
    """Perturbations that the embeddings of a file have learned from; none where it does not say.

    Raises:
        InputError: It cannot be read.
    """
    if path.suffix != ".parquet":
        return frozenset()
    try:
        metadata = pq.read_schema(path).metadata or {}
        return frozenset(json.loads(metadata.get(_LEARNED_FROM, b"[]")))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as .parquet: {reason(error)}") from error
