"""Held-out rows: test rows where a command needs some, and validation rows out of training rows.

leave-one-out   each user's latest row; part n holds out the latest of the rows that n earlier parts left
time            the latest share of all rows; each part ends half a share of the rows before the previous one
random          a random share of all rows; each part has its own seed
cold-users      all rows of a random share of the users; cold-items: of the items
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from typing import Literal

import numpy as np

from palate.data.dataset import Dataset
from palate.data.splits.cold import hold_out_items, hold_out_users
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random, by_time, leave_one_out
from palate.errors import DataError

How = Literal["leave-one-out", "time", "random"]
COLD = {"cold-users": hold_out_users, "cold-items": hold_out_items}
MEASURED_USERS = (
    0.1  # share of the users that a time split must leave with test rows, else the latest rows are held out
)


def hold_out(dataset: Dataset, test_size: float = 0.2, seed: int = 0) -> Split:
    """Test rows held out in the way the data allow: by time, or at random where there is no time.

    By time the latest share of all rows is held out, or each user's latest row if the former would leave less than a
    tenth of the users to measure. Users and items that are new in the held-out rows are dropped and counted.
    """
    return _hold_out(dataset, test_size, seed, "drop")


def validation_split(rows: Dataset | Split, validation_size: float = 0.2, seed: int = 0) -> Split:
    """Validation rows out of training rows, under the ids of the training rows, so that a model fits both.

    Args:
        rows: training rows, from which rows are held out as by ``hold_out``; or a split, whose training rows are split
            again in the way its test rows were held out, since the best settings for one way need not be the best for
            another. A split that has validation rows keeps them, and all of its training rows.
        validation_size: share of the rows, where a share is held out.
        seed: of a random share.

    Returns:
        A split whose validation rows are of users and items with training rows, unless the test rows are all of users,
        or all of items, without any.
    """
    train = rows if isinstance(rows, Dataset) else rows.train
    how = None if isinstance(rows, Dataset) else _way_of(rows)
    if isinstance(rows, Split) and rows.validation is not None:
        split = Split(train, rows.validation, f"the rows of {rows.validation.name}")
    elif how == "leave-one-out":
        split = leave_one_out(train)
    elif how == "random":
        split = at_random(train, test_size=validation_size, seed=seed, cold="keep")
    elif how in COLD:
        return COLD[how](train, validation_size, seed)
    else:
        split = _hold_out(train, validation_size, seed, "keep")
    known, held = split.train.interactions, split.test.interactions
    user_known = np.bincount(known.user, minlength=train.n_users) > 0
    item_known = np.bincount(known.item, minlength=train.n_items) > 0
    warm = held.take(user_known[held.user] & item_known[held.item])
    return replace(split, test=split.test.with_rows(warm), how=f"{split.how}; of these only known ones")


def validation_parts(
    train: Dataset, how: How, parts: int = 1, validation_size: float = 0.2, seed: int = 0
) -> list[Split]:
    """Several validation splits of training rows, the latest first.

    Settings that are best on one part of a small data set may be so by luck; the mean over several parts is steadier.

    Args:
        train: training rows; no other rows are read.
        how: the way rows are held out.
        parts: number of splits.
        validation_size: share of the rows that time and random hold out.
        seed: of the first random part.

    Raises:
        DataError: fewer than one part, no times where they are needed, or too few rows for so many parts.
    """
    if parts < 1:
        raise DataError(f"parts={parts}: must be at least 1")
    made = list(islice(_parts(train, how, validation_size, seed), parts))
    if len(made) < parts:
        raise DataError(f"{train} is enough for {len(made)} of {parts} validation parts: ask for fewer")
    return made


def _parts(train: Dataset, how: How, validation_size: float, seed: int) -> Iterator[Split]:
    if how == "random":
        while True:
            yield at_random(train, test_size=validation_size, seed=seed)
            seed += 1
    if how == "leave-one-out":
        while np.bincount(train.interactions.user).max(initial=0) > 1:
            yield (part := leave_one_out(train))
            train = part.train
        return
    rows = train.interactions
    order = np.arange(len(rows)) if rows.time is None else np.argsort(rows.time, kind="stable")
    for number in count():
        # Half a share, not a whole one: parts overlap, so that five of them still leave enough rows to train on.
        kept = np.sort(order[: round(len(rows) * (1 - number * validation_size / 2))])
        if len(kept) < 2:
            return
        yield by_time(train.with_rows(rows.take(kept)), test_size=validation_size)


def _way_of(split: Split) -> str | None:
    """The way the test rows of a split were held out, read from the rows: a saved split does not name it."""
    known, held = split.train.interactions, split.test.interactions
    for way, column in (("cold-users", "user"), ("cold-items", "item")):
        if not np.isin(getattr(held, column), getattr(known, column)).any():
            return way
    if len(held) == len(split.test_users):
        return "leave-one-out"
    # A test row before the last training row rules out a cut in time.
    if known.time is None or held.time is None or held.time.min() < known.time.max():
        return "random"
    return None


def _hold_out(dataset: Dataset, size: float, seed: int, cold: Literal["drop", "keep"]) -> Split:
    try:
        if dataset.interactions.time is None:
            return at_random(dataset, test_size=size, seed=seed, cold=cold)
        if not dataset.comparable_times:
            return leave_one_out(dataset, cold=cold)
        try:
            measured = len(by_time(dataset, test_size=size, cold="drop").test_users)
        except DataError:  # every later row is of a new user, as in a log of first visits
            measured = 0
        if measured >= MEASURED_USERS * dataset.n_users:
            return by_time(dataset, test_size=size, cold=cold)
        split = leave_one_out(dataset, cold=cold)
    except DataError as error:
        raise DataError(
            f"{dataset} is too little to hold rows out and measure ({error}): give more rows, or train on all of them "
            "(palate train popularity DATA --split none)"
        ) from None
    left = f"a global time split leaves {measured} of {dataset.n_users:,} users to measure"
    return replace(split, how=f"{split.how} ({left})")
