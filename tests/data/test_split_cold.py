"""Whole users and whole items held out, and what is revealed of a cold user: laws over random rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.cold import hold_out_items, hold_out_users, reveal
from palate.errors import DataError

Rows = list[tuple[int, int, int]]
ROWS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=60)


def dataset(rows: Rows, *, timed: bool = True) -> Dataset:
    user, item, time = (np.array(side) for side in zip(*rows, strict=True))
    columns = (user.astype(np.int32), item.astype(np.int32), np.arange(len(rows)).astype(np.float32))
    ids = IdMap.of(np.arange(8)), IdMap.of(np.arange(6))
    return Dataset("rows", *ids, Interactions(*columns, time.astype(np.float64) if timed else None))


def numbers(part: Dataset) -> list[int]:
    """Which rows a part has: their weights are their places in the source."""
    return part.interactions.weight.astype(int).tolist()


@given(ROWS, st.sampled_from(["user", "item"]), st.integers(0, 3), st.floats(0.1, 0.9))
def test_the_sides_partition_the_rows_by_whole_users_or_items(rows: Rows, side: str, seed: int, share: float) -> None:
    data = dataset(rows)
    there = len({row[side == "item"] for row in rows})
    hold_out = hold_out_users if side == "user" else hold_out_items
    if not 0 < round(share * there) < there:
        with pytest.raises(DataError, match="leaves none on one side"):
            hold_out(data, share, seed)
        return
    split = hold_out(data, share, seed)
    assert sorted(numbers(split.train) + numbers(split.test)) == list(range(len(rows)))
    ours, theirs = (set(getattr(part.interactions, side).tolist()) for part in (split.train, split.test))
    assert not ours & theirs
    assert len(theirs) == round(share * there)
    assert split.train.users is split.test.users is data.users
    assert split.fingerprint == hold_out(data, share, seed).fingerprint


@given(ROWS, st.integers(-1, 4), st.booleans())
def test_the_first_rows_become_history_and_the_later_ones_are_relevant(rows: Rows, events: int, timed: bool) -> None:
    data = dataset(rows, timed=timed)
    if len({row[0] for row in rows}) < 2:
        return
    split = hold_out_users(data, 0.5, seed=1)
    kept = [u for u in np.unique(split.test.interactions.user) if _rows_of(split.test, u, timed)[1:] or events == 0]
    kept = [u for u in kept if events == -1 or len(_rows_of(split.test, u, timed)) > events]
    if not kept:
        with pytest.raises(DataError, match="left no test row"):
            reveal(split, events)
        return
    told = reveal(split, events)
    assert told.test_users.tolist() == kept
    for user in kept:
        mine = _rows_of(split.test, user, timed)
        first = len(mine) - 1 if events == -1 else events
        assert _rows_of(told.train, user, timed) == mine[:first]
        assert _rows_of(told.test, user, timed) == mine[first:]
    others = [row for user in set(range(8)) - set(kept) for row in _rows_of(told.train, user, timed)]
    assert sorted(others) == sorted(numbers(split.train))
    lost = len(split.test) - sum(len(_rows_of(split.test, user, timed)) for user in kept)
    assert sum(note.rows for note in told.notes) == lost


def _rows_of(part: Dataset, user: int, timed: bool) -> list[int]:
    rows = part.interactions
    mine = np.flatnonzero(rows.user == user)
    time = rows.time if timed and rows.time is not None else np.zeros(len(rows))
    return sorted(rows.weight[mine].astype(int).tolist(), key=lambda n: (float(_time(time, rows.weight, n)), n))


def _time(time: np.ndarray, weight: np.ndarray, number: int) -> float:
    return float(time[np.flatnonzero(weight == number)[0]])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_must_be_one(share: float) -> None:
    with pytest.raises(DataError, match=r"must be a fraction between 0 and 1"):
        hold_out_users(dataset([(0, 0, 0), (1, 1, 1)]), share)


def test_events_below_minus_one_are_refused() -> None:
    with pytest.raises(DataError, match="events=-2"):
        reveal(hold_out_users(dataset([(0, 0, 0), (1, 1, 1)]), 0.5), -2)
