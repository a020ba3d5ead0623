"""Embeddings that were dealt out to other genes tell nothing, and no metric may say that they do.

A network on such embeddings that beats one without any would have learned of held-out perturbations in another way.
Each method is cross-validated over all perturbations of a simulated screen, and two methods are compared on the same
perturbations.
"""

from collections import Counter, deque
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from histpert.histograms import open_or_build
from histpert.metrics import evaluate
from histpert.models import METHODS, ModelSettings
from histpert.results import METRICS
from histpert.screens import PRESETS, assign_folds, simulate_screen
from histpert.targets import held_out_targets, training_targets

CPU = torch.device("cpu")
N_FOLDS, N_BINS, N_REPLICATES = 3, 15, 4
SETTINGS = ModelSettings(epochs=100)
SIMULATION = replace(PRESETS["easy"], n_genes=120, n_cells=7_000, n_control=700, min_cells=40, max_cells=100)
FLOORS = ("Non-Ctrl Hist", "Ctrl Hist")
CHANCE = 2.5
"""Chance alone takes a paired t over 90 perturbations above this in 1 of 140 comparisons."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def simulated():
    return simulate_screen(0, SIMULATION)


@pytest.fixture(scope="module")
def scores(simulated, tmp_path_factory):
    """Every metric for every perturbation: by embeddings for the network, and for the floors, which look at none."""
    screen = simulated.screen
    folds = assign_folds(screen.perturbations, N_FOLDS, 0)
    folder = tmp_path_factory.mktemp("store")
    store = open_or_build(folder, screen, folds, [N_BINS], n_replicates=N_REPLICATES, with_cells=True)

    def cross_validated(method, vectors):
        found = {metric: np.full(len(folds), np.nan) for metric in METRICS}
        for fold in range(N_FOLDS):
            counts = store.fold(fold, N_BINS)
            model = METHODS[method](SETTINGS)
            deque(model.fit(training_targets(counts, store.moments, vectors, CPU)), maxlen=0)
            predicted = model.predict(torch.from_numpy(vectors[counts.held_out]))
            held_out = held_out_targets(store, counts, CPU, N_REPLICATES, with_cells=True)
            for metric, values in evaluate(predicted, held_out).items():
                found[metric][counts.held_out] = values
        return found

    vectors = {name: embeddings.lookup(screen.perturbations) for name, embeddings in simulated.embeddings.items()}
    vectors["constant"] = np.ones_like(vectors["good"])
    networks = {name: cross_validated("MLP+Hist", values) for name, values in vectors.items()}
    return networks | {floor: cross_validated(floor, vectors["good"]) for floor in FLOORS}


def lead(scores, first, second, metric):
    """Paired t over held-out perturbations, above 0 where `first` is the better one."""
    costs = (cost(scores[name][metric], metric) for name in (second, first))
    return scipy.stats.ttest_rel(*costs, nan_policy="omit").statistic


def cost(values, metric):
    """Lower is better."""
    if (target := METRICS[metric].target) is not None:
        return np.abs(values - target)
    return -values if METRICS[metric].higher_is_better else values


def test_permuted_embeddings_are_those_of_other_genes(simulated):
    good, permuted = (simulated.embeddings[name].vectors for name in ("good", "permuted"))
    assert Counter(map(bytes, permuted)) == Counter(map(bytes, good))
    # A permutation leaves 1 in its place on average, and more than 5 in 1 of 1,700 cases.
    assert (permuted == good).all(axis=1).sum() <= 5

    def likeness(vectors):
        return np.corrcoef(vectors)[np.triu_indices(len(vectors), 1)]

    # What is left of the pathways: genes that are alike in one are not alike in the other.
    assert abs(np.corrcoef(likeness(permuted), likeness(good))[0, 1]) < 0.1


def test_every_perturbation_is_scored_by_every_metric(scores):
    for name, found in scores.items():
        for metric, values in found.items():
            # Ctrl Hist predicts no shift from control at all.
            of_shifts = metric == "de_spearman" or (metric.startswith("pearson") and metric != "pearson_delta_hat")
            if name == "Ctrl Hist" and of_shifts:
                assert np.isnan(values).all(), metric
            else:  # some perturbations have fewer than three significant genes
                assert np.isfinite(values).mean() >= (0.8 if metric == "de_spearman" else 1), (name, metric)
    np.testing.assert_allclose(scores["Ctrl Hist"]["rmae_mean"], 1, atol=1e-4)


@pytest.mark.parametrize("metric", ["rmae_mean", "w1", "pearson_top20", "pearson_top50", "pearson_top100"])
def test_good_embeddings_beat_the_floors_clearly(scores, metric):
    for floor in FLOORS[:1] if metric.startswith("pearson") else FLOORS:
        assert lead(scores, "good", floor, metric) > 5


@pytest.mark.parametrize("metric", METRICS)
def test_the_more_embeddings_tell_the_better_the_prediction(scores, metric):
    means = [np.nanmean(cost(scores[name][metric], metric)) for name in ("good", "poor", "permuted")]
    assert means == sorted(means)


# The shape of a distribution is left out here, because the pooled histogram is a weak floor for it: it is wider than
# that of any one perturbation, and perturbations weigh in it by their cells. In variance and kurtosis a network without
# any information beats it too.
@pytest.mark.parametrize(
    "metric", ["nll", "rmae_mean", "pearson_top20", "pearson_top50", "pearson_top100", "w1", "crps"]
)
def test_permuted_embeddings_do_not_beat_the_pooled_cells(scores, metric):
    assert lead(scores, "permuted", "Non-Ctrl Hist", metric) < CHANCE


# The floor that holds for every metric: the same network, given the same vector for all genes, knows nothing of them.
@pytest.mark.parametrize("metric", METRICS)
def test_permuted_embeddings_do_not_beat_a_network_that_cannot_tell_genes_apart(scores, metric):
    assert lead(scores, "permuted", "constant", metric) < CHANCE
