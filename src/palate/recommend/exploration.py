"""Exploration: a share of the places of each list for less known items, so that they get a chance to become known.

Less known are the items with at most as many events as the median item. Each user draws among them by Thompson sampling
(Thompson 1933, "On the likelihood that one unknown probability exceeds another", Biometrika): a rate of events per day
is drawn from its posterior given the training history, and the highest draws win,

    rate_i ~ Gamma(shape 1 + n_i, rate 1 / r + age_i)

with n_i events since the first event of the item, age_i days ago, and a prior with the average rate of less known
items, r events a day. An item without events has only the prior; one without events for a long time has a low rate.
The draw is a function of (seed, user) and does not depend on the other users of a request.

Shape legend: B users of a chunk, I items, L less known items, P places of a pool, M explored places at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import History
from palate.recommend.cold_start import DAY, ColdStart
from palate.rules import Candidates

SAMPLED = 10_000  # less known items that one user draws among, where there are more


@dataclass(frozen=True, eq=False)
class LessKnown:
    """The less known items (L,) and the posterior of their rates."""

    items: NDArray[np.int64]
    shape: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, seen: History, items: int) -> LessKnown:
        """Count the events of a history, over ``items`` items. Without times all that was touched is of one age."""
        count_I = np.bincount(seen.items, minlength=items)
        row_L = np.flatnonzero(count_I <= np.median(count_I)) if items else np.zeros(0, np.int64)
        age_I: NDArray[np.float64] = (count_I > 0).astype(np.float64)
        if seen.times is not None and len(seen.times):
            first_I = np.full(items, np.inf)
            np.minimum.at(first_I, seen.items, seen.times)
            age_I = np.where(count_I > 0, (seen.times.max() - first_I) / DAY, 0.0)
        count_L, age_L = count_I[row_L].astype(np.float64), age_I[row_L]
        rate = max(float(count_L.sum()), 1.0) / max(float(age_L.sum()), 1.0)
        return cls(row_L, 1.0 + count_L, 1 / (1 / rate + age_L))

    def draw(self, rng: np.random.Generator, places: int, blocked_I: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The items with the highest draws, at most ``places`` of them, none of them blocked."""
        if len(self.items) > SAMPLED:
            among = rng.choice(len(self.items), SAMPLED, replace=False)
        else:
            among = np.arange(len(self.items))
        rate = rng.standard_gamma(self.shape[among]) * self.scale[among]
        rate[blocked_I[self.items[among]]] = -1
        # Blocked items have drawn as well, so that a rule or a new event does not change the draws of the others.
        best = among[np.argsort(-rate)[:places]]
        return self.items[best[~blocked_I[self.items[best]]]]


@dataclass(frozen=True, eq=False)
class Explored:
    """The explored items of a chunk of users and the places they get: (B, M), -1 where there is none."""

    items: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        policy: ColdStart,
        less: LessKnown,
        keys: NDArray[np.uint64],
        width: int,
        hidden: History | None,
        allowed_I: NDArray[np.bool_],
    ) -> Explored:
        """Draw for each user.

        Args:
            policy: share of the places, and the seed.
            less: the less known items.
            keys: (B,) hashes of the user ids.
            width: places of a list.
            hidden: events whose items must not be listed, one history per user.
            allowed_I: items that may be listed at all.
        """
        most = int(np.ceil(policy.explore * width))
        items, places = (np.full((len(keys), most), -1, dtype=np.int64) for _ in range(2))
        # A generator for each user, so that a draw does not depend on the other users of the request.
        for row, key in enumerate(keys.tolist()):
            rng = np.random.default_rng((policy.seed, key))
            count = int(policy.explore * width + rng.random())
            place = np.sort(rng.choice(width, min(count, most), replace=False))
            blocked_I = ~allowed_I
            if hidden is not None:
                blocked_I[hidden.of(row)] = True
            drawn = less.draw(rng, len(place), blocked_I)
            items[row, : len(drawn)], places[row, : len(drawn)] = drawn, place[: len(drawn)]
        return cls(items, places)

    def take(self, row: NDArray[np.int64]) -> Explored:
        """Those of some users."""
        return Explored(self.items[row], self.places[row])

    def into(self, best: Candidates) -> Candidates:
        """The best items, with the explored ones at their places and with the score of the place above."""

        def mixed(row: NDArray[np.int64], size: int) -> tuple[Tensor, Tensor]:
            values, found = best(row, size)
            items, places = (torch.from_numpy(part[row]).to(found.device) for part in (self.items, self.places))
            return _inserted(values, found, items, places)

        return mixed

    def has(self, items_BK: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which items of the lists were explored, (B, K)."""
        found: NDArray[np.bool_] = (items_BK[:, :, None] == self.items[:, None, :]).any(2)
        return found


def _inserted(value_BP: Tensor, item_BP: Tensor, new_BM: Tensor, place_BM: Tensor) -> tuple[Tensor, Tensor]:
    """New items at their places, the others in their order around them; items beyond the end are dropped."""
    # An explored item that is among the best too must not be listed twice: it moves behind the others.
    own_BP = (item_BP[:, :, None] == new_BM[:, None, :]).any(2)
    kept = own_BP.to(torch.int8).argsort(dim=1, stable=True)  # columns of the others, in order
    taken_BP = torch.zeros_like(own_BP, dtype=torch.int8).scatter_reduce_(
        1, place_BM.clamp(min=0), (place_BM >= 0).to(torch.int8), "amax"
    )
    slot = taken_BP.argsort(dim=1, stable=True)  # free places in order, then the taken ones
    values, items = torch.empty_like(value_BP), torch.empty_like(item_BP)
    values.scatter_(1, slot, value_BP.gather(1, kept))
    items.scatter_(1, slot, item_BP.gather(1, kept))
    row, column = (place_BM >= 0).nonzero(as_tuple=True)
    place = place_BM[row, column]
    items[row, place] = new_BM[row, column]
    # The score of the place above that is neither explored nor empty; the top has none above it.
    above = values.masked_fill(taken_BP.bool() | (values == -torch.inf), torch.inf).cummin(1).values[row, place]
    values[row, place] = above.where(above < torch.inf, value_BP[row, 0])
    full = (values == -torch.inf).to(torch.int8).argsort(dim=1, stable=True)  # a list that ends early has no gaps
    return values.gather(1, full), items.gather(1, full)
