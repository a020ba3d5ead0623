"""Tasks that ask what embeddings tell about genes: labels of genes, gene sets, and pairs of genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from histpert.errors import InputError
from histpert.gene_sets import read_gene_sets
from histpert.name_tables import read_tidy_table
from histpert.wording import some

__all__ = ["LabelTask", "PairTask", "TaskOptions", "read_tasks", "task_name"]

_PAIR = ("gene_a", "gene_b")
_PAIR_LABELS = ("label", "interacts")


@dataclass(frozen=True)
class TaskOptions:
    """Which tasks are made of files."""

    min_genes: int = 20
    """Gene sets with at least as many of the shared genes, and as many others, are tasks."""
    max_sets: int = 20
    """The most sets of a file, the largest first; sets of the same genes count once."""
    max_pairs: int = 20_000
    """The most pairs of a file; of more, so many are drawn."""

    def __post_init__(self):
        for name in ("min_genes", "max_sets", "max_pairs"):
            if getattr(self, name) < 2 - (name == "max_sets"):
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be more")


@dataclass(frozen=True)
class LabelTask:
    """Classes of genes.

    Attributes:
        name: For tables.
        genes: Places in the shared genes.
        labels: The number of each gene's class.
        classes: Names, those of a table sorted; of two, the second is the one that is looked for: 1 of 0 and 1.
        notes: What was left out.
    """

    name: str
    genes: Int[np.ndarray, "gene"]
    labels: Int[np.ndarray, "gene"]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairTask:
    """Pairs of genes that go together, or do not.

    Attributes:
        name: For tables.
        pairs: Places in the shared genes.
        labels: 1 where they do.
        notes: What was left out.
    """

    name: str
    pairs: Int[np.ndarray, "pair 2"]
    labels: Int[np.ndarray, "pair"]
    notes: tuple[str, ...] = ()


def task_name(given: str) -> str:
    """What `NAME=FILE` is called; a file without a name by its own, up to the first dot."""
    name, _, file = given.rpartition("=")
    return name or Path(file).name.split(".")[0]


def read_tasks(given: str, genes: Sequence[str], options: TaskOptions, seed: int) -> list[LabelTask] | list[PairTask]:
    """Tasks of a file: `.gmt` sets, each against the other genes of the file; or a table (.csv, .tsv, .parquet).

    A table has columns `gene` (or `symbol`) and `label`, or `gene_a`, `gene_b` and `label` (or `interacts`), 0 or 1.

    Args:
        given: `FILE` or `NAME=FILE`.
        genes: That all sources of embeddings share.
        options: Limits.
        seed: Of the pairs that are drawn.

    Raises:
        InputError: The file cannot be used, has none of the genes, or fewer than two classes of two of them.
    """
    name, path = task_name(given), Path(given.rpartition("=")[2])
    place = {gene: number for number, gene in enumerate(genes)}
    if path.suffix.lower() == ".gmt":
        return _of_sets(name, path, place, options)
    table = read_tidy_table(path, "--labels", "labels")
    if set(_PAIR) <= set(table.columns):
        return [_of_pairs(name, path, table, place, options, seed)]
    return [_of_labels(name, path, table, place)]


def _of_sets(name: str, path: Path, place: dict[str, int], options: TaskOptions) -> list[LabelTask]:
    sets = read_gene_sets(path)
    every = np.array(sorted({place[gene] for members in sets.values() for gene in members if gene in place}), int)
    inside = {one: frozenset(place[gene] for gene in members if gene in place) for one, members in sets.items()}
    least = options.min_genes
    usable = {one: members for one, members in inside.items() if least <= len(members) <= len(every) - least}
    if not usable:
        largest = max(map(len, inside.values()))
        raise InputError(
            f"{path}: no gene set has {least} of the {len(place):,} genes that all sources share, and {least} others, "
            f"the largest has {largest}: lower --min-genes, or give sources with more genes"
        )
    first = {members: one for one, members in reversed(usable.items())}
    chosen = sorted(first, key=lambda members: (-len(members), first[members]))[: options.max_sets]
    notes = [
        f"{path.name}: {len(every):,} of the shared genes are in a set; {len(usable)} of {len(sets)} sets have "
        f"{least} or more of them" + (f", of which the {len(chosen)} largest are taken" * (len(chosen) < len(first)))
    ]
    tasks = []
    for number, members in enumerate(chosen):
        labels = np.isin(every, list(members)).astype(int)
        tasks.append(
            LabelTask(f"{name}: {first[members]}", every, labels, ("others", "in the set"), tuple(notes * (not number)))
        )
    return tasks


def _of_labels(name: str, path: Path, table: pd.DataFrame, place: dict[str, int]) -> LabelTask:
    column = next((one for one in ("gene", "symbol") if one in table.columns), None)
    if column is None or "label" not in table.columns:
        raise InputError(
            f"--labels {path} has columns {some(table.columns)}: it needs gene and label, or gene_a, gene_b and label"
        )
    labelled = table[[column, "label"]].dropna().astype(str)
    labelled = labelled[(labelled != "").all(axis=1)]
    twice = labelled[labelled.duplicated(column)]
    if len(twice):
        raise InputError(f"--labels {path}: gene {twice[column].iloc[0]} stands there twice: give each one label")
    known = labelled[labelled[column].isin(place)]
    _refuse_strangers(path, labelled[column], place)
    notes = [f"{name}: {len(table) - len(labelled):,} genes have no label"] * (len(labelled) < len(table))
    if len(known) < len(labelled):
        missing = labelled.loc[~labelled[column].isin(place), column]
        notes.append(
            f"{name}: {len(missing):,} of {len(labelled):,} genes have no embedding in all sources: {some(missing)}"
        )
    counts = known["label"].value_counts()
    small = sorted(counts.index[counts < 2])
    classes = tuple(sorted(counts.index[counts >= 2]))
    if len(classes) < 2:
        raise InputError(
            f"--labels {path}: of the genes that all sources share, {len(classes)} classes have two or more "
            f"({some(f'{one} {n}' for one, n in counts.items())}): a task needs two"
        )
    if small:
        notes.append(f"{name}: left out classes of one gene: {some(small)}")
    kept = known[known["label"].isin(classes)]
    number = {one: place_ for place_, one in enumerate(classes)}
    return LabelTask(
        name,
        np.array([place[gene] for gene in kept[column]], int),
        np.array([number[one] for one in kept["label"]], int),
        classes,
        tuple(notes),
    )


def _refuse_strangers(path: Path, named: pd.Series, place: dict[str, int]) -> None:
    if not named.isin(place).any():
        raise InputError(
            f"--labels {path}: none of its genes ({some(named.unique(), 3)}) is one that all sources share "
            f"({some(place, 3)}): name genes as the sources do"
        )


def _of_pairs(
    name: str, path: Path, table: pd.DataFrame, place: dict[str, int], options: TaskOptions, seed: int
) -> PairTask:
    column = next((one for one in _PAIR_LABELS if one in table.columns), None)
    if column is None:
        raise InputError(f"--labels {path} has columns {some(table.columns)}: pairs need a label, 0 or 1")
    labels = pd.to_numeric(table[column], errors="coerce")
    if not labels.isin([0, 1]).all():
        odd = table.loc[~labels.isin([0, 1]), column].iloc[0]
        raise InputError(f"--labels {path}: a pair has the {column} {odd!r}: it must be 0 or 1")
    _refuse_strangers(path, pd.concat([table[one] for one in _PAIR]), place)
    known = table[_PAIR[0]].isin(place) & table[_PAIR[1]].isin(place) & (table[_PAIR[0]] != table[_PAIR[1]])
    table = table.assign(label=labels)[known]
    pairs = np.array([[place[gene] for gene in table[one]] for one in _PAIR], int).T.reshape(-1, 2)
    first, n_unclear = _each_once(pairs, table["label"].to_numpy(int))
    notes = [f"{name}: {len(first):,} of {len(labels):,} pairs are of genes that all sources share, each once"]
    notes += [f"{name}: left out {n_unclear:,} pairs that are labelled both 0 and 1"] * (n_unclear > 0)
    if len(first) > options.max_pairs:
        first = np.sort(np.random.default_rng([seed, 7]).choice(first, options.max_pairs, replace=False))
        notes.append(f"{name}: {options.max_pairs:,} of them are drawn")
    found = PairTask(name, pairs[first], table["label"].to_numpy(int)[first], tuple(notes))
    n_positive = int(found.labels.sum())
    if min(n_positive, len(first) - n_positive) < 2:
        raise InputError(
            f"--labels {path}: of pairs of genes that all sources share, {n_positive} go together and "
            f"{len(first) - n_positive} do not: a task needs two of each"
        )
    return found


def _each_once(pairs: Int[np.ndarray, "row 2"], labels: Int[np.ndarray, "row"]) -> tuple[Int[np.ndarray, "pair"], int]:
    """First row of each pair, and how many pairs are left out as their rows contradict each other.

    A pair and its mirror image are one: it would be trained and tested on.
    """
    _, first, which = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True, return_inverse=True)
    n_rows = np.bincount(which.ravel(), minlength=len(first))
    n_together = np.bincount(which.ravel()[labels == 1], minlength=len(first))
    is_clear = (n_together == 0) | (n_together == n_rows)
    return np.sort(first[is_clear]), int((~is_clear).sum())
