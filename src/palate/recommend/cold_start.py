"""Cold start: what answers where the model has learned nothing about a person, as one policy that is plain data.

    ColdStart()                                     # the most popular items
    ColdStart("recent", half_life=14)               # what is popular now
    ColdStart(segment="occupation")                 # what is popular among people like this one
    ColdStart(explore=0.1)                          # a tenth of the places to less known items

The first of these that can be had answers a request, and every row of the answer says which it was:

    model       a user of the training data
    fold-in     somebody else with a history of ``min_history`` events, which every model folds in by its own rule
    features    somebody known by features only, where the model has a feature tower
    segment     nothing of that, but the policy names a user feature whose value is known:
                score(i | v) = n_iv + shrink * n_i / n
    recent      nothing at all: score(i) = sum over the events of i of 0.5 ** ((t_last - t) / half_life)
    popular     nothing at all: score(i) = n_i, events of item i

with n_iv the events of item i by people of value v, and n all events, each counting by its age under "recent".
``shrink`` events shared out as everybody shares theirs pull small segments toward the whole: the mean of the posterior
under a Dirichlet prior, but for a constant. Under "recent" only the age counts, not the moment of asking: that would
scale all scores alike. Two sources belong to single rows: "explore" (see ``explore``) and "new-item", an item without
training rows that the model ranks by its features.

Shape legend: I items, V segments, R strangers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import History
from palate.errors import DataError

__all__ = ["PLAIN", "ColdStart", "Fallback"]

DAY = 86_400.0
SEGMENT_CELLS = 50_000_000  # scores of all segments together: 400 MB while they are counted

Kind = Literal["popular", "recent"]


@dataclass(frozen=True)
class ColdStart:
    """Who gets what when nothing was learned: saved with a bundle, and may be set for each request.

    Args:
        fallback: "popular" or "recent", for those about whom nothing is known.
        half_life: days after which an event counts half, for "recent".
        segment: a user feature; strangers whose value is known get what is popular among people of that value.
        shrink: events of the whole population that a segment's own are mixed with.
        min_history: events that somebody must have had before the model folds them in; who has fewer gets the fallback.
        features: whether those known by features only are answered by the model, where it has a feature tower.
        explore: share of the places of every list that less known items get, 0 to 1.
        seed: of the exploration; a user's draw depends on nothing else but the user.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    fallback: Kind = "popular"
    half_life: float = 30.0
    segment: str | None = None
    shrink: float = 1000.0
    min_history: int = 1
    features: bool = True
    explore: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fallback not in get_args(Kind):
            raise DataError(f"fallback={self.fallback!r}: must be one of {', '.join(get_args(Kind))}")
        if not 0 < self.half_life < float("inf"):
            raise DataError(f"half_life={self.half_life:g}: must be a number of days above 0")
        if not 0 <= self.shrink < float("inf"):
            raise DataError(f"shrink={self.shrink:g}: must be a number of events, 0 or more")
        if self.min_history < 1:
            raise DataError(f"min_history={self.min_history}: must be at least 1 event")
        if not 0 <= self.explore <= 1:
            raise DataError(f"explore={self.explore:g}: must be a share of the places between 0 and 1")
        if self.seed < 0:
            raise DataError(f"seed={self.seed}: must not be below zero")

    @property
    def is_plain(self) -> bool:
        """Whether strangers about whom nothing is known get the most popular items."""
        return self.fallback == "popular" and self.segment is None


PLAIN = ColdStart()


@dataclass(frozen=True, eq=False)
class Fallback:
    """Scores of all items for those whom the model does not know.

    Args:
        source: "popular" or "recent", of the overall scores.
        overall: (I,) float32.
        segment: the user feature of the segments, or None.
        values: its values as text, ascending, (V,).
        by_value: (V, I) float32.
    """

    source: Kind
    overall: NDArray[np.float32]
    segment: str | None = None
    values: pl.Series | None = None
    by_value: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, policy: ColdStart, seen: History, popularity: NDArray[np.float32], features: pl.DataFrame | None
    ) -> Fallback:
        """Count the events of ``seen`` as the policy says.

        Args:
            policy: what to count.
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
        values = column.drop_nulls().unique().sort()
        cells = len(values) * len(popularity)
        if cells > SEGMENT_CELLS:
            raise DataError(
                f"segment={policy.segment!r} has {len(values):,} values for {len(popularity):,} items, at most "
                f"{SEGMENT_CELLS // len(popularity):,} fit: choose a feature with fewer values"
            )
        value_U = _places(column, values)
        value_H = np.repeat(value_U, seen.counts)
        told = value_H >= 0
        cell = value_H[told] * len(popularity) + seen.items[told]
        counts = np.bincount(cell, strength[told], cells).reshape(len(values), len(popularity))
        prior = policy.shrink * overall / max(float(overall.sum()), 1e-12)
        return cls(policy.fallback, overall, policy.segment, values, (counts + prior).astype(np.float32))

    def places(self, strangers: int, features: pl.DataFrame | None) -> NDArray[np.int64]:
        """The segment of each of so many strangers (R,), -1 for none; ``features`` has one row each, or is None."""
        if self.segment is None or self.values is None or features is None:
            return np.full(strangers, -1, dtype=np.int64)
        return _places(_column(features, self.segment), self.values)

    def scores(self, strangers: int, features: pl.DataFrame | None) -> NDArray[np.float32]:
        """Scores (R, I) of so many strangers: of their segment, or overall."""
        place_R = self.places(strangers, features)
        score_RI = np.repeat(self.overall[None], strangers, axis=0)
        if self.by_value is not None:
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


def _places(column: pl.Series, values: pl.Series) -> NDArray[np.int64]:
    """The place of each text among ``values``, -1 where it is null or not one of them."""
    table = pl.DataFrame({"value": values, "place": pl.Series(range(len(values)), dtype=pl.Int64)})
    found = pl.DataFrame({"value": column}).join(table, on="value", how="left", maintain_order="left")
    return found["place"].fill_null(-1).to_numpy()
