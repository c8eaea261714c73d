"""Cold start: the answer where the model has learned nothing about a user, as one policy that is plain data.

    ColdStart()                                     # the most popular items
    ColdStart("recent", half_life=14)               # items that are popular now
    ColdStart(segment="occupation")                 # items popular among users with the same occupation
    ColdStart(explore=0.1)                          # a tenth of the places to less known items

The first of these that is available answers a request, and every row of the answer names it as its source:

    model       a user of the training data
    fold-in     another user with a history of ``min_history`` events, which every model folds in by its own rule
    features    a user known by features only, where the model has a feature tower
    segment     none of these, but the policy names a user feature whose value is known:
                score(i | v) = n_iv + shrink * n_i / n
    recent      nothing is known: score(i) = sum over the events of i of 0.5 ** ((t_last - t) / half_life)
    popular     nothing is known: score(i) = n_i, the number of events of item i

with n_iv the events of item i by users of value v, and n all events, each weighted by its age under "recent". The
``shrink`` events, distributed like all events, pull small segments toward the whole: the mean of the posterior under a
Dirichlet prior, up to a constant. Under "recent" only the age of events counts, not the time of the request, which
would scale all scores alike. Two sources belong to single rows: "explore" (see ``exploration``) and "new-item", an item
without training rows that the model ranks by its features.

Shape legend: I items, V segments, R users without a personal answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.bounds import Count, Fraction, NonNegative, Positive, Seed, check_fields
from palate.data.dataset import History
from palate.data.ids import IdMap
from palate.errors import DataError

DAY = 86_400.0
SEGMENT_CELLS = 50_000_000  # scores of all segments together: 400 MB while the events are counted

Kind = Literal["popular", "recent"]


@dataclass(frozen=True)
class ColdStart:
    """The policy for users without training rows: saved with a bundle, and may be set for each request.

    Args:
        fallback: "popular" or "recent", for users without any information. Default: "popular".
        half_life: days after which an event counts half, for "recent". Default: 30.
        segment: a user feature; new users whose value is known get the items popular among users of that value.
        shrink: events of the whole population that are mixed with those of a segment. Default: 1,000.
        min_history: events that a new user needs before the model folds them in; others get the fallback. Default: 1.
        features: whether the model answers users known by features only, where it has a feature tower. Default: True.
        explore: share of the places of every list given to less known items, 0 to 1. Default: 0.
        explore_among: "less-known" items (default), or "all" items evenly, so that the log of a server supports any
            other lists (``palate off-policy``).
        seed: seed of the exploration; the draw of a user depends on the seed, the user and the items left out only.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    fallback: Kind = "popular"
    half_life: Positive = 30.0
    segment: str | None = None
    shrink: NonNegative = 1000.0
    min_history: Count = 1
    features: bool = True
    explore: Fraction = 0.0
    explore_among: Literal["less-known", "all"] = "less-known"
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "cold start", DataError)

    @property
    def is_plain(self) -> bool:
        """Whether users without any information get the most popular items."""
        return self.fallback == "popular" and self.segment is None


PLAIN = ColdStart()


@dataclass(frozen=True, eq=False)
class Fallback:
    """Scores of all items for users without a personal answer.

    Args:
        source: "popular" or "recent", the source of the overall scores.
        overall: (I,) float32.
        segment: the user feature of the segments, or None.
        values: its values as text, ascending, (V,), as an id map, so that a request looks up its own without a join.
        by_value: (V, I) float32.
    """

    source: Kind
    overall: NDArray[np.float32]
    segment: str | None = None
    values: IdMap | None = None
    by_value: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, policy: ColdStart, seen: History, popularity: NDArray[np.float32], features: pl.DataFrame | None
    ) -> Fallback:
        """Count the events of ``seen`` by a policy.

        Args:
            policy: the policy.
            seen: the training history, one per user row.
            popularity: (I,) events per item.
            features: one row per user, or None.

        Raises:
            DataError: "recent" without times, or a segment that is no user feature or has too many values.
        """
        strength = np.ones(len(seen.items), np.float32)
        overall = popularity
        if policy.fallback == "recent":
            if seen.times is None:
                raise DataError("fallback='recent' needs the times of events, which are unknown here: use 'popular'")
            age = (seen.times.max(initial=-np.inf) - seen.times) / DAY
            strength = np.exp2(-age / policy.half_life).astype(np.float32)
            overall = np.bincount(seen.items, strength, len(popularity)).astype(np.float32)
        if policy.segment is None:
            return cls(policy.fallback, overall)
        column = _column(features, policy.segment)
        values = IdMap.of(column)
        cells = len(values) * len(popularity)
        if cells > SEGMENT_CELLS:
            raise DataError(
                f"segment={policy.segment!r} has {len(values):,} values for {len(popularity):,} items, at most "
                f"{SEGMENT_CELLS // len(popularity):,} fit: choose a feature with fewer values"
            )
        value_H = np.repeat(values.rows(column), seen.counts)
        known = value_H >= 0
        # One bincount over (value, item) cells instead of a table per value.
        cell = value_H[known].astype(np.int64) * len(popularity) + seen.items[known]
        counts = np.bincount(cell, strength[known], cells).reshape(len(values), len(popularity))
        prior = policy.shrink * overall / max(float(overall.sum()), 1e-12)
        return cls(policy.fallback, overall, policy.segment, values, (counts + prior).astype(np.float32))

    def places(self, users: int, features: pl.DataFrame | None) -> NDArray[np.integer[Any]]:
        """The segment of each user, (R,), -1 for none; ``features`` has one row per user, or is None."""
        if self.segment is None or self.values is None or features is None:
            return np.full(users, -1, dtype=np.int64)
        return self.values.rows(_column(features, self.segment))

    def scores(self, users: int, features: pl.DataFrame | None) -> NDArray[np.float32]:
        """Scores (R, I) of new users: of their segment, or overall."""
        score_RI = np.repeat(self.overall[None], users, axis=0)
        if self.by_value is not None:
            place_R = self.places(users, features)
            score_RI[place_R >= 0] = self.by_value[place_R[place_R >= 0]]
        return score_RI


def _column(features: pl.DataFrame | None, name: str) -> pl.Series:
    """A user feature as text."""
    names = [] if features is None else features.columns
    if features is None or name not in names:
        raise DataError(f"segment={name!r} is no user feature: there are {', '.join(names) or 'none'}")
    if features[name].dtype.is_nested():
        raise DataError(f"segment={name!r} holds lists: choose a feature with one value per user")
    return features[name].cast(pl.String)
