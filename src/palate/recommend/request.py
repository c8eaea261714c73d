"""What is asked: external ids and histories of any kind, turned into rows of integers.

Shape legend: B users asked for, H history events of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import History, Note
from palate.data.ids import IdMap
from palate.errors import DataError

__all__ = ["Event", "Histories", "Id", "Ids", "as_ids", "as_seconds", "check_k", "given", "joined", "unknown_items"]

Id = int | str
Ids = Id | Sequence[Id] | NDArray[Any] | pl.Series
Event = Id | tuple[Id, float] | tuple[Id, float, float]
"""An item id, with its weight (a rating, or below 0 for a dislike), with its time in seconds since 1970."""
Histories = Mapping[Any, Sequence[Event]]


class _Told(NamedTuple):
    """Histories as columns: owner (H,) place among the asked users, item ids, weight (H,), time (H,) or NaN."""

    owner: NDArray[np.int64]
    item: pl.Series
    weight: NDArray[np.float32]
    time: NDArray[np.float64]


def as_ids(name: str, values: Ids | Iterable[Id]) -> pl.Series:
    """Ids as a Series of Int64 or String, in their order.

    Raises:
        DataError: they are neither integers nor strings, or both.
    """
    if isinstance(values, str | int | np.integer):
        values = [values]
    try:
        series = pl.Series(name, values)
    except TypeError as error:
        raise DataError(f"{name} mixes kinds of ids ({error}): give all integers or all strings") from None
    if series.dtype.is_float():
        raise DataError(f"{name} holds {series.dtype} numbers: ids must be integers or strings, cast them first")
    return series.cast(pl.Int64 if series.dtype.is_integer() else pl.String)


def as_seconds(at: float | datetime | None) -> float | None:
    """The time of a request in seconds since 1970; a datetime without a zone is UTC by polars' rule.

    Raises:
        DataError: it is infinite, or not a number.
    """
    if isinstance(at, datetime):
        return float(pl.Series([at]).cast(pl.Datetime("us")).dt.timestamp("us")[0]) / 1e6
    if at is not None and not np.isfinite(at):
        raise DataError(f"at={at}: no moment, give seconds since 1970, or leave it out")
    return at


def check_k(k: int) -> None:
    """Raises DataError for lists without a place."""
    if k < 1:
        raise DataError(f"k={k}: ask for at least 1 item")


def given(asked: pl.Series, histories: Histories, items: IdMap, now: float | None) -> History:
    """The known items of ``histories``, one history per asked user; ``now`` is the time of events that tell none.

    Raises:
        DataError: ``histories`` names somebody not asked for, or an event is no id, pair or triple.
    """
    told = _told(asked.cast(pl.String).to_list(), histories)
    row = items.rows(told.item)
    known = row >= 0
    counts = np.bincount(told.owner[known], minlength=len(asked))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    times = None if now is None else np.where(np.isnan(told.time), now, told.time)[known]
    return History(offsets, row[known], told.weight[known], times)


def unknown_items(histories: Histories, items: IdMap, name: str) -> Note | None:
    """A note on the history items that the catalog ``name`` lacks, or None."""
    told = _told([str(user) for user in histories], histories)
    unknown = told.item.filter(items.rows(told.item) < 0).cast(pl.String)
    if unknown.is_empty():
        return None
    names = ", ".join(unknown.unique(maintain_order=True).fill_null("null").head(5))
    return Note(f"history items unknown to {name or 'the catalog'} ({names})", len(unknown))


def joined(first: History, second: History) -> History:
    """Per user, the events of ``first`` and behind them those of ``second``."""
    owner = np.concatenate([np.repeat(np.arange(len(part)), part.counts) for part in (first, second)])
    order = np.argsort(owner, kind="stable")
    times = None
    if first.times is not None and second.times is not None:
        times = np.concatenate([first.times, second.times])[order]
    return History(
        first.offsets + second.offsets,
        np.concatenate([first.items, second.items])[order],
        np.concatenate([first.weights, second.weights])[order],
        times,
    )


def _told(names: list[str], histories: Histories) -> _Told:
    lists = {str(user): events for user, events in histories.items()}
    for user in lists.keys() - set(names):
        raise DataError(f"histories names user {user!r}, who is not asked for: add the id to users")
    per_user = [lists.get(name, ()) for name in names]
    if any(isinstance(events, str) for events in per_user):
        raise DataError("a history must be a list of item ids, got one string: put it into a list")
    owner = np.repeat(np.arange(len(per_user)), [len(events) for events in per_user])
    rows = [event if isinstance(event, tuple) else (event,) for event in chain.from_iterable(per_user)]
    for row in rows:
        if not 1 <= len(row) <= 3:
            raise DataError(f"history event {row!r}: give an item id, (id, weight) or (id, weight, time)")
    weight = np.array([row[1] if len(row) > 1 else 1.0 for row in rows], np.float32)
    time = np.array([row[2] if len(row) > 2 else np.nan for row in rows], np.float64)
    if np.isinf(time).any():
        raise DataError("a history event has an infinite time: give seconds since 1970, or leave the time out")
    return _Told(owner, as_ids("item_id", [row[0] for row in rows]), weight, time)
