"""Paired intervals, against SciPy."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from analysis.paired import paired_difference


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
