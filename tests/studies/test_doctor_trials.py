"""The trials that `histpert doctor` forecasts are those that the studies run by default."""

from collections import Counter

import numpy as np
import pytest

from histpert.doctor.coverage import FoldSizes
from histpert.doctor.outlook import planned_studies
from histpert.doctor.studies import SEARCHED
from histpert.histograms.store import HistogramStore
from histpert.settings import ModelSettings
from studies import bin_sweep, combinations, loss_weights, methods, open_choices, search


class StoppedError(Exception):
    """The study has said what it would run."""


@pytest.fixture
def jobs_of(tmp_path, monkeypatch):
    """The jobs that a study would run on the simulated screen, and the folds and store that it prepared."""

    def run(module, options):
        seen = {}

        def note(name, options, data, jobs, *arguments, **named):
            seen.update(jobs=jobs, data=data)
            raise StoppedError

        monkeypatch.setattr(module, "run_study", note)
        with pytest.raises(StoppedError):
            module.main(options)
        return seen["jobs"], seen["data"]

    return run


STUDIES = {
    "bin_sweep": (bin_sweep, bin_sweep.BinSweep),
    "methods": (methods, methods.Methods),
    "loss_weights": (loss_weights, loss_weights.LossWeights),
    "open_choices": (open_choices, open_choices.OpenChoices),
    "combinations": (combinations, combinations.Combinations),
}


def planned(name, data, n_folds):
    held_out = data.folds[data.folds < n_folds]
    sizes = np.bincount(held_out, minlength=n_folds)
    folds = FoldSizes(n_folds, int(sizes.min()), int(sizes.max()), len(data.folds) - int(sizes.max()))
    return next(
        study for study in planned_studies(folds, ModelSettings(), name == "combinations") if study.name == name
    )


@pytest.mark.parametrize("name", STUDIES)
def test_methods_bins_epochs_and_numbers_of_trials_are_those_of_the_study(name, jobs_of, tmp_path):
    module, options_type = STUDIES[name]
    options = options_type(out=tmp_path)
    jobs, data = jobs_of(module, options)
    study = planned(name, data, options.folds)
    # The simulated screen has gene sets, of which the forecast knows nothing.
    expected = Counter((job.method, job.n_bins, job.settings.epochs) for job in jobs if job.method != "GEARS")
    found = Counter()
    for trials in study.trials:
        found[trials.method, trials.n_bins, trials.epochs] += trials.n
    assert found == expected
    store = HistogramStore(data.store)
    assert {f"counts_B{n_bins}.arrow" for n_bins in study.store.bin_counts} == {
        file for file in store._files if file.startswith("counts")
    }
    assert (study.store.n_replicates, study.store.has_cells) == (data.n_replicates, data.with_cells)
    assert study.store.has_apart == any(file.startswith("apart") for file in store._files)


def test_a_search_tries_its_configurations_on_its_own_folds_and_judges_three(jobs_of, tmp_path, monkeypatch):
    inner = {}

    def chosen(options, data):
        inner.update(data=data)
        return {"n_bins": 15, "weights": "0 0.75 0.25", "width": 32, "n_layers": 1} | dict.fromkeys(
            ("dropout", "learning_rate", "weight_decay"), 0.01
        )

    monkeypatch.setattr(search, "_search", chosen)
    options = search.Search(out=tmp_path)
    jobs, data = jobs_of(search, options)
    study = planned("search", data, options.folds)
    tried, judged = study.trials[: len(options.bins)], study.trials[len(options.bins) :]
    assert sum(trials.n for trials in tried) == options.trials * options.inner_folds
    assert Counter({trials.method: trials.n for trials in judged}) == Counter(
        {SEARCHED: 3, "MLP+Hist": 3, "Non-Ctrl Hist": 3}
    )
    assert sum(trials.n for trials in judged) == len(jobs)
    sizes = np.bincount(inner["data"].folds)
    assert tried[0].folds == FoldSizes(len(sizes), *map(int, (sizes.min(), sizes.max(), sizes.sum() - sizes.max())))
