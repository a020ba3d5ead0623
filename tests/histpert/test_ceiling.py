"""The ceiling: what is unbiased has one near its perfect value, and the rest what sampling theory says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from histpert.ceiling import ceiling_scores
from histpert.histograms import open_or_build
from histpert.metrics import evaluate
from histpert.metrics.distances import continuous_ranked_probability, energy_distance
from histpert.metrics.reliability import reliability
from histpert.observed_cells import HeldOutCells, ResampledCells
from histpert.predictions import predicted_histograms
from histpert.results import METRICS
from histpert.screens import PRESETS, assign_folds, simulate_screen
from histpert.targets import held_out_targets, replicate_differences, resampled_targets

CPU = torch.device("cpu")
N_REPLICATES, N_BINS = 12, 120


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """A fold of a simulated screen with many control cells, in so many bins that binning costs next to nothing."""
    simulation = replace(
        PRESETS["easy"], n_perturbations=12, n_genes=80, n_control=6_000, n_cells=8_000, min_cells=40, max_cells=300
    )
    screen = simulate_screen(3, simulation).screen
    folds = assign_folds(screen.perturbations, 2, 0)
    store = open_or_build(
        tmp_path_factory.mktemp("stores"), screen, folds, [N_BINS], n_replicates=N_REPLICATES, with_cells=True
    )
    counts = store.fold(0, N_BINS)
    return store, counts, held_out_targets(store, counts, CPU, N_REPLICATES, with_cells=True)


@pytest.fixture(scope="module")
def ceiling(fold):
    store, counts, held_out = fold
    return ceiling_scores(store, counts, CPU, held_out, N_REPLICATES, 0)


def test_every_metric_has_a_ceiling_for_every_perturbation(ceiling):
    assert list(ceiling) == list(METRICS)
    assert all(np.isfinite(values).all() for values in ceiling.values())


def test_a_perfect_prediction_draws_cells_like_those_observed(fold, ceiling):
    _, _, held_out = fold
    cells = [held_out.whole_cells.of(int(row)).double() for row in held_out.rows]
    apart = [torch.cdist(of, held_out.whole_cells.of_control().double()[: len(of)]).mean() for of in cells]
    assert abs(ceiling["edistance"].mean()) < 0.01 * np.mean(apart)
    assert abs(ceiling["mmd"].mean()) < 0.01


def test_a_perfect_prediction_has_no_squared_error_beyond_sampling(fold, ceiling):
    _, _, held_out = fold
    noise = (held_out.moments.variance / held_out.n_cells[:, None]).mean(1).numpy()
    np.testing.assert_allclose(ceiling["mse"], noise, rtol=0.35)  # what sampling adds to the squared error of the truth
    assert abs(ceiling["mse_corrected"].mean()) < 0.1 * noise.mean()


def test_a_perfect_prediction_has_no_energy_distance_beyond_that_of_its_bins(fold, ceiling):
    _, counts, held_out = fold
    positions, gini = held_out.cells.positions(held_out.rows)
    crps = continuous_ranked_probability(held_out.masses, positions, held_out.width)
    of_bins = energy_distance(crps, gini, held_out.n_cells, squared=True, unbiased=False).mean(1).numpy()
    sampling = ceiling["crps"] / held_out.n_cells.numpy()  # what is taken off a biased distance, and more
    assert abs((ceiling["energy_distance"] - of_bins).mean()) < 0.1 * sampling.mean()
    # Which is next to nothing beside the distance to a prediction that knows nothing.
    control = torch.from_numpy(counts.control_counts / counts.control_counts.sum(-1, keepdims=True))
    predicted = predicted_histograms(control.expand_as(held_out.masses), control, held_out.lower, held_out.width)
    assert ceiling["energy_distance"].max() < 0.05 * evaluate(predicted, held_out)["energy_distance"].mean()


def test_cells_are_covered_as_predicted(ceiling):
    for name, metric in METRICS.items():
        if metric.target is not None:
            np.testing.assert_allclose(ceiling[name], metric.target, atol=0.01)


def test_correlations_follow_from_reliability(fold, ceiling):
    """`1 / sqrt(2 - q)`: the observed shift stands for the true one, with its noise."""
    store, counts, _ = fold
    found = np.array(
        [
            reliability(*(values.mean for values in replicate_differences(store, group, N_REPLICATES))).item()
            for group in (counts.held_out + 1).tolist()
        ]
    )
    assert found.min() < 0.95
    np.testing.assert_allclose(ceiling["pearson_delta"], 1 / np.sqrt(2 - found), atol=0.03)
    assert (ceiling["pearson_delta_split"] <= ceiling["pearson_delta"] + 0.01).all()


def test_fewer_cells_have_a_lower_ceiling(fold, ceiling):
    _, _, held_out = fold
    few = np.argsort(held_out.n_cells.numpy())[:3]
    many = np.argsort(held_out.n_cells.numpy())[-3:]
    for name in ("mse", "w1", "rmae_var"):
        assert ceiling[name][few].mean() > ceiling[name][many].mean()


def test_the_same_seed_gives_the_same_ceiling_and_another_one_other_draws(fold, ceiling):
    store, counts, held_out = fold
    again, other = (ceiling_scores(store, counts, CPU, held_out, N_REPLICATES, seed) for seed in (0, 1))
    for name, values in ceiling.items():
        np.testing.assert_array_equal(again[name], values)
    assert (other["w1"] != ceiling["w1"]).all()
    np.testing.assert_array_equal(other["mse"], ceiling["mse"])  # moments are those of the stored replicates


def test_cells_are_drawn_as_many_as_there_are_from_bins_that_hold_some(fold):
    store, counts, held_out = fold
    rows = np.array([3, 1])
    observed = HeldOutCells(counts, store.moments, CPU).masses(rows)
    draws = [ResampledCells(counts, store.moments, CPU, number, 0).masses(rows) for number in range(200)]
    n_cells = held_out.n_cells[rows, None, None]
    for drawn in draws[:3]:
        assert not drawn[observed == 0].any()
        torch.testing.assert_close((drawn * n_cells).round(), drawn * n_cells)
        torch.testing.assert_close(drawn.sum(-1), torch.ones(2, 80, dtype=torch.float64))
    # As multinomial draws: mean and variance of each bin.
    stacked = torch.stack(draws)
    deviation = (observed * (1 - observed) / n_cells).sqrt()
    assert ((stacked.mean(0) - observed).abs() <= 5 * deviation / np.sqrt(200)).all()
    some = observed > 0.05
    torch.testing.assert_close((stacked.std(0) / deviation)[some].mean(), torch.tensor(1.0).double(), atol=0.02, rtol=0)
    alone = ResampledCells(counts, store.moments, CPU, 0, 0).masses(rows[1:])
    torch.testing.assert_close(alone[0], draws[0][1], atol=0, rtol=0)


def test_a_replicate_takes_the_place_of_all_that_was_observed(fold):
    store, counts, held_out = fold
    replicate = resampled_targets(store, counts, CPU, N_REPLICATES, 2, 0)
    sums = store.replicates(N_REPLICATES)
    groups = counts.held_out + 1
    mean = sums[0][groups, 2] / store.moments.n_cells[groups, None]
    np.testing.assert_allclose(replicate.moments.mean, mean, rtol=1e-12)
    second = sums[1][groups, 2] / store.moments.n_cells[groups, None]
    np.testing.assert_allclose(replicate.moments.variance, second - mean**2, atol=1e-12)
    np.testing.assert_allclose(replicate.control_mean, sums[0][0, 2] / store.moments.n_cells[0], rtol=1e-12)
    assert len(replicate.control_noise) == N_REPLICATES - 1  # its own noise is in its control mean already
    assert len(held_out.control_noise) == N_REPLICATES
    assert not torch.equal(replicate.ranking, held_out.ranking)


@pytest.mark.parametrize("n_replicates", [0, 1])
def test_a_ceiling_needs_replicates(fold, n_replicates):
    store, counts, held_out = fold
    with pytest.raises(ValueError, match="2 or more"):
        ceiling_scores(store, counts, CPU, held_out, n_replicates, 0)
