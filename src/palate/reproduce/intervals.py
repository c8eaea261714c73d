"""Intervals of means over rows that belong to users: the users are what is drawn again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["clustered"]


def clustered(
    values_N: NDArray[Any], user_N: NDArray[np.integer[Any]], *, resamples: int = 1_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over N rows with its 95 % percentile bootstrap interval over users: (mean, low, high).

    Rows of one user are alike, so whole users are drawn (Davison & Hinkley 1997, sec. 3.8).
    """
    _, place_N = np.unique(user_N, return_inverse=True)
    sum_U, count_U = np.bincount(place_N, values_N), np.bincount(place_N).astype(np.float64)
    result = stats.bootstrap(
        (sum_U, count_U),
        lambda sums, counts, axis=-1: sums.sum(axis) / counts.sum(axis),
        n_resamples=resamples,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(values_N.mean()), float(result.confidence_interval.low), float(result.confidence_interval.high)
