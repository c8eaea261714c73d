"""Generated logs: users with tastes of known strength on catalogs of any width, for laws and studies of defaults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap

__all__ = ["World"]

DAY = 86_400.0


@dataclass(frozen=True)
class World:
    """A log in which each user takes items from a few groups of the catalog, or whatever is popular.

    Items are in groups of equal size, and ten groups make a field. A user has one field and three of its groups. An
    event is of one of these groups with chance ``taste``, of the field with half of the rest, else of any item; within
    each set items are taken by their popularity. A pair occurs once.

    Args:
        users, items: sizes.
        events: mean number of events per user.
        spread: standard deviation of the logarithm of that number; 0 gives all users the same.
        least: events that every user has.
        taste: share of events by taste; 0 is a world without tastes.
        group: items of a group.
        tail: exponent of popularity over its rank: 0 makes all items alike, 1.2 is an extreme tail.
        drift: share of the time span after which an item has lost most of its popularity; None keeps it.
        ties: give all events of a week the same time.
        weights: "none" (ones), "hours" (quantities with a heavy tail) or "ratings" (1 to 5, higher by taste).
        seed: of all random numbers.
    """

    users: int = 600
    items: int = 400
    events: float = 20.0
    spread: float = 0.5
    least: int = 3
    taste: float = 0.6
    group: int = 10
    tail: float = 0.7
    drift: float | None = None
    ties: bool = False
    weights: str = "none"
    seed: int = 0

    def dataset(self) -> Dataset:
        """The log, in the order of time."""
        rng = np.random.default_rng(self.seed)
        counts = np.exp(rng.normal(np.log(self.events) - self.spread**2 / 2, self.spread, self.users))
        wanted = np.clip(np.round(counts), self.least, self.items // 3).astype(np.int64)
        # Drawn with replacement, then the first ones of each pair are kept: three times as many as wanted.
        user = np.repeat(np.arange(self.users), 3 * wanted + 10)
        time = rng.random(len(user))
        item, liked = self._items(user, time, rng)
        pair = user * self.items + item
        _, first = np.unique(pair, return_index=True)
        first = np.sort(first)
        user, item, time, liked = user[first], item[first], time[first], liked[first]
        place = np.arange(len(user)) - np.searchsorted(user, user)
        kept = place < wanted[user]
        user, item, time, liked = user[kept], item[kept], time[kept], liked[kept]
        order = np.argsort(time, kind="stable")
        stamp = 1e9 + 365 * DAY * time[order]
        if self.ties:
            stamp = 1e9 + 7 * DAY * np.floor(365 * time[order] / 7)
        weight, kind = self._weight(liked[order], rng)
        rows = Interactions(user[order].astype(np.int32), item[order].astype(np.int32), weight, stamp)
        return Dataset("world", IdMap.of(np.arange(self.users)), IdMap.of(np.arange(self.items)), rows, Feedback(kind))

    def _items(
        self, user: NDArray[np.int64], time: NDArray[np.float64], rng: Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Items (N,) of events, and whether they were taken by taste."""
        # Popularity has nothing to do with groups: each group has items of all ranks.
        popular = (1 + rng.permutation(self.items)) ** -self.tail
        born = rng.random(self.items) if self.drift is not None else np.zeros(self.items)
        groups = max(1, self.items // self.group)
        group_I = np.minimum(np.arange(self.items) // self.group, groups - 1)
        fields = max(1, groups // 10)
        field_U = rng.integers(fields, size=self.users)
        own_U3 = (field_U[:, None] * 10 + rng.integers(min(10, groups), size=(self.users, 3))) % groups
        n = len(user)
        draw, which = rng.random(n), rng.integers(3, size=n)
        by_taste = draw < self.taste
        by_field = ~by_taste & (draw < self.taste + (1 - self.taste) / 2 * (self.taste > 0))
        in_group, in_field = own_U3[user, which], field_U[user]
        first = np.where(by_taste, in_group * self.group, np.where(by_field, in_field * 10 * self.group, 0))
        width = np.where(by_taste, self.group, np.where(by_field, 10 * self.group, self.items))
        last = np.minimum(first + width, self.items)
        if self.drift is None:
            total = np.concatenate([[0.0], popular.cumsum()])
            value = total[first] + rng.random(n) * (total[last] - total[first])
            item = np.searchsorted(total, value, side="right") - 1
            return np.clip(item, first, last - 1), by_taste | by_field
        item = np.zeros(n, np.int64)
        # Popularity as of each of twenty periods; an item counts from its birth on, and fades.
        period = np.minimum((20 * time).astype(np.int64), 19)
        for number in range(20):
            age = (number + 0.5) / 20 - born
            now = popular * np.where(age < 0, 1e-4, np.exp(-age / self.drift) + 1e-4)
            total = np.concatenate([[0.0], now.cumsum()])
            here = period == number
            value = total[first[here]] + rng.random(int(here.sum())) * (total[last[here]] - total[first[here]])
            item[here] = np.clip(np.searchsorted(total, value, side="right") - 1, first[here], last[here] - 1)
        assert len(group_I) == self.items
        return item, by_taste | by_field

    def _weight(self, liked: NDArray[np.bool_], rng: Generator) -> tuple[NDArray[np.float32], str]:
        if self.weights == "hours":
            hours = np.exp(rng.normal(np.where(liked, 1.5, 0.0), 1.5))
            return np.maximum(hours, 0.1).round(1).astype(np.float32), "quantity"
        if self.weights == "ratings":
            stars = np.clip(np.round(rng.normal(np.where(liked, 4.2, 3.0), 0.9)), 1, 5)
            return stars.astype(np.float32), "rating"
        return np.ones(len(liked), np.float32), "quantity"
