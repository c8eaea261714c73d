"""Tests of differences against SciPy, Holm against values computed by hand, and the corner cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from palate.errors import EvaluationError
from palate.evaluation.intervals import interval
from palate.evaluation.significance import holm, paired


def test_mistakes_are_told() -> None:
    with pytest.raises(EvaluationError, match="cannot be paired"):
        paired(np.ones(3), np.ones(4))
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        holm([0.1, 1.5])


@given(st.lists(st.sampled_from([-0.5, -0.25, 0.0, 0.25, 1.0]), min_size=2, max_size=9))
@settings(max_examples=40, deadline=None)
def test_few_users_are_tested_by_all_sign_flips(differences) -> None:
    d = np.array(differences)
    sums = np.array([np.dot(signs, d) for signs in itertools.product((-1, 1), repeat=len(d))])
    tail = min((sums >= d.sum() - 1e-12).mean(), (sums <= d.sum() + 1e-12).mean())
    assert paired(d, np.zeros(len(d))).p == pytest.approx(min(1, 2 * tail))


def test_many_users_are_tested_as_scipy_tests_all_of_them() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(400), rng.random(400) + 0.05 * (rng.random(400) < 0.5)
    a[:300] = b[:300]  # users who do not differ
    result = paired(a, b)
    reference = stats.permutation_test(
        (a - b,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=20_000, batch=500,
        rng=np.random.default_rng(9),
    )  # fmt: skip
    assert result.p == pytest.approx(reference.pvalue, abs=0.02)
    assert result.test == "sign-flip permutation, 10,000 random flips, 100 users differ"
    assert result.low < result.difference < result.high
    assert (result.low, result.high) == interval(a - b, resamples=10_000)


def test_the_normal_limit_agrees_with_random_flips() -> None:
    d = np.random.default_rng(4).choice([-1.0, -0.4, 0.3, 1.0], 12_000) + 0.012
    limit = paired(d, np.zeros(len(d)), resamples=500)
    assert "normal limit" in limit.test
    rng = np.random.default_rng(0)
    flipped = np.array([(rng.choice([-1.0, 1.0], len(d)) @ d) for _ in range(2_000)])
    assert limit.p == pytest.approx((np.abs(flipped) >= abs(d.sum())).mean(), abs=0.03)


def test_equals_are_called_different_about_5_times_in_100() -> None:
    rng = np.random.default_rng(7)
    alarms = sum(paired(rng.random(30), rng.random(30), resamples=400).p < 0.05 for _ in range(200))
    assert 2 <= alarms <= 20


def test_pairs_that_say_nothing() -> None:
    alone = paired(np.array([0.5]), np.array([0.2]))
    assert math.isnan(alone.p)
    assert alone.to_dict()["p"] is None
    assert alone.difference == pytest.approx(0.3)
    equal = paired(np.ones(9), np.ones(9))
    assert (equal.p, equal.difference) == (1.0, 0.0)
    # Nine users without a difference do not exclude one: the exact bound of 0 of 9.
    assert (-equal.low, equal.high) == pytest.approx([1 - 0.025 ** (1 / 9)] * 2)
    assert paired(np.array([1.0, 0, 0]), np.zeros(3)).p == 1.0


# Computed by hand: sort, multiply by m, m - 1, ..., carry the running maximum, cut at 1, put back.
HOLM = [
    ([0.01], [0.01]),
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ([0.5, 0.9, 0.6], [1.0, 1.0, 1.0]),
    ([0.001, 0.03, 0.02], [0.003, 0.04, 0.04]),
    ([0.0, 1.0], [0.0, 1.0]),
    ([0.01, float("nan"), 0.02], [0.02, float("nan"), 0.02]),
    ([], []),
]


@pytest.mark.parametrize(("p", "adjusted"), HOLM)
def test_holm_by_hand(p, adjusted) -> None:
    assert holm(p) == pytest.approx(adjusted, nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_holm_rejects_what_the_step_down_rule_rejects(p) -> None:
    order, rejected = sorted(range(len(p)), key=lambda i: p[i]), set()
    for step, index in enumerate(order):
        if p[index] * (len(p) - step) > 0.05:
            break
        rejected.add(index)
    adjusted = holm(p)
    assert {i for i in range(len(p)) if adjusted[i] <= 0.05} == rejected
    assert (adjusted >= np.array(p)).all()


def test_holm_keeps_false_alarms_down() -> None:
    """Five models, all equal to the baseline: some alarm in at most about 5 of 100 tables."""
    rng = np.random.default_rng(1)
    alarms = sum((holm(rng.random(5)) < 0.05).any() for _ in range(2_000))
    assert alarms / 2_000 < 0.065
