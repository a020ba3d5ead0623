"""What do gene embeddings tell about genes?

Logistic regression on frozen embeddings, cross-validated: classes of genes, gene sets, and pairs of genes that go
together, beside random embeddings and, for pairs, how often a gene is in one. A map and a heat map show a class of
genes, and a permutation test how alike its genes are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from analysis.gene_properties import draw_gene_properties
from histpert.command_line import absolute
from histpert.embeddings import EmbeddingOptions, GeneEmbeddings
from histpert.errors import InputError
from histpert.perturbert.gene_classes import require_umap
from histpert.perturbert.gene_properties import FORMS, SPLITS, label_scores, pair_scores
from histpert.perturbert.gene_tasks import LabelTask, PairTask, TaskOptions, read_tasks, task_name
from histpert.results import PROPERTY_SCHEMA, RANDOM
from studies.data import check_writable
from studies.gene_maps import shown_task, write_gene_maps
from studies.options import Outcome, run_script
from studies.simulated_genes import simulated_genes
from studies.sources import checked_sources, random_embeddings, read_sources, shared_genes
from studies.units import Unit, UnitOptions, run_units

NAME = "gene_properties"
DEGREE = "Degree"
"""Not a source of embeddings: how often each gene is in a training pair of each kind."""


@dataclass(frozen=True)
class GeneProperties(UnitOptions):
    """Options of the study."""

    sources: tuple[str, ...] = ()
    """Embeddings to compare, each NAME=FILE, or NAME=FILE+FILE for files to be joined: on the genes that all have.
    Default: simulated ones."""
    labels: tuple[str, ...] = ()
    """Tasks, each FILE or NAME=FILE: tables of gene and label, of gene_a, gene_b and label (.csv, .tsv, .parquet), or
    gene sets (.gmt), each of them a task. Of two labels, precision and recall are of the last one in sorted order."""
    names: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    tasks: TaskOptions = field(default_factory=TaskOptions)
    folds: int = 20
    """Folds of tasks of labels, fewer where a class has fewer genes."""
    pair_folds: int = 5
    """Folds of tasks of pairs."""
    classes: str | None = None
    """Task whose first class is shown on maps, the second where there are two; default: the first task of labels."""
    permutations: int = 10_000
    """Of the test how alike genes of a class are."""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "sources", checked_sources(self.sources))
        if DEGREE in {given.rpartition("=")[0] for given in self.sources}:
            raise InputError(f"--sources: {DEGREE} is a name of ours: give another")
        parts = (given.rpartition("=") for given in self.labels)
        labels = tuple(f"{name}{sign}{absolute(file, '--labels')}" for name, sign, file in parts)
        object.__setattr__(self, "labels", labels)
        names = [task_name(one) for one in labels]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"--labels: several files are named {min(twice)}: give each a name, NAME=FILE")
        if bool(self.sources) != bool(self.labels):
            raise InputError("give --sources and --labels, or neither for simulated ones")
        if min(self.folds, self.pair_folds) < 2 or self.permutations < 1:
            raise InputError("--folds and --pair-folds must be 2 or more, --permutations 1 or more")


def main(options: GeneProperties, before: Mapping[str, Any] | None = None) -> Outcome:
    """Score all sources on all tasks, and write tables and figures."""
    if options.smoke:
        options = replace(options, folds=5, pair_folds=2, permutations=500, tasks=replace(options.tasks, max_sets=2))
    check_writable(options.out, NAME)
    given = options
    if not options.sources:
        options = replace(options, **simulated_genes(options.out / NAME / "simulated", options.seed))
    sources = read_sources(options.sources, options.names)
    genes = shared_genes(sources)
    width = max(source.vectors.shape[1] for source in sources.values())
    sources[RANDOM] = random_embeddings(genes, width, options.seed)
    print(f"{len(genes):,} genes are in all of {len(sources) - 1} sources", flush=True)
    tasks = [task for one in options.labels for task in read_tasks(one, genes, options.tasks, options.seed)]
    for note in (note for task in tasks for note in task.notes):
        print(f"  {note}", flush=True)
    if shown_task(tasks, options.classes):
        require_umap()
    vectors = {name: source.lookup(genes) for name, source in sources.items()}
    prints = {name: GeneEmbeddings(name, genes, found).fingerprint() for name, found in vectors.items()}
    units = units_of(options, tasks, prints)
    inputs = {f"embeddings {name}": digest for name, digest in prints.items()}
    inputs |= {f"labels {task_name(one)}": _digest(one) for one in options.labels}
    study = run_units(NAME, given, units, PROPERTY_SCHEMA, inputs=inputs, shared=vectors, before=before)
    print(f"cosines within classes, with {options.permutations:,} permutations each, and maps", flush=True)
    write_gene_maps(study.folder, tasks, options.classes, genes, vectors, options.permutations, options.seed)
    return study.report(draw_gene_properties(study.folder, study.folder) if study.has_results else [])


def units_of(options: GeneProperties, tasks: list[LabelTask | PairTask], prints: Mapping[str, str]) -> list[Unit]:
    """A unit for each source and task, of pairs for each form and split; those of pairs take longest."""
    units = []
    for task in sorted(tasks, key=lambda task: isinstance(task, LabelTask)):
        is_pairs = isinstance(task, PairTask)
        for source in (*prints, *([DEGREE] if is_pairs else [])):
            for form in FORMS if is_pairs else ("",):
                for split in SPLITS if is_pairs else ("",):
                    n_folds = options.pair_folds if is_pairs else options.folds
                    key = {"source": source, "task": task.name, "form": form, "split": split}
                    content = {
                        "embeddings": prints.get(source),
                        "task": _task_digest(task),
                        "folds": n_folds,
                        "seed": options.seed,
                    }
                    work = partial(scored, source=source, task=task, form=form, split=split)
                    units.append(Unit(key, content, partial(work, n_folds=n_folds, seed=options.seed)))
    return units


def scored(
    vectors: Mapping[str, Any], *, source: str, task: LabelTask | PairTask, form: Any, split: Any, **how: int
) -> list[dict[str, Any]]:
    """The scores of each fold."""
    if isinstance(task, LabelTask):
        return list(label_scores(vectors[source], task, how["n_folds"], how["seed"]))
    return list(pair_scores(vectors.get(source), task, form, split, how["n_folds"], how["seed"]))


def _task_digest(task: LabelTask | PairTask) -> str:
    places = task.genes if isinstance(task, LabelTask) else task.pairs
    return hashlib.sha256(places.tobytes() + task.labels.tobytes()).hexdigest()


def _digest(given: str) -> str:
    return hashlib.sha256(Path(given.rpartition("=")[2]).read_bytes()).hexdigest()


if __name__ == "__main__":
    run_script(GeneProperties, main, __doc__)
