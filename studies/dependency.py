"""Do gene embeddings predict which genes a cell line depends on?

LightGBM on expression and embeddings, as PerturBERT's paper has it, beside what needs no embedding: the gene's symbol
alone, random vectors, and each gene's mean over training lines. Lines are held out, as published, and genes. A fit on
all of DepMap needs 4.2 GB: more --threads-per-trial let fewer run at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analysis.dependency import draw_dependency
from histpert.command_line import absolute
from histpert.embeddings import EmbeddingOptions, GeneEmbeddings
from histpert.errors import InputError
from histpert.perturbert import dependency
from histpert.perturbert.depmap import DepMap, read_depmap, simulate_depmap
from histpert.results import DEPENDENCY_SCHEMA, RANDOM
from studies.options import Outcome, run_script
from studies.sources import checked_sources, random_embeddings, read_sources, shared_genes
from studies.units import Unit, UnitOptions, run_units

NAME = "dependency"
N_REPLICATES = 400
"""Bootstrap samples, of which the ends of an interval leave out ten on each side."""


@dataclass(frozen=True)
class Dependency(UnitOptions):
    """Options of the study."""

    effects: Path | None = None
    """DepMap's CRISPRGeneEffect.csv; without, lines and embeddings are simulated."""
    expression: Path | None = None
    """DepMap's expression of the lines: OmicsExpressionProteinCodingGenesTPMLogp1.csv, or its successor."""
    sources: tuple[str, ...] = ()
    """Embeddings to compare, each NAME=FILE, or NAME=FILE+FILE for files to be joined: on the genes that all have."""
    embedding_ids: Path | None = None
    """Table (.csv, .tsv, .txt; a header) whose first two columns are the names in an embedding file, such as UniProt
    accessions, and their gene symbols."""
    trees: int = 10_000
    """The most trees of a fit, which stops after 100 that do not help on validation lines."""
    seeds: int = 20
    """Fits of each source, which differ in the rows and features that trees see."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("effects", "expression", "embedding_ids"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, absolute(getattr(self, name), f"--{name.replace('_', '-')}"))
        if len({self.effects is None, self.expression is None, not self.sources}) > 1:
            raise InputError("give --effects, --expression and --sources, or none of them for a simulated DepMap")
        object.__setattr__(self, "sources", checked_sources(self.sources))
        names = {given.partition("=")[0] for given in self.sources}
        if taken := sorted(names & {dependency.ONE_HOT, dependency.GENE_MEAN}):
            raise InputError(f"--sources: {taken[0]} is a name of ours: give another")
        if self.trees < 1 or self.seeds < 1:
            raise InputError("--trees and --seeds must be 1 or more")


def read_data(options: Dependency) -> tuple[DepMap, dict[str, GeneEmbeddings]]:
    """Effects, expression and embeddings, random ones among them; says what was left out."""
    if options.effects is None or options.expression is None:
        shape = {"n_lines": 60, "n_genes": 60, "n_expressed": 60} if options.smoke else {}
        depmap, sources = simulate_depmap(options.seed, **shape)
    else:
        sources = read_sources(options.sources, EmbeddingOptions(options.embedding_ids))
        depmap = read_depmap(options.effects, options.expression, shared_genes(sources))
    for note in (*depmap.notes, *(note for source in sources.values() for note in source.notes)):
        print(note, flush=True)
    sources[RANDOM] = random_embeddings(depmap.genes, dependency.N_COMPONENTS, options.seed)
    return depmap, sources


def problem_of(depmap: DepMap, sources: Mapping[str, GeneEmbeddings], seed: int) -> dependency.Problem:
    """Components, and who is held out."""
    n_lines, n_genes = depmap.effects.shape
    splits = {name: dependency.make_split(name, n_lines, n_genes, seed) for name in dependency.SPLITS}
    of_gene = {
        (source, name): dependency.gene_features(embeddings.lookup(depmap.genes), split.genes.training)
        for source, embeddings in sources.items()
        for name, split in splits.items()
    }
    of_line = dependency.line_features(depmap.expression, splits["lines"].lines.training)
    return dependency.Problem(depmap.effects, of_line, of_gene, splits)


def units_of(options: Dependency, depmap: DepMap, sources: Mapping[str, GeneEmbeddings]) -> list[Unit]:
    """Fits of all sources and seeds, held-out lines first, which take longest; a mean is no fit, and has one seed."""
    data = depmap.fingerprint()
    prints = {name: source.fingerprint() for name, source in sources.items()}
    units = []
    for split in dependency.SPLITS:
        for source in (*sources, dependency.ONE_HOT, dependency.GENE_MEAN):
            for seed in range(1 if source == dependency.GENE_MEAN else options.seeds):
                fit_seed = int(np.random.default_rng([options.seed, seed]).integers(2**31))
                draws = {"fit_seed": fit_seed, "draw_seed": options.seed, "n_replicates": N_REPLICATES}
                how = {**draws, "n_trees": options.trees}
                work = partial(
                    dependency.fit_and_score, source=source, split=split, n_threads=options.threads_per_trial, **how
                )
                content = {**how, "data": data, "embeddings": prints.get(source), **dependency.PARAMETERS}
                units.append(Unit({"source": source, "split": split, "seed": seed}, content, work))
    return units


def main(options: Dependency, before: Mapping[str, Any] | None = None) -> Outcome:
    """Fit and score all sources, and write tables and a figure."""
    if options.smoke:
        options = replace(options, trees=min(options.trees, 200), seeds=min(options.seeds, 3))
    dependency.require_lightgbm()
    depmap, sources = read_data(options)
    problem, units = problem_of(depmap, sources, options.seed), units_of(options, depmap, sources)
    inputs = {"effects and expression": depmap.fingerprint()}
    inputs |= {f"embeddings {name}": source.fingerprint() for name, source in sources.items()}
    study = run_units(NAME, options, units, DEPENDENCY_SCHEMA, inputs=inputs, shared=problem, before=before)
    return study.report(draw_dependency(study.folder, study.folder) if study.has_results else [])


if __name__ == "__main__":
    run_script(Dependency, main, __doc__)
