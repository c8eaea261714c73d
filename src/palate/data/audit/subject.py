"""The rows and the split under audit, and the derived arrays that several checks share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Interactions
from palate.data.splits.split import Split


@dataclass(frozen=True, eq=False)
class Subject:
    """The rows under audit, and the split made of them.

    Args:
        rows: all rows, before cleaning if available.
        split: the split under audit, or None; its row numbers need not be those of ``rows``.
        known_copies: number of rows equal to an earlier one in all columns of their source, where ``rows`` holds only
            some of the columns; None counts them in ``rows``.
    """

    rows: Dataset
    split: Split | None = None
    known_copies: int | None = None

    @classmethod
    def of(cls, data: Dataset | Split, raw: Dataset | None = None, known_copies: int | None = None) -> Subject:
        """The rows of a data set, or those of a split, training rows first; ``raw`` replaces either."""
        if isinstance(data, Dataset):
            return cls(raw or data, None, known_copies)
        if raw is None:
            parts = (data.train.interactions, data.test.interactions)
            raw = replace(data.train, interactions=_joined(*parts))
        return cls(raw, data, known_copies)

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows as user, item, weight and, where known, time: row numbers, not ids."""
        rows = self.rows.interactions
        columns: dict[str, Any] = {"user": rows.user, "item": rows.item, "weight": rows.weight}
        return pl.DataFrame(columns if rows.time is None else {**columns, "time": rows.time})

    @cached_property
    def per_user(self) -> NDArray[np.int64]:
        """Number of rows of each user with rows."""
        return _positive(self.rows.interactions.user)

    @cached_property
    def per_item(self) -> NDArray[np.int64]:
        """Number of rows of each item with rows."""
        return _positive(self.rows.interactions.item)

    @cached_property
    def distinct(self) -> int:
        """Number of different pairs of user and item."""
        return len(self.pair_counts)

    @cached_property
    def pair_counts(self) -> NDArray[np.int64]:
        """Number of rows of each pair of user and item."""
        ascending = np.sort(pairs(self.rows.interactions, self.rows.n_items))  # np.unique is ten times slower
        starts = np.flatnonzero(np.diff(ascending, prepend=-1))
        return np.diff(starts, append=len(ascending))

    @cached_property
    def known(self) -> NDArray[np.int64]:
        """The pairs of the training rows, ascending; empty without a split."""
        train = None if self.split is None else self.split.train
        return np.empty(0, np.int64) if train is None else np.sort(pairs(train.interactions, train.n_items))

    @cached_property
    def copies(self) -> int:
        """Number of rows that are equal to an earlier row in every column."""
        # Copies repeat a pair too; the slower comparison of whole rows is needed only if a pair is repeated.
        repeats = self.distinct < len(self.frame)
        own = len(self.frame) - self.frame.n_unique() if repeats else 0
        return own if self.known_copies is None else min(own, self.known_copies)

    @property
    def weight_name(self) -> str:
        """The column of weights in the source; "rating" or "weight" where its name is not known."""
        about = self.rows.feedback
        return about.column or ("rating" if about.kind == "rating" else "weight")

    @property
    def undated(self) -> str | None:
        """The reason why dates cannot be checked; None if every row has one."""
        relative = any(note.kind in ("relative-times", "order-times") for note in self.rows.notes)
        return self.untimed or ("the times are no dates" if relative else None)

    @property
    def untimed(self) -> str | None:
        """The reason why times cannot be checked; None if every row has a time."""
        parts = [self.rows] if self.split is None else [self.rows, self.split.train, self.split.test]
        times = [part.interactions.time for part in parts]
        if any(time is None for time in times):
            return "the rows have no time"
        if any(time is not None and not np.isfinite(time).all() for time in times):
            return "some times are not finite"
        return None


def pairs(rows: Interactions, n_items: int) -> NDArray[np.int64]:
    """One number per row that identifies its pair of user and item."""
    return rows.user.astype(np.int64) * n_items + rows.item


def among(numbers: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask of the numbers that are in the ascending array."""
    if not len(ascending):
        return np.zeros(numbers.shape, np.bool_)
    # np.isin would sort both arrays again.
    at = np.searchsorted(ascending, numbers).clip(max=len(ascending) - 1)
    return np.asarray(ascending[at] == numbers)


def _joined(first: Interactions, second: Interactions) -> Interactions:
    timed = first.time is not None and second.time is not None
    times = [rows.time for rows in (first, second) if rows.time is not None]
    return Interactions(
        np.concatenate([first.user, second.user]),
        np.concatenate([first.item, second.item]),
        np.concatenate([first.weight, second.weight]),
        np.concatenate(times) if timed else None,
    )


def _positive(numbers: NDArray[np.int32]) -> NDArray[np.int64]:
    counts = np.bincount(numbers)
    return counts[counts > 0]
