"""What the labels of cells mean: which gene is perturbed, in the conventions of several collections of screens.

| collection | column | control | several genes |
|---|---|---|---|
| GEARS | `condition` | `ctrl` | `A+B`; singles `A+ctrl`, `ctrl+A` |
| scPerturb | `perturbation` | `control` | `A_B`, counted in `nperts` |
| PerturBench | `condition` | `control` | `A+B` |
| cell-eval, Arc | `target_gene`, `target` | `non-targeting` | `A+B` |
| Replogle | `gene` | `non-targeting` | |
| guides | `guide`, ... | by a table of guides | by `nperts` or `+` |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from histpert.errors import InputError, UnfitError
from histpert.name_tables import read_name_table
from histpert.wording import every

__all__ = ["Labels", "read_labels"]

COLUMNS = ("perturbation", "condition", "target_gene", "target", "gene")
"""Columns of `obs` that are taken for the perturbed gene, in the order tried; the first with control cells counts."""
GUIDE_COLUMNS = ("guide", "guide_id", "guide_identity", "sgRNA", "sgrna", "gRNA", "grna")
"""Those that are tried first where a table of guides is given."""
CONTROLS = ("control", "ctrl", "non-targeting", "non_targeting", "nontargeting", "nt")
"""What control cells are called, in any case."""
N_PERTURBED = "nperts"
"""Column of `obs` with the number of perturbed genes; where it is more than 1, `_` stands between them."""


class Labels(NamedTuple):
    """What is perturbed in each cell."""

    targets: list[str | None]
    """Per cell the gene, `""` for control, None without a label; several genes are joined by `+` in the order of their
    names, or None where they are not wanted."""
    column: str
    """Where that was read."""
    controls: tuple[str, ...]
    """What control cells are called there."""
    notes: tuple[str, ...]


def read_labels(
    obs: pd.DataFrame,
    kept: np.ndarray,
    column: str | None,
    control: str | None,
    guide_table: Path | None,
    path: Path,
    combinations: bool = False,
) -> Labels:
    """Find the column of perturbations and say what each of the kept cells is.

    Args:
        obs: Cells of the whole file.
        kept: Rows of the cells that are used.
        column: The column; guessed by default.
        control: What control cells are called there; guessed by default.
        guide_table: Table (csv, tsv) of guides and their targets, in columns `guide` and `target` or in the first two.
        path: Of the screen, for errors.
        combinations: Whether cells with several perturbed genes are wanted.

    Raises:
        InputError: No such column, no control cells in it (`UnfitError`), or a table of other guides.
    """
    notes = []
    labels = {name: _words(obs[name]) for name in _candidates(obs, column, guide_table, path)}
    if guide_table is not None:
        targets = _targets_of_guides(guide_table)
        labels = {name: values.map(targets) for name, values in labels.items()}
        labels = {name: values for name, values in labels.items() if values.notna().any()}
        if not labels:
            raise InputError(
                f"{guide_table} has none of the guides in {path}: name their column with --perturbation-column; "
                f"columns of obs: {every(obs)}"
            )
    name, controls = _with_control(labels, control, path)
    notes.append(f"perturbation column {name!r}, control label {', '.join(map(repr, controls))}")
    values = labels[name].iloc[kept]
    if guide_table is not None:
        n_unknown = int((obs[name].iloc[kept].notna() & values.isna()).sum())
        notes.append(
            f"targets of guides from {guide_table.name}" + (f"; {n_unknown:,} cells lack one" if n_unknown else "")
        )
    codes, words = pd.factorize(values)
    kinds, kind, n_cells = np.unique(2 * codes + _several(obs, kept), return_inverse=True, return_counts=True)
    pairs = zip(*(part.tolist() for part in divmod(kinds, 2)), strict=True)
    genes = [_parts("" if code < 0 else str(words[code]), several == 1, controls) for code, several in pairs]
    most = max(map(len, filter(None, genes)), default=1) if combinations else 1
    targets = [None if several is None or len(several) > most else "+".join(sorted(several)) for several in genes]
    left_out = _left_out(genes, n_cells.tolist(), most)
    return Labels(np.array(targets, dtype=object)[kind].tolist(), name, controls, (*notes, *left_out))


def _candidates(obs: pd.DataFrame, column: str | None, guide_table: Path | None, path: Path) -> list[str]:
    if column is not None:
        if column not in obs:
            raise InputError(f"{path} has no column {column!r} in obs; columns there: {every(obs)}")
        return [column]
    names = [name for name in (*(GUIDE_COLUMNS if guide_table else ()), *COLUMNS) if name in obs]
    if not names:
        raise InputError(
            f"{path}: no perturbation column was recognized; name it with --perturbation-column; "
            f"columns of obs: {every(obs)}"
        )
    return names


def _targets_of_guides(path: Path) -> dict[str, str]:
    table = read_name_table(path, "--guide-table")
    names = ("guide", "target") if {"guide", "target"} <= set(table.columns) else tuple(table.columns[:2])
    pairs = table[list(names)].drop_duplicates()
    twice = pairs[names[0]][pairs[names[0]].duplicated()]
    if len(twice):
        raise InputError(
            f"{path}: guide {twice.iloc[0]!r} has more than one target (--guide-table); keep one row of it"
        )
    return dict(zip(pairs[names[0]], pairs[names[1]], strict=True))


def _with_control(labels: dict[str, pd.Series], control: str | None, path: Path) -> tuple[str, tuple[str, ...]]:
    """The first column with control cells, and what they are called."""
    for name, values in labels.items():
        present = sorted(set(values.dropna().astype(str)))
        controls = tuple(
            label for label in present if (label == control if control else label.strip().lower() in CONTROLS)
        )
        if controls:
            return name, controls
    name, values = next(iter(labels.items()))
    wanted = repr(control) if control else "'control', 'ctrl' or 'non-targeting'"
    counts = values.astype(str)[values.notna()].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    common = ", ".join(counts.index[:5]) or "none, no cell has a label"
    raise UnfitError(
        f"{path}: column {name!r} has no control cells labelled {wanted}; name the label with --control-label; "
        f"most common: {common}"
    )


def _words(column: pd.Series) -> pd.Series:
    words = column.astype(object)
    return words.map(lambda word: word.decode() if isinstance(word, bytes) else word) if len(words) else words


def _several(obs: pd.DataFrame, kept: np.ndarray) -> np.ndarray:
    """Which cells have more than one perturbed gene by their own column."""
    if N_PERTURBED not in obs:
        return np.zeros(len(kept), dtype=bool)
    return pd.to_numeric(obs[N_PERTURBED].iloc[kept], errors="coerce").to_numpy(dtype=float, na_value=np.nan) > 1


def _parts(label: str, several: bool, controls: Sequence[str]) -> frozenset[str] | None:
    """The perturbed genes of a label, without what stands for control; None without a label."""
    if label in controls:
        return frozenset()
    parts = label.replace("_", "+").split("+") if several else label.split("+")
    named = frozenset(part.strip() for part in parts) - {""}
    return named - set(controls) if named else None


def _left_out(genes: Sequence[frozenset[str] | None], n_cells: Sequence[int], most: int) -> list[str]:
    """A note for each kind of cell that is not used."""
    notes, n_unlabelled = [], 0
    combined: dict[frozenset[str], int] = {}
    for perturbed, size in zip(genes, n_cells, strict=True):
        if perturbed is None:
            n_unlabelled += size
        elif len(perturbed) > most:
            combined[perturbed] = combined.get(perturbed, 0) + size
    if combined:
        notes.append(f"left out {len(combined):,} combinations of perturbations ({sum(combined.values()):,} cells)")
    if n_unlabelled:
        notes.append(f"left out {n_unlabelled:,} cells without a label")
    return notes
