"""Intervals of means over users: bootstrap where it covers, exact where users are few or have few hits.

    low, high = interval(values_U)             # one value per user
    intervals({"NDCG@10": ..., "Recall@10": ...})   # several metrics of the same users
    mean, low, high = clustered(values_N, user_N)   # several rows per user

Shape legend: U users, M metrics, N rows, K values other than 0, R resamples of a chunk, P parts of a resample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from palate.errors import EvaluationError

Floats = NDArray[np.floating[Any]]

# The percentile bootstrap covers less often than it says below so many users, or so many of them with a value other
# than 0, or other than the largest: benchmarks/intervals.py.
FEW_USERS = 200
FEW_VALUES = 50
# Draws held at once by the bootstrap: 2 MB, which stay in the cache; more only where one resample needs more.
CHUNK_CELLS = 500_000


def interval(values_U: Floats, *, level: float = 0.95, resamples: int = 1_000, seed: int = 0) -> tuple[float, float]:
    """Interval of the mean over users: ``intervals`` for one metric."""
    low, high = intervals(np.asarray(values_U)[:, None], level=level, resamples=resamples, seed=seed)[0]
    return float(low), float(high)


def clustered(
    values_N: Floats, user_N: NDArray[np.integer[Any]], *, level: float = 0.95, resamples: int = 1_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over N rows with its interval over users: (mean, low, high); NaN with fewer than two users.

    Rows of one user are alike, so whole users are drawn, and each resample is studentized by the linearized error of
    its ratio of sums (Davison & Hinkley 1997, sec. 2.4 and 3.8). Where fewer than 50 users have a sum other than 0,
    the interval is that of the mean sum (``mover_interval``), divided by the mean number of rows of a user.
    """
    _, place_N = np.unique(user_N, return_inverse=True)
    sum_U = np.bincount(place_N, values_N).astype(np.float64)
    count_U = np.bincount(place_N).astype(np.float64)
    mean, users = float(np.mean(values_N)), len(sum_U)
    if users < 2:
        return mean, float("nan"), float("nan")
    if (sum_U != 0).sum() < FEW_VALUES:
        low, high = (bound / count_U.mean() for bound in mover_interval(sum_U, level))
        return mean, low, high
    rng, t_R = np.random.default_rng(seed), np.empty(resamples)
    for number in range(resamples):
        drawn_U = rng.integers(0, users, users)
        sums_U, counts_U = sum_U[drawn_U], count_U[drawn_U]
        ratio = sums_U.sum() / counts_U.sum()
        error = np.sqrt(np.square(sums_U - ratio * counts_U).sum()) / counts_U.sum()
        t_R[number] = (ratio - mean) / error if error else 0.0
    error = np.sqrt(np.square(sum_U - mean * count_U).sum()) / count_U.sum()
    upper, lower = np.quantile(t_R, [(1 - level) / 2, (1 + level) / 2])
    least, most = np.min(values_N), np.max(values_N)
    return mean, float(np.clip(mean - lower * error, least, most)), float(np.clip(mean - upper * error, least, most))


def mover_interval(values_U: Floats, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of few values, many of them 0: exact for hits and misses.

    A mean is the share of users with a value times the mean of their values. The share has its exact binomial interval
    (Clopper & Pearson 1934), the values that of Student, and both are combined by the method of variance estimates
    recovery (Zou & Donner 2008, "Construction of confidence limits about effect measures: a general approach",
    Statistics in Medicine 27). Values of both signs, which are differences, are the mean of the positive ones minus
    that of the negative ones. Unseen values are taken to reach 1, or the largest seen where that is more.
    """
    if np.ptp(values_U) == 0 and abs(values_U[0]) not in (0, 1):
        return float(values_U[0]), float(values_U[0])
    largest = max(1.0, float(np.abs(values_U).max()))
    above_U, below_U = np.maximum(values_U, 0), np.maximum(-values_U, 0)
    gain, gain_low, gain_high = _zero_inflated(above_U, level, largest)
    if not below_U.any() and above_U.any():
        return gain_low, gain_high
    loss, loss_low, loss_high = _zero_inflated(below_U, level, largest)
    if not below_U.any():  # nothing but zeros: differences of equals, or a metric without a hit
        return 0.0, gain_high
    r = float(np.corrcoef(above_U, below_U)[0, 1]) if above_U.std() and below_U.std() else 0.0

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(one**2 + other**2 - 2 * r * one * other))

    mean = gain - loss
    return mean - reach(gain - gain_low, loss_high - loss), mean + reach(gain_high - gain, loss - loss_low)


def _zero_inflated(values_U: Floats, level: float, largest: float) -> tuple[float, float, float]:
    """Mean and interval of values at or above 0."""
    tail, n = (1 - level) / 2, len(values_U)
    value_K = values_U[values_U > 0]
    k = len(value_K)
    if not k:
        return 0.0, 0.0, float(stats.beta.ppf(1 - tail, 1, n)) * largest
    share, mean = k / n, float(value_K.mean())
    least, most = 0.0, largest
    if k > 1:
        reach = float(stats.t.ppf(1 - tail, k - 1) * value_K.std(ddof=1) / np.sqrt(k))
        least, most = max(mean - reach, 0.0), max(min(mean + reach, largest), mean)
    low, high = (
        float(stats.beta.ppf(tail, k, n - k + 1)),
        1.0 if k == n else float(stats.beta.ppf(1 - tail, k + 1, n - k)),
    )
    if k == n and largest > 1:  # no value is 0, and they are no metric from 0 to 1: nothing says that some could be
        low = 1.0
    down, up = (
        np.hypot(mean * (share - low), share * (mean - least)),
        np.hypot(mean * (high - share), share * (most - mean)),
    )
    return share * mean, float(max(share * mean - down, 0.0)), float(min(share * mean + up, largest))


@overload
def intervals(
    values: Mapping[str, Floats], *, level: float = ..., resamples: int = ..., seed: int = ...
) -> dict[str, tuple[float, float]]: ...
@overload
def intervals(values: Floats, *, level: float = ..., resamples: int = ..., seed: int = ...) -> NDArray[np.float64]: ...
def intervals(
    values: Mapping[str, Floats] | Floats, *, level: float = 0.95, resamples: int = 1_000, seed: int = 0
) -> dict[str, tuple[float, float]] | NDArray[np.float64]:
    """Intervals of the means over users: percentile bootstrap (Efron & Tibshirani 1993, ch. 13), or ``mover_interval``.

    The bootstrap covers too rarely with few users, or where few of them have a value (the simulation is in
    ``docs/evaluation.md``): a metric of fewer than 200 users, or of fewer than 50 who have a value, or who miss the
    largest one, has the other interval.

    All metrics share each resample of users, drawn as ``scipy.stats.bootstrap`` draws them, so that the intervals are
    those of SciPy to seven digits. Memory: 2 MB, or 4 bytes per user where that is more, beside a (U, M) copy.

    Args:
        values: (U, M), or (U,) by name.
        level: of the interval.
        resamples: drawn with replacement, U users each.
        seed: of the draws.

    Returns:
        (M, 2) low and high, or a pair by name. NaN with fewer than two users. Where all values
        of a metric are equal the interval is that point.

    Raises:
        EvaluationError: no resamples, or columns of different length.
    """
    if resamples < 1:
        raise EvaluationError(f"resamples={resamples}: an interval needs at least 1")
    if isinstance(values, Mapping):
        if len({len(column_U) for column_U in values.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column_U):,}" for name, column_U in values.items())
            raise EvaluationError(f"the metrics are of different users ({lengths}): give one value per user and metric")
        table_UM = np.column_stack(list(values.values())) if values else np.empty((0, 0))
        pairs = _intervals(table_UM, level, resamples, seed)
        return {name: (float(low), float(high)) for name, (low, high) in zip(values, pairs, strict=True)}
    return _intervals(np.asarray(values), level, resamples, seed)


def _intervals(values_UM: Floats, level: float, resamples: int, seed: int) -> NDArray[np.float64]:
    users, metrics = values_UM.shape
    if users < 2 or not metrics:
        return np.full((metrics, 2), np.nan)
    values_UM = np.asarray(values_UM, dtype=np.float64)
    away_M = np.minimum((values_UM != 0).sum(0), (values_UM != values_UM.max(0)).sum(0))
    few_M = (away_M < FEW_VALUES) | (users < FEW_USERS)  # too few users for the bootstrap
    bounds_M2 = np.empty((metrics, 2))
    for column in np.flatnonzero(few_M):
        bounds_M2[column] = mover_interval(values_UM[:, column], level)
    if not few_M.all():
        bounds_M2[~few_M] = _percentile(values_UM[:, ~few_M], level, resamples, seed)
    return bounds_M2


def _percentile(values_UM: Floats, level: float, resamples: int, seed: int) -> NDArray[np.float64]:
    """(M, 2) percentile bootstrap intervals of the means."""
    users, metrics = values_UM.shape
    mean_M = values_UM.mean(axis=0, dtype=np.float64)
    # Centered, so that float32 rounds deviations and not the means, which are added again in double precision. In C
    # order, which a choice of columns is not: embedding_bag reads whole rows, and is five times slower otherwise.
    centered_UM = torch.from_numpy((values_UM - mean_M).astype(np.float32, order="C"))
    means_RM = np.empty((resamples, metrics))
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK_CELLS // users)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        # int32 draws are the numbers that int64 draws would be, at half the memory traffic. embedding_bag adds up the
        # drawn rows without forming them, seven times as fast as counting the draws and multiplying by the counts.
        draw_RU = torch.from_numpy(rng.integers(0, users, (rows, users), dtype=np.int32))
        # Single precision adds 64 rows at most: most deviations are equal, so longer sums round in one direction.
        starts_RP = torch.arange(rows, dtype=torch.int32)[:, None] * users + torch.arange(0, users, 64).int()
        sums = torch.nn.functional.embedding_bag(draw_RU.flatten(), centered_UM, starts_RP.flatten(), mode="sum")
        means_RM[first : first + rows] = sums.view(*starts_RP.shape, metrics).sum(1, dtype=torch.float64).numpy()
    tail = (1 - level) / 2
    bounds_2M = np.quantile(means_RM / users, [tail, 1 - tail], axis=0)
    # A mean lies between the least and the largest value, also where float32 rounded it beyond.
    inside_2M = np.clip(mean_M + bounds_2M, values_UM.min(axis=0), values_UM.max(axis=0))
    bounds_M2: NDArray[np.float64] = np.where(np.ptp(values_UM, axis=0) == 0, mean_M, inside_2M).T
    return bounds_M2
