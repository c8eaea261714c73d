"""Intervals against SciPy, exact binomial ones, and how often they hold the truth in generated worlds."""

from __future__ import annotations

import math
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from palate.errors import EvaluationError
from palate.evaluation.intervals import clustered, interval, intervals

SHARES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.63, 1.0]), min_size=2, max_size=40)


def scipy_interval(values, resamples, level=0.95):
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, confidence_level=level, method="percentile",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return tuple(result.confidence_interval)


GAIN = 1 / np.log2(np.arange(2, 12))  # NDCG@10 of a hit, by its rank


def covered(draw, truth, worlds=200) -> float:
    """How often the interval of a random sample holds the true mean."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(worlds):
        low, high = interval(draw(rng), resamples=200)
        inside += low - 1e-12 <= truth <= high + 1e-12
    return inside / worlds


@pytest.mark.parametrize("users", [20, 95, 300])
@pytest.mark.parametrize("rate", [0.03, 0.3, 0.97])
@pytest.mark.parametrize("gain", [np.ones(10), GAIN], ids=["HitRate", "NDCG"])
def test_intervals_cover_the_true_mean_also_with_few_users_and_rare_hits(users, rate, gain) -> None:
    share = covered(lambda rng: (rng.random(users) < rate) * gain[rng.integers(0, 10, users)], rate * gain.mean())
    assert share >= 0.90  # 0.95 less three standard errors of 200 worlds


@pytest.mark.parametrize("users", [20, 95, 300])
@pytest.mark.parametrize("differing", [0.03, 0.3])
def test_intervals_of_differences_cover_too(users, differing) -> None:
    def draw(rng):
        return (rng.random(users) < differing) * np.where(rng.random(users) < 0.7, 1.0, -1.0)

    assert covered(draw, 0.4 * differing) >= 0.90


@pytest.mark.parametrize(("users", "rate"), [(60, 0.3), (200, 0.02)])
def test_clustered_intervals_cover_where_intervals_over_rows_do_not(users, rate) -> None:
    """Users have 2 to 40 rows, and their own chance of a hit."""
    rng = np.random.default_rng(1)
    inside, by_row, worlds = 0, 0, 120
    for _ in range(worlds):
        user = np.repeat(np.arange(users), rng.integers(2, 41, users))
        hits = (rng.random(len(user)) < rng.beta(rate, 1 - rate, users)[user]).astype(float)
        mean, low, high = clustered(hits, user, resamples=200)
        assert mean == pytest.approx(hits.mean())
        inside += low <= rate <= high
        low, high = interval(hits, resamples=100)
        by_row += low <= rate <= high
    assert inside / worlds >= 0.89  # 0.95 less three standard errors
    assert by_row / worlds < 0.7


def test_hits_have_the_exact_binomial_interval() -> None:
    for hits, users in ((0, 20), (3, 20), (21, 95), (95, 95), (12, 5_000)):
        exact = stats.binomtest(hits, users).proportion_ci(method="exact")
        assert interval(np.arange(users) < hits) == pytest.approx((exact.low, exact.high))


def test_one_user_or_few_with_a_value_in_clusters() -> None:
    assert np.isnan(clustered(np.ones(5), np.zeros(5, int))[1:]).all()
    user = np.repeat(np.arange(300), 10)
    hits = (np.arange(3_000) < 1).astype(float)
    mean, low, high = clustered(hits, user)
    assert mean == pytest.approx(1 / 3_000)
    assert low < mean < 4 / 3_000 < high  # one hit of 300 users excludes less than four more


@given(SHARES, st.integers(2, 700), st.sampled_from([0.5, 0.9, 0.95]))
@settings(max_examples=30, deadline=None)
def test_intervals_are_those_of_scipy(values, resamples, level) -> None:
    values_U = np.tile(values, 200)[: max(200, 50 * len(values))]  # enough users for the bootstrap
    if np.ptp(values_U) == 0:
        bounds = interval(values_U, resamples=resamples)
        assert bounds == (values[0], values[0]) or values[0] in (0, 1)
        return
    ours = interval(values_U, resamples=resamples, level=level)
    assert ours == pytest.approx(scipy_interval(values_U, resamples, level), abs=1e-6)


def test_many_metrics_at_once_are_each_the_interval_of_one() -> None:
    rng = np.random.default_rng(3)
    table_UM = rng.random((700, 5)) * (rng.random((700, 5)) < 0.3)  # 700 users: several chunks of resamples
    together = intervals(table_UM, resamples=900)
    assert together.shape == (5, 2)
    for column, bounds in zip(table_UM.T, together, strict=True):
        assert tuple(bounds) == pytest.approx(scipy_interval(column, 900), abs=1e-6)
        assert tuple(bounds) == pytest.approx(interval(column, resamples=900), abs=1e-7)
    named = intervals({"a": table_UM[:, 0], "b": table_UM[:, 1]}, resamples=900)
    assert [named["a"], named["b"]] == [pytest.approx(tuple(row)) for row in together[:2]]


def test_a_shift_moves_the_interval_and_no_digit_is_lost_to_it() -> None:
    values_U = np.random.default_rng(5).normal(size=300)
    low, high = interval(values_U)
    far = interval(values_U + 1e6)
    assert far == pytest.approx((low + 1e6, high + 1e6), abs=1e-7)


def test_one_user_gives_no_interval_and_equal_values_give_a_point() -> None:
    assert all(math.isnan(bound) for bound in interval(np.array([0.4])))
    assert interval(np.full(50, 0.25)) == (0.25, 0.25)
    assert np.isnan(intervals(np.empty((0, 3)))).all()
    assert intervals({}) == {}


def test_mistakes_are_told() -> None:
    with pytest.raises(EvaluationError, match="resamples=0"):
        interval(np.ones(3), resamples=0)
    with pytest.raises(EvaluationError, match="a 2, b 3"):
        intervals({"a": np.ones(2), "b": np.ones(3)})


def test_memory_does_not_grow_with_the_number_of_resamples() -> None:
    values_UM = np.random.default_rng(0).random((20_000, 2))
    intervals(values_UM, resamples=5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    intervals(values_UM, resamples=2_000)  # 320 MB of draws in all
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KB


def test_bounds_stay_between_the_least_and_the_largest_value():
    rare = np.zeros((6_040, 1))
    rare[:3] = 1 / 3
    low, high = intervals(rare)[0]
    assert 0 <= low < high <= 1 / 3
    assert intervals(1 - rare)[0, 1] <= 1
