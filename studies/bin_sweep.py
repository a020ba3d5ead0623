"""How many histogram bins are enough to predict the response to an unseen perturbation?

Trains MLP+Hist on every fold at every bin count, beside the floors (Ctrl Hist, Non-Ctrl Hist) and what binning alone
costs (Observed Hist), and draws each error against the bin count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.resolution import draw_resolution
from histpert.errors import InputError
from histpert.study_defaults import BIN_COUNTS, SWEPT_METHODS
from studies.data import check_writable, prepare
from studies.engine import run_study
from studies.options import Outcome, StudyOptions, run_script
from studies.plan import Job

NAME = "bin_sweep"
MIN_BINS = 2
MAX_BINS = 1_000


@dataclass(frozen=True)
class BinSweep(StudyOptions):
    """Options of the bin sweep."""

    bins: tuple[int, ...] = BIN_COUNTS
    """Bin counts to compare."""

    def __post_init__(self):
        super().__post_init__()
        if not self.bins or min(self.bins) < MIN_BINS or max(self.bins) > MAX_BINS:
            given = " ".join(map(str, self.bins))
            raise InputError(f"--bins {given}: give one or more numbers from {MIN_BINS} to {MAX_BINS:,}")


def main(options: BinSweep, before: Mapping[str, Any] | None = None) -> Outcome:
    """Run the sweep and draw its figures."""
    if options.smoke:
        options = replace(options, folds=3, only_folds=(), bins=(5, 15), model=replace(options.model, epochs=10))
    bins = sorted(set(options.bins), reverse=True)  # the longest trials first, so that none is left over at the end
    check_writable(options.out, NAME)
    data = prepare(options, bins)
    jobs = [
        Job(method, n_bins, fold, options.model)
        for method in SWEPT_METHODS
        for n_bins in bins
        for fold in options.fold_numbers
    ]
    study = run_study(NAME, options, data, jobs, before)
    return study.report(draw_resolution([study.folder], study.folder) if study.has_results else [])


if __name__ == "__main__":
    run_script(BinSweep, main, __doc__)
