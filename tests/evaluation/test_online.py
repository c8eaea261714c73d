"""Tests of online experiments: as often wrong as they say, and oracles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.errors import EvaluationError
from palate.evaluation.online import (
    FIRST,
    MANY,
    mean_interval,
    sequential_sign,
    sequential_two_sample,
    sign_test,
    two_sample,
    wilson,
)

WORLDS = 400
# 5 % of 400 are 20, and 20 + 3 standard deviations are 33.
MOST = 33


def clicks(rng, users, rate):
    """The share of lists with a click, per user; users differ, and have one list to five."""
    lists = rng.integers(1, 6, users)
    return rng.binomial(lists, rng.beta(8 * rate, 8 * (1 - rate), users)) / lists


@pytest.mark.parametrize("users", [30, 600])
def test_a_test_of_fixed_size_is_wrong_in_one_of_twenty_equal_worlds(users):
    rng = np.random.default_rng(1)
    p = [two_sample(clicks(rng, users, 0.2), clicks(rng, users, 0.2), resamples=199).p for _ in range(WORLDS)]
    assert WORLDS * 0.02 < sum(np.array(p) < 0.05) <= MOST


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.5])
def test_looking_after_every_user_finds_a_difference_in_at_most_one_of_twenty_equal_worlds(rate):
    rng, peeked, found = np.random.default_rng(2), 0, 0
    for world in range(WORLDS):
        values, second = clicks(rng, 2_000, rate), rng.random(2_000) < 0.5
        found += sequential_two_sample(values, second, 0.05).decided_at is not None
        if rate != 0.2 or world >= 60:
            continue
        # The test of fixed size at 20 looks, stopped at the first p below 5 %: the reason for the other one.
        ends = range(100, 2_001, 100)
        halves = [(values[:end][~second[:end]], values[:end][second[:end]]) for end in ends]
        peeked += any(stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05 for a, b in halves)
    assert found <= MOST
    assert rate != 0.2 or peeked > 0.15 * 60


def test_the_sequential_test_of_credits_is_as_honest():
    rng = np.random.default_rng(3)
    found = sum(
        sequential_sign(rng.choice([-1.0, 0.0, 0.0, 1.0], 1_000), 0.1).decided_at is not None for _ in range(WORLDS)
    )
    assert found <= MOST
    better = sequential_sign(rng.choice([-1.0, 0.0, 0.0, 1.0], 1_000, p=[0.15, 0.25, 0.25, 0.35]), 0.1)
    assert better.decided_at is not None
    assert better.second_better
    assert better.low > 0


def test_a_known_difference_is_found_and_inside_the_interval():
    rng = np.random.default_rng(4)
    inside, found, at = 0, 0, []
    for _ in range(100):
        second = rng.random(4_000) < 0.5
        values = np.where(second, clicks(rng, 4_000, 0.30), clicks(rng, 4_000, 0.22))
        one = sequential_two_sample(values, second, 0.05)
        found += bool(one.second_better)
        inside += one.low <= 0.08 <= one.high
        at.append(one.decided_at or 4_000)
    assert found >= 98
    assert inside >= 90
    assert np.median(at) < 2_000  # it stops before its most users


def test_the_fixed_test_finds_it_too_with_an_interval_of_95_percent():
    rng = np.random.default_rng(5)
    tests = [two_sample(clicks(rng, 900, 0.22), clicks(rng, 900, 0.30)) for _ in range(200)]
    assert sum(one.p < 0.05 for one in tests) >= 190
    assert sum(one.low <= 0.08 <= one.high for one in tests) >= 180


def test_intervals_and_p_values_are_those_of_scipy():
    assert wilson(3, 10) == pytest.approx((0.1078, 0.6032), abs=1e-4)  # Brown, Cai & DasGupta 2001
    assert np.isnan(wilson(0, 0)).all()
    rng = np.random.default_rng(6)
    a, b = clicks(rng, 800, 0.2), clicks(rng, 700, 0.25)
    assert two_sample(a, b).p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    many = clicks(rng, MANY + 1, 0.2)
    assert mean_interval(many) == pytest.approx(mean_interval(many[:MANY]), abs=2e-3)
    small = two_sample(a[:40], b[:40])
    assert small.p == pytest.approx(stats.ttest_ind(a[:40], b[:40]).pvalue, abs=0.03)
    assert small.difference == pytest.approx(b[:40].mean() - a[:40].mean())
    assert sign_test(np.array([1.0, 0.5, 0.2, 0.1, 0.4, 0.0, -1.0])).p == stats.binomtest(5, 6).pvalue


def test_too_few_users_are_no_test():
    assert np.isnan(two_sample(np.array([0.1]), np.array([0.2, 0.3])).p)
    assert np.isnan(sign_test(np.zeros(0)).p)
    assert sign_test(np.zeros(5)).p == 1
    few = np.arange(2 * FIRST - 2) % 2
    assert np.isnan(sequential_two_sample(few.astype(float), few == 1, 0.05).p)
    assert np.isnan(sequential_two_sample(np.zeros(0), np.zeros(0, bool), 0.05).p)
    with pytest.raises(EvaluationError, match="effect"):
        sequential_sign(np.zeros(50), 0.0)
    # Nobody clicks: no difference, and no division by zero.
    nobody = sequential_two_sample(np.zeros(400), np.arange(400) % 2 == 1, 0.05)
    assert nobody.p == 1
    assert two_sample(np.zeros(50), np.zeros(50)).p == 1
