"""Which method predicts two genes perturbed together, of which each was seen alone?

Runs CellTARNet, a normalizing flow of whole cells, and what it is made of left out one at a time, beside control, the
additive model, ridge regression on the perturbed genes, GEARS, MLP+Hist, and MLP+Hist with a copula; folds hold out
pairs. Whole cells are scored too: their distance from observed ones, and the correlations between genes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from analysis.combinations import draw_combinations
from histpert.celltarnet.prior import network_prior
from histpert.celltarnet.settings import FlowSettings
from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.models.celltarnet import CellSettings
from histpert.screens import PRESETS, Simulation
from histpert.study_defaults import (
    ABLATION_FOLDS,
    ABLATIONS,
    BINS,
    COMBINATION_FOLDS,
    COMBINATION_GENES,
    COMBINATION_METHODS,
    ON_GENES,
    ON_GRAPH,
)
from studies.data import Pairs, check_writable, prepare
from studies.engine import run_study
from studies.gene_graph import with_gene_graph
from studies.options import SIMULATED, Outcome, StudyOptions, run_script
from studies.plan import Job
from studies.trial import open_store
from studies.whole_cells import check_memory, on_genes, say_density

NAME = "combinations"
SIMULATION = replace(
    PRESETS["easy"], n_perturbations=20, n_pairs=120, n_genes=60, n_cells=12_000, log_rate_mean=0.3, log_rate_spread=1.0
)
"""The default screen: 120 of the 190 pairs of 20 genes, of which half do not add up."""


@dataclass(frozen=True)
class Combinations(StudyOptions):
    """Options of the study."""

    folds: int = COMBINATION_FOLDS
    """Folds over pairs."""
    any_pair: bool = False
    """Hold out all pairs, also those of which a gene was not perturbed alone."""
    n_genes: int = COMBINATION_GENES
    """Genes, the most expressed ones in control cells."""
    bins: int = BINS
    """Number of bins."""
    flow: FlowSettings = field(default_factory=FlowSettings)
    cell_epochs: int = CellSettings.epochs
    """Epochs of CellTARNet; --epochs are those of the other networks, and so on."""
    cell_learning_rate: float = CellSettings.learning_rate
    """Learning rate of CellTARNet."""
    cell_weight_decay: float = CellSettings.weight_decay
    """Weight decay of CellTARNet."""
    cell_batch_size: int = CellSettings.batch_size
    """Perturbations per step of CellTARNet."""
    ablation_folds: int = ABLATION_FOLDS
    """Folds in which CellTARNet is tried with one part left out; 0 for none."""
    gene_network: Path | None = None
    """Table (.csv, .tsv) of edges between genes, in its first two columns, which say what genes attend to in
    CellTARNet; default: correlations over training cells."""
    gene_sets: Path | None = None
    """Gene sets for GEARS, which is left out without; the simulated screen has its own."""

    def __post_init__(self):
        super().__post_init__()
        if self.bins < 2 or self.n_genes < 2 or self.cell_epochs < 0 or self.ablation_folds < 0:
            raise InputError("--bins and --n-genes must be 2 or more, --cell-epochs and --ablation-folds 0 or more")
        if self.hold_out != "random":
            raise InputError(f"--hold-out {self.hold_out}: folds hold out pairs, leave it out")
        for name in ("gene_sets", "gene_network"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, absolute(getattr(self, name), f"--{name.replace('_', '-')}"))

    @property
    def of_cells(self) -> CellSettings:
        """Settings of CellTARNet."""
        names = "epochs", "learning_rate", "weight_decay", "batch_size"
        own = {name: getattr(self, f"cell_{name}") for name in names}
        return CellSettings.like(self.model, **own, flow=self.flow)


def jobs_of(options: Combinations, methods: tuple[str, ...]) -> list[Job]:
    """CellTARNet on all folds and without a part of it on some, then the other methods: the longest trials first."""
    folds = options.fold_numbers
    jobs = [Job("CellTARNet", options.bins, fold, options.of_cells) for fold in folds]
    for variant, lacking in ABLATIONS.items():
        ablated = replace(options.of_cells, flow=replace(options.flow, **lacking))
        jobs += [Job("CellTARNet", options.bins, fold, ablated, variant) for fold in folds[: options.ablation_folds]]
    others = [method for method in methods if method != "CellTARNet"]
    return jobs + [Job(method, options.bins, fold, options.model) for fold in folds for method in others]


def main(options: Combinations, before: Mapping[str, Any] | None = None) -> Outcome:
    """Run all methods, and write tables and a figure."""
    simulation: Simulation = SIMULATION
    if options.smoke:
        flow = replace(options.flow, samples=50)
        options = replace(options, cell_epochs=2, model=replace(options.model, epochs=5), flow=flow, only_folds=(0,))
        simulation = replace(SIMULATION, n_perturbations=16, n_pairs=20, n_genes=30, n_cells=4_400)
    check_writable(options.out, NAME)
    pairs = Pairs(options.any_pair, simulation, options.n_genes)
    methods = COMBINATION_METHODS
    if options.gene_sets is None and options.screen != SIMULATED:
        print(f"without {', '.join(ON_GRAPH)}: needs --gene-sets, a .gmt such as GO's processes", flush=True)
        methods = tuple(method for method in COMBINATION_METHODS if method not in ON_GRAPH)
    data = prepare(options, [options.bins], with_coexpression="GEARS" in methods, with_cells=True, pairs=pairs)
    store = open_store(data.store)
    if options.gene_network is not None:
        data = replace(data, attended=network_prior(options.gene_network, store.genes).numpy())
    check_memory(options, data, store, options.of_cells)
    say_density(data, store, options.of_cells, options.bins)
    of_method = dict.fromkeys(ON_GENES, on_genes(data))
    of_method |= {name: with_gene_graph(data, options.gene_sets, options) for name in methods if name in ON_GRAPH}
    study = run_study(NAME, options, data, jobs_of(options, methods), before, of_method=of_method)
    return study.report(draw_combinations(study.folder, study.folder) if study.has_results else [])


if __name__ == "__main__":
    run_script(Combinations, main, __doc__)
