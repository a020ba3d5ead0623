"""Gene embeddings: read from files, joined, and looked up for the perturbed genes of a screen."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from histpert.errors import InputError

__all__ = ["GeneEmbeddings", "read_embeddings"]


@dataclass(frozen=True)
class GeneEmbeddings:
    """One vector per gene.

    Attributes:
        name: Names of the sources, joined by `+`.
        genes: Gene names.
        vectors: Genes x features, float32.
    """

    name: str
    genes: tuple[str, ...]
    vectors: Float[np.ndarray, "gene feature"]

    def fingerprint(self) -> str:
        """SHA-256 of genes and vectors."""
        digest = hashlib.sha256("\0".join(self.genes).encode())
        digest.update(np.ascontiguousarray(self.vectors).data)
        return digest.hexdigest()

    def lookup(self, genes: Sequence[str]) -> Float[np.ndarray, "perturbation feature"]:
        """Vectors of these genes, in this order; KeyError for one without."""
        row = {gene: number for number, gene in enumerate(self.genes)}
        return self.vectors[[row[gene] for gene in genes]]

    def save(self, path: Path) -> None:
        """Write genes and vectors as `.npz`."""
        with path.open("wb") as file:
            np.savez(file, genes=np.array(self.genes), vectors=self.vectors)


def read_embeddings(paths: Sequence[str | Path]) -> GeneEmbeddings:
    """Read one or several sources; several are joined feature by feature over the genes that all of them have.

    Args:
        paths: `.npz` with an array of gene names and one of vectors; `.parquet` with a column (or index) of gene names
            and either a numeric column per feature or one column of lists.

    Raises:
        InputError: A file is missing or laid out otherwise, a gene stands twice, a value is not finite, or the sources
            share no gene.
    """
    sources = [_read_source(Path(path)) for path in paths]
    if not sources:
        raise InputError("no embedding file is named: give one or more with --embeddings")
    common = set(sources[0].genes).intersection(*(source.genes for source in sources[1:]))
    shared = [gene for gene in sources[0].genes if gene in common]
    if not shared:
        raise InputError(f"the embedding files share no gene: {', '.join(map(str, paths))}")
    if len(sources) == 1:
        return sources[0]
    return GeneEmbeddings(
        name="+".join(source.name for source in sources),
        genes=tuple(shared),
        vectors=np.concatenate([source.lookup(shared) for source in sources], axis=1),
    )


def _read_source(path: Path) -> GeneEmbeddings:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}: --embeddings takes .npz or .parquet files")
    readers = {".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise InputError(
            f"{path}: embeddings are read from .npz and .parquet, not from {path.suffix or 'a name without suffix'}"
        )
    genes, vectors = readers[path.suffix](path)
    if not len(genes):
        raise InputError(f"{path} has no rows: it needs one per gene")
    twice = genes[genes.duplicated()]
    if len(twice):
        raise InputError(f"{path}: gene {twice[0]!r} stands there more than once")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        worst = genes[int(np.argmin(np.isfinite(vectors).all(axis=1)))]
        raise InputError(f"{path}: the vector of gene {worst!r} has values that are NaN or infinite")
    return GeneEmbeddings(name=path.stem, genes=tuple(genes), vectors=vectors)


def _read_npz(path: Path) -> tuple[pd.Index, np.ndarray]:
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as .npz: {str(error).splitlines()[0]}") from error
    names = [array for array in arrays.values() if array.ndim == 1 and array.dtype.kind == "U"]
    vectors = [array for array in arrays.values() if array.ndim == 2 and array.dtype.kind == "f"]
    if len(names) != 1 or len(vectors) != 1 or len(names[0]) != len(vectors[0]):
        found = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise InputError(
            f"{path}: needs one array of gene names and one genes x features array of floats; it has {found}"
        )
    return pd.Index(names[0].tolist()), vectors[0]


def _read_parquet(path: Path) -> tuple[pd.Index, np.ndarray]:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as .parquet: {str(error).splitlines()[0]}") from error
    numeric = table.select_dtypes("number")
    others = [name for name in table.columns if name not in numeric.columns]
    lists = [name for name in others if len(table) and not isinstance(table[name].iloc[0], str)]
    names = [name for name in others if name not in lists]
    if len(names) > 1 or len(lists) > 1 or bool(lists) == bool(len(numeric.columns)):
        raise InputError(
            f"{path}: needs one column of gene names, and a numeric column per feature or one column of lists; "
            f"it has {', '.join(map(str, table.columns))}"
        )
    if not names and isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path} has no gene names, neither in a column nor in its index")
    genes = pd.Index(table[names[0]] if names else table.index).map(str)
    if not lists:
        return genes, numeric.to_numpy()
    try:
        vectors = [np.asarray(vector, dtype=np.float32).reshape(-1) for vector in table[lists[0]]]
    except (TypeError, ValueError):
        raise InputError(f"{path}: column {lists[0]!r} does not hold lists of numbers") from None
    lengths = sorted({len(vector) for vector in vectors})
    if len(lengths) != 1:
        raise InputError(
            f"{path}: the lists in column {lists[0]!r} are of unlike lengths ({lengths[0]} to {lengths[-1]})"
        )
    return genes, np.stack(vectors)
