"""Scores of means against SciPy, scanpy, ranks by hand, and halves of real cells."""

import warnings

import numpy as np
import pytest
import scipy.stats
import torch
from test_metrics import tensors

from histpert.metrics.reliability import reliability
from histpert.metrics.shifts import discrimination, pearson, pearson_split
from histpert.metrics.significance import differential_expression, log_fold_change, spearman_of_significant


def test_pearson_is_that_of_scipy_over_the_genes_that_count():
    random = np.random.default_rng(0)
    predicted, observed = random.normal(size=(2, 5, 40))
    left_out = random.uniform(size=(5, 40)) < 0.3
    left_out[0] = False
    found = pearson(*tensors(predicted, observed, left_out))
    expected = [scipy.stats.pearsonr(predicted[p, ~left_out[p]], observed[p, ~left_out[p]])[0] for p in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(pearson(*tensors(predicted, observed))[0], expected[0], rtol=1e-10)


def test_a_shift_of_left_out_genes_alone_has_no_correlation():
    shift = np.where(np.arange(20) == 3, 1.0, 0.0)[None]
    observed = np.random.default_rng(1).normal(size=(1, 20))
    assert pearson(*tensors(shift, observed)).isfinite().all()
    assert pearson(*tensors(shift, observed, shift > 0)).isnan().all()


def halves(control, predicted, observed, n_splits, random):
    """Correlation of prediction minus one half of the control cells with observation minus the other."""
    found = []
    for _ in range(n_splits):
        order = random.permutation(len(control))
        first, second = np.split(control[order], 2)
        found.append(scipy.stats.pearsonr(predicted - first.mean(0), observed - second.mean(0))[0])
    return np.array(found)


def test_replicates_of_control_correlate_as_real_halves_of_its_cells_do():
    random = np.random.default_rng(2)
    n_genes, n_control = 60, 80
    means = random.gamma(2, 1, n_genes)
    spread = random.normal(0, 0.5, (n_genes, n_genes)) + 2 * np.eye(n_genes)  # genes that go together
    control = means + random.normal(size=(n_control, n_genes)) @ spread
    mean = control.mean(0)
    # Nothing is perturbed: what correlates is the noise of control.
    predicted, observed = means + random.normal(size=(2, 6, n_genes)) @ spread / np.sqrt(n_control)
    drawn = random.multinomial(n_control, np.full(n_control, 1 / n_control), size=400)
    noise = drawn @ control / n_control - mean
    shared = pearson(*tensors(predicted - mean, observed - mean))
    split = pearson_split(*tensors(predicted - mean, observed - mean, noise)).numpy()
    expected = np.array([halves(control, *pair, 400, random).mean() for pair in zip(predicted, observed, strict=True)])
    np.testing.assert_allclose(split, expected, atol=0.04)
    assert shared.mean() > 0.3
    assert abs(split.mean()) < 0.2


def test_a_split_needs_replicates_and_a_prediction_that_varies():
    random = np.random.default_rng(3)
    shifts, noise = random.normal(size=(2, 30)), 0.1 * random.normal(size=(4, 30))
    assert pearson_split(*tensors(shifts, shifts, noise[:0])).isnan().all()
    assert pearson_split(*tensors(np.zeros_like(shifts), shifts, noise)).isnan().all()
    single = pearson(*tensors(shifts - noise[0], shifts + noise[0]))
    np.testing.assert_array_equal(pearson_split(*tensors(shifts, shifts, noise[:1])), single)


def ranks_by_hand(predicted, observed, targets):
    scores = []
    for own, shift in enumerate(predicted):
        distance = np.abs(observed - shift)[:, ~targets[own]].sum(1)
        nearer = sum(distance[q] < distance[own] for q in range(len(observed)) if q != own)
        scores.append(1 - nearer / len(observed))
    return scores


def test_discrimination_is_the_rank_of_a_perturbations_own_observation():
    random = np.random.default_rng(4)
    observed = random.normal(size=(9, 25))
    predicted = observed + 1.5 * random.normal(size=(9, 25))
    targets = random.uniform(size=(9, 25)) < 0.1
    predicted[targets] += 50  # what is left out must not count
    found = discrimination(*tensors(predicted, observed, np.arange(9), targets))
    np.testing.assert_allclose(found, ranks_by_hand(predicted, observed, targets))
    assert len(set(found.tolist())) > 2
    some = discrimination(*tensors(predicted[[7, 2]], observed, np.array([7, 2]), targets[[7, 2]]))
    assert some.tolist() == found[[7, 2]].tolist()


@pytest.mark.parametrize("n", [2, 7, 30])
def test_a_prediction_that_is_the_same_for_all_discriminates_by_chance(n):
    observed = np.random.default_rng(n).normal(size=(n, 25))
    none, own = np.zeros((n, 25), dtype=bool), np.arange(n)
    found = discrimination(*tensors(np.zeros((n, 25)), observed, own, none))
    assert found.mean().item() == pytest.approx(0.5 + 1 / (2 * n))
    assert discrimination(*tensors(observed, observed, own, none)).tolist() == [1] * n


def test_ties_count_half_and_a_single_candidate_is_told_from_none():
    observed, none = np.repeat([[1.0, 2.0]], 3, axis=0), np.zeros((3, 2), dtype=bool)
    found = discrimination(*tensors(observed, observed, np.arange(3), none))
    assert found.tolist() == pytest.approx([1 - 1 / 3] * 3)  # two ties: rank 1 of 3
    assert discrimination(*tensors(observed[:1], observed[:1], np.array([0]), none[:1])).isnan().all()


def small_screen(random):
    labels = np.repeat(["control", "A", "B", "C"], [60, 25, 12, 8])
    rates = random.gamma(1, 1, 40) * np.where(
        labels[:, None] == "control",
        1,
        np.exp(random.normal(0, 0.8, (4, 40)))[np.unique(labels, return_inverse=True)[1]],
    )
    expression = np.log1p(random.poisson(rates)).astype(np.float64)
    expression[:, 11] = 0
    return labels, expression


def test_fold_changes_and_significant_genes_are_those_of_scanpy():
    anndata, scanpy = pytest.importorskip("anndata"), pytest.importorskip("scanpy")
    labels, expression = small_screen(np.random.default_rng(5))
    data = anndata.AnnData(expression)
    data.obs["perturbation"] = labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scanpy.tl.rank_genes_groups(data, "perturbation", method="t-test", reference="control")
    control = expression[labels == "control"]
    for name in "ABC":
        cells = expression[labels == name]
        table = scanpy.get.rank_genes_groups_df(data, name).set_index("names").loc[data.var_names]
        found = log_fold_change(cells.mean(0)[None], control.mean(0))[0]
        np.testing.assert_allclose(found, table["logfoldchanges"], rtol=1e-4, atol=1e-5)
        sizes = np.array([len(cells)])
        tested = differential_expression(
            cells.mean(0)[None], cells.var(0)[None], sizes, control.mean(0), control.var(0), len(control)
        )
        np.testing.assert_array_equal(tested.significant[0], table["pvals_adj"].to_numpy() < 0.05)
        assert name == "C" or 3 <= tested.significant.sum() < 40


def test_rank_correlation_of_fold_changes_is_that_of_scipy_where_there_are_enough_genes():
    random = np.random.default_rng(6)
    predicted, observed = random.normal(size=(2, 5, 30)).round(1)  # with ties
    significant = random.uniform(size=(5, 30)) < 0.5
    significant[3], significant[3, :2] = False, True
    predicted[4] = 0.25
    found = spearman_of_significant(predicted, observed, significant)
    for p in range(3):
        pair = predicted[p, significant[p]], observed[p, significant[p]]
        assert found[p] == pytest.approx(scipy.stats.spearmanr(*pair).statistic, rel=1e-10)
    assert np.isnan(found[3:]).all()


def test_a_negative_mean_has_the_fold_change_of_none():
    control = np.array([0.5, 0.5])
    found = log_fold_change(np.array([[-0.3, 0.0]]), control)
    assert found[0, 0] == found[0, 1] < -20


@pytest.mark.parametrize("signal", [2.0, 0.5])
def test_reliability_is_the_share_of_signal_and_tells_what_a_perfect_prediction_correlates_by(signal):
    random = np.random.default_rng(7)
    n_genes, n_replicates, common = 4_000, 16, 0.7
    true = signal * random.normal(size=n_genes)

    def noise(n):  # the part that genes have in common moves all of them, and no variance over genes
        return random.normal(size=(n, n_genes)) + common * random.normal(size=(n, 1))

    observed = true + noise(1)[0]
    found = reliability(*tensors(observed, observed + noise(n_replicates))).item()
    assert found == pytest.approx(signal**2 / (signal**2 + 1), abs=0.03)
    assert np.corrcoef(true, observed)[0, 1] == pytest.approx(np.sqrt(found), abs=0.05)


def test_reliability_is_undefined_where_noise_is_all_and_leaves_out_genes_without_a_value():
    random = np.random.default_rng(8)
    observed = random.normal(size=500)
    replicates = observed + random.normal(size=(16, 500))
    assert reliability(*tensors(0.5 * observed, replicates)).isnan()
    strong = tensors(3 * observed, replicates)
    with_gaps = [values.clone() for values in strong]
    with_gaps[0] = torch.cat([with_gaps[0], torch.full((5,), torch.nan)])
    with_gaps[1] = torch.cat([with_gaps[1], torch.full((16, 5), torch.nan)], dim=1)
    assert reliability(*with_gaps).item() == pytest.approx(reliability(*strong).item(), rel=1e-12)
    with_gaps[1][3, 7] = torch.nan  # a replicate in which one gene's cells are all the same
    assert reliability(*with_gaps).item() == pytest.approx(reliability(*strong).item(), rel=0.01)
