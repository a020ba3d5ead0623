"""Does it matter what the paper leaves open?

Runs MLP+Hist and the floors with one choice changed at a time: the mass mixed into control histograms, where the output
layer starts, the least mass in the likelihood, folds that hold out whole clusters of embeddings, and embeddings that
are permuted, with which no method should do better than Non-Ctrl Hist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.choices import draw_choices
from histpert.errors import InputError
from histpert.settings import ModelSettings
from histpert.study_defaults import BINS, FLOORS, N_REPLICATES, SUBJECT, VARIED
from studies.data import check_writable, prepare, with_permuted_embeddings
from studies.engine import run_study
from studies.options import Outcome, StudyOptions, run_script
from studies.plan import Job

NAME = "open_choices"


@dataclass(frozen=True)
class OpenChoices(StudyOptions):
    """Options of the study."""

    bins: int = BINS
    """Number of bins."""

    def __post_init__(self):
        super().__post_init__()
        if self.bins < 2:
            raise InputError(f"--bins {self.bins}: must be 2 or more")


def main(options: OpenChoices, before: Mapping[str, Any] | None = None) -> Outcome:
    """Run all variants, and write their table."""
    if options.hold_out != "random" or options.permute_embeddings:
        raise InputError("--hold-out and --permute-embeddings: this study runs both ways of each by itself")
    if options.smoke:
        options = replace(options, folds=3, only_folds=(0,), model=replace(options.model, epochs=10))
    check_writable(options.out, NAME)
    data = prepare(options, [options.bins], n_replicates=N_REPLICATES)
    clusters = prepare(
        replace(options, hold_out="clusters", folds_file=None), [options.bins], n_replicates=N_REPLICATES
    )

    def jobs(settings: ModelSettings, variant: str, methods: tuple[str, ...] = (SUBJECT, *FLOORS)) -> list[Job]:
        return [
            Job(method, options.bins, fold, settings, variant) for method in methods for fold in options.fold_numbers
        ]

    varied = jobs(options.model, "")
    for name, (called, values) in VARIED.items():
        methods = (SUBJECT,) if name == "output_scale" else (SUBJECT, *FLOORS)  # floors have no output layer
        for value in values:
            varied += jobs(replace(options.model, **{name: value}), f"{called} {value:g}", methods)
    variants = {
        "cluster-held-out folds": clusters,
        "permuted embeddings": with_permuted_embeddings(data, options.model.seed),
    }
    for variant in variants:
        varied += jobs(options.model, variant)
    study = run_study(NAME, options, data, varied, before, variants)
    return study.report(draw_choices(study.folder, study.folder) if study.has_results else [])


if __name__ == "__main__":
    run_script(OpenChoices, main, __doc__)
