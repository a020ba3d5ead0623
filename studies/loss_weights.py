"""How should cross-entropy, Wasserstein-1 and squared error of the mean be weighed in the loss of MLP+Hist?

Trains it on every fold with the 15 triples of weights of step 0.25, and sets the paper's Table 4 beside the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.loss_weights import draw_loss_weights
from histpert.errors import InputError
from histpert.settings import weight_triples
from histpert.study_defaults import BINS, SUBJECT
from studies.data import check_writable, prepare
from studies.engine import run_study
from studies.options import Outcome, StudyOptions, run_script
from studies.plan import Job

NAME = "loss_weights"


@dataclass(frozen=True)
class LossWeights(StudyOptions):
    """Options of the grid; `--weight-ce`, `--weight-wass` and `--weight-mse` are what it varies."""

    bins: int = BINS
    """Number of bins."""

    def __post_init__(self):
        super().__post_init__()
        if self.bins < 2:
            raise InputError(f"--bins {self.bins}: must be 2 or more")


def main(options: LossWeights, before: Mapping[str, Any] | None = None) -> Outcome:
    """Train with all triples, and draw table and figure."""
    if options.smoke:
        options = replace(options, folds=3, only_folds=(0,), model=replace(options.model, epochs=10))
    check_writable(options.out, NAME)
    data = prepare(options, [options.bins])
    jobs = [
        Job(SUBJECT, options.bins, fold, replace(options.model, weight_ce=ce, weight_wass=wass, weight_mse=mse))
        for ce, wass, mse in weight_triples()
        for fold in options.fold_numbers
    ]
    study = run_study(NAME, options, data, jobs, before)
    return study.report(draw_loss_weights(study.folder, study.folder) if study.has_results else [])


if __name__ == "__main__":
    run_script(LossWeights, main, __doc__)
