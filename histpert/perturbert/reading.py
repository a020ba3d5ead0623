"""Signatures from files of all kinds, into one corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.perturbert.corpus import Signatures, SignatureSource, read_corpus
from histpert.perturbert.gctx import gctx_signatures
from histpert.perturbert.screen_signatures import ScreenSignatureOptions, read_screen_signatures
from histpert.perturbert.signature_tables import table_signatures
from histpert.screens import ReadOptions
from histpert.wording import every, reason

__all__ = ["SignatureOptions", "checked_signatures", "read_signatures", "read_vocabulary"]

_TABLES = (".parquet", ".csv", ".tsv", ".txt")
_SCREENS = (".h5ad", ".zarr", ".h5", ".mtx")


@dataclass(frozen=True)
class SignatureOptions:
    """How files of signatures are read."""

    vocabulary: Path | None = None
    """Genes to learn of, one on a line; all genes of all files by default."""
    signature_info: Path | None = None
    """Table of signatures published beside a .gctx: sig_id, pert_iname or cmap_name, cell_id or cell_iname."""
    gene_info: Path | None = None
    """Table of genes published beside a .gctx: pr_gene_id or gene_id, pr_gene_symbol or gene_symbol."""
    screen: ScreenSignatureOptions = field(default_factory=ScreenSignatureOptions)
    read: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self):
        for name in ("vocabulary", "signature_info", "gene_info"):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, absolute(path, f"--{name.replace('_', '-')}"))


def checked_signatures(files: Sequence[str]) -> tuple[str, ...]:
    """Files with paths from the root, each `FILE` or `CELL LINE=FILE`.

    Raises:
        InputError: No file is named.
    """
    found = []
    for given in files:
        cell_line, is_named, file = given.rpartition("=")
        if not file or (is_named and not cell_line):
            raise InputError(f"--signatures {given}: give FILE, or CELL_LINE=FILE")
        found.append(f"{cell_line}{is_named}{absolute(file, '--signatures')}")
    return tuple(found)


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Genes of a file, one on a line, in its order.

    Raises:
        InputError: It cannot be read, or names none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--vocabulary {path} cannot be read: {reason(error)}") from error
    if not lines:
        raise InputError(f"--vocabulary {path} names no gene: it takes one on a line")
    return tuple(dict.fromkeys(lines))


def read_signatures(
    given: str, options: SignatureOptions, seed: int, genes: Sequence[str] | None = None
) -> SignatureSource:
    """Signatures of a file, which checked_signatures has seen: a screen, a .gctx, a tidy table or a corpus of ours.

    Args:
        given: `FILE` or `CELL LINE=FILE`; without a name, the file's own is that of the cell line where it has none.
        options: How.
        seed: Of the cells that are drawn of a screen.
        genes: The vocabulary, so that no more is read of large files.

    Raises:
        InputError: The file cannot be used.
    """
    cell_line, _, file = given.rpartition("=")
    path = Path(file)
    if not path.exists():
        raise InputError(f"--signatures {path} does not exist")
    cell_line = cell_line or path.name.split(".")[0]
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix == ".gctx":
        wanted = None if genes is None else frozenset(genes)
        return gctx_signatures(path, options.signature_info, options.gene_info, wanted)
    if suffix == ".arrow":
        return _of_corpus(path)
    if suffix in _TABLES:
        return table_signatures(path, cell_line)
    if suffix in _SCREENS or path.is_dir():
        return read_screen_signatures(path, cell_line, options.read, options.screen, seed)
    raise InputError(f"--signatures {path}: signatures are read from {every([*_SCREENS, '.gctx', *_TABLES, '.arrow'])}")


def _of_corpus(path: Path) -> SignatureSource:
    corpus = read_corpus(path)

    def parts() -> Iterator[Signatures]:
        first = 0
        for block in corpus.blocks:
            rows = slice(first, first + len(block))
            first += len(block)
            yield Signatures(corpus.perturbations[rows].tolist(), corpus.cell_lines[rows].tolist(), block)

    return SignatureSource(path.stem, corpus.genes, parts)
