"""Intervals over users, from SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["interval"]

# Values drawn at once by the bootstrap: bounds its memory to about 200 MB.
BOOTSTRAP_CELLS = 10_000_000


def interval(
    values_U: NDArray[np.floating[Any]], *, level: float = 0.95, resamples: int = 1_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over users (Efron & Tibshirani 1993, ch. 13).

    With a single user nothing can be said: (nan, nan). Where all values are equal the interval is that point.
    """
    if len(values_U) < 2:
        return float("nan"), float("nan")
    if np.ptp(values_U) == 0:
        return float(values_U.mean()), float(values_U.mean())
    result = stats.bootstrap(
        (values_U,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        batch=max(1, BOOTSTRAP_CELLS // len(values_U)),
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
