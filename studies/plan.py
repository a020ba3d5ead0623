"""What is tried: a job, a configuration on a fold; and the plan, what all jobs of a study share. No Ray here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from histpert.checkpoints import Checkpoint
from histpert.models import METHODS, OF_COMBINATIONS
from histpert.provenance import content_id
from histpert.settings import ModelSettings
from histpert.study_defaults import CEILING, OBSERVED
from studies.data import StudyData
from studies.ledger import Entry, is_done

__all__ = ["CEILING", "OBSERVED", "External", "Job", "Plan"]

RESULTS_VERSION = 4
"""Part of a trial's identity, as is that of its method: raised when the same settings give other results, or what is
kept of them changes, so that old entries are not taken."""


@dataclass(frozen=True)
class Job:
    """A configuration and the fold it is tried on."""

    method: str
    n_bins: int
    fold: int
    settings: ModelSettings
    variant: str = ""
    """The one choice in which it differs from what a study takes by default."""


class External(NamedTuple):
    """A file of predictions, and the fingerprint of its cells."""

    path: Path
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """What is the same for all trials of a study."""

    study: str
    data: StudyData
    n_folds: int
    n_threads: int
    folder: Path
    """Of the study's results."""
    checkpoint_seconds: float
    save_predictions: bool = False
    variants: Mapping[str, StudyData] = field(default_factory=dict)
    """Other folds or embeddings of the screen, by the variant of the jobs that take them."""
    external: Mapping[str, External] = field(default_factory=dict)
    """Files of predictions that were made elsewhere, by the method that they are shown as."""
    of_method: Mapping[str, StudyData] = field(default_factory=dict)
    """The data of methods that take others than the rest."""

    def data_of(self, job: Job) -> StudyData:
        """The data of a trial."""
        data = self.of_method.get(job.method) or self.variants.get(job.variant, self.data)
        return data.in_fold(job.fold)

    @property
    def ledger(self) -> Path:
        """Folder of the finished trials."""
        return self.folder / "ledger"

    def checkpoint(self, job: Job) -> Checkpoint:
        """Where a trial's training is kept until it has ended."""
        return Checkpoint(self.folder / "checkpoints" / f"{self.trial_id(job)}.pt", self.checkpoint_seconds)

    def predictions_file(self, job: Job) -> Path | None:
        """Where a trial's predictions are kept; None where that is not asked for, or nothing is predicted."""
        if not self.save_predictions or job.method in (OBSERVED, CEILING):
            return None
        return self.folder / "predictions" / f"{self.trial_id(job)}.arrow"

    def is_done(self, entry: Entry | None, job: Job) -> TypeGuard[Entry]:
        """Whether a trial has its result, and the file of its predictions where one is asked for."""
        path = self.predictions_file(job)
        return is_done(entry) and (path is None or path.exists())

    def trial_id(self, job: Job) -> str:
        """Name of a trial by content: the same data, settings, fold and thread count have the same name."""
        known = {**METHODS, **OF_COMBINATIONS}
        return content_id(
            {
                "version": [RESULTS_VERSION, known[job.method].version if job.method in known else 0],
                "screen": self.data_of(job).screen_fingerprint,
                "held_out": np.flatnonzero(self.data_of(job).folds == job.fold).tolist(),
                "embeddings": self.data_of(job).embeddings_fingerprint,
                "n_threads": self.n_threads,
                "n_replicates": self.data_of(job).n_replicates,
                **asdict(job),
                **({} if self.data_of(job).attended is None else {"attended": _digest(self.data_of(job).attended)}),
                **({"with_cells": True} if self.data_of(job).with_cells else {}),
                **({"external": self.external[job.method].fingerprint} if job.method in self.external else {}),
            }
        )

    def row(self, job: Job) -> dict[str, Any]:
        """The columns of `trials.parquet` that are known before the trial."""
        settings = asdict(job.settings)
        flow = settings.pop("flow", None)
        settings["hidden"] = list(job.settings.hidden_sizes(int(np.sum(self.data_of(job).folds != job.fold))))
        return {
            "trial_id": self.trial_id(job),
            "study": self.study,
            "screen": self.data_of(job).screen,
            "embeddings": self.data_of(job).embeddings,
            "method": job.method,
            "n_bins": job.n_bins,
            "variant": job.variant,
            "fold": job.fold,
            "n_folds": self.n_folds,
            "n_threads": self.n_threads,
            "flow": None if flow is None else json.dumps(flow),
            **settings,
        }


def _digest(array: np.ndarray | None) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
