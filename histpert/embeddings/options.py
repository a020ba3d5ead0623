"""What a user may say about embeddings besides where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from histpert.command_line import absolute

__all__ = ["EmbeddingOptions"]


@dataclass(frozen=True)
class EmbeddingOptions:
    """Tables that tell which gene a name belongs to."""

    embedding_ids: Path | None = None
    """Table (.csv, .tsv, .txt; a header) whose first two columns are the names in an embedding file, such as UniProt
    accessions, and their gene symbols; the complete set of HGNC is taken as it is."""
    aliases: Path | None = None
    """Table with columns symbol, alias_symbol, prev_symbol, as the complete set of HGNC: perturbations are also found
    under their earlier and other names."""

    def __post_init__(self):
        for name in ("embedding_ids", "aliases"):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, absolute(path, f"--{name.replace('_', '-')}"))
