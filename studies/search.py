"""Which settings of MLP+Hist predict this screen best?

Tries configurations that Optuna's TPE proposes: bins, loss weights, hidden layers, dropout, learning rate and weight
decay, by their error (CRPS, which compares across bin counts) in a cross-validation of its own. It does not see the
perturbations of `--judging-folds`. On those the best configuration is then held against the settings of the command
line, which by default are the published ones.

Stop it whenever you like: the same command goes on. `optuna-dashboard sqlite:///results/search/search.db` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.search import draw_search
from histpert.errors import InputError
from histpert.results import CONFIGURATION_SCHEMA, METRICS, write_json, write_table
from histpert.study_defaults import BIN_COUNTS, BINS, INNER_FOLDS, JUDGING_FOLDS, LARGEST_LAYER, SEARCH_TRIALS, SUBJECT
from studies.configurations import ConfigurationJobs, SearchRecord, search_space
from studies.data import StudyData, check_writable, prepare
from studies.engine import alone_in, plan_of, run_study
from studies.local_ray import ray_session
from studies.options import Outcome, StudyOptions, run_script
from studies.plan import Job
from studies.tuning import tune_trials

NAME = "search"


@dataclass(frozen=True)
class Search(StudyOptions):
    """Options of the search."""

    bins: tuple[int, ...] = BIN_COUNTS
    """Bin counts to choose from."""
    trials: int = SEARCH_TRIALS
    """Configurations to try, those of earlier runs included."""
    objectives: tuple[str, ...] = ("crps",)
    """Metrics to choose by, averaged over the search's folds; with several, the best mean rank is chosen."""
    judging_folds: tuple[int, ...] = JUDGING_FOLDS
    """Folds whose perturbations the search does not see, and which judge what it chose."""
    inner_folds: int = INNER_FOLDS
    """Folds of the search's own cross-validation over the other perturbations."""
    largest_layer: int = LARGEST_LAYER
    """The widest hidden layers to try."""
    prune: bool = False
    """Leave a configuration when its mean after a fold is above the median of the others' then."""

    def __post_init__(self):
        super().__post_init__()
        if unknown := [name for name in self.objectives if name not in METRICS]:
            raise InputError(f"--objectives {' '.join(unknown)}: give one or more of {' '.join(METRICS)}")
        if unfit := [name for name in self.objectives if METRICS[name].target is not None]:
            raise InputError(f"--objectives {' '.join(unfit)}: neither more nor less is better; name another metric")
        if lacking := [name for name in self.objectives if METRICS[name].needs_replicates]:
            raise InputError(f"--objectives {' '.join(lacking)}: a search works out no replicates; name another metric")
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise InputError("--objectives: give one or more metrics, each once")
        if "nll" in self.objectives and len(set(self.bins)) > 1:
            raise InputError("--objectives nll depends on the number of bins: give one number of --bins, or crps")
        if self.only_folds:
            raise InputError("--only-folds: a search takes --judging-folds instead")
        judging = set(self.judging_folds)
        if not judging or not judging < set(range(self.folds)):
            raise InputError(f"--judging-folds: give some, not all, of 0 to {self.folds - 1}")
        for name, least in (("trials", 1), ("inner_folds", 2), ("largest_layer", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be {least} or more")
        if not self.bins or min(self.bins) < 2:
            raise InputError(f"--bins {' '.join(map(str, self.bins))}: give one or more numbers from 2 on")


def main(options: Search, before: Mapping[str, Any] | None = None) -> Outcome:
    """Search, judge what was chosen, and draw both."""
    if options.smoke:
        model = replace(options.model, epochs=10)
        options = replace(options, folds=3, judging_folds=(0,), inner_folds=2, trials=4, bins=(5, 15), model=model)
    check_writable(options.out, NAME)
    outer = prepare(options, [*options.bins, BINS])
    searched = [
        name for name, fold in zip(outer.perturbations, outer.folds, strict=True) if fold not in options.judging_folds
    ]
    if len(searched) < options.inner_folds:
        raise InputError(
            f"--inner-folds {options.inner_folds}: {len(searched)} perturbations are left to search on; lower it, or "
            "name fewer --judging-folds"
        )
    inner = prepare(options, options.bins, searched, options.inner_folds)
    folder = options.out / NAME
    with alone_in(folder):
        chosen = _search(options, inner)
    judged = tuple(sorted(set(options.judging_folds)))
    candidates = {
        "chosen": ConfigurationJobs(options.model, judged)(chosen),
        "given": [Job(SUBJECT, BINS, fold, options.model) for fold in judged],
        "floor": [Job("Non-Ctrl Hist", BINS, fold, options.model) for fold in judged],
    }
    study = run_study(NAME, options, outer, [job for jobs in candidates.values() for job in jobs], before)
    plan = plan_of(NAME, options, outer)
    trial_ids = {name: [plan.trial_id(job) for job in jobs] for name, jobs in candidates.items()}
    write_json(folder / "choice.json", {"objectives": options.objectives, "chosen": chosen, "trial_ids": trial_ids})
    return study.report(draw_search(study.folder) if study.has_results else [], chosen=chosen)


def _search(options: Search, inner: StudyData) -> dict[str, Any]:
    """Try what is left of `--trials`, and return the best configuration."""
    plan = replace(plan_of(NAME, options, inner), n_folds=options.inner_folds, save_predictions=False)
    jobs_of = ConfigurationJobs(options.model, tuple(range(options.inner_folds)))
    space = search_space(options.bins, options.largest_layer)
    record = SearchRecord(plan, jobs_of, space, options.objectives, options.prune)
    n_stopped, n_ended = record.take_up_stopped(), len(record.ended())
    n_trials = max(0, options.trials - n_ended)
    again = f" ({n_stopped} of them had been stopped)" if n_stopped else ""
    print(
        f"{options.trials} configurations on {options.inner_folds} folds of {len(inner.perturbations)} perturbations, "
        f"{n_ended} tried before, {n_trials} to try{again}",
        flush=True,
    )
    if n_trials:
        with ray_session() as own_folder:
            tune_trials(plan, record.trials(n_trials, options.model.seed), options, own_folder)
    write_table(plan.folder / "configurations.parquet", record.rows(), CONFIGURATION_SCHEMA)
    return record.choice()


if __name__ == "__main__":
    run_script(Search, main, __doc__)
