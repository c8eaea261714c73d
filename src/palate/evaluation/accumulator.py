"""Collects the metrics of chunks of users: values per user, exposure per item, and what becomes of them in a report.

Shape legend: U test users, B users of a chunk, N (user, relevant item) pairs, K list length, I items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
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
from palate.evaluation.metrics import METRICS
from palate.evaluation.rankings import GroundTruth, Rankings, places
from palate.evaluation.report import Measure, Segment, measured
from palate.evaluation.segments import segmentation

__all__ = ["BY_ITEM", "MetricAccumulator"]

BY_ITEM = ("HitRate", "NDCG", "Recall")  # the others also depend on the relevant items of other segments
MAIN_LENGTH = 10  # of the exposure curve, where it is measured

Values = dict[tuple[str, int], NDArray[np.float64]]


class MetricAccumulator:
    """Metrics of ranked users, filled chunk by chunk.

    Args:
        ground: whom to measure.
        lengths: list lengths, ascending.
        lists: whether there are lists of the whole catalog, whose items can be judged too.
    """

    def __init__(self, ground: GroundTruth, lengths: list[int], *, lists: bool) -> None:
        self.lost = 0
        self._ground, self._lengths, self._lists = ground, lengths, lists
        train, users = ground.split.train, len(ground.user_rows)
        self.items = ItemFacts.of(train)
        self._item_segments = segmentation(self.items.rows, train.item_features, ground.items)
        self._beyond = self._beyond_metrics() if lists else {}
        names = (*METRICS, *self._beyond)
        self.values: Values = {(name, k): np.full(users, np.nan) for k in lengths for name in names}
        self._by_item: list[Values] = [
            {(name, k): np.full(users, np.nan) for k in lengths for name in BY_ITEM}
            if (self._item_segments.places[ground.items] == place).any()
            else {}
            for place in range(len(self._item_segments.labels))
        ]
        self._exposure = np.zeros((len(lengths) if lists else 0, train.n_items), np.int64)

    def nbytes(self) -> int:
        """What is held until the report is made, with the copies that intervals need, beside one chunk."""
        columns = len(self.values) + sum(map(len, self._by_item))
        facts = 8 * (len(self._exposure) + 12) * len(self.items.rows)
        facts += 24 * self.items.vectors.nnz if self.items.vectors is not None else 0
        return (
            len(self._ground.user_rows) * (8 * columns + 28 * len(self.values)) + facts + 32 * len(self._ground.items)
        )

    def add(self, part: Rankings) -> None:
        """Measure one chunk."""
        users, rows = part.last - part.first, slice(part.first, part.last)
        length = self._lengths[-1]
        relevant_B = torch.from_numpy(self._ground.relevant[rows])
        hits_BK = places(part.rank, part.row, users, length)
        for name, metric in METRICS.items():
            value_BK = metric(hits_BK, relevant_B).numpy()
            for k in self._lengths:
                self.values[name, k][rows] = value_BK[:, k - 1]
        self._add_by_item(part, rows)
        self.lost += part.lost
        if part.lists is None:
            return
        for place, k in enumerate(self._lengths):
            list_BK = part.lists[:, :k]
            self._exposure[place] += exposure(list_BK, len(self.items.rows))
            for name, judge in self._beyond.items():
                self.values[name, k][rows] = judge(list_BK, part)

    def measures(self, resamples: int) -> tuple[Measure, ...]:
        """Every metric with its interval over users; one that says nothing about anybody is left out."""
        found = measured(self.values, resamples)
        every = [Measure(name, k, *found[name, k][:3]) for name, k in self.values if (name, k) in found]
        whole: tuple[tuple[str, Callable[[NDArray[np.int64]], float]], ...] = (("Coverage", coverage), ("Gini", gini))
        for name, judge in whole:
            for k, exposure_I in zip(self._lengths, self._exposure, strict=False):
                every.append(Measure(name, k, judge(exposure_I), float("nan"), float("nan")))
        return tuple(every)

    def notes(self) -> list[str]:
        """Lost items, and users about whom a metric says nothing."""
        users, k = len(self._ground.user_rows), self._lengths[-1]
        lost = f"{self.lost} relevant items were seen in training and cannot be found in lists without seen items"
        lines = [lost] if self.lost else []
        for name in self._beyond:
            missing = int(np.isnan(self.values[name, k]).sum())
            if 0 < missing < users:
                lines.append(f"{name}@{k} says nothing about {missing} of {users} users, who are left out of its mean")
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
        """The fields of a report about how the lists spread over the catalog."""
        if not self._lists:
            return {}
        place = self._lengths.index(MAIN_LENGTH) if MAIN_LENGTH in self._lengths else len(self._lengths) - 1
        return {
            "exposure_k": self._lengths[place],
            "exposure": tuple(lorenz(self._exposure[place])),
            "popularity": tuple(popularity_bins(self.items.users, self._exposure[place])),
        }

    def _add_by_item(self, part: Rankings, rows: slice) -> None:
        users, length = part.last - part.first, self._lengths[-1]
        segment_N = torch.from_numpy(self._item_segments.places)[part.item]
        for place, values in enumerate(self._by_item):
            inside = segment_N == place
            relevant_B = torch.bincount(part.row[inside], minlength=users)
            hits_BK = places(part.rank[inside], part.row[inside], users, length)
            for name in BY_ITEM if values else ():
                value_BK = METRICS[name](hits_BK, relevant_B.clamp(min=1)).numpy()
                for k in self._lengths:
                    values[name, k][rows] = np.where(relevant_B > 0, value_BK[:, k - 1], np.nan)

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
