"""Rows grouped by user in the order of time, the latest rows, and new numbers for the ids that are left.

``np.lexsort`` follows indices through memory, and a sort of all rows grows faster than their number. Here a counting
sort (SciPy's conversion of triples to compressed rows) groups the rows by user in one pass, and only the few rows of
each user are sorted: the time is proportional to the number of rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grouped(
    user: NDArray[np.int32], time: NDArray[np.float64] | None, values: NDArray[np.int64], n_users: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64] | None]:
    """Rows grouped by user, oldest first; equal times keep the order of the rows.

    Returns:
        Start of each user's rows and the end of the last, shape (n_users + 1,); the values and the times in the new
        order, shape (N,).
    """
    from scipy.sparse import coo_array  # takes a tenth of the time of `palate recommend`, which groups no rows

    key, low, bits = np.arange(len(user)), None, len(user).bit_length()
    if time is not None and not (time[1:] >= time[:-1]).all():
        low, high = float(time.min()), float(time.max())
        # NaN and infinity fail the second comparison, since a comparison with NaN is false.
        if (np.floor(time) == time).all() and high - low < 2.0 ** min(53, 62 - bits):
            # Most logs have whole seconds. Time and position in one integer make the sort stable, and the times are
            # read back from it: gathering them by position would miss the cache once per row.
            key |= (time - low).astype(np.int64) << bits
        else:
            order = np.argsort(time, kind="stable")
            key[order] = np.arange(len(user))
            time, low = time[order], None
    triples = coo_array((values, (user, key)), shape=(n_users, 2**62))
    triples.has_canonical_format = True  # no two keys are equal: SciPy need not look for duplicates
    rows = triples.tocsr()
    rows.sort_indices()
    if time is None:
        return rows.indptr, rows.data, None
    return rows.indptr, rows.data, time[rows.indices] if low is None else (rows.indices >> bits) + low


def group_by_user(user: NDArray[np.int32], time: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """``np.lexsort((time, user))``, shape (N,): by user, then by time, then by position."""
    return grouped(user, time, np.arange(len(user)), int(user.max(initial=0)) + 1)[1]


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
