"""Which method predicts the response to an unseen perturbation best?

Runs every method on the same folds and bin edges, beside the floors (Ctrl Hist, Non-Ctrl Hist, Non-Ctrl Mean), what
binning alone costs (Observed Hist) and what a perfect prediction would score (Ceiling), and sets the tables of the
paper beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.methods import draw_methods
from histpert.errors import InputError
from histpert.models import METHODS
from studies.data import N_REPLICATES, check_writable, prepare
from studies.engine import run_study
from studies.options import StudyOptions, run_script
from studies.plan import CEILING, OBSERVED, Job

NAME = "methods"
SUBJECT = "MLP+Hist"
OF_ALL = (OBSERVED, CEILING)


@dataclass(frozen=True)
class Methods(StudyOptions):
    """Options of the comparison."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Methods to run beside MLP+Hist, which all are compared with."""
    bins: int = 15
    """Number of bins, the same for all."""
    apart: tuple[str, ...] = ()
    """Genes whose perturbations are also shown apart from the rest."""

    def __post_init__(self):
        super().__post_init__()
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise InputError(f"--methods {', '.join(unknown)}: give some of {', '.join(METHODS)}")
        if self.bins < 2:
            raise InputError(f"--bins {self.bins}: must be 2 or more")


def main(options: Methods, before: Mapping[str, Any] | None = None) -> int:
    """Run the methods, and draw tables and figures; returns the exit status."""
    if options.smoke:
        options = replace(options, folds=3, only_folds=(), model=replace(options.model, epochs=10))
    check_writable(options.out, NAME)
    data = prepare(options, [options.bins], n_replicates=N_REPLICATES, apart=[options.bins])
    wanted = [method for method in METHODS if method in {*options.methods, SUBJECT}]
    jobs = [
        Job(method, options.bins, fold, options.model) for fold in options.fold_numbers for method in (*wanted, *OF_ALL)
    ]
    study = run_study(NAME, options, data, jobs, before)
    return study.report(draw_methods(study.folder, study.folder, options.apart) if study.has_results else [])


if __name__ == "__main__":
    run_script(Methods, main, __doc__)
