"""Which gene embeddings tell most about perturbations that were never seen?

Runs MLP+Hist and a Gaussian process with embeddings of several sources on the same folds, beside random ones and
one-hot vectors, which tell nothing of an unseen gene, and compares each with the random ones, perturbation by
perturbation. Embeddings that were learned from perturbations must not have seen what a fold holds out: name a file for
each fold, with {fold} in its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from analysis.embedding_sources import draw_embedding_sources
from histpert.embeddings import match_perturbations
from histpert.embeddings.fold_files import FoldFiles
from histpert.errors import InputError
from histpert.models import METHODS
from histpert.multi_hot import multi_hot
from histpert.results import RANDOM
from histpert.study_defaults import N_REPLICATES
from studies.data import StudyData, check_writable, prepare
from studies.engine import run_study
from studies.options import SIMULATED, Outcome, StudyOptions, run_script
from studies.plan import Job
from studies.simulated_sources import simulated_sources
from studies.sources import checked_sources, random_embeddings

NAME = "embedding_sources"
ONE_HOT = "One-hot"


@dataclass(frozen=True)
class EmbeddingSources(StudyOptions):
    """Options of the comparison."""

    sources: tuple[str, ...] = ()
    """NAME=FILE, or NAME=FILE+FILE for files to be joined; {fold} in a path names a file for each fold. Default: those
    of the simulated screen, and PerturBERT, trained on simulated signatures."""
    methods: tuple[str, ...] = ("MLP+Hist", "GP")
    """Methods to run with each source."""
    folds: int = 5
    """Folds of the cross-validation over perturbations."""
    bins: int = 15
    """Number of bins."""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "sources", checked_sources(self.sources))
        if self.embeddings:
            raise InputError("--embeddings: this study takes several, give each as --sources NAME=FILE")
        if (self.screen == SIMULATED) != (not self.sources):
            raise InputError("--sources goes with --screen: the simulated screen has sources of its own")
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise InputError(f"--methods {', '.join(unknown)}: give some of {', '.join(METHODS)}")
        if not self.methods or self.bins < 2:
            raise InputError("--methods: name one or more; --bins must be 2 or more")
        if self.hold_out == "clusters":
            raise InputError("--hold-out clusters: folds must be the same for all embeddings, leave it out")

    @property
    def files(self) -> dict[str, tuple[Path, ...]]:
        """The files of each source."""
        parts = (given.rpartition("=") for given in self.sources)
        return {name: tuple(map(Path, files.split("+"))) for name, _, files in parts}


def main(options: EmbeddingSources, before: Mapping[str, Any] | None = None) -> Outcome:
    """Run the methods with each source, and write tables and a figure."""
    if options.smoke:
        options = replace(options, folds=2, only_folds=(), model=replace(options.model, epochs=10))
    check_writable(options.out, NAME)
    given = options
    if options.screen == SIMULATED:
        options = replace(options, **simulated_sources(options, options.out / NAME / "simulated"))
    files = options.files
    every = tuple(dict.fromkeys(path for paths in files.values() for path in paths))
    common: dict[str, Any] = {field.name: getattr(options, field.name) for field in fields(StudyOptions)}
    data = prepare(StudyOptions(**{**common, "embeddings": every}), [options.bins], n_replicates=N_REPLICATES)
    variants = {name: of_source(options, name, paths, data) for name, paths in files.items()}
    width = max(source.vectors.shape[1] for source in variants.values())
    random = random_embeddings(data.perturbations, width, options.model.seed)
    variants |= {"": data.with_embeddings(RANDOM, random.vectors)}
    variants |= {ONE_HOT: data.with_embeddings(ONE_HOT, multi_hot(data.perturbations))}
    jobs = [
        Job(method, options.bins, fold, options.model, source)
        for method in options.methods
        for source in variants
        for fold in options.fold_numbers
    ]
    study = run_study(NAME, given, variants[""], jobs, before, variants)
    return study.report(draw_embedding_sources(study.folder, study.folder) if study.has_results else [])


def of_source(options: EmbeddingSources, name: str, paths: tuple[Path, ...], data: StudyData) -> StudyData:
    """The same data, with the embeddings of a source."""
    files = FoldFiles(paths, options.names, options.fold_numbers)
    if any(map(files.is_by_fold, paths)):
        return data.with_embeddings(name, files.vectors(data.perturbations))
    found = match_perturbations(files.first(), data.perturbations, options.names.aliases)
    return data.with_embeddings(name, found.embeddings.vectors)


if __name__ == "__main__":
    run_script(EmbeddingSources, main, __doc__)
