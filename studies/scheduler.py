"""The order in which Tune's workers take up trials."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

__all__ = ["PatientFIFOScheduler"]


class PatientFIFOScheduler(FIFOScheduler):
    """First in, first out, passing over trials whose own worker is only starting.

    Tune's own gives such a trial to a worker that is free, and ends the one that starts: a process is started and ended
    for every few trials, and takes their cores meanwhile.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The first trial that no process is starting for, if any."""
        controller = tune_controller._tune_controller  # Tune shows its schedulers no workers
        for trial in controller.get_trials():
            if trial.status == Trial.PENDING:
                # To Tune a worker has "started" once it has its place, which those only asked for wait for.
                worker = controller._trial_to_actor.get(trial)
                if worker is None or not controller._actor_manager.is_actor_started(worker):
                    return trial
        return None
