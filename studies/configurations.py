"""Configurations that a search tries: its space, its record in Optuna's storage, and what became of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata

from histpert.errors import InputError
from histpert.provenance import content_id
from histpert.results import METRICS
from histpert.settings import LARGEST_SEED, ModelSettings, weight_triples
from histpert.study_defaults import SMALLEST_LAYER
from studies.ledger import Ledger, is_done
from studies.plan import Job, Plan
from studies.tuning import Trials

__all__ = ["ConfigurationJobs", "SearchRecord", "search_space"]

STOPPED = "stopped"
"""Mark of a trial whose process died: its configuration is tried again."""


def search_space(bins: Sequence[int], largest_layer: int) -> dict[str, BaseDistribution]:
    """What is searched. Hidden layers are of one width, which leaves two numbers for their sizes."""
    return {
        "n_bins": CategoricalDistribution(sorted(set(bins))),
        "weights": CategoricalDistribution(
            [" ".join(f"{weight:g}" for weight in triple) for triple in weight_triples()]
        ),
        "n_layers": IntDistribution(1, 3),
        "width": IntDistribution(min(SMALLEST_LAYER, largest_layer), largest_layer, log=True),
        "dropout": FloatDistribution(0.0, 0.6),
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
    }


@dataclass(frozen=True)
class ConfigurationJobs:
    """The jobs of a configuration: MLP+Hist on each fold; what is not searched is as in `settings`."""

    settings: ModelSettings
    folds: tuple[int, ...]

    def __call__(self, config: Mapping[str, Any]) -> tuple[Job, ...]:
        """A job for each fold."""
        weight_ce, weight_wass, weight_mse = map(float, config["weights"].split())
        settings = replace(
            self.settings,
            weight_ce=weight_ce,
            weight_wass=weight_wass,
            weight_mse=weight_mse,
            hidden=(config["width"],) * config["n_layers"],
            **{name: config[name] for name in ("dropout", "learning_rate", "weight_decay")},
        )
        return tuple(Job("MLP+Hist", config["n_bins"], fold, settings) for fold in self.folds)


class SearchRecord:
    """Optuna's record of a search, `search.db` in the study's folder, which Optuna's own tools open.

    Args:
        plan: What the trials share.
        jobs_of: The jobs of a configuration.
        space: What is searched.
        objectives: Metrics to choose by.
        prunes: Whether configurations may be left before all folds have tried them.

    Raises:
        InputError: The file is not Optuna's, or cannot be written.
    """

    def __init__(
        self,
        plan: Plan,
        jobs_of: ConfigurationJobs,
        space: dict[str, BaseDistribution],
        objectives: Sequence[str],
        prunes: bool = False,
    ):
        self._plan, self._ledger, self._jobs_of, self._space = plan, Ledger(plan.ledger), jobs_of, space
        self._objectives, self._prunes = tuple(objectives), prunes
        some = jobs_of({name: _some_value(distribution) for name, distribution in space.items()})
        content = {
            "trials": [plan.trial_id(job) for job in some],
            "space": {name: distribution_to_json(distribution) for name, distribution in space.items()},
            "objectives": self._objectives,
            "prunes": prunes,
        }
        self.name = f"{plan.data.screen}-{content_id(content)}"
        """The same search has the same name; `search.db` may hold several."""
        path = plan.folder / "search.db"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            self._study = optuna.create_study(
                storage=self._storage, study_name=self.name, load_if_exists=True, directions=self._directions
            )
        except Exception as error:  # Optuna's and SQLAlchemy's, of many kinds
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} cannot be used as Optuna's storage ({reason}): name another --out") from error

    @property
    def _directions(self) -> list[Literal["minimize", "maximize"]]:
        return ["maximize" if METRICS[name].higher_is_better else "minimize" for name in self._objectives]

    def take_up_stopped(self) -> int:
        """Queue the configurations that a process which died was trying; returns how many."""
        stopped = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in stopped:
            self._storage.set_trial_user_attr(trial._trial_id, STOPPED, True)  # while it may still be changed
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params)
        return len(stopped)

    def ended(self) -> list[FrozenTrial]:
        """Trials that came to an end by themselves, whatever became of them."""
        states = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
        trials = self._study.get_trials(deepcopy=False, states=states)
        return [trial for trial in trials if not trial.user_attrs.get(STOPPED)]

    def trials(self, n_trials: int, seed: int) -> Trials:
        """So many more trials, as Tune runs them: Optuna's TPE proposes, Tune's median rule may stop.

        Proposals depend on what has ended before them: with one worker they are the same for the same seed.
        """
        from ray.tune.schedulers import MedianStoppingRule
        from ray.tune.search.optuna import OptunaSearch

        modes = [direction[:3] for direction in self._directions]
        one = len(modes) == 1
        # A sampler that goes on would draw again what it drew before.
        sampler = optuna.samplers.TPESampler(seed=(seed + len(self.ended())) % LARGEST_SEED)
        searcher = OptunaSearch(
            self._space,
            metric=self._objectives[0] if one else list(self._objectives),
            mode=modes[0] if one else modes,
            sampler=sampler,
            study_name=self.name,
            storage=self._storage,
        )
        rule = MedianStoppingRule("training_iteration", self._objectives[0], modes[0], grace_period=1)
        n_folds = len(self._jobs_of.folds)
        return Trials(
            self._jobs_of,
            {},
            n_trials,
            n_trials * n_folds,
            n_folds,
            searcher=searcher,
            scheduler=rule if self._prunes else None,
            objectives=self._objectives,
        )

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `configurations.parquet`: a trial's number, what it tried, on how many folds, and its scores."""
        return [self._row(trial) for trial in self.ended()]

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        found = [self._ledger.read(self._plan.trial_id(job)) for job in self._jobs_of(trial.params)]
        done = [entry["trial"] for entry in found if is_done(entry)]
        errors = [entry["trial"]["error"] for entry in found if entry and not is_done(entry)]
        scores = {name: [row[name] for row in done] for name in METRICS}
        return {
            "number": trial.number,
            **trial.params,
            "n_folds": len(done),
            "error": next(iter(errors), None),
            "train_seconds": float(sum(row["train_seconds"] for row in done)),
            **{name: math.nan if None in values or not values else fmean(values) for name, values in scores.items()},
        }

    def choice(self) -> dict[str, Any]:
        """The best of the rows that all folds have tried; with several objectives, the best by mean rank.

        Raises:
            InputError: There is none.
        """
        rows = [
            row
            for row in self.rows()
            if row["n_folds"] == len(self._jobs_of.folds)
            and not any(math.isnan(row[name]) for name in self._objectives)
        ]
        if not rows:
            raise InputError(
                f"none of the {len(self.ended())} configurations was scored on all folds: raise --trials, or see what "
                f"went wrong in {self._plan.folder / 'configurations.parquet'}"
            )
        signs = [-1 if METRICS[name].higher_is_better else 1 for name in self._objectives]
        scores = np.array([[row[name] for name in self._objectives] for row in rows]) * signs
        ranks = rankdata(scores, axis=0).sum(1)
        return rows[np.lexsort((scores[:, 0], ranks))[0]]


def _some_value(distribution: BaseDistribution) -> Any:
    """Some value of a parameter, the same each time."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low  # pyright: ignore
