"""Intervals: coverage on data whose mean is known, and the corner cases."""

from __future__ import annotations

import math

import numpy as np

from palate.stats import interval


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        low, high = interval((rng.random(80) < 0.3).astype(float), resamples=300)
        inside += low <= 0.3 <= high
    assert 180 <= inside <= 198


def test_one_user_gives_no_interval_and_equal_values_give_a_point() -> None:
    assert all(math.isnan(bound) for bound in interval(np.array([0.4])))
    assert interval(np.full(50, 0.25)) == (0.25, 0.25)


def test_the_interval_is_a_function_of_the_values_and_the_seed() -> None:
    values = np.random.default_rng(1).random(100)
    assert interval(values) == interval(values)
