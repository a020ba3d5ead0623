"""How a forecast is put together, on known numbers."""

import mmap
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histpert.doctor import timing, trying
from histpert.doctor.coverage import FoldSizes
from histpert.doctor.extrapolation import TrialCost, at_bins, grown, makespan
from histpert.doctor.forecast import (
    Forecast,
    Measured,
    around_seconds,
    fitting_forecast,
    forecast,
    store_bytes,
    store_seconds,
    trial_seconds,
)
from histpert.doctor.gpus import GPUS, gpu_named
from histpert.doctor.machine import EVERY, Machine, memory_of, sampled
from histpert.doctor.measuring import MeasuredStore, MeasuredTrials, measured_store
from histpert.doctor.on_gpu import at_once_on, forecast_on, most_bytes, step_seconds
from histpert.doctor.outlook import Outlook, planned_studies
from histpert.doctor.probe import BOTH, STEPPED, Bench, Request
from histpert.doctor.report import duration
from histpert.doctor.studies import SEARCHED, ScreenShape, Store, Study, Trials, studies
from histpert.doctor.timing import whole_of
from histpert.doctor.trying import part_of, tasks_of
from histpert.embeddings import combined_embeddings
from histpert.errors import InputError
from histpert.histograms import open_or_build
from histpert.multi_hot import multi_hot
from histpert.screens import PRESETS, assign_folds, assign_pair_folds, simulate_screen
from histpert.settings import ModelSettings
from histpert.study_defaults import BIN_COUNTS, BINS
from histpert.targets import training_targets

SMALL = {"n_perturbations": 12, "n_genes": 20, "n_cells": 900, "n_control": 100, "min_cells": 20, "max_cells": 60}
FOLDS = FoldSizes(9, 10, 10, 80)
COSTS = {5: TrialCost(1.0, 0.2, 3.0), 35: TrialCost(1.0, 0.8, 6.0)}
MEASURED = Measured(
    read_seconds=7.0,
    read_bytes=300,
    built_bytes=200,
    shape=ScreenShape(1_000, 100, 50, False),
    n_cells=500,
    n_perturbations=45,
    share=0.5,
    store=MeasuredStore(
        Path("unused"),
        {"rest": 1.0, "moments": 2.0, "counts": 8.0, "replicates": 16.0, "apart": 32.0},
        {"moments.arrow": 1_000, "counts_B5.arrow": 500, "counts_B35.arrow": 3_500, "replicates_R16.arrow": 9_000},
        n_counted=4,
        own_bytes=0,
    ),
    trials=MeasuredTrials(
        2.0,
        {"MLP+Hist": COSTS, SEARCHED: COSTS, "Non-Ctrl Hist": {15: TrialCost(0.0, 0.0, 1.0)}},
        {"MLP+Hist": {5: 10**9, 35: 2 * 10**9}, SEARCHED: {5: 3 * 10**9}, "Non-Ctrl Hist": {15: 10**9}},
        library_bytes=10**8,
        n_at_once=2,
    ),
    folds=FoldSizes(9, 5, 5, 40),
)


def sweep(epochs=500, n=9, bins=(5, 35)):
    trials = tuple(Trials("MLP+Hist", n_bins, n, epochs, FOLDS) for n_bins in bins)
    return Study("bin_sweep", trials, Store((5, 35)))


def test_a_trial_is_its_setup_its_epochs_and_its_scores_each_scaled_by_what_it_goes_with():
    # Trained on 80 where 40 were timed, and scored on 10 where 5 were.
    cost = trial_seconds(Trials("MLP+Hist", 20, 1, 100, FOLDS), MEASURED.trials, MEASURED.folds)
    assert cost == pytest.approx(1.0 + 100 * 0.5 * 2 + 4.5 * 2)


@given(epochs=st.integers(1, 10_000), n_bins=st.integers(2, 1_000))
def test_twice_the_epochs_are_twice_the_training(epochs, n_bins):
    cost = at_bins(COSTS, n_bins)
    once, twice = (cost.seconds(n) - cost.seconds(0) for n in (epochs, 2 * epochs))
    assert twice == pytest.approx(2 * once)


def test_bins_are_on_the_line_through_those_that_were_timed():
    assert at_bins(COSTS, 20) == pytest.approx((1.0, 0.5, 4.5))
    assert at_bins(COSTS, 35) == COSTS[35]
    assert at_bins({15: COSTS[5]}, 999) == COSTS[5]
    assert min(at_bins({5: TrialCost(0.0, 0.0, 9.0), 10: TrialCost(0.0, 0.0, 1.0)}, 30)) == 0


@given(square=st.floats(1e-6, 1e3), cube=st.floats(0, 1e3), n=st.integers(65, 3_000))
def test_squares_and_cubes_are_gone_on_with(square, cube, n):
    def seconds(n):
        return square * n**2 + cube * n**3

    assert grown(n, (32, seconds(32)), (64, seconds(64))) == pytest.approx(seconds(n), rel=1e-6)


@given(power=st.floats(0.1, 1.9), n=st.integers(65, 3_000))
def test_what_grows_more_slowly_is_gone_on_with_as_a_power(power, n):
    assert grown(n, (32, 32.0**power), (64, 64.0**power)) == pytest.approx(n**power, rel=1e-6)


@given(durations=st.lists(st.floats(0, 100), min_size=1, max_size=40), at_once=st.integers(1, 8))
def test_the_end_is_no_earlier_than_the_work_and_the_longest_allow(durations, at_once):
    end = makespan(durations, at_once)
    least = max(*durations, sum(durations) / at_once)
    assert least - 1e-9 <= end <= sum(durations) / at_once + max(durations) + 1e-9


def test_places_are_taken_in_order():
    assert makespan([5.0, 1.0, 1.0, 1.0], 2) == 5
    assert makespan([1.0, 1.0, 1.0, 5.0], 2) == 6


def test_twice_as_many_places_halve_the_time_of_many_trials():
    study = sweep(n=36, bins=(35,))
    one, two = (forecast(study, MEASURED, n).seconds - around_seconds(study, MEASURED) for n in (9, 18))
    assert one == pytest.approx(2 * two)


def test_a_store_takes_the_passes_that_it_needs_over_all_cells():
    # Twice the cells that were timed; counts of two of four numbers of bins and the reference.
    assert store_seconds(Store((15,)), MEASURED) == pytest.approx(2 * (1 + 2 + 8 * 2 / 4))
    assert store_seconds(Store((15,), 16, has_apart=True), MEASURED) == pytest.approx(2 * (1 + 2 + 4 + 16 + 32))


def test_counts_take_disk_by_bins_and_perturbations():
    assert store_bytes(Store((15,)), MEASURED) == 2 * (1_000 + 100 * 15)
    assert store_bytes(Store(BIN_COUNTS, 16), MEASURED) == 2 * (1_000 + 100 * sum(BIN_COUNTS) + 9_000)


def test_memory_is_that_of_reading_or_that_of_all_workers():
    one, two = (forecast(sweep(), MEASURED, n).own_bytes for n in (1, 2))
    assert two - one == pytest.approx(2 * 10**9, rel=0.3)
    large = replace(MEASURED, read_bytes=10**12)
    assert forecast(sweep(), large, 2).own_bytes == pytest.approx(10**12, rel=0.01)
    assert forecast(sweep(), large, 2).mapped_bytes == 0


def test_no_more_run_at_once_than_there_are():
    assert forecast(sweep(n=1), MEASURED, 64).n_at_once == 2


def test_a_machine_that_is_too_small_is_named():
    small, large = Machine(2, 10**9, 10**13), Machine(2, 10**12, 10**13)
    here = Forecast("bin_sweep", 10, 2, 60.0, own_bytes=5 * 10**9, mapped_bytes=10**12, disk_bytes=10**9)
    assert (here.lacks(small), here.lacks(large)) == ("memory", "")
    assert here.lacks(Machine(2, 10**12, 10**8)) == "disk"
    assert "too little memory for any study: 5.0 GB" in Outlook(small, (here,)).lacking
    assert Outlook(small, (here, replace(here, own_bytes=10**8))).lacking == ""


def test_fewer_trials_at_once_are_forecast_where_memory_is_short():
    needed = [forecast(sweep(), MEASURED, n).own_bytes for n in (1, 2, 3)]
    machine = Machine(8, needed[1], 10**13)
    here = fitting_forecast(sweep(), MEASURED, machine, 8)
    assert (here.n_at_once, here.lacks(machine), Outlook(machine).wants_fewer(here)) == (2, "", True)
    assert here.seconds > forecast(sweep(), MEASURED, 8).seconds
    large = Machine(8, 10**12, 10**13)
    assert not Outlook(large).wants_fewer(fitting_forecast(sweep(), MEASURED, large, 8))
    tiny = Machine(8, needed[0] - 1, 10**13)
    assert fitting_forecast(sweep(), MEASURED, tiny, 8).lacks(tiny) == "memory"


def test_gpus_are_found_in_any_spelling():
    assert [gpu_named(name).name for name in ("h100", "A100-80GB", "a100 40", "RTX 4090", "NVIDIA T4")] == [
        *("H100", "A100-80", "A100-40", "RTX4090", "T4"),
    ]
    assert all(gpu_named(gpu.name) is gpu for gpu in GPUS)
    with pytest.raises(InputError, match="give one of H200, H100"):
        gpu_named("TPU")


def test_a_step_takes_what_bandwidth_or_arithmetic_allow():
    t4 = gpu_named("T4")
    # Few perturbations a step: ten passes over the weights, in float32, rule.
    assert step_seconds(t4, 10**9, 10**6, 1) == pytest.approx(40e9 / 0.32e12, rel=0.01)
    assert step_seconds(t4, 10**9, 10**6, 1_000) == pytest.approx(6 * 1_000 * 1e9 / 8.1e12, rel=0.01)


def test_a_study_of_larger_networks_takes_more_of_a_gpu_and_fewer_at_once():
    settings = ModelSettings()
    small, large = ScreenShape(10_000, 200, 100, False), ScreenShape(200_000, 5_000, 2_560, False)
    sweep_study = studies(FoldSizes(9, 200, 200, 1_600), settings)[0]
    needed = [most_bytes(sweep_study, shape, settings) for shape in (small, large)]
    assert needed[0] < needed[1]
    at_once = [at_once_on(80 * 10**9, n_bytes, 1_000) for n_bytes in needed]
    assert at_once[0] > at_once[1] >= 1
    assert at_once_on(16 * 10**9, 20 * 10**9, 8) == 1


def test_a_slower_gpu_takes_longer():
    seconds = [
        forecast_on(gpu_named(name), sweep(), MEASURED, ModelSettings(hidden=(4_096,)), 2).seconds
        for name in ("T4", "H200")
    ]
    assert seconds[0] > seconds[1]


def test_memory_of_this_process_is_seen_to_grow():
    with sampled([os.getpid()]) as seen:
        # New pages: what was freed before would be taken again.
        held = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held.write(b"1" * (64 << 20))
        time.sleep(4 * EVERY)
        held.close()
    assert max(memory.own for memory in seen) - seen[0].own > 60 << 20
    assert memory_of([2**30]).own == 0  # a process that there is not


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3_599, "60 min"),
        (5_400, "1.5 h"),
        (172_800, "2.0 days"),
        (9e6, "104 days"),
    ],
)
def test_times_are_told_in_units_that_one_thinks_in(seconds, said):
    assert duration(float(seconds)) == said


@pytest.mark.parametrize("of_pairs", [False, True])
def test_of_a_large_screen_a_part_is_tried_and_the_store_is_that_of_all(monkeypatch, of_pairs):
    screen = simulate_screen(0, replace(PRESETS["easy"], n_pairs=12, **SMALL), with_pairs=of_pairs).screen
    assert part_of(screen, 0, of_pairs) is screen
    monkeypatch.setattr(trying, "FEWEST", 6)
    monkeypatch.setattr(trying, "MOST_VALUES", 6 * len(screen.genes))
    part = part_of(screen, 0, of_pairs)
    assert set(part.perturbations) < set(screen.perturbations)
    assert 6 <= len(part.perturbations) <= 8
    assert (part.control != screen.control).nnz == 0
    for name in part.perturbations:  # a pair comes with its genes alone
        assert set(name.split("+")) <= set(part.perturbations)


@pytest.mark.parametrize("of_pairs", [False, True])
def test_every_method_of_every_study_is_timed(tmp_path, monkeypatch, of_pairs):
    for name in ("TIMED_SECONDS", "SOON_SECONDS"):
        monkeypatch.setattr(timing, name, 0.0)
    simulated = simulate_screen(0, replace(PRESETS["easy"], n_pairs=12, **SMALL), with_pairs=of_pairs)
    screen, n_folds = simulated.screen, 10 if of_pairs else 4
    folds = FoldSizes.of(screen.perturbations, n_folds, 0, of_pairs)
    planned = planned_studies(folds, ModelSettings(), of_pairs)
    tasks = tasks_of(planned, ModelSettings(), of_pairs)
    assign = assign_pair_folds if of_pairs else assign_folds
    drawn = assign(screen.perturbations, n_folds, 0)
    store = measured_store(tmp_path, screen, drawn, sorted({task.n_bins for task in tasks}), 16, [BINS], of_pairs)
    assert {"moments", "counts", "replicates", "apart"} <= store.stages.keys()
    vectors = combined_embeddings(simulated.embeddings["good"], screen.perturbations).vectors
    perturbed = multi_hot(screen.perturbations)
    request = Request(store.folder, vectors, perturbed, tuple(tasks), folds.trained_on, 16, of_pairs, False)
    bench = Bench(request)
    costs = {(task.name, task.n_bins): bench.cost(task) for task in tasks}
    assert {trials.method for study in planned for trials in study.trials} == {name for name, _ in costs}
    for (name, _), cost in costs.items():
        assert cost.score > 0
        assert (cost.epoch > 0) == (name in (*STEPPED, *BOTH, SEARCHED))
        assert cost.setup >= 0


class Slow:
    """A method that says how many perturbations it was fitted to."""

    def fit(self, training):
        self.n = len(training.embeddings)
        return iter(())


@pytest.mark.parametrize("coefficient", [1e-6, 1e-3, 1.0])
def test_what_is_fitted_as_a_whole_is_gone_on_with_from_the_last_two_sizes(tmp_path, monkeypatch, coefficient):
    simulation = replace(PRESETS["easy"], **SMALL | {"n_perturbations": 90, "n_genes": 90, "n_cells": 3_000})
    simulated = simulate_screen(0, simulation)
    folds = assign_folds(simulated.screen.perturbations, 2, 0)
    store = open_or_build(tmp_path, simulated.screen, folds, [5])
    vectors = simulated.embeddings["good"].vectors
    training = training_targets(store.fold(0, 5), store.moments, vectors, torch.device("cpu"))
    tried = []

    def timed(work):
        model = work()
        tried.append(model.n)
        return coefficient * model.n**2, model

    monkeypatch.setattr(timing, "timed", timed)
    _, seconds = whole_of(Slow, training, 1_000)
    assert seconds == pytest.approx(coefficient * 1_000**2)
    assert tried == [16, 32, 45][: 2 if coefficient * 32**2 > timing.SOON_SECONDS else 3]
