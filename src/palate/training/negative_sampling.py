"""Negatives: items drawn at random for users who have not seen them.

Uniform draws are exact for every user, however much of the catalog the user has seen. The r-th unseen item of a
user follows from one binary search: with the seen items sorted, ``seen[j] - j`` is how many unseen items come
before the j-th seen one.

Shape legend: B users in a call, n draws per user, I items in the catalog, U users of the history.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from palate.data.dataset import Dataset, History, Interactions
from palate.data.splits.split import Candidates, Split
from palate.errors import DataError, RecipeError
from palate.progress import Progress, ProgressEvent

TABLE_BYTES = 256 * 2**20
CHUNK = 1 << 18


def epoch_rng(seed: int, epoch: int, stream: int = 0) -> Generator:
    """The random generator of one epoch: a function of (seed, epoch, stream) alone.

    Give each independent use of randomness in an epoch (negatives, shuffling) a ``stream`` of its own.
    """
    if min(seed, epoch, stream) < 0:
        raise RecipeError(f"seed={seed}, epoch={epoch}, stream={stream}: none may be below zero")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, stream)))


class NegativeSampler:
    """Draws items, uniformly among those that a user's history does not hold.

    A table of U x I bits marks the seen items, where it fits ``table_bytes``; beyond that every draw is a
    binary search. Either way memory is 8 bytes per seen pair plus the table.

    Args:
        history: the rows per user; repeated items count once.
        n_items: size of the catalog, I.
        table_bytes: the most that the table may take.

    Raises:
        DataError: the history names an item beyond ``n_items``.
    """

    def __init__(self, history: History, n_items: int, table_bytes: int = TABLE_BYTES) -> None:
        highest = int(history.items.max(initial=-1))
        if highest >= n_items:
            raise DataError(f"history holds item row {highest}, n_items={n_items}: give the size of its catalog")
        self.n_items = n_items
        owner = np.repeat(np.arange(len(history)), history.counts)
        pair = np.sort(owner * n_items + history.items)  # np.unique hashes: 150 times slower here
        pair = pair[np.diff(pair, prepend=-1) > 0]
        owner, seen = np.divmod(pair, n_items) if n_items else (pair, pair)
        counts = np.bincount(owner, minlength=len(history))
        self._starts = np.cumsum(counts) - counts
        self._unseen = n_items - counts
        # Ascending over all users at once, since seen[j] - j stays below n_items + 1.
        self._before = owner * (n_items + 1) + seen - (np.arange(len(pair)) - self._starts[owner])
        self._width = -(-n_items // 8)
        fits = len(history) * self._width <= table_bytes
        self._bits = np.zeros(len(history) * self._width, dtype=np.uint8) if fits else None
        if self._bits is not None and len(pair):
            byte = owner * self._width + seen // 8
            # The pairs are sorted, so the bits of one byte are neighbors: reduceat joins them without a loop.
            starts = np.flatnonzero(np.diff(byte, prepend=-1))
            self._bits[byte[starts]] = np.bitwise_or.reduceat(np.left_shift(1, seen % 8).astype(np.uint8), starts)

    def counts(self, users: NDArray[np.integer]) -> NDArray[np.int64]:
        """How many items each of these users has not seen, shape (B,)."""
        counts: NDArray[np.int64] = self._unseen[users]
        return counts

    def draw(self, users: NDArray[np.integer], n: int, rng: Generator) -> NDArray[np.int32]:
        """Item rows, shape (B, n): independent, each uniform over the items that its user has not seen.

        Raises:
            DataError: one of the users has seen the whole catalog, or is not in the history.
        """
        self._check(users, 1)
        items_Bn = np.empty((len(users), n), dtype=np.int32)
        step = max(1, CHUNK // max(n, 1))
        for start in range(0, len(users), step):
            part = slice(start, start + step)
            items_Bn[part] = self._draw(users[part].astype(np.int64), n, rng)
        return items_Bn

    def draw_distinct(self, users: NDArray[np.integer], n: int, rng: Generator) -> NDArray[np.int32]:
        """Like ``draw``, but the n items of a row are distinct and in random order.

        Floyd's algorithm (Bentley and Floyd 1987), one pass per column over all users of a chunk.

        Raises:
            DataError: one of the users has fewer than n unseen items, or is not in the history.
        """
        self._check(users, n)
        items_Bn = np.empty((len(users), n), dtype=np.int32)
        step = max(1, CHUNK // max(n, 1))
        for start in range(0, len(users), step):
            part = users[start : start + step].astype(np.int64)
            rank_nB = np.empty((n, len(part)), dtype=np.int64)
            for column in range(n):
                last = self._unseen[part] - n + column
                drawn = _below(last + 1, rng)
                # A repeat becomes the newest number, which no column before can hold.
                rank_nB[column] = np.where((rank_nB[:column] == drawn).any(axis=0), last, drawn)
            rank_Bn = rng.permuted(rank_nB.T, axis=1)  # Floyd's sets are uniform, their order is not
            items_Bn[start : start + step] = self._at(part[:, None], rank_Bn)
        return items_Bn

    def _draw(self, users: NDArray[np.int64], n: int, rng: Generator) -> NDArray[np.int32]:
        if self._bits is None:
            return self._at(users[:, None], _below(np.repeat(self._unseen[users], n), rng).reshape(len(users), n))
        items_Bn = rng.integers(0, self.n_items, (len(users), n), dtype=np.int32)
        byte_Bn = self._bits.take((items_Bn >> 3) + (users * self._width)[:, None])
        seen = np.flatnonzero(byte_Bn >> (items_Bn & 7).astype(np.uint8) & 1)
        # Seen items are replaced by exact draws over the unseen: both are uniform over the unseen, so the mixture is.
        # Most draws are unseen already, and one test of a bit costs a tenth of a binary search.
        again = users[seen // n]
        items_Bn.reshape(-1)[seen] = self._at(again, _below(self._unseen[again], rng))
        return items_Bn

    def _at(self, users: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int32]:
        """The item that has ``rank`` unseen items of its user before it; the two shapes broadcast."""
        passed = np.searchsorted(self._before, users * (self.n_items + 1) + rank, side="right")
        return (rank + passed - self._starts[users]).astype(np.int32)

    def _check(self, users: NDArray[np.integer], n: int) -> None:
        if len(users) and not 0 <= users.min() <= users.max() < len(self._unseen):
            raise DataError(
                f"user rows {users.min()} to {users.max()} in a history of {len(self._unseen):,} users: "
                "draw for known users only"
            )
        short = np.unique(users[self._unseen[users] < n])
        if not len(short):
            return
        if n == 1:
            fact = f"{len(short):,} users have seen all {self.n_items:,} items"
            remedy = "leave these users out or add items"
        else:
            fact = f"{len(short):,} users have fewer than {n} unseen items of {self.n_items:,}"
            remedy = "ask for fewer or draw with replacement"
        raise DataError(f"{fact} (user row {short[0]} has {self._unseen[short[0]]} left): {remedy}")


def rows_with_negatives(train: Dataset, unseen: NegativeSampler, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The training rows ``rows`` of users with unseen items; the others cannot have negatives (a crawler, for example).

    Raises:
        RecipeError: every user has seen all items.
    """
    kept = unseen.counts(train.interactions.user[rows]) > 0
    if not kept.any() and len(rows):
        raise RecipeError(f"every user has seen all {train.n_items:,} items: no negatives to learn from, add items")
    return rows if kept.all() else rows[kept]


def report_users_without_negatives(train: Dataset, recipe: str, progress: Progress) -> None:
    """Report the ids of the users whom ``rows_with_negatives`` leaves out, if there are any."""
    seen, n_items = train.history, train.n_items
    # Counts with repeats are an upper bound, so only a few histories must be looked at.
    likely = np.flatnonzero(seen.counts >= n_items)
    full = likely[NegativeSampler(seen.select(likely), n_items).counts(np.arange(len(likely))) == 0]
    if len(full):
        names = ", ".join(map(str, train.users.external(full[:3]))) + (", ..." if len(full) > 3 else "")
        text = f"left out of the loss, having seen all {n_items:,} items: {len(full):,} of {train.n_users:,} users"
        progress(ProgressEvent(f"train {recipe}", message=f"{text} ({names})"))


def draw_candidates(split: Split, n: int, seed: int = 0, *, replace: bool = False) -> Candidates:
    """For every test user n uniform negatives, unseen in train and in test.

    Args:
        split: the rows; every item of its map can be drawn.
        n: negatives per user.
        seed: the same seed gives the same candidates.
        replace: draw with replacement, as the published run of system A does.

    Raises:
        DataError: ``n`` is below 1, or a test user has too few unseen items.
    """
    if n < 1:
        raise DataError(f"n={n}: list at least 1 negative per user")
    rows = (split.train.interactions, split.test.interactions)
    user, item, weight = (np.concatenate([getattr(r, name) for r in rows]) for name in ("user", "item", "weight"))
    unseen = NegativeSampler(Interactions(user, item, weight).history(split.train.n_users), split.train.n_items)
    users = split.test_users
    draw = unseen.draw if replace else unseen.draw_distinct
    how = f"{n} uniform negatives {'with' if replace else 'without'} replacement, unseen in train and test, seed {seed}"
    return Candidates(users, draw(users, n, epoch_rng(seed, 0)), how)


def _below(high: NDArray[np.int64], rng: Generator) -> NDArray[np.int64]:
    """Uniform integers in [0, high), one per entry; exact to 2**-53, and twice as fast as ``Generator.integers``."""
    return (rng.random(high.shape) * high).astype(np.int64)
