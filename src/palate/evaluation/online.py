"""Tests of online experiments: two groups of users (A/B), or one group with a credit each (interleaving).

    two_sample(a_U, b_U).p                        # at a number of users that was stated before
    sign_test(credit_U).p                         # the same for interleaving
    sequential_two_sample(values_U, in_b_U).p     # after every user, as often as one likes

As offline, users are the unit: the lists and clicks of one user depend on each other. A test of fixed size is valid
only at its size: who looks again and again and stops at the first p below 5 % is wrong much more often than in 5 % of
cases. The sequential tests are mixture sequential probability ratio tests, valid at every look (Robbins 1970; Johari,
Koomen, Pekelis & Walsh 2022, "Always Valid Inference: Continuous Monitoring of A/B Tests", Operations Research 70(3)).

Shape legend: U users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from palate.errors import EvaluationError
from palate.evaluation.intervals import interval
from palate.evaluation.significance import LEVEL
from palate.evaluation.tables import Plain

Floats = NDArray[np.float64]
FEW = 1_000  # users up to which labels are permuted; above, means are normal for every purpose
MANY = 10_000  # from so many users on a bootstrap interval is the normal one, and slow
FIRST = 30  # users of a group before a sequential test looks: its normal limit needs some


@dataclass(frozen=True)
class Tested(Plain):
    """A difference of means and how surprising it would be between equals.

    Args:
        difference: of the means, the second group minus the first; of interleaving, the mean credit of the second.
        low, high: 95 % interval; of a sequential test, one that holds for all looks together.
        p: two-sided p-value; of a sequential test, always valid. NaN where nothing can be tested.
        test: which test, in words.
        decided_at: users after which a sequential p fell below the level; None where it did not.
        second_better: of a sequential test, whether the difference was above 0 then.
    """

    difference: float
    low: float
    high: float
    p: float
    test: str
    decided_at: int | None = None
    second_better: bool | None = None


def wilson(successes: int, total: int) -> tuple[float, float]:
    """95 % interval of a share of users (Wilson 1927); NaN without users."""
    if not total:
        return float("nan"), float("nan")
    found = stats.binomtest(successes, total).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def mean_interval(values_U: Floats) -> tuple[float, float]:
    """95 % interval of a mean over users: bootstrap up to 10,000 users, above them normal; NaN with fewer than two."""
    users = len(values_U)
    if users <= MANY:
        return interval(values_U)
    mean, half = float(values_U.mean()), float(stats.norm.isf(LEVEL / 2) * values_U.std(ddof=1) / np.sqrt(users))
    return mean - half, mean + half


def two_sample(a_U: Floats, b_U: Floats, *, resamples: int = 10_000, seed: int = 0) -> Tested:
    """Whether two groups of users have the same mean, with one value per user.

    Up to 1,000 users, the labels of the groups are permuted (Fisher 1935); above, Welch's t-test. The interval is
    Welch's.
    """
    a, b = (np.asarray(values, np.float64) for values in (a_U, b_U))
    if min(len(a), len(b)) < 2:
        nan = float("nan")
        mean = float(b.mean() - a.mean()) if len(a) and len(b) else nan
        return Tested(mean, nan, nan, nan, "none: fewer than two users in a group")
    difference = float(b.mean() - a.mean())
    if not (np.ptp(a) or np.ptp(b)):
        same = difference == 0
        return Tested(difference, difference, difference, 1.0 if same else 0.0, "none: no user differs within a group")
    welch = stats.ttest_ind(b, a, equal_var=False)
    low, high = map(float, welch.confidence_interval(1 - LEVEL))
    if len(a) + len(b) > FEW:
        return Tested(difference, low, high, float(welch.pvalue), "Welch's t-test by user")
    found = stats.permutation_test(
        (b, a),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        permutation_type="independent",
        n_resamples=resamples,
        batch=max(1, 2_000_000 // (len(a) + len(b))),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return Tested(difference, low, high, float(found.pvalue), f"permutation of users, {resamples:,} random ones")


def sign_test(credit_U: Floats) -> Tested:
    """Whether more users prefer the second ranker of an interleaving than the first.

    Args:
        credit_U: (U,) credit of the second minus that of the first per user; 0 is no preference and counts in the
            mean, not in the test.
    """
    credit = np.asarray(credit_U, np.float64)
    if not len(credit):
        nan = float("nan")
        return Tested(nan, nan, nan, nan, "none: no users")
    low, high = mean_interval(credit)
    wins, losses = int((credit > 0).sum()), int((credit < 0).sum())
    p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    words = f"sign test, {wins + losses:,} users with a preference"
    return Tested(float(credit.mean()), low, high, p, words)


def sequential_two_sample(values_U: Floats, in_second_U: NDArray[np.bool_], effect: float) -> Tested:
    """An always-valid test of two groups, whose users came in this order.

    Args:
        values_U: (U,) one value from 0 to 1 per user, in the order in which the users were complete.
        in_second_U: (U,) whether the user is in the second group.
        effect: a difference worth finding, stated before: standard deviation of the mixture. It decides how many
            users are needed, not whether the test is valid.
    """
    values, second = np.asarray(values_U, np.float64), np.asarray(in_second_U, np.bool_)
    parts = [_running(values, mask) for mask in (~second, second)]
    (count_a, mean_a, variance_a), (count_b, mean_b, variance_b) = parts
    enough = np.minimum(count_a, count_b) >= FIRST
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = variance_a / count_a + variance_b / count_b
    return _mixture(mean_b - mean_a, spread, enough, effect)


def sequential_sign(credit_U: Floats, effect: float) -> Tested:
    """An always-valid test that the mean credit of interleaving is 0; credits from -1 to 1 in the order of the users.

    Args:
        credit_U: (U,) credit of the second minus that of the first.
        effect: as for ``sequential_two_sample``.
    """
    credit = np.asarray(credit_U, np.float64)
    count, mean, variance = _running(credit, np.ones(len(credit), np.bool_), width=2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = variance / count
    return _mixture(mean, spread, count >= FIRST, effect)


def _running(
    values: Floats, mask: NDArray[np.bool_], width: float = 1.0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Count, mean and variance of the masked values up to each place."""
    count = np.cumsum(mask, dtype=np.int64)
    some = np.maximum(count, 1)
    mean = np.cumsum(np.where(mask, values, 0.0)) / some
    squares = np.cumsum(np.where(mask, values * values, 0.0)) / some - mean * mean
    # One value at the far end more than was seen: rare clicks would else begin with a variance of 0.
    return count, mean, np.maximum(squares, 0.0) + width * width / 4 / some


def _mixture(difference: Floats, spread: Floats, enough: NDArray[np.bool_], effect: float) -> Tested:
    """The test of running differences with running variances ``spread``."""
    if not effect > 0:
        raise EvaluationError(f"effect={effect!r}: give a difference above 0 that is worth finding, such as 0.02")
    nan, words = float("nan"), "mixture SPRT by user, always valid"
    if not enough.any():
        last = float(difference[-1]) if len(difference) else nan
        return Tested(last, nan, nan, nan, f"none: fewer than {FIRST} users in a group")
    mixing = effect * effect
    seen, variance = difference[enough], spread[enough]
    total = variance + mixing
    log_ratio = 0.5 * np.log(variance / total) + mixing * seen * seen / (2 * variance * total)
    p = np.minimum.accumulate(np.minimum(np.exp(-np.maximum(log_ratio, 0.0)), 1.0))
    radius = np.sqrt(variance * total / mixing * np.log(total / (LEVEL * LEVEL * variance)))
    # All looks together: each interval holds the truth, so their intersection does.
    low, high = float((seen - radius).max()), float((seen + radius).min())
    crossed = np.flatnonzero(p < LEVEL)
    if len(crossed):
        place = int(crossed[0])
        at = int(np.flatnonzero(enough)[place]) + 1
        return Tested(float(seen[-1]), low, high, float(p[-1]), words, at, bool(seen[place] > 0))
    return Tested(float(seen[-1]), low, high, float(p[-1]), words)
