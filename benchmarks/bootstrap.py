"""Bootstrap intervals over users: all metrics from shared resamples, against SciPy's bootstrap of each metric.

    python benchmarks/bootstrap.py [--users 6040] [--metrics 12] [--resamples 10000] [--rounds 5]

Printed: seconds (median of the rounds) of ``significance.intervals`` and of ``scipy.stats.bootstrap`` for all metrics,
their ratio, and the largest difference between their bounds; as the physical limit, the time to draw the users alone.
Values are NDCG-like: most users have 0.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from scipy import stats

from palate.evaluation.significance import intervals


def seconds(call: Callable[[], Any], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 6_040), ("metrics", 12), ("resamples", 10_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (asked.users, asked.metrics)
    values_UM = rng.random(shape) * (rng.random(shape) < 0.3)

    def draws() -> None:
        generator, step = np.random.default_rng(0), max(1, 500_000 // asked.users)
        for first in range(0, asked.resamples, step):
            generator.integers(0, asked.users, (min(step, asked.resamples - first), asked.users))

    def one(column_U: np.ndarray) -> tuple[float, float]:
        result = stats.bootstrap(
            (column_U,), np.mean, n_resamples=asked.resamples, method="percentile",
            batch=max(1, 10**7 // asked.users), rng=np.random.default_rng(0),
        )  # fmt: skip
        return tuple(result.confidence_interval)

    def peer() -> np.ndarray:
        return np.array([one(column_U) for column_U in values_UM.T])

    ours = seconds(lambda: intervals(values_UM, resamples=asked.resamples), asked.rounds)
    theirs = seconds(peer, max(1, asked.rounds // 3))
    limit = seconds(draws, asked.rounds)
    apart = np.abs(intervals(values_UM, resamples=asked.resamples) - peer()).max()
    print(f"{asked.users:,} users x {asked.metrics} metrics x {asked.resamples:,} resamples")
    print(f"palate.evaluation.significance.intervals   {ours:8.3f} s")
    print(f"scipy.stats.bootstrap    {theirs:8.3f} s   {theirs / ours:6.1f} times as long")
    print(f"drawing the users alone  {limit:8.3f} s   {limit / ours:6.2f} of ours")
    print(f"largest difference between the bounds: {apart:.1e}")


if __name__ == "__main__":
    main()
