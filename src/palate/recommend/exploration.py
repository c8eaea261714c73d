"""Exploration: a share of the places of each list for less known items, so that they get a chance to become known.

Less known are the items with at most as many events as the median item. They are drawn as by Thompson sampling
(Thompson 1933, "On the likelihood that one unknown probability exceeds another", Biometrika): an item's chance is the
probability that its rate of events per day is the highest, where the posterior of the rate given the history is

    rate_i ~ Gamma(shape 1 + n_i, rate 1 / r + age_i)

with n_i events since the first event of the item, age_i days ago, and a prior with the average rate of less known
items, r events a day. An item without events has only the prior; one without events for a long time has a low rate.

The chances are computed once, and the items of a list are drawn by systematic sampling (Madow 1949, "On the theory of
systematic sampling, II", Annals of Mathematical Statistics), under which the probability that a list holds an item is
known exactly: its propensity, from which a log of lists can be evaluated (``palate.evaluation.off_policy``). The items
that the list would hold anyway are not drawn. The draw is a function of (seed, user, items that the user must not get):
it does not depend on the other users of a request, and each new event of the user draws again.

Shape legend: B users of a chunk, I items, L items to draw from, P places of a pool, M explored places at most, W places
of a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import integrate, special
from torch import Tensor

from palate.data.dataset import History
from palate.recommend.cold_start import DAY, ColdStart
from palate.rules import Candidates

EVEN = 0.1  # share of the chances that is spread evenly, so that no propensity is below a tenth of that of even draws
GRID = 256  # rates at which the integral over the highest rate is evaluated


@dataclass(frozen=True, eq=False)
class Explorable:
    """Items to draw from (L,), and the chance of each to be drawn for one place (L,), which add up to 1."""

    items: NDArray[np.int64]
    chance: NDArray[np.float64]

    @classmethod
    def less_known(cls, seen: History, items: int) -> Explorable:
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
        highest_L = _highest(1.0 + count_L, 1 / (1 / rate + age_L))
        return cls(row_L, (1 - EVEN) * highest_L + EVEN / max(1, len(row_L)))

    @classmethod
    def all(cls, items: int) -> Explorable:
        """All items of a catalog, with equal chances."""
        return cls(np.arange(items), np.full(items, 1 / max(1, items)))

    def inclusion(self, places: int, blocked_I: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The probability of each item to be among ``places`` drawn ones (L,): in proportion to the chances, at most 1.

        There must be so many items that are not blocked; blocked ones have probability 0.
        """
        chance_L = np.where(blocked_I[self.items], 0.0, self.chance)
        sure_L = np.zeros(len(chance_L), bool)
        while True:  # an item that is certain leaves the rest to the others: at most ``places`` turns
            rest = max(float(chance_L[~sure_L].sum()), np.finfo(np.float64).tiny)
            found_L = np.where(sure_L, 1.0, chance_L * ((places - int(sure_L.sum())) / rest))
            over_L = found_L > 1.0
            if not over_L.any():
                return found_L
            sure_L |= over_L


def draw(rng: np.random.Generator, inclusion_L: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of a sample in which each item is with just its probability; the sample has their sum of items."""
    edge_L = inclusion_L.cumsum()
    at = rng.random() + np.arange(round(float(inclusion_L.sum())))
    last = np.flatnonzero(inclusion_L)[-1:].sum()  # of rounding: the last edge may lie below a point
    return rng.permutation(np.unique(np.minimum(np.searchsorted(edge_L, at, side="right"), last)))


def _highest(shape_L: NDArray[np.float64], scale_L: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that the Gamma variable of each item is the highest (L,), by numerical integration."""
    if not len(shape_L):
        return shape_L
    # In steps of 5 %: many items share a pair, and only pairs are integrated.
    step_L2 = np.round(np.log(np.stack([shape_L, scale_L], 1)) * 20)
    pair_U2, of_L, count_U = np.unique(step_L2, axis=0, return_inverse=True, return_counts=True)
    shape_U1, scale_U1 = (np.exp(pair_U2[:, [column]] / 20) for column in (0, 1))
    top = float((special.gammainccinv(shape_U1, 1e-9 / len(shape_L)) * scale_U1).max())
    rate_G = top * np.geomspace(1e-5, 1.0, GRID)
    at_UG = rate_G / scale_U1
    below_UG = np.log(np.maximum(special.gammainc(shape_U1, at_UG), 1e-300))
    density_UG = (shape_U1 - 1) * np.log(at_UG) - at_UG - special.gammaln(shape_U1) - np.log(scale_U1)
    # P(i is the highest) = integral of its density times the probability that all others are below.
    all_G = count_U @ below_UG
    found_U = integrate.trapezoid(np.exp(density_UG + all_G - below_UG), rate_G, axis=1)
    found_L: NDArray[np.float64] = (found_U / (found_U @ count_U))[of_L.ravel()]
    return found_L


@dataclass(frozen=True, eq=False)
class Exploration:
    """What the explored items of a chunk of users are drawn from.

    Args:
        policy: share of the places, and the seed.
        explorable: the items to draw from.
        keys: (B,) hashes of the user ids.
        width: places of a list.
        allowed_I: items that may be listed at all.
    """

    policy: ColdStart
    explorable: Explorable
    keys: NDArray[np.uint64]
    width: int
    allowed_I: NDArray[np.bool_]

    def take(self, row: NDArray[np.int64]) -> Exploration:
        """That of some users."""
        return Exploration(self.policy, self.explorable, self.keys[row], self.width, self.allowed_I)

    def draw(self, best: Candidates, hidden: History | None) -> Explored:
        """Draw for each user.

        Args:
            best: the best items.
            hidden: events whose items must not be listed, one history per user.
        """
        share = self.policy.explore * self.width
        users, low, most = len(self.keys), int(share), int(np.ceil(share))
        top_BW = best(np.arange(users), self.width)[1].numpy(force=True)
        items, places = (np.full((users, most), -1, dtype=np.int64) for _ in range(2))
        chance, chance_BW, explored_B = np.zeros((users, most)), np.zeros((users, self.width)), np.zeros(users)
        # A generator for each user, so that a draw does not depend on the other users of the request.
        for row, key in enumerate(self.keys.tolist()):
            out = np.unique(hidden.of(row)) if hidden is not None else np.zeros(0, np.int32)
            rng = np.random.default_rng((self.policy.seed, key, crc32(out.astype(np.int64).tobytes())))
            blocked_I = ~self.allowed_I
            blocked_I[out] = True
            blocked_I[top_BW[row][top_BW[row] >= 0]] = True
            free = int(np.count_nonzero(~blocked_I[self.explorable.items]))
            # The number of places is one of two neighbors of the share, so that it is right on average.
            count, weights = int(share + rng.random()), ((low, 1 - share + low), (low + 1, share - low))
            count = min(count, free)
            inclusion_L = np.zeros(len(self.explorable.items))
            for number, weight in weights:
                if weight > 0 and min(number, free):
                    inclusion_L += weight * self.explorable.inclusion(min(number, free), blocked_I)
                chance_BW[row, : self.width - min(number, free)] += weight
                explored_B[row] += weight * min(number, free) / self.width
            if not count:
                continue
            drawn = draw(rng, self.explorable.inclusion(count, blocked_I))
            items[row, : len(drawn)] = self.explorable.items[drawn]
            places[row, : len(drawn)] = rng.choice(self.width, len(drawn), replace=False)
            chance[row, : len(drawn)] = inclusion_L[drawn]
        return Explored(items, places, chance, chance_BW, explored_B)


@dataclass(frozen=True, eq=False)
class Explored:
    """The explored items of a chunk of users, the places they get, and what the lists hold with which probability.

    Args:
        items, places: (B, M), -1 where there is none.
        chance: (B, M) probability that the list holds the item.
        chance_BW: probability that the list holds the item that is first, second, ... by score.
        explored_B: probability of each place to be explored.
    """

    items: NDArray[np.int64]
    places: NDArray[np.int64]
    chance: NDArray[np.float64]
    chance_BW: NDArray[np.float64]
    explored_B: NDArray[np.float64]

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

    def propensities(self, items_BK: NDArray[np.int64]) -> NDArray[np.float64]:
        """The probability of each row of the lists to be in the list, at any place, (B, K)."""
        drawn_BKM = items_BK[:, :, None] == self.items[:, None, :]
        # No explored item is among the best, so the others are the first of the best, in order.
        rank_BK = (~drawn_BKM.any(2)).cumsum(1) - 1
        best_BK = np.take_along_axis(self.chance_BW, np.clip(rank_BK, 0, self.chance_BW.shape[1] - 1), 1)
        return np.where(drawn_BKM.any(2), (drawn_BKM * self.chance[:, None, :]).sum(2), best_BK)

    def joined(self, other: Explored, order: NDArray[np.int64]) -> Explored:
        """Those of further users behind them, then all in another order."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Explored(*(np.concatenate(pair)[order] for pair in pairs))


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
