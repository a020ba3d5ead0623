"""How alike genes of a class are in each source of embeddings, and tables from which their maps are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from histpert.errors import InputError
from histpert.perturbert.gene_classes import class_cosines, cosines, map_of_genes
from histpert.perturbert.gene_tasks import LabelTask, PairTask
from histpert.results import CLASS_SCHEMA, COSINE_SCHEMA, MAP_SCHEMA, write_table
from histpert.wording import every

__all__ = ["shown_task", "write_gene_maps"]

SHOWN = 40
"""The most genes of the class in the heat map, and as many others."""
FEW = 5
"""Genes below which there is no map."""


def shown_task(tasks: Sequence[LabelTask | PairTask], wanted: str | None) -> LabelTask | None:
    """The task whose class is shown, the first by default; None where no task is of labels.

    Raises:
        InputError: There is none of that name.
    """
    of_labels = {task.name: task for task in tasks if isinstance(task, LabelTask)}
    if wanted is not None and wanted not in of_labels:
        raise InputError(f"--classes {wanted}: give one of {every(of_labels)}")
    return of_labels[wanted] if wanted else next(iter(of_labels.values()), None)


def write_gene_maps(
    folder: Path,
    tasks: Sequence[LabelTask | PairTask],
    wanted: str | None,
    genes: Sequence[str],
    vectors: Mapping[str, Float[np.ndarray, "shared feature"]],
    n_permutations: int,
    seed: int,
) -> None:
    """Write `gene_classes.parquet` of all classes, and `gene_map.parquet` and `gene_cosines.parquet` of one.

    Args:
        folder: Of the study.
        tasks: All; those of labels have classes.
        wanted: As `shown_task`.
        genes: That all sources share.
        vectors: Of each source.
        n_permutations: Of the test.
        seed: Of all that is drawn.

    Raises:
        InputError: A table cannot be written.
    """
    shown = shown_task(tasks, wanted)
    if shown is None:
        return
    of_labels = [task for task in tasks if isinstance(task, LabelTask)]
    classes = [row for task in of_labels for row in _class_rows(task, vectors, n_permutations, seed)]
    points, pairs = _maps(shown, genes, vectors, seed)
    try:
        write_table(folder / "gene_classes.parquet", classes, CLASS_SCHEMA)
        write_table(folder / "gene_map.parquet", points, MAP_SCHEMA)
        write_table(folder / "gene_cosines.parquet", pairs, COSINE_SCHEMA)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): make room and run it again") from error


def _class_rows(
    task: LabelTask, vectors: Mapping[str, Float[np.ndarray, "shared feature"]], n_permutations: int, seed: int
) -> list[dict[str, Any]]:
    """Of two classes, the one that is looked for."""
    numbers = [1] if len(task.classes) == 2 else range(len(task.classes))
    rows = []
    for source, found in vectors.items():
        for number in numbers:
            is_member = task.labels == number
            result = class_cosines(found[task.genes], is_member, n_permutations, seed)
            about = {"source": source, "task": task.name, "gene_class": task.classes[number]}
            rows.append(
                {**about, "n_genes": int(is_member.sum()), "n_others": int((~is_member).sum())} | result._asdict()
            )
    return rows


def _maps(
    task: LabelTask, genes: Sequence[str], vectors: Mapping[str, Float[np.ndarray, "shared feature"]], seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    number = 1 if len(task.classes) == 2 else 0
    is_member = task.labels == number
    random = np.random.default_rng([seed, 11])
    chosen = [np.sort(random.permutation(np.flatnonzero(is_member == kind))[:SHOWN]) for kind in (True, False)]
    both = np.concatenate(chosen)
    names = [genes[int(place)] for place in task.genes]
    points, pairs = [], []
    for source, found in vectors.items():
        of_task = found[task.genes]
        about = {"source": source, "task": task.name, "gene_class": task.classes[number]}
        if len(of_task) >= FEW:
            for place, (x, y) in enumerate(map_of_genes(of_task, seed)):
                gene = {"gene": names[place], "is_member": bool(is_member[place])}
                points.append({**about, **gene, "x": float(x), "y": float(y)})
        similar = cosines(of_task)[np.ix_(both, both)]
        for row, one in enumerate(both.tolist()):
            for column, other in enumerate(both.tolist()):
                cosine = float(similar[row, column])
                pairs.append({**about, "gene_a": names[one], "gene_b": names[other], "cosine": cosine})
    return points, pairs
