"""How often 95 % intervals hold the true mean over users: bootstraps, exact intervals and those of Palate, simulated.

    python benchmarks/intervals.py [--worlds 1000]

Users hit with a given chance; a hit counts 1 (HitRate) or 1 / log2(place + 1) at a random place of ten (NDCG).
Differences are hits won or lost against another model by the given share of users, seven of ten won. Printed: a
Markdown table of coverage, and the mean width relative to the percentile bootstrap.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from palate.evaluation.intervals import interval

Floats = NDArray[np.float64]
GAIN = 1 / np.log2(np.arange(2, 12))
RESAMPLES = 400


def means(values_U: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Means and standard errors of resamples of users."""
    drawn_RU = values_U[rng.integers(0, len(values_U), (RESAMPLES, len(values_U)))]
    return drawn_RU.mean(1), drawn_RU.std(1, ddof=1) / np.sqrt(len(values_U))


def percentile(values_U: Floats, rng: np.random.Generator) -> tuple[float, float]:
    low, high = np.quantile(means(values_U, rng)[0], [0.025, 0.975])
    return low, high


def bca(values_U: Floats, rng: np.random.Generator) -> tuple[float, float]:
    mean_R, mean = means(values_U, rng)[0], values_U.mean()
    below = ((mean_R < mean).mean() + (mean_R <= mean).mean()) / 2
    apart_U = values_U - mean
    if not 0 < below < 1 or not apart_U.any():
        return mean, mean
    bias, acceleration = stats.norm.ppf(below), (apart_U**3).sum() / (6 * (apart_U**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([0.025, 0.975])
    low, high = np.quantile(mean_R, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return low, high


def studentized(values_U: Floats, rng: np.random.Generator) -> tuple[float, float]:
    mean_R, error_R = means(values_U, rng)
    mean, error = values_U.mean(), values_U.std(ddof=1) / np.sqrt(len(values_U))
    known = error_R > 0
    if not known.any():
        return mean, mean
    upper, lower = np.quantile((mean_R[known] - mean) / error_R[known], [0.025, 0.975])
    return mean - lower * error, mean - upper * error


def shipped(values_U: Floats, rng: np.random.Generator) -> tuple[float, float]:
    return interval(values_U, resamples=RESAMPLES)


METHODS: dict[str, Callable[[Floats, np.random.Generator], tuple[float, float]]] = {
    "percentile": percentile, "BCa": bca, "studentized": studentized, "Palate": shipped
}  # fmt: skip
KINDS = {
    "HitRate": (lambda n, rate, rng: (rng.random(n) < rate) * 1.0, 1.0),
    "NDCG": (lambda n, rate, rng: (rng.random(n) < rate) * GAIN[rng.integers(0, 10, n)], GAIN.mean()),
    "difference": (lambda n, rate, rng: (rng.random(n) < rate) * np.where(rng.random(n) < 0.7, 1.0, -1.0), 0.4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=1_000)
    worlds = parser.parse_args().worlds
    rng = np.random.default_rng(0)
    print("| metric | users | chance | " + " | ".join(METHODS) + " | width: " + ", ".join([*METHODS][1:]) + " |")
    print("|---|---:|---:|" + "---:|" * len(METHODS) + "---|")
    for kind, (draw, scale) in KINDS.items():
        for users in (20, 95, 300, 1_000):
            for rate in (0.03, 0.1, 0.3):
                truth, inside, width = rate * scale, dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0.0)
                for _ in range(worlds):
                    values_U = draw(users, rate, rng)
                    for name, method in METHODS.items():
                        low, high = method(values_U, rng)
                        inside[name] += low - 1e-12 <= truth <= high + 1e-12
                        width[name] += high - low
                shares = " | ".join(f"{inside[name] / worlds:.3f}".lstrip("0") for name in METHODS)
                widths = ", ".join(f"{width[name] / width['percentile']:.2f}" for name in [*METHODS][1:])
                print(f"| {kind} | {users:,} | {rate:g} | {shares} | {widths} |", flush=True)


if __name__ == "__main__":
    main()
