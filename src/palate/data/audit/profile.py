"""Distributions of the rows as short tables: ratings, rows per user, popularity, activity over time.

    weights             text                    the column of ratings or weights
    ratings             value, rows             each value, or the lower ends of 20 bins where there are more than 25
    ratings_per_user    low, high, users        1, 2 to 3, 4 to 7, 8 to 15 rows, ...
    popularity          items, rows             Lorenz curve: shares of the items, least popular first, and of the rows
    activity            start, rows             at most about 60 periods of one length, empty ones too

``ratings`` is None if all weights are equal, ``activity`` where there is no time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from palate.data.audit.subject import Subject

POINTS, VALUES = 50, 25
# The lengths of a period, shortest first, in seconds and as polars writes them.
PERIODS = ((60, "1m"), (3600, "1h"), (86_400, "1d"), (604_800, "1w"), (2_678_400, "1mo"), (8_035_200, "1q"),
           (31_622_400, "1y"), (316_224_000, "10y"), (3_162_240_000, "100y"))  # fmt: skip
EARLIEST, LATEST = -6.2e10, 2.5e11  # within the years 1 to 9999, which dates can have


def profile(subject: Subject) -> dict[str, Any]:
    """The four tables, each a list of JSON objects, and the name of the column of weights."""
    # frexp gives the exact power of two; a logarithm could round 8 rows into the bin below.
    powers = np.bincount(np.frexp(subject.per_user.astype(np.float64))[1] - 1)
    first = int(np.flatnonzero(powers)[0])
    bins = enumerate(powers[first:].tolist(), start=first)
    counts = np.sort(subject.per_item)
    curve = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    at = np.unique(np.linspace(0, len(counts), POINTS).astype(np.int64))
    return {
        "weights": subject.weight_name,
        "ratings": _ratings(subject),
        "ratings_per_user": [{"low": 2**p, "high": 2 ** (p + 1) - 1, "users": users} for p, users in bins],
        "popularity": [{"items": round(int(i) / len(counts), 4), "rows": round(float(curve[i]), 4)} for i in at],
        "activity": None if subject.undated else _activity(subject),
    }


def _ratings(subject: Subject) -> list[dict[str, Any]] | None:
    weight = subject.rows.interactions.weight.astype(np.float64)
    values, counts = np.unique(weight, return_counts=True)
    if len(values) < 2:
        return None
    if len(values) > VALUES:
        counts, edges = np.histogram(weight, bins=20)
        values = edges[:-1]
    # Ratings are float32: 0.1 must not become 0.10000000149.
    return [{"value": float(f"{v:.6g}"), "rows": int(n)} for v, n in zip(values, counts, strict=True)]


def _activity(subject: Subject) -> list[dict[str, Any]]:
    time = subject.frame["time"].clip(EARLIEST, LATEST)
    lowest, highest = time.to_numpy().min(), time.to_numpy().max()
    every = next((name for seconds, name in PERIODS if (highest - lowest) / seconds <= POINTS), "1000y")
    moments = (time * 1000).cast(pl.Int64).cast(pl.Datetime("ms"))
    counted = moments.dt.truncate(every).alias("start").to_frame().group_by("start").len("rows").sort("start")
    # Periods without rows are kept: a gap in the log must be visible.
    filled = counted.upsample("start", every=every).with_columns(pl.col("rows").fill_null(0))
    days = filled["start"].dt.to_string("%Y-%m-%d" if every not in ("1m", "1h") else "%Y-%m-%dT%H:%M")
    return [{"start": start, "rows": rows} for start, rows in zip(days, filled["rows"], strict=True)]
