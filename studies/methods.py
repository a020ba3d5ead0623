"""Which method predicts the response to an unseen perturbation best?

Runs every method on the same folds and bin edges, beside the floors (Ctrl Hist, Non-Ctrl Hist, Non-Ctrl Mean), what
binning alone costs (Observed Hist) and what a perfect prediction would score (Ceiling), and sets the tables of the
paper beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.methods import draw_methods
from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.external import read_external
from histpert.models import METHODS, WHOLE_CELLS
from histpert.models.celltarnet import CellSettings
from histpert.study_defaults import BINS, CEILING, N_REPLICATES, OBSERVED, ON_GRAPH, SUBJECT
from studies.data import StudyData, check_writable, prepare
from studies.engine import run_study
from studies.gene_graph import say_absent, with_gene_graph
from studies.options import SIMULATED, Outcome, StudyOptions, run_script
from studies.plan import External, Job
from studies.trial import open_store

NAME = "methods"
OF_ALL = (OBSERVED, CEILING)
DEFAULT = tuple(method for method in METHODS if method not in WHOLE_CELLS)


@dataclass(frozen=True)
class Methods(StudyOptions):
    """Options of the comparison."""

    methods: tuple[str, ...] = DEFAULT
    """Methods to run beside MLP+Hist, which all are compared with. Not among them by default: CellTARNet, a model of
    whole cells, which takes many times as long, and MLP+Hist copula."""
    bins: int = BINS
    """Number of bins, the same for all."""
    external: tuple[str, ...] = ()
    """Predictions that were made elsewhere, as NAME=FILE: an .h5ad of control cells and predicted cells, or a mean, of
    all perturbations, labelled like a screen, as cell-eval takes it. On a cluster, where all nodes see it."""
    gene_sets: Path | None = None
    """Gene sets, a .gmt such as GO's biological processes, of which GEARS makes its graph of perturbed genes; without
    it there is no GEARS. The simulated screen has sets of its own."""
    apart: tuple[str, ...] = ()
    """Genes whose perturbations are also shown apart from the rest."""

    def __post_init__(self):
        super().__post_init__()
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise InputError(f"--methods {', '.join(unknown)}: give some of {', '.join(METHODS)}")
        if self.gene_sets is not None:
            if self.screen == SIMULATED:
                raise InputError("--gene-sets goes with --screen: the simulated screen has gene sets of its own")
            object.__setattr__(self, "gene_sets", absolute(self.gene_sets, "--gene-sets"))
        elif self.screen != SIMULATED and self.methods != DEFAULT and {*self.methods} & {*ON_GRAPH}:
            raise InputError(f"--methods {', '.join(ON_GRAPH)}: needs --gene-sets, a .gmt such as GO's processes")
        for given in self.external:
            name, _, file = given.partition("=")
            if not name or not file or name in (*METHODS, *OF_ALL):
                raise InputError(f"--external {given}: give NAME=FILE, the name none of ours")
        object.__setattr__(self, "external", tuple(f"{name}={absolute(file)}" for name, file in self._external))
        if len(dict(self._external)) < len(self.external):
            raise InputError("--external: give each name once")
        if self.bins < 2:
            raise InputError(f"--bins {self.bins}: must be 2 or more")

    @property
    def _external(self) -> list[tuple[str, str]]:
        return [(given.partition("=")[0], given.partition("=")[2]) for given in self.external]

    def read_external(self, data: StudyData) -> dict[str, External]:
        """The files of predictions, looked through, by name.

        Raises:
            InputError: One cannot be used.
        """
        store = open_store(data.store)
        control_mean = store.moments.power_sums[0][0] / store.moments.n_cells[0]
        found = {}
        for name, file in self._external:
            predictions = read_external(Path(file), store.genes, store.perturbations, control_mean)
            kind = "means" if predictions.is_means else f"{predictions.cells.n_cells[1:].sum():,} cells"
            print(f"{name}: {kind}, from {file}", flush=True)
            say_absent(set(store.perturbations) - set(predictions.cells.perturbations))
            found[name] = External(Path(file), predictions.cells.fingerprint())
        return found


def main(options: Methods, before: Mapping[str, Any] | None = None) -> Outcome:
    """Run the methods, and draw tables and figures."""
    if options.smoke:
        options = replace(options, folds=3, only_folds=(), model=replace(options.model, epochs=10))
    check_writable(options.out, NAME)
    wanted = [method for method in METHODS if method in {*options.methods, SUBJECT}]
    if options.gene_sets is None and options.screen != SIMULATED and {*wanted} & {*ON_GRAPH}:
        print(f"without {', '.join(ON_GRAPH)}: needs --gene-sets, a .gmt such as GO's processes", flush=True)
        wanted = [method for method in wanted if method not in ON_GRAPH]
    on_graph = [method for method in wanted if method in ON_GRAPH]
    data = prepare(
        options,
        [options.bins],
        n_replicates=N_REPLICATES,
        apart=[options.bins],
        with_coexpression=bool(on_graph),
        with_cells=bool({*wanted} & {*WHOLE_CELLS}),
    )
    of_method = {method: with_gene_graph(data, options.gene_sets, options) for method in on_graph}
    external = options.read_external(data)
    settings = {"CellTARNet": CellSettings.like(options.model, epochs=options.model.epochs)}
    jobs = [
        Job(method, options.bins, fold, settings.get(method, options.model))
        for fold in options.fold_numbers
        for method in (*wanted, *external, *OF_ALL)
    ]
    jobs.sort(key=lambda job: job.method != "CellTARNet")  # the longest trials first
    study = run_study(NAME, options, data, jobs, before, external=external, of_method=of_method)
    return study.report(draw_methods(study.folder, study.folder, options.apart) if study.has_results else [])


if __name__ == "__main__":
    run_script(Methods, main, __doc__)
