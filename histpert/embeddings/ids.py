"""Gene symbols for files that name their vectors by UniProt accession or Ensembl id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from histpert.embeddings.aliases import names_in
from histpert.embeddings.rows import Rows
from histpert.errors import InputError
from histpert.name_tables import read_name_table
from histpert.wording import some

__all__ = ["IdTable"]

_FLAG = "--embedding-ids"
_HGNC_IDS = ("uniprot_ids", "ensembl_gene_id")


@dataclass(frozen=True)
class IdTable:
    """Which gene each id belongs to.

    Attributes:
        path: The table.
        ids_of: Ids of each gene, genes and ids in the order of the table.
        header: Name of the column of ids.
    """

    path: Path
    ids_of: dict[str, list[str]]
    header: str

    @classmethod
    def read(cls, path: Path) -> IdTable:
        """From the first two columns, or from those of the HGNC where the table has them; InputError where not."""
        table = read_name_table(path, _FLAG)
        columns = [name for name in _HGNC_IDS if name in table.columns and "symbol" in table.columns]
        symbols = table["symbol"] if columns else table.iloc[:, 1]
        ids_of: dict[str, list[str]] = {}
        for column in [table[name] for name in columns] or [table.iloc[:, 0]]:
            _collect(ids_of, column, symbols)
        if not ids_of:
            raise InputError(f"{_FLAG} {path}: no row has both a name and a gene symbol in its first two columns")
        return cls(path, ids_of, columns[0] if columns else str(table.columns[0]))

    def rename(self, source: Path, rows: Rows, notes: list[str]) -> Rows:
        """Rows by gene symbol, in the order of the table; as they are where they are named by symbols already.

        A source is renamed where the table has more of its names as ids than as symbols. What was done is added to
        `notes`.

        Raises:
            InputError: The table has none of the names.
        """
        row = {name: number for number, name in enumerate(rows.names)}
        if self.header in row:
            raise InputError(f"{_FLAG} {self.path}: its first line is {self.header!r}, a name: it needs a header")
        present = {gene: [name for name in ids if name in row] for gene, ids in self.ids_of.items()}
        present = {gene: ids for gene, ids in present.items() if ids}
        ids_found = len({name for ids in present.values() for name in ids})
        symbols_found = len(row.keys() & self.ids_of.keys())
        if not ids_found and not symbols_found:
            raise InputError(
                f"{source}: none of its names ({some(rows.names, 3)}) is in {_FLAG} {self.path}, "
                f"which has {some((ids[0] for ids in self.ids_of.values()), 3)}"
            )
        if ids_found <= symbols_found:
            notes.append(f"{source.name} is named by gene symbols already: {self.path.name} was not applied to it")
            return rows
        self._tell(source, len(row), ids_found, present, notes)
        return Rows(list(present), rows.vectors[[row[ids[0]] for ids in present.values()]])

    def _tell(self, source: Path, names: int, ids_found: int, present: dict[str, list[str]], notes: list[str]) -> None:
        notes.append(
            f"{source.name}: {ids_found:,} of {names:,} names belong to {len(present):,} genes of {self.path.name}; "
            f"the others were left out"
        )
        several = [f"{gene} {ids[0]} (not {', '.join(ids[1:])})" for gene, ids in present.items() if len(ids) > 1]
        if several:
            notes.append(
                f"{source.name}: of several names of one gene, the first in {self.path.name} was taken: {some(several)}"
            )


def _collect(ids_of: dict[str, list[str]], ids: pd.Series, symbols: pd.Series) -> None:
    for cell, symbol in zip(ids, symbols, strict=True):
        gene = symbol.strip()
        for name in names_in(cell) if gene else []:
            if name not in ids_of.setdefault(gene, []):
                ids_of[gene].append(name)
