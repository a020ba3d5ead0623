"""So many trials of some milliseconds on two workers of a Ray of its own; prints who ran which, in order of start."""

import json
import os
import sys
import time

from studies.local_ray import ray_session

SECONDS = 0.03


def trial(config: dict) -> None:
    from ray import tune  # noqa: PLC0415

    time.sleep(SECONDS)
    tune.report({"number": config["number"], "process": os.getpid(), "done": True})


def main(n_trials: int) -> None:
    with ray_session() as folder:
        from ray import tune  # noqa: PLC0415

        from studies.scheduler import PatientFIFOScheduler  # noqa: PLC0415

        started = []

        class Starts(tune.Callback):
            def on_trial_start(self, iteration, trials, trial, **info) -> None:
                started.append(trial.config["number"])

        half = tune.PlacementGroupFactory([{"CPU": os.cpu_count() / 2}])
        results = tune.Tuner(
            tune.with_resources(trial, half),
            param_space={"number": tune.grid_search(list(range(n_trials)))},
            tune_config=tune.TuneConfig(reuse_actors=True, scheduler=PatientFIFOScheduler()),
            run_config=tune.RunConfig(verbose=0, storage_path=str(folder / "tune"), callbacks=[Starts()]),
        ).fit()
        ran = [result.metrics["process"] for result in results]
    print(json.dumps({"started": started, "processes": ran}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
