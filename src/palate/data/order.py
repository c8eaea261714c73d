"""Stable orders of many rows by user and time, and new numbers for the ids that are left.

``np.argsort(kind="stable")`` and ``np.lexsort`` follow indices through memory: ten times as long as ``np.sort`` takes.
So each key is packed with the position of its row into one 64-bit integer, and these are sorted: equal keys stay in
the order of their positions, which makes the sort stable, and the positions are read back from the low bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def order_by(key: NDArray[np.integer]) -> NDArray[np.int64]:
    """``np.argsort(key, kind="stable")`` of integers, shape (N,)."""
    lowest, highest = (int(key.min()), int(key.max())) if len(key) else (0, 0)
    position_bits = len(key).bit_length()
    if (highest - lowest).bit_length() + position_bits > 64:
        return np.argsort(key, kind="stable")
    packed = (key.astype(np.int64) - lowest).astype(np.uint64) << np.uint64(position_bits)
    packed |= np.arange(len(key), dtype=np.uint64)
    packed.sort()
    packed &= np.uint64((1 << position_bits) - 1)
    return packed.view(np.int64)


def order_by_time(time: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """``np.argsort(time, kind="stable")``, shape (N,); None where the rows are in the order of time already."""
    if (time[1:] >= time[:-1]).all():
        return None
    # Most logs have whole seconds. NaN is not equal to itself, and infinity is beyond the limit, so both are excluded.
    if (np.floor(time) == time).all() and np.abs(time).max() < 2**53:
        return order_by(time.astype(np.int64))
    return np.argsort(time, kind="stable")


def group_by_user(user: NDArray[np.int32], time: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """``np.lexsort((time, user))``, shape (N,): by user, then by time, then by position."""
    by_time = None if time is None else order_by_time(time)
    return order_by(user) if by_time is None else by_time[order_by(user[by_time])]


def latest(time: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Whether a row is one of the last ``count`` in the stable order of time, shape (N,)."""
    if not 0 < count < len(time):
        return np.full(len(time), count > 0)
    limit = np.partition(time, len(time) - count)[len(time) - count]
    chosen: NDArray[np.bool_] = time > limit
    equal = np.flatnonzero(time == limit)
    chosen[equal[len(equal) - (count - int(chosen.sum())) :]] = True
    return chosen


def renumbered(rows: NDArray[np.int32], n: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The numbers below ``n`` that occur, ascending, and the new number of each old one, shape (n,); -1 where gone."""
    occurs = np.bincount(rows, minlength=n) > 0
    return np.flatnonzero(occurs), np.where(occurs, np.cumsum(occurs) - 1, -1).astype(np.int32)
