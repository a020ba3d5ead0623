"""Perturbation signatures: a z-score per gene for a perturbation in a cell line, many of them in one Arrow file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from histpert.embeddings.learned import telling_of
from histpert.errors import InputError
from histpert.results import written_atomically
from histpert.wording import reason, some

__all__ = ["Corpus", "SignatureSource", "Signatures", "read_corpus", "write_corpus"]

_LABELS = ("perturbation", "cell_line", "source")


class Signatures(NamedTuple):
    """Some signatures of one source.

    Attributes:
        perturbations: The perturbed genes of each, or what else was done to the cells.
        cell_lines: Where.
        z: Signatures x the source's genes, in standard errors; NaN where a gene was not measured.
    """

    perturbations: Sequence[str]
    cell_lines: Sequence[str]
    z: Float[np.ndarray, "signature gene"]


@dataclass(frozen=True)
class SignatureSource:
    """Where signatures come from.

    Attributes:
        name: Short name.
        genes: Those that it measures, a column each.
        parts: The signatures, some at a time.
        notes: What was guessed and left out.
    """

    name: str
    genes: tuple[str, ...]
    parts: Callable[[], Iterator[Signatures]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Signatures of all sources over one vocabulary of genes.

    Attributes:
        path: The file.
        genes: The vocabulary.
        perturbations: Per signature what was perturbed; several genes stand between `+`.
        cell_lines: Per signature.
        sources: Per signature the name of its source.
        blocks: z-scores, signatures x genes, float32, in the order of the signatures; NaN where a gene is absent. They
            stay in the file until they are read.
    """

    path: Path
    genes: tuple[str, ...]
    perturbations: np.ndarray
    cell_lines: np.ndarray
    sources: np.ndarray
    blocks: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.perturbations)

    def __str__(self) -> str:
        n_perturbations, n_lines = len(set(self.perturbations)), len(set(self.cell_lines))
        return (
            f"{len(self):,} signatures of {n_perturbations:,} perturbations in {n_lines:,} cell lines, "
            f"{len(self.genes):,} genes"
        )

    def z(self, rows: Int[np.ndarray, "row"]) -> Float[np.ndarray, "row gene"]:
        """z-scores of these signatures, read from the file."""
        starts = np.cumsum([0, *(len(block) for block in self.blocks)])
        found = np.empty((len(rows), len(self.genes)), np.float32)
        place = np.searchsorted(starts, rows, side="right") - 1
        for number, block in enumerate(self.blocks):
            here = place == number
            found[here] = block[rows[here] - starts[number]]
        return found

    def without(self, targets: Iterable[str]) -> Int[np.ndarray, "row"]:
        """Signatures that tell nothing of the targets, in any cell line and source."""
        telling = telling_of(targets, np.unique(self.perturbations).tolist())
        return np.flatnonzero(~np.isin(self.perturbations, telling))

    def fingerprint(self, rows: Int[np.ndarray, "row"] | None = None) -> str:
        """SHA-256 of all, or of these signatures."""
        rows = np.arange(len(self)) if rows is None else rows
        digest = hashlib.sha256("\0".join(self.genes).encode())
        for labels in (self.perturbations, self.cell_lines, self.sources):
            digest.update(("\1" + "\0".join(labels[rows])).encode())
        for first in range(0, len(rows), 4096):
            digest.update(self.z(rows[first : first + 4096]).data)
        return digest.hexdigest()


def write_corpus(path: Path, sources: Sequence[SignatureSource], genes: Sequence[str] | None = None) -> Corpus:
    """Write the signatures of all sources as one Arrow IPC file, uncompressed, part by part; returns it mapped.

    A gene that a source does not measure is absent from its signatures. Signatures without any gene are left out.

    Args:
        path: Written beside and renamed.
        sources: In this order.
        genes: The vocabulary; by default all genes of all sources, sorted.

    Raises:
        InputError: A source has no gene of the vocabulary, or nothing is left.
    """
    vocabulary = tuple(sorted({gene for source in sources for gene in source.genes})) if genes is None else tuple(genes)
    place = {gene: column for column, gene in enumerate(vocabulary)}
    schema = pa.schema(
        [*((name, pa.string()) for name in _LABELS), ("z", pa.list_(pa.float32(), len(vocabulary)))],
        metadata={"genes": json.dumps(vocabulary)},
    )
    n_written = 0
    with written_atomically(path) as beside, pa.OSFile(str(beside), "wb") as file:
        with pa.ipc.new_file(file, schema) as writer:
            for source in sources:
                columns = [number for number, gene in enumerate(source.genes) if gene in place]
                if not columns:
                    raise InputError(
                        f"{source.name} has no gene of the vocabulary: it has {some(source.genes, 3)}, the vocabulary "
                        f"{some(vocabulary, 3)}"
                    )
                places = [place[source.genes[number]] for number in columns]
                for part in source.parts():
                    batch = _batch(source.name, part, columns, places, schema, len(vocabulary))
                    n_written += batch.num_rows
                    writer.write_batch(batch)
        if not n_written:
            raise InputError(f"no signature is left of {', '.join(source.name for source in sources)}")
    return read_corpus(path)


def _batch(
    source: str, part: Signatures, columns: list[int], places: list[int], schema: pa.Schema, n_genes: int
) -> pa.RecordBatch:
    z = np.full((len(part.z), n_genes), np.nan, np.float32)
    z[:, places] = part.z[:, columns]
    kept = np.isfinite(z).any(axis=1)
    z = np.where(np.isfinite(z), z, np.nan)[kept].astype(np.float32)
    labels = [
        np.asarray(part.perturbations, dtype=object)[kept].tolist(),
        np.asarray(part.cell_lines, dtype=object)[kept].tolist(),
        [source] * len(z),
    ]
    values = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), n_genes)
    return pa.record_batch([*(pa.array(each, pa.string()) for each in labels), values], schema=schema)


def read_corpus(path: Path) -> Corpus:
    """Map a corpus that `write_corpus` wrote.

    Raises:
        InputError: The file is missing or none of ours.
    """
    try:
        with pa.memory_map(str(path)) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        genes = tuple(json.loads(table.schema.metadata[b"genes"]))
        labels = [np.array(table[name].to_pylist(), dtype=object) for name in _LABELS]
        blocks = tuple(
            chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, len(genes)) for chunk in table["z"].chunks
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a corpus of signatures: {reason(error)}") from error
    return Corpus(path, genes, labels[0], labels[1], labels[2], blocks)
