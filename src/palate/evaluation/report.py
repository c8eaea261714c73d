"""The result of an evaluation: metrics with intervals, and everything needed to know what they mean."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from palate.errors import EvaluationError
from palate.evaluation.intervals import intervals
from palate.evaluation.tables import Plain, Tabular, plain
from palate.top_k import TIE_RULE

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Measure(Plain):
    """One metric with its 95 % interval over users (NaN where it is no mean over users)."""

    metric: str
    k: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.metric}@{self.k}"


@dataclass(frozen=True)
class Segment(Plain):
    """The measures of some users, or of the relevant items of some kind.

    Args:
        by: "user activity" or "item popularity".
        segment: label with its bounds.
        users: how many users were averaged.
        rows: relevant (user, item) pairs.
        measures: accuracy; for items HitRate, NDCG and Recall of the relevant items of the segment alone.
    """

    by: str
    segment: str
    users: int
    rows: int
    measures: tuple[Measure, ...]


@dataclass(frozen=True, repr=False)
class Report(Tabular):
    """Ranking metrics of one model on one split, and everything needed to know what they mean.

    Args:
        model: name of the model.
        data: name of the data set.
        protocol: how the rows were split, in words.
        candidates: the items that each relevant item is ranked among, in words.
        measures: the metrics.
        users: number of measured users.
        exclude_seen: whether the lists are free of items of the user's training rows.
        fingerprints: of "train", "split" and "candidates" (None for full ranking), and the rule by which test rows are
            "relevant" (None where all are).
        seconds: time for scoring and ranking.
        per_user: values per user and metric, (U,) each by "NDCG@10", in the order of ``user_rows``; NaN where a metric
            is undefined for the user.
        user_rows: (U,) row numbers of the measured users.
        notes: remarks on the rows and the metrics.
        segments: metrics by user activity and by item popularity.
        exposure: Lorenz curve of the lists: (share of the catalog, least listed first; its share of places).
        popularity: (bin, share of the catalog, of the training users' items, of places), most popular first.
        exposure_k: list length of these two; None in a report on sampled candidates, which makes no lists.
        ties: the tie rule.
    """

    model: str
    data: str
    protocol: str
    candidates: str
    measures: tuple[Measure, ...]
    users: int
    exclude_seen: bool
    fingerprints: dict[str, str | None]
    seconds: float
    per_user: dict[str, NDArray[np.float64]] = field(repr=False)
    user_rows: NDArray[np.int32] = field(repr=False)
    notes: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = field(default=(), repr=False)
    exposure: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    popularity: tuple[tuple[str, float, float, float], ...] = field(default=(), repr=False)
    exposure_k: int | None = None
    ties: str = TIE_RULE

    def __repr__(self) -> str:
        shown = [one for one in self.measures if one.k == self.measures[-1].k][:4]
        numbers = ", ".join(f"{one} {one.value:.4f}" for one in shown)
        intervals = f" ({shown[0].low:.4f} to {shown[0].high:.4f})" if shown and shown[0].low == shown[0].low else ""
        return (
            f"<Report of {self.model} on {self.data}: {self.users:,} users, {len(self.measures)} metrics\n"
            f"  {numbers.replace(',', intervals + ',', 1)}\n  {self.candidates}; {self.ties}\n  {self.protocol}>"
        )

    def measure(self, metric: str, k: int | None = None) -> Measure:
        """One metric with its interval.

        Args:
            metric: "NDCG", in any case, with ``k``; or "NDCG@10".
            k: list length. Default: that after the "@", or the only one measured.

        Raises:
            EvaluationError: it was not measured.
        """
        name, _, after = str(metric).partition("@")
        # -1 is no length, so that "NDCG@ten" is reported as not measured.
        wanted = k if k is not None or not after else (int(after) if after.isdecimal() else -1)
        found = [one for one in self.measures if one.metric.lower() == name.lower() and wanted in {one.k, None}]
        if len(found) != 1:
            asked = metric if k is None or after else f"{metric}@{k}"
            there = ", ".join(map(str, self.measures))
            raise EvaluationError(
                f"{asked} was measured for several k: say which of {', '.join(map(str, found))}" if found
                else f"{asked} was not measured: there are {there}"
            )  # fmt: skip
        return found[0]

    def value(self, metric: str, k: int | None = None) -> float:
        """The value of one metric: ``value("NDCG@10")`` or ``value("ndcg", 10)``, as for ``measure``."""
        return self.measure(metric, k).value

    def rows(self) -> list[dict[str, Any]]:
        """One row per metric that keeps its meaning outside of this report, as in a bundle."""
        facts = {"candidates": self.candidates, "ties": self.ties, "users": self.users, "protocol": self.protocol}
        return [{"model": self.model, **one.to_dict(), **facts} for one in self.measures]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values per user, ready for JSON."""
        names = "model data protocol candidates ties users exclude_seen fingerprints seconds notes measures segments"
        bins = ("bin", "catalog", "history", "lists")
        return {
            **{name: plain(getattr(self, name)) for name in (*names.split(), "exposure_k")},
            "exposure": [dict(zip(("items", "lists"), point, strict=True)) for point in self.exposure],
            "popularity": [dict(zip(bins, one, strict=True)) for one in self.popularity],
        }


def measured(columns: Mapping[Key, NDArray[np.float64]], resamples: int) -> dict[Key, tuple[float, float, float, int]]:
    """Mean, low and high over the users that have a value, and their number; no entry where no user has one.

    Columns (U,) with values for the same users share their resamples.
    """
    groups: dict[bytes, list[Key]] = {}
    for key, column_U in columns.items():
        # Keyed by the users that have no value: resamples are drawn once for a group and not for each metric.
        groups.setdefault(np.isnan(column_U).tobytes(), []).append(key)
    result = {}
    for missing, keys in groups.items():
        there_U = ~np.frombuffer(missing, dtype=bool)
        users = int(there_U.sum())
        if not users:
            continue
        bounds_M2 = np.full((len(keys), 2), np.nan)
        if resamples:
            bounds_M2 = intervals(np.column_stack([columns[key][there_U] for key in keys]), resamples=resamples)
        for key, (low, high) in zip(keys, bounds_M2, strict=True):
            result[key] = (float(columns[key][there_U].mean()), float(low), float(high), users)
    return {key: result[key] for key in columns if key in result}  # in the order given, not by group
