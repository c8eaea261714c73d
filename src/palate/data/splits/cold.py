"""Splits that hold out whole users or whole items, to measure a model on users or items without training rows.

    split = hold_out_users(dataset, 0.1)     # trains on nine users of ten
    reveal(split, 5)                         # the first 5 rows of each held-out user become a history to fold in

A held-out user's revealed rows stand on the training side of the split, where evaluation takes histories from; fit the
model on ``split.train`` as it was before they were revealed.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Interactions, Note
from palate.data.order import group_by_user
from palate.data.splits.split import Split
from palate.data.splits.strategies import check_fraction
from palate.errors import DataError


def hold_out_users(dataset: Dataset, test_size: float = 0.1, seed: int = 0) -> Split:
    """All rows of a random fraction of the users who have any are test rows; the maps stay whole.

    Raises:
        DataError: ``test_size`` is not inside (0, 1), or leaves no user on one side.
    """
    return _hold_out(dataset, "user", test_size, seed)


def hold_out_items(dataset: Dataset, test_size: float = 0.1, seed: int = 0) -> Split:
    """All rows of a random fraction of the items that have any are test rows; the maps stay whole.

    Raises:
        DataError: ``test_size`` is not inside (0, 1), or leaves no item on one side.
    """
    return _hold_out(dataset, "item", test_size, seed)


def reveal(split: Split, events: int) -> Split:
    """The first ``events`` rows of each test user as their history; with -1 all but the latest.

    Users who would keep no test row are left out and counted. Equal times keep the order of the source.

    Raises:
        DataError: ``events`` is below -1, or no test row is left.
    """
    if events < -1:
        raise DataError(f"events={events}: give how many rows to reveal, or -1 for all but the latest")
    held = split.test.interactions
    order = group_by_user(held.user, held.time)
    held = held.take(order)
    counts = np.bincount(held.user, minlength=split.test.n_users)
    place = np.arange(len(held)) - np.repeat(np.cumsum(counts) - counts, counts)
    total = counts[held.user]
    revealed = total - 1 if events == -1 else np.full(len(held), events)
    stays, first = revealed < total, place < revealed
    if events == -1:
        stays &= total > 1
    if not stays.any():
        most = counts.max(initial=0)
        raise DataError(f"events={events} left no test row (largest test user has {most}): reveal fewer")
    train = split.train.with_rows(_joined(split.train.interactions, held.take(stays & first)))
    short = int((counts > 0).sum()) - len(np.unique(held.user[stays]))
    notes = (Note(f"rows of {short:,} test users with too few, left out", int((~stays).sum())),) if short else ()
    part = "all rows but the latest" if events == -1 else f"the first {events} rows"
    how = f"{split.how}; history: {part} of each test user"
    return Split(train, split.test.with_rows(held.take(stays & ~first)), how, (*split.notes, *notes))


def _hold_out(dataset: Dataset, side: Literal["user", "item"], test_size: float, seed: int) -> Split:
    check_fraction(test_size, "test_size")
    rows: NDArray[Any] = getattr(dataset.interactions, side)
    there = np.unique(rows)
    count = round(test_size * len(there))
    if not 0 < count < len(there):
        raise DataError(
            f"test_size={test_size:g} of {len(there):,} {side}s leaves none on one side: give another test_size"
        )
    chosen = np.random.default_rng(seed).choice(there, count, replace=False)
    held = np.isin(rows, chosen)
    train, test = (dataset.with_rows(dataset.interactions.take(part)) for part in (~held, held))
    how = f"cold {side}s: all rows of {count:,} of {len(there):,} {side}s at random, seed {seed}"
    return Split(train, test, how)


def _joined(first: Interactions, second: Interactions) -> Interactions:
    time = None
    if first.time is not None and second.time is not None:
        time = np.concatenate([first.time, second.time])
    user, item, weight = (
        np.concatenate([getattr(part, name) for part in (first, second)]) for name in ("user", "item", "weight")
    )
    return Interactions(user, item, weight, time)
