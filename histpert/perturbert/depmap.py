"""Gene dependency of cancer cell lines, in the layout of DepMap's files, or simulated.

An effect says how a line's growth changes without a gene: about 0 where it does not, about -1 where the gene is
essential (Chronos).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from jaxtyping import Float

from histpert.embeddings import GeneEmbeddings
from histpert.errors import InputError
from histpert.wording import reason, some

__all__ = ["INFORMATIVE", "PERMUTED", "DepMap", "read_depmap", "simulate_depmap"]

FEWEST_LINES = 10
"""One of them is to test on, and one to stop on."""

INFORMATIVE = "Informative"
"""The simulated source that knows what genes do, in part."""
PERMUTED = "Permuted"
"""The same vectors, each given to another gene."""

_GENE = re.compile(r"(\S+) \([^()]*\)$")
_LINE, _IS_DEFAULT = "ModelID", "IsDefaultEntryForModel"
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_BLOCK = 1 << 25  # bytes: a row of all genes is some 0.3 MB


@dataclass(frozen=True)
class DepMap:
    """Effects of genes on lines, and the lines' expression.

    Attributes:
        lines: Names.
        genes: Symbols of the genes that were knocked out.
        effects: Float32; NaN where none was measured.
        expression: Of any genes, log2(TPM + 1), float32.
        notes: What reading left out.
    """

    lines: tuple[str, ...]
    genes: tuple[str, ...]
    effects: Float[np.ndarray, "line gene"]
    expression: Float[np.ndarray, "line expressed"]
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 of names and values."""
        digest = hashlib.sha256("\0".join((*self.lines, "", *self.genes)).encode())
        for values in (self.effects, self.expression):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


class _Table(NamedTuple):
    lines: list[str]
    genes: list[str]
    values: Float[np.ndarray, "line gene"]


def read_depmap(effects: Path, expression: Path, genes: Sequence[str]) -> DepMap:
    """Read `CRISPRGeneEffect.csv` and DepMap's table of expression, for the lines that are in both.

    Both have a row per line and columns such as `A1BG (1)`, a symbol and an identifier. The line is the column
    `ModelID`, in older releases the first one. Since 2025 an expression table has rows of several experiments of a
    line, with other columns about them: those that `IsDefaultEntryForModel` marks are taken.

    Args:
        effects: `.csv` or `.csv.gz`.
        expression: Likewise.
        genes: Those whose effects are wanted; others are not read.

    Raises:
        InputError: A file cannot be read, a line stands twice, the files share fewer than ten lines, or none of
            `genes` is there.
    """
    effect, expressed = _read(effects, "--effects", genes), _read(expression, "--expression")
    lines = sorted(set(effect.lines) & set(expressed.lines))
    if len(lines) < FEWEST_LINES:
        raise InputError(
            f"--effects {effects} ({some(effect.lines, 3)}) and --expression {expression} ({some(expressed.lines, 3)}) "
            f"share {len(lines)} lines: give files of one release, with {FEWEST_LINES} or more"
        )
    both = DepMap(tuple(lines), tuple(effect.genes), _of(effect, lines), _of(expressed, lines))
    measured = np.asarray(np.isfinite(both.effects).any(axis=0))
    known = np.asarray(np.isfinite(both.expression).all(axis=0))
    if not measured.any() or not known.any():
        what = f"--expression {expression}: every gene lacks" if measured.any() else f"--effects {effects}: all lack"
        raise InputError(f"{what} values in the {len(lines)} lines that both files have")
    notes = [
        f"{len(lines):,} lines are in both files ({len(effect.lines):,} with effects, {len(expressed.lines):,} with "
        f"expression); {measured.sum():,} of {len(genes):,} genes have effects, "
        f"{np.isnan(both.effects[:, measured]).mean():.2%} of them missing"
    ]
    if not known.all():
        notes.append(f"left out the expression of {(~known).sum():,} genes that some lines lack")
    kept = tuple(gene for gene, is_there in zip(both.genes, measured, strict=True) if is_there)
    return replace(
        both,
        genes=kept,
        effects=np.ascontiguousarray(both.effects[:, measured]),
        expression=np.ascontiguousarray(both.expression[:, known]),
        notes=tuple(notes),
    )


def _read(path: Path, option: str, wanted: Sequence[str] | None = None) -> _Table:
    """Rows of the lines' default entries, columns of the genes wanted, which is all of them by default."""
    if not path.is_file():
        raise InputError(f"{option} {path} {'is a folder' if path.is_dir() else 'does not exist'}: it takes a .csv")
    try:
        header = pacsv.open_csv(path, pacsv.ReadOptions(block_size=_BLOCK)).schema.names
        columns = _gene_columns(path, option, header, wanted)
        about = [_LINE if _LINE in header else header[0], *([_IS_DEFAULT] if _IS_DEFAULT in header else [])]
        types = dict.fromkeys(about, pa.string()) | dict.fromkeys(columns.values(), pa.float32())
        how = pacsv.ConvertOptions(include_columns=[*about, *columns.values()], column_types=types)
        table = pacsv.read_csv(path, pacsv.ReadOptions(block_size=_BLOCK), convert_options=how)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{option} {path} cannot be read as a .csv: {reason(error)}") from error
    values = np.empty((table.num_rows, len(columns)), dtype=np.float32)
    for number, column in enumerate(columns.values()):
        values[:, number] = table[column].to_numpy()
    lines = [str(name) for name in table[about[0]].to_pylist()]
    rows = _default_rows(path, option, table[_IS_DEFAULT].to_pylist()) if len(about) > 1 else np.arange(len(lines))
    lines = [lines[row] for row in rows]
    if twice := sorted({name for name in lines if lines.count(name) > 1}):
        raise InputError(f"{option} {path}: the line {twice[0]} stands there twice: keep one of its rows")
    return _Table(lines, list(columns), values[rows])


def _gene_columns(path: Path, option: str, header: Sequence[str], wanted: Sequence[str] | None) -> dict[str, str]:
    """Names of columns by gene."""
    found = [(match[1], name) for name in header if (match := _GENE.match(name))]
    if not found:
        raise InputError(
            f"{option} {path}: no column is named as A1BG (1), a symbol and an identifier; it has {some(header)}: "
            "give a file as DepMap has it, a row per line"
        )
    columns = dict(found)
    if len(columns) < len(found):
        names = [gene for gene, _ in found]
        twice = next(gene for number, gene in enumerate(names) if gene in names[:number])
        raise InputError(f"{option} {path}: the gene {twice} has two columns: keep one")
    if wanted is None:
        return columns
    kept = {gene: columns[gene] for gene in sorted(set(wanted) & set(columns))}
    if not kept:
        raise InputError(
            f"{option} {path}: none of its genes ({some(columns, 3)}) has an embedding; there are {some(wanted, 3)}: "
            "--embedding-ids translates accessions to genes"
        )
    return kept


def _default_rows(path: Path, option: str, marks: Sequence[str | None]) -> np.ndarray:
    said = [str(mark).strip().lower() for mark in marks]
    if unknown := sorted(set(said) - set(_YES)):
        raise InputError(f"{option} {path}: {_IS_DEFAULT} is {some(unknown, 1)} in a row, and must be Yes or No")
    return np.flatnonzero([_YES[mark] for mark in said])


def _of(table: _Table, lines: Sequence[str]) -> np.ndarray:
    row = {line: number for number, line in enumerate(table.lines)}
    return table.values[[row[line] for line in lines]]


def simulate_depmap(
    seed: int, n_lines: int = 120, n_genes: int = 400, n_expressed: int = 300
) -> tuple[DepMap, dict[str, GeneEmbeddings]]:
    """Lines whose effects follow from factors of genes and of lines, in part, and two sources of embeddings.

    A gene's own essentiality has 85% of the variance of effects, and follows for the most part from its factors. What
    factors of line and gene make together has 5%, noise the rest. Expression shows the factors of lines among others,
    which have nothing to do with effects; the source `INFORMATIVE` shows those of genes likewise. `PERMUTED` has its
    vectors for other genes. One effect in a hundred is missing. The shares are such that a hundred lines show what
    embeddings tell: with more of the variance made together, or more lines to learn each gene from, no source was
    better than another on held-out lines.

    Args:
        seed: Of all that is drawn.
        n_lines: Cell lines.
        n_genes: Genes that are knocked out.
        n_expressed: Genes of the expression table.
    """
    rng = np.random.default_rng([seed, 4])
    of_line, of_gene = rng.standard_normal((n_lines, 3)), rng.standard_normal((n_genes, 3))
    told = of_gene @ np.array([0.8, 0.6, 0.0])
    essentiality = -np.exp(0.6 * (np.sqrt(0.7) * told + np.sqrt(0.3) * rng.standard_normal(n_genes)))
    own = _standard(essentiality) * np.sqrt(0.85)
    together = _standard(of_line @ of_gene.T) * np.sqrt(0.05)
    effects = 0.5 * (own + together + rng.normal(0, np.sqrt(0.1), (n_lines, n_genes)))
    effects[rng.random((n_lines, n_genes)) < 0.01] = np.nan
    genes = tuple(f"GENE{number + 1}" for number in range(n_genes))
    vectors = _shown(rng, of_gene, 64)
    depmap = DepMap(
        tuple(f"ACH-{number + 1:06}" for number in range(n_lines)),
        genes,
        effects.astype(np.float32),
        np.clip(3 + _shown(rng, of_line, n_expressed), 0, None),
        (f"SIMULATED, not measured: {n_lines} lines x {n_genes} genes",),
    )
    permuted = vectors[rng.permutation(n_genes)]
    return depmap, {name: GeneEmbeddings(name, genes, v) for name, v in ((INFORMATIVE, vectors), (PERMUTED, permuted))}


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _shown(rng: np.random.Generator, factors: np.ndarray, n_features: int) -> np.ndarray:
    """Features that mix the factors with ten others of falling size, and noise of each feature."""
    n, n_factors = factors.shape
    sizes = np.concatenate([np.ones(n_factors), 1 / np.arange(1, 11)])
    all_factors = np.concatenate([factors, rng.standard_normal((n, 10))], axis=1) * sizes
    mixed = all_factors @ rng.standard_normal((len(sizes), n_features)) / np.sqrt(np.square(sizes).sum())
    return (mixed + rng.normal(0, 0.3, (n, n_features))).astype(np.float32)
