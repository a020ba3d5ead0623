"""From embedding files to one vector per gene: read, named by gene symbols, scaled and joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from histpert.embeddings.arrays import read_h5ad, read_hdf5, read_npz
from histpert.embeddings.gene_embeddings import GeneEmbeddings
from histpert.embeddings.ids import IdTable
from histpert.embeddings.options import EmbeddingOptions
from histpert.embeddings.pickles import read_pickle
from histpert.embeddings.rows import Rows, check_rows
from histpert.embeddings.tables import read_parquet, read_text
from histpert.errors import InputError
from histpert.wording import some

__all__ = ["read_embeddings"]

_READERS: dict[str, Callable[[Path], Rows]] = {
    ".npz": read_npz,
    ".parquet": read_parquet,
    ".csv": lambda path: read_text(path, ","),
    ".csv.gz": lambda path: read_text(path, ","),
    ".tsv": lambda path: read_text(path, "\t"),
    ".tsv.gz": lambda path: read_text(path, "\t"),
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".h5ad": read_h5ad,
    ".pkl": read_pickle,
    ".pickle": read_pickle,
}


def read_embeddings(paths: Sequence[str | Path], options: EmbeddingOptions | None = None) -> GeneEmbeddings:
    """Read one or several sources; several are joined feature by feature over the genes that all of them have.

    Each source is divided by one number, the standard deviation of all its values, over the genes that are kept, about
    the means of its features. A network sees features of equal mean variance from every source then, whatever the
    scale of the files: the values of a vector of unit length over 1,536 features are some fifty times smaller than
    those of most other embeddings, and hardly count beside them otherwise. Features keep their weights within a
    source, and their means. One source alone is scaled likewise, so that one learning rate fits all. Computed in
    float64, kept in float32.

    Args:
        paths: By suffix: `.npz` with an array of gene names and one of vectors; `.parquet`, `.csv` or `.tsv` (also
            `.gz`) with a row per gene; `.h5` with a dataset per gene, or one of names and one of vectors; `.h5ad` with
            genes in `obs`; `.pkl` with a dictionary from gene to vector, read without running anything it asks for.
        options: Tables of names.

    Raises:
        InputError: A file is missing or laid out otherwise, a gene stands twice, a value is not finite, all vectors of
            a source are equal, or the sources share no gene.
    """
    if not paths:
        raise InputError("no embedding file is named: give one or more with --embeddings")
    files = [Path(path) for path in paths]
    sources = [_read_source(path) for path in files]
    notes: list[str] = []
    if options is not None and options.embedding_ids is not None:
        ids = IdTable.read(options.embedding_ids)
        sources = [ids.rename(path, source, notes) for path, source in zip(files, sources, strict=True)]
    shared = _shared(files, sources, notes)
    scaled = [_scaled(path, _of(source, shared)) for path, source in zip(files, sources, strict=True)]
    return GeneEmbeddings(
        name="+".join(map(_stem, files)),
        genes=tuple(shared),
        vectors=np.concatenate(scaled, axis=1),
        notes=tuple(notes),
    )


def _shared(files: Sequence[Path], sources: Sequence[Rows], notes: list[str]) -> list[str]:
    """Genes that all sources have, in the order of the first; a note tells how many each has."""
    common = set(sources[0].names).intersection(*(source.names for source in sources[1:]))
    shared = [gene for gene in sources[0].names if gene in common]
    if not shared:
        firsts = "; ".join(f"{file} has {some(source.names, 3)}" for file, source in zip(files, sources, strict=True))
        raise InputError(f"the embedding files share no gene: {firsts}: --embedding-ids translates accessions to genes")
    if len(sources) > 1:
        counts = (f"{len(source.names):,} in {file.name}" for file, source in zip(files, sources, strict=True))
        notes.append(f"{len(shared):,} genes are in all embedding files: {', '.join(counts)}")
    return shared


def _suffix(path: Path) -> str | None:
    """The suffix that tells the format, also one of two parts."""
    ends = [suffix for suffix in _READERS if path.name.lower().endswith(suffix)]
    return max(ends, key=len, default=None)


def _stem(path: Path) -> str:
    return path.name[: -len(_suffix(path) or "")]


def _read_source(path: Path) -> Rows:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}: --embeddings takes files of gene embeddings")
    suffix = _suffix(path)
    if suffix is None:
        raise InputError(
            f"{path}: embeddings are read from {', '.join(_READERS)}, not from {path.suffix or 'a name without suffix'}"
        )
    rows = _READERS[suffix](path)
    check_rows(path, rows)
    return rows


def _of(source: Rows, genes: list[str]) -> np.ndarray:
    row = {name: number for number, name in enumerate(source.names)}
    return source.vectors[[row[gene] for gene in genes]]


def _scaled(path: Path, vectors: np.ndarray) -> np.ndarray:
    """Vectors over the standard deviation of all values about their feature's mean, in float32."""
    if (vectors == vectors[0]).all():
        genes = "one gene only" if len(vectors) == 1 else f"the same vector for all {len(vectors):,} genes"
        raise InputError(f"{path} has {genes} (of those that all files share): it tells nothing about genes")
    exact = vectors.astype(np.float64)
    with np.errstate(all="ignore"):
        centered = exact - exact.mean(axis=0)
        peak = np.abs(centered).max()  # squares of very large or very small values leave the range of floats
        scaled = (exact / (peak * np.sqrt(np.square(centered / peak).mean()))).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise InputError(
            f"{path}: the vectors differ too little beside the size of their values: center and scale them"
        )
    return np.ascontiguousarray(scaled)
