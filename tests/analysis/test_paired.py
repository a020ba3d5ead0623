"""Paired intervals and tests, against SciPy and statsmodels."""

import gc
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel, wilcoxon
from statsmodels.stats.multitest import multipletests

from analysis.paired import Comparison, PairedDifference, compared, holm, paired_difference


def rows_of(values, folds):
    return pd.DataFrame({"perturbation": [f"G{i}" for i in range(len(values))], "fold": folds, "crps": values})


def pair(seed=0, n=30, shift=0.3):
    random = np.random.default_rng(seed)
    one = random.normal(size=n)
    return one, one - random.normal(shift, 0.2, size=n)


def test_the_interval_is_that_of_the_paired_t_test():
    random = np.random.default_rng(0)
    one = random.normal(size=40)
    other = one + random.normal(0.3, 0.5, size=40)
    expected = ttest_rel(one, other).confidence_interval(0.95)
    found = paired_difference(one, other)
    assert (found.low, found.high, found.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 40)
    assert found.mean == pytest.approx((one - other).mean())


def test_places_that_one_of_them_lacks_are_left_out():
    one, other = np.array([1.0, np.nan, 3.0, 4.0]), np.array([0.5, 2.0, np.nan, 3.0])
    assert paired_difference(one, other) == paired_difference(np.array([1.0, 4.0]), np.array([0.5, 3.0]))


def test_one_place_tells_nothing_of_the_mean():
    assert paired_difference(np.array([2.0]), np.array([1.0])) == (1.0, -np.inf, np.inf, 1)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    random = np.random.default_rng(1)
    draws = random.exponential(size=(2000, 60)) - 1
    held = [found.low <= 0 <= found.high for found in (paired_difference(row, 0 * row) for row in draws)]
    assert 0.92 < np.mean(held) < 0.97


def test_rows_are_paired_by_perturbation_and_folds_by_their_means():
    one, other = pair()
    folds = np.arange(30) % 4
    shuffled = rows_of(other, folds).sample(frac=1, random_state=0)
    found = compared(rows_of(one, folds), shuffled, "crps")
    assert found.perturbations == paired_difference(one, other)
    assert found.p == pytest.approx(wilcoxon(one - other).pvalue)
    expected = ttest_rel(*([values[folds == fold].mean() for fold in range(4)] for values in (one, other)))
    assert (found.folds.low, found.folds.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.folds.n == 4
    assert found.verdict(higher_is_better=True) == "better"
    assert found.verdict(higher_is_better=False) == "worse"


def test_a_perturbation_that_one_lacks_enters_neither_interval():
    one, other = pair()
    folds = np.arange(30) % 4
    with_gap = one.copy()
    with_gap[3] = np.nan
    kept = np.arange(30) != 3
    found = compared(rows_of(with_gap, folds), rows_of(other, folds), "crps")
    assert found == compared(rows_of(one, folds)[kept], rows_of(other, folds), "crps")
    assert found.perturbations.n == 29


def test_other_folds_do_not_pair_and_give_no_verdict():
    one, other = pair()
    found = compared(rows_of(one, np.arange(30) % 4), rows_of(other, np.arange(30) // 10), "crps")
    assert found.perturbations == paired_difference(one, other)
    assert found.folds.n == 0
    assert found.verdict(higher_is_better=True) == ""


def test_the_same_values_are_a_tie_with_p_1():
    one, _ = pair()
    found = compared(rows_of(one, np.arange(30) % 4), rows_of(one, np.arange(30) % 4), "crps")
    assert (found.p, found.verdict(higher_is_better=True)) == (1.0, "tie")


def test_one_fold_cannot_tell_more_than_a_tie():
    one, other = pair()
    assert compared(rows_of(one, 0), rows_of(other, 0), "crps").verdict(higher_is_better=True) == "tie"


def test_nothing_in_common_has_no_verdict():
    one, _ = pair()
    found = compared(rows_of(one, 0), rows_of(np.full(30, np.nan), 0), "crps")
    assert (found.perturbations.n, found.verdict(higher_is_better=True)) == (0, "")
    assert np.isnan([found.perturbations.mean, found.p]).all()


@pytest.mark.parametrize(
    ("perturbations", "folds", "verdict"),
    [((1, 2), (1, 3), "better"), ((1, 2), (-1, 3), "tie"), ((-1, 2), (1, 3), "tie"), ((1, 2), (-3, -1), "tie")],
)
def test_both_intervals_must_say_so(perturbations, folds, verdict):
    comparison = Comparison(PairedDifference(1.5, *perturbations, 9), PairedDifference(1.5, *folds, 3), 0.01)
    assert comparison.verdict(higher_is_better=True) == verdict


@pytest.fixture(scope="module")
def little_garbage() -> Iterator[None]:
    """Statsmodels collects garbage with each correction, through all that other tests have loaded."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_garbage")
@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12))
def test_holm_is_that_of_statsmodels(values):
    p = np.array(values, float)
    defined = ~np.isnan(p)
    expected = np.full(len(p), np.nan)
    if defined.any():
        expected[defined] = multipletests(p[defined], method="holm")[1]
    np.testing.assert_allclose(holm(p), expected)
