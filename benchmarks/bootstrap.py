"""Bootstrap intervals over users: all metrics from shared resamples, against SciPy's bootstrap of each metric.

    python benchmarks/bootstrap.py [--users 6040] [--metrics 12] [--resamples 10000] [--rounds 5]
    python benchmarks/bootstrap.py --evaluate [--rounds 3]

Printed: seconds (median of the rounds) of ``significance.intervals`` and of ``scipy.stats.bootstrap`` for all metrics,
their ratio, and the largest difference between their bounds; as the physical limit, the time to draw the users alone.
Values are NDCG-like: most users have 0.

``--evaluate`` prints the CPU seconds of a whole ``evaluate`` on MovieLens 1M with 1,000 resamples and without, for
popularity, the cheapest model there is: held-out rows at random (26 relevant items per user) and the latest of each
user. CPU seconds, because a machine that does other things too stretches the clock; one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import stats

from palate.data.splits.strategies import at_random, leave_one_out
from palate.datasets.registry import load
from palate.evaluation.evaluate import evaluate
from palate.evaluation.intervals import intervals
from palate.models.popularity import Popularity


def seconds(call: Callable[[], Any], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def share_of_evaluate(rounds: int) -> None:
    torch.set_num_threads(1)
    dataset = load("ml-1m", min_rating="any")
    for split in (at_random(dataset), leave_one_out(dataset)):
        model = Popularity().fit(split.train)
        evaluate(model, split, resamples=0)
        for _ in range(rounds):
            begin = time.process_time()
            evaluate(model, split, resamples=0)
            middle = time.process_time()
            evaluate(model, split, resamples=1_000)
            without, whole = middle - begin, time.process_time() - middle
            print(f"without {without:.2f} s, with {whole:.2f} s: bootstrap {1 - without / whole:.0%}   {split.how}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 6_040), ("metrics", 12), ("resamples", 10_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--evaluate", action="store_true")
    options = parser.parse_args()
    if options.evaluate:
        return share_of_evaluate(options.rounds)
    rng = np.random.default_rng(0)
    shape = (options.users, options.metrics)
    values_UM = rng.random(shape) * (rng.random(shape) < 0.3)

    def draws() -> None:
        generator, step = np.random.default_rng(0), max(1, 500_000 // options.users)
        for first in range(0, options.resamples, step):
            generator.integers(0, options.users, (min(step, options.resamples - first), options.users))

    def one(column_U: np.ndarray) -> tuple[float, float]:
        result = stats.bootstrap(
            (column_U,), np.mean, n_resamples=options.resamples, method="percentile",
            batch=max(1, 10**7 // options.users), rng=np.random.default_rng(0),
        )  # fmt: skip
        return tuple(result.confidence_interval)

    def peer() -> np.ndarray:
        return np.array([one(column_U) for column_U in values_UM.T])

    ours = seconds(lambda: intervals(values_UM, resamples=options.resamples), options.rounds)
    theirs = seconds(peer, max(1, options.rounds // 3))
    limit = seconds(draws, options.rounds)
    apart = np.abs(intervals(values_UM, resamples=options.resamples) - peer()).max()
    print(f"{options.users:,} users x {options.metrics} metrics x {options.resamples:,} resamples")
    print(f"palate.evaluation.significance.intervals   {ours:8.3f} s")
    print(f"scipy.stats.bootstrap    {theirs:8.3f} s   {theirs / ours:6.1f} times as long")
    print(f"drawing the users alone  {limit:8.3f} s   {limit / ours:6.2f} of ours")
    print(f"largest difference between the bounds: {apart:.1e}")


if __name__ == "__main__":
    main()
