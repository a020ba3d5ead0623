"""Approved, earlier and other symbols of genes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from histpert.errors import InputError
from histpert.name_tables import read_name_table
from histpert.wording import some

__all__ = ["AliasTable", "names_in"]

_FLAG = "--aliases"


@dataclass(frozen=True)
class AliasTable:
    """Which genes a symbol may stand for.

    Attributes:
        names_of: All symbols of each gene, by its approved one.
        genes_of: Approved symbols of the genes that each earlier or other symbol may stand for.
    """

    names_of: dict[str, list[str]]
    genes_of: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> AliasTable:
        """From the columns symbol, alias_symbol and prev_symbol; InputError where they are not there."""
        table = read_name_table(path, _FLAG)
        lacking = [name for name in ("symbol", "alias_symbol", "prev_symbol") if name not in table.columns]
        if lacking:
            raise InputError(
                f"{_FLAG} {path} has no column {', '.join(lacking)}; it has {some(table.columns)}: "
                f"name them as in the complete set of HGNC"
            )
        names_of: dict[str, list[str]] = {}
        genes_of: dict[str, list[str]] = {}
        for cell, earlier, others in zip(table["symbol"], table["prev_symbol"], table["alias_symbol"], strict=True):
            symbol = cell.strip()
            names = names_of.setdefault(symbol, [])
            for name in dict.fromkeys(names_in(earlier) + names_in(others)):
                names.append(name)
                genes_of.setdefault(name, []).append(symbol)
        return cls(names_of, genes_of)

    def genes(self, name: str) -> tuple[str, ...]:
        """Approved symbols of the genes that a name may stand for: an approved symbol stands for its own gene."""
        return (name,) if name in self.names_of else tuple(dict.fromkeys(self.genes_of.get(name, ())))

    def names(self, symbol: str) -> tuple[str, ...]:
        """Symbols that stand for this gene and for no other, the approved one first."""
        others = [name for name in self.names_of[symbol] if self.genes(name) == (symbol,)]
        return (symbol, *dict.fromkeys(others))


def names_in(cell: str) -> list[str]:
    """The names in a cell of an HGNC table, which stand between `|`."""
    return [name for name in (part.strip() for part in cell.split("|")) if name]
