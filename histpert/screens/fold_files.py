"""Folds as a file, `perturbation,fold`, so that methods that run elsewhere train and are scored on the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from histpert.errors import InputError
from histpert.name_tables import read_name_table
from histpert.results import write_atomically
from histpert.wording import some

__all__ = ["fold_fingerprint", "folds_of", "read_fold_file", "write_fold_file"]

COLUMNS = ["perturbation", "fold"]


def write_fold_file(path: Path, perturbations: Sequence[str], folds: Int[np.ndarray, "perturbation"]) -> None:
    """Write a row for each perturbation that is held out, with the number of the fold that does so.

    Raises:
        InputError: The file cannot be written, or is none that can be read again.
    """
    if path.suffix != ".csv":
        raise InputError(f"{path}: folds are written as .csv, name a file that ends so")
    table = pd.DataFrame({"perturbation": perturbations, "fold": folds})
    try:
        write_atomically(path, lambda beside: table.to_csv(beside, index=False))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name another file") from error


def read_fold_file(path: Path) -> dict[str, int]:
    """The fold of each perturbation of the file, numbered from 0 without a gap.

    Raises:
        InputError: The file is no such table.
    """
    table = read_name_table(path, "--folds-file")
    if lacking := [name for name in COLUMNS if name not in table]:
        raise InputError(f"--folds-file {path} has no column {', '.join(lacking)}: it takes perturbation and fold")
    names, numbers = table["perturbation"], table["fold"]
    if not numbers.str.fullmatch(r"\d{1,6}").all():
        wrong = numbers[~numbers.str.fullmatch(r"\d{1,6}")].iloc[0]
        raise InputError(f"--folds-file {path}: fold {wrong!r} is no number from 0 on")
    if names.duplicated().any():
        raise InputError(f"--folds-file {path}: {some(names[names.duplicated()].unique())} twice; each has one fold")
    folds = dict(zip(names, map(int, numbers), strict=True))
    n_folds = max(folds.values()) + 1
    if empty := sorted(set(range(n_folds)) - set(folds.values())):
        raise InputError(f"--folds-file {path}: nothing is in fold {some(map(str, empty))} of 0 to {n_folds - 1}")
    if n_folds < 2:
        raise InputError(f"--folds-file {path}: cross-validation needs at least 2 folds")
    return folds


def folds_of(
    folds: dict[str, int], perturbations: Sequence[str], path: Path, trained_on: bool = False
) -> Int[np.ndarray, "perturbation"]:
    """The folds of a screen's perturbations; others of the file are passed over.

    Args:
        folds: Of the file.
        perturbations: Of the screen.
        path: The file.
        trained_on: Whether those that the file does not name have the number after the last fold, and are trained on
            in every one.

    Raises:
        InputError: One has none, or a fold has none of them.
    """
    lacking = [name for name in perturbations if name not in folds]
    if lacking and not trained_on:
        raise InputError(
            f"--folds-file {path} has no fold for {len(lacking)} perturbations of the screen: {some(lacking)}"
        )
    after = max(folds.values()) + 1
    found = np.array([folds.get(name, after) for name in perturbations], dtype=np.int64)
    if empty := sorted(set(folds.values()) - set(found.tolist())):
        raise InputError(
            f"--folds-file {path}: fold {some(map(str, empty))} holds out no perturbation of the screen that has an "
            "embedding"
        )
    return found


def fold_fingerprint(perturbations: Sequence[str], folds: Int[np.ndarray, "perturbation"]) -> str:
    """The same for the same perturbations in the same folds, in whatever order they stand."""
    rows = sorted(f"{name},{fold}" for name, fold in zip(perturbations, folds.tolist(), strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
