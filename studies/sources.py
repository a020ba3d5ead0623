"""Sources of gene embeddings that a study sets beside each other, as NAME=FILE on its command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from histpert.command_line import absolute
from histpert.embeddings import EmbeddingOptions, GeneEmbeddings, read_embeddings
from histpert.errors import InputError
from histpert.results import RANDOM

__all__ = ["checked_sources", "random_embeddings", "read_sources", "shared_genes"]


def checked_sources(sources: Sequence[str], option: str = "--sources") -> tuple[str, ...]:
    """Sources with paths from the root, each `NAME=FILE` or `NAME=FILE+FILE`; the name may be left out.

    Raises:
        InputError: A name stands twice or is taken, or a file is not named.
    """
    named = []
    for given in sources:
        name, is_named, files = given.rpartition("=")
        paths = files.split("+")
        if not all(paths) or (is_named and not name):
            raise InputError(f"{option} {given}: give NAME=FILE, or NAME=FILE+FILE for files to be joined")
        name = name or "+".join(Path(path).name.split(".")[0] for path in paths)
        named.append((name, "+".join(str(absolute(path, option)) for path in paths)))
    names = [name for name, _ in named]
    if twice := [name for number, name in enumerate(names) if name in (*names[:number], RANDOM)]:
        raise InputError(
            f"{option}: {twice[0]} stands there twice, or is a name of ours: give each source its own name"
        )
    return tuple(f"{name}={files}" for name, files in named)


def read_sources(sources: Sequence[str], names: EmbeddingOptions) -> dict[str, GeneEmbeddings]:
    """Embeddings of checked sources, by their names.

    Raises:
        InputError: A file cannot be read.
    """
    pairs = (given.rpartition("=") for given in sources)
    return {name: read_embeddings([Path(path) for path in files.split("+")], names) for name, _, files in pairs}


def shared_genes(sources: Mapping[str, GeneEmbeddings]) -> tuple[str, ...]:
    """Genes that all sources have, sorted.

    Raises:
        InputError: There are none.
    """
    common = set.intersection(*(set(source.genes) for source in sources.values()))
    if not common:
        firsts = "; ".join(f"{name} has {', '.join(source.genes[:3])}, ..." for name, source in sources.items())
        raise InputError(f"the sources share no gene: {firsts}: --embedding-ids translates accessions to genes")
    return tuple(sorted(common))


def random_embeddings(genes: Sequence[str], n_features: int, seed: int) -> GeneEmbeddings:
    """Normal numbers."""
    vectors = np.random.default_rng([seed, n_features]).standard_normal((len(genes), n_features), dtype=np.float32)
    return GeneEmbeddings(RANDOM, tuple(genes), vectors)
