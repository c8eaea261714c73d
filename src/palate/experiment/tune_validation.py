"""Validation rows, out of training rows alone: held out once, or several times over.

    leave-one-out   part n measures the latest row of each user after n earlier parts have taken theirs away
    time            part n ends half a share of the rows before the one ahead of it
    random          part n is drawn with a seed of its own

Settings that are best on one part of a small data set may be so by luck; the mean over several parts is steadier.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Literal

import numpy as np

from palate.data.dataset import Dataset
from palate.data.splits.split import Split, at_random, by_time, leave_one_out
from palate.errors import DataError

__all__ = ["How", "validation_parts"]

How = Literal["leave-one-out", "time", "random"]


def validation_parts(train: Dataset, how: How, parts: int = 1, share: float = 0.2, seed: int = 0) -> list[Split]:
    """Splits of training rows, the latest first.

    Args:
        train: training rows; nothing else is looked at.
        how: rows are held out.
        parts: number of splits.
        share: of the rows that time and random hold out.
        seed: of the first random part.

    Raises:
        DataError: fewer than one part, no times where they are needed, or rows that do not suffice for so many parts.
    """
    if parts < 1:
        raise DataError(f"parts={parts}: must be at least 1")
    made = list(islice(_parts(train, how, share, seed), parts))
    if len(made) < parts:
        raise DataError(f"{train} is enough for {len(made)} of {parts} validation parts: ask for fewer")
    return made


def _parts(train: Dataset, how: How, share: float, seed: int) -> Iterator[Split]:
    if how == "random":
        while True:
            yield at_random(train, share=share, seed=seed)
            seed += 1
    if how == "leave-one-out":
        while np.bincount(train.interactions.user).max(initial=0) > 1:
            yield (part := leave_one_out(train))
            train = part.train
        return
    rows = train.interactions
    order = np.arange(len(rows)) if rows.time is None else np.argsort(rows.time, kind="stable")
    for number in count():
        kept = np.sort(order[: round(len(rows) * (1 - number * share / 2))])
        if len(kept) < 2:
            return
        yield by_time(train.with_rows(rows.take(kept)), rows=share)
