"""Users by activity and items by popularity: hot, warm and cold, the hot ones in terciles of the measured rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

WARM = "warm: no training rows, but features"
COLD = "cold: neither training rows nor features"


@dataclass(frozen=True)
class Segmentation:
    """Labels with their bounds, and for each user or item, (X,), the place of its label."""

    labels: tuple[str, ...]
    places: NDArray[np.int8]


def segmentation(
    rows_X: NDArray[np.int64], features: pl.DataFrame | None, measured: NDArray[np.integer[Any]]
) -> Segmentation:
    """Hot: with training rows; warm: with features only; cold: with neither. Hot ones are divided by training rows.

    The bounds are the terciles over ``measured``, so that each third is measured on about as much; with equal counts
    on both sides of a bound there are fewer parts.

    Args:
        rows_X: training rows of every user, or item.
        features: one row each, or None.
        measured: the test users, or the item of each relevant pair (repeats count).
    """
    hot = rows_X[measured]
    hot = np.sort(hot[hot > 0])
    starts = np.unique(hot[[len(hot) // 3, 2 * len(hot) // 3]]) if len(hot) else hot
    starts = starts[starts > hot[:1]]
    edges = [1, *starts.tolist(), None]
    labels = [_label(low, high) for low, high in pairwise(edges)]
    places = np.searchsorted(starts, rows_X, side="right").astype(np.int8)
    untrained = rows_X == 0
    places[untrained] = np.where(_featured(features, len(rows_X)), len(labels), len(labels) + 1)[untrained]
    return Segmentation((*labels, WARM, COLD), places)


def _label(low: int | None, after: int | None) -> str:
    return f"hot: {low:,} training rows or more" if after is None else f"hot: {low:,} to {after - 1:,} training rows"


def _featured(features: pl.DataFrame | None, rows: int) -> NDArray[np.bool_]:
    if features is None or not features.width:
        return np.zeros(rows, dtype=bool)
    return features.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy()
