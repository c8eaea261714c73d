"""Holding rows out in the way the data allow: for the table, and once more inside training to choose among models."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from palate.data.dataset import Dataset
from palate.data.splits.split import Split, at_random, by_time, leave_one_out
from palate.errors import DataError

__all__ = ["hold_out", "validation_like", "validation_split"]

MEASURED_SHARE = 0.1  # of the users a time split must leave to measure, or each user's latest row is held out


def hold_out(dataset: Dataset, share: float = 0.2, seed: int = 0) -> Split:
    """Held-out rows in the way the data allow: by time, or at random where there is none.

    By time is the latest share of all rows, or each user's latest row where the former would leave less than a tenth of
    the users to measure. Users and items that are new in the held-out rows are dropped from them and counted.
    """
    return _hold_out(dataset, share, seed, "drop")


def validation_split(train: Dataset, share: float = 0.2, seed: int = 0) -> Split:
    """As ``hold_out``, to choose among models, but with the id maps of ``train``: models fit other splits of it."""
    return _warm(_hold_out(train, share, seed, "keep"))


def validation_like(split: Split, share: float = 0.2, seed: int = 0) -> Split:
    """Validation rows out of the training rows of a split, held out the way its test rows were.

    Each user's latest row where each test user has one test row; the latest share where no test row is earlier than a
    training row; else a random share. What is best for one of these ways need not be best for another.
    """
    train, known, held = split.train, split.train.interactions, split.test.interactions
    if len(held) == len(split.test_users):
        return _warm(leave_one_out(train))
    if known.time is None or held.time is None or held.time.min() < known.time.max():
        return _warm(at_random(train, share=share, seed=seed, cold="keep"))
    return validation_split(train, share, seed)


def _warm(split: Split) -> Split:
    """The split with only those test rows whose user and item have training rows."""
    known, held, data = split.train.interactions, split.test.interactions, split.train
    user_known = np.bincount(known.user, minlength=data.n_users) > 0
    item_known = np.bincount(known.item, minlength=data.n_items) > 0
    warm = user_known[held.user] & item_known[held.item]
    return replace(split, test=split.test.with_rows(held.take(warm)), how=f"{split.how}; of these only known ones")


def _hold_out(dataset: Dataset, share: float, seed: int, cold: Literal["drop", "keep"]) -> Split:
    try:
        if dataset.interactions.time is None:
            return at_random(dataset, share=share, seed=seed, cold=cold)
        measured = _measured_users(dataset, share)
        if measured >= MEASURED_SHARE * dataset.n_users:
            return by_time(dataset, rows=share, cold=cold)
        split = leave_one_out(dataset, cold=cold)
    except DataError as error:
        raise DataError(
            f"{dataset} is too little to hold rows out and measure ({error}): give more rows, or train on all of them "
            "(palate train popularity DATA --split none)"
        ) from None
    return replace(
        split, how=f"{split.how} (a global time split leaves {measured} of {dataset.n_users:,} users to measure)"
    )


def _measured_users(dataset: Dataset, share: float) -> int:
    """Users that a global time split leaves with both training and test rows."""
    try:
        return len(by_time(dataset, rows=share, cold="drop").test_users)
    except DataError:  # every later row belongs to somebody new, as in a log of first visits
        return 0
