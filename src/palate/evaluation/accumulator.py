"""Metrics of chunks of users, collected: values per user, exposure per item, and the parts of a report made of them.

Shape legend: U test users, B users of a chunk, N (user, relevant item) pairs, K list length, I items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from palate.evaluation.beyond_accuracy import (
    ItemFacts,
    calibration,
    coverage,
    diversity,
    exposure,
    gini,
    lorenz,
    novelty,
    popularity,
    popularity_bins,
)
from palate.evaluation.metrics import METRICS, at_length
from palate.evaluation.rankings import GroundTruth, Rankings, places
from palate.evaluation.report import Measure, Segment, measured

BY_ITEM = ("HitRate", "NDCG", "Recall")  # the others also depend on the relevant items of other segments
WARM = "warm: no training rows, but features"
COLD = "cold: neither training rows nor features"
MAIN_LENGTH = 10  # of the exposure curve, where it is measured

Values = dict[tuple[str, int], NDArray[np.float64]]


class MetricAccumulator:
    """Metrics of ranked users, filled chunk by chunk.

    Args:
        ground: relevant items per test user.
        lengths: list lengths, ascending.
        lists: full ranking, whose listed items have metrics of their own (coverage, novelty, ...).
        widest: longest list that there can be. Default: the number of items.
    """

    def __init__(self, ground: GroundTruth, lengths: list[int], *, lists: bool, widest: int | None = None) -> None:
        self.lost = self.repeated = self.seen_places = 0
        # k may be a billion; memory grows with the lists that exist, not with k.
        self.longest = min(lengths[-1], widest or ground.split.train.n_items)
        self._ground, self._lengths, self._lists = ground, lengths, lists
        train, users = ground.split.train, len(ground.user_rows)
        self.items = ItemFacts.of(train)
        self._item_segments = segmentation(self.items.rows, train.item_features, ground.items)
        self._beyond = self._beyond_metrics() if lists else {}
        names = (*METRICS, *self._beyond)
        # NaN until measured, so that a user without a value does not count as 0.
        self.values: Values = {(name, k): np.full(users, np.nan) for k in lengths for name in names}
        # A segment without relevant items would be NaN for every user: it gets no columns.
        self._by_item: list[Values] = [
            {(name, k): np.full(users, np.nan) for k in lengths for name in BY_ITEM}
            if (self._item_segments.places[ground.items] == place).any()
            else {}
            for place in range(len(self._item_segments.labels))
        ]
        self._exposure = np.zeros((len(lengths) if lists else 0, train.n_items), np.int64)

    def nbytes(self) -> int:
        """Bytes held until the report is made, with the copies that intervals need, beside one chunk."""
        columns = len(self.values) + sum(map(len, self._by_item))
        facts = 8 * (len(self._exposure) + 12) * len(self.items.rows)
        facts += 24 * self.items.vectors.nnz if self.items.vectors is not None else 0
        return (
            len(self._ground.user_rows) * (8 * columns + 28 * len(self.values)) + facts + 32 * len(self._ground.items)
        )

    def add(self, part: Rankings) -> None:
        """Measure one chunk."""
        users, rows = part.last - part.first, slice(part.first, part.last)
        length = self.longest
        relevant_B = torch.from_numpy(self._ground.relevant[rows])
        # Every metric is a function of the places of the hits: they are found once for all metrics and lengths.
        hits_BK = places(part.rank, part.row, users, length)
        for name, metric in METRICS.items():
            value_BK = metric(hits_BK, relevant_B)
            for k in self._lengths:
                self.values[name, k][rows] = at_length(name, value_BK, k).numpy()
        self._add_by_item(part, rows)
        if part.lost is not None:
            self.lost += part.lost
        else:
            items, history = len(self.items.rows), part.history
            # A (user, item) pair as one number: isin compares numbers much faster than pairs.
            trained = np.repeat(np.arange(users) * items, history.counts) + history.items
            self.repeated += int(np.isin(part.row.numpy() * items + part.item.numpy(), trained).sum())
            if part.lists is not None:
                listed = np.where(part.lists >= 0, np.arange(users)[:, None] * items + part.lists, -1)
                self.seen_places += int(np.isin(listed, trained).sum())
        if part.lists is None:
            return
        for place, k in enumerate(self._lengths):
            list_BK = part.lists[:, :k]
            self._exposure[place] += exposure(list_BK, len(self.items.rows))
            for name, judge in self._beyond.items():
                self.values[name, k][rows] = judge(list_BK, part)

    def measures(self, resamples: int) -> tuple[Measure, ...]:
        """Every metric with its interval over users; metrics undefined for all users are omitted."""
        found = measured(self.values, resamples)
        every = [Measure(name, k, *found[name, k][:3]) for name, k in self.values if (name, k) in found]
        # One number of all lists is no mean over users: it has no interval.
        whole: tuple[tuple[str, Callable[[NDArray[np.int64]], float]], ...] = (("Coverage", coverage), ("Gini", gini))
        for name, judge in whole:
            for k, exposure_I in zip(self._lengths, self._exposure, strict=False):
                every.append(Measure(name, k, judge(exposure_I), float("nan"), float("nan")))
        return tuple(every)

    def notes(self) -> list[str]:
        """Remarks on relevant items in the training rows, and on users without a value of a metric."""
        users, k = len(self._ground.user_rows), self._lengths[-1]
        lines = []
        if self.lost:
            lines.append(
                f"{self.lost} relevant items were seen in training and cannot be found in lists without seen items"
            )
        # Times decide in the leak check, so trained rows without their times, or with rounded ones, pass it.
        if self.repeated:
            lines.append(
                f"{self.repeated} of {len(self._ground.items)} relevant items are in the training rows of their user: "
                "a model that repeats training rows finds them"
            )
        for name in self._beyond:
            missing = int(np.isnan(self.values[name, k]).sum())
            if 0 < missing < users:
                lines.append(f"{name}@{k} is undefined for {missing} of {users} users; its mean is over the others")
        return lines

    def segments(self, resamples: int) -> tuple[Segment, ...]:
        """Accuracy by user activity, and of the relevant items by their popularity."""
        ground, train = self._ground, self._ground.split.train
        relevant_U = ground.relevant
        parts = segmentation(train.history.counts, train.user_features, ground.user_rows)
        of_U = parts.places[ground.user_rows]
        result = []
        for place, label in enumerate(parts.labels):
            chosen_U = of_U == place
            columns = {key: values[chosen_U] for key, values in self.values.items() if key[0] in METRICS}
            if chosen_U.any():
                rows = int(relevant_U[chosen_U].sum())
                result.append(_segment("user activity", label, rows, columns, resamples))
        of_N = self._item_segments.places[ground.items]
        for place, label in enumerate(self._item_segments.labels):
            if columns := self._by_item[place]:
                result.append(_segment("item popularity", label, int((of_N == place).sum()), columns, resamples))
        return tuple(result)

    def exposure(self) -> dict[str, Any]:
        """The fields of a report on the spread of the lists over the catalog."""
        if not self._lists:
            return {}
        place = self._lengths.index(MAIN_LENGTH) if MAIN_LENGTH in self._lengths else len(self._lengths) - 1
        return {
            "exposure_k": self._lengths[place],
            "exposure": tuple(lorenz(self._exposure[place])),
            "popularity": tuple(popularity_bins(self.items.users, self._exposure[place])),
        }

    def _add_by_item(self, part: Rankings, rows: slice) -> None:
        users, length = part.last - part.first, self.longest
        segment_N = torch.from_numpy(self._item_segments.places)[part.item]
        for place, values in enumerate(self._by_item):
            inside = segment_N == place
            relevant_B = torch.bincount(part.row[inside], minlength=users)
            # Ranks stay those among all items: only the relevant items are restricted to the segment.
            hits_BK = places(part.rank[inside], part.row[inside], users, length)
            for name in BY_ITEM if values else ():
                value_BK = METRICS[name](hits_BK, relevant_B.clamp(min=1))  # 0 would divide by 0: dropped below
                for k in self._lengths:
                    values[name, k][rows] = np.where(relevant_B > 0, at_length(name, value_BK, k), np.nan)

    def _beyond_metrics(self) -> dict[str, Callable[[NDArray[np.int64], Rankings], NDArray[np.float64]]]:
        items, vectors, mix = self.items, self.items.vectors, self.items.mix
        found: dict[str, Callable[[NDArray[np.int64], Rankings], NDArray[np.float64]]] = {
            "Novelty": lambda list_BK, part: novelty(list_BK, items.information),
            "Popularity": lambda list_BK, part: popularity(list_BK, items.users),
        }
        if vectors is not None and mix is not None:
            found["Diversity"] = lambda list_BK, part: diversity(list_BK, vectors)
            found["Calibration"] = lambda list_BK, part: calibration(list_BK, mix, part.history)
        return found


def _segment(by: str, label: str, rows: int, columns: Values, resamples: int) -> Segment:
    found = measured(columns, resamples)
    users = next(iter(found.values()))[3]
    return Segment(by, label, users, rows, tuple(Measure(*key, *numbers[:3]) for key, numbers in found.items()))


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
    # The values at the terciles, not the positions: users with equal counts stay in one part.
    starts = np.unique(hot[[len(hot) // 3, 2 * len(hot) // 3]]) if len(hot) else hot
    starts = starts[starts > hot[:1]]  # a bound at the lowest count would leave the first part empty
    edges = [1, *starts.tolist(), None]
    labels = [
        f"hot: {low:,} training rows or more" if after is None else f"hot: {low:,} to {after - 1:,} training rows"
        for low, after in pairwise(edges)
    ]
    places = np.searchsorted(starts, rows_X, side="right").astype(np.int8)
    featured: Any = False
    if features is not None and features.width:
        featured = features.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    places = np.where(rows_X > 0, places, np.where(featured, len(labels), len(labels) + 1)).astype(np.int8)
    return Segmentation((*labels, WARM, COLD), places)
