"""Cleaning: every step takes a Dataset, gives a smaller one and leaves a note with the rows it dropped.

    binarize · keep_rated · drop_ratings · min_interactions · sample_users

Ids without rows leave the maps together with their features and titles. A step that would drop nothing keeps the
maps as they are; one that would drop everything is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Note
from palate.data.feedback import NO_WEIGHTS
from palate.errors import DataError


def binarize(dataset: Dataset, min_rating: float | None = None) -> Dataset:
    """Explicit to implicit: every weight becomes 1, after rows rated below ``min_rating`` are dropped.

    Every row that is left is positive, whatever the rule of ``dataset``.

    Raises:
        DataError: no row is rated that high.
    """
    kept = dataset if min_rating is None else keep_rated(dataset, min_rating)
    rows = kept.interactions
    return replace(kept, interactions=replace(rows, weight=np.ones_like(rows.weight)), feedback=NO_WEIGHTS)


def keep_rated(dataset: Dataset, min_rating: float) -> Dataset:
    """Only the rows rated ``min_rating`` or higher; their ratings stay, and all of them are positive.

    Raises:
        DataError: no row is rated that high.
    """
    weight = dataset.interactions.weight
    highest = f"({len(dataset):,} rows, highest rating {weight.max(initial=-np.inf):g})"
    empty = f"min_rating={min_rating:g} left no interactions {highest}: lower min_rating"
    kept = _keep(dataset, weight >= np.float32(min_rating), f"rated below {min_rating:g}", empty)
    return replace(kept, feedback=replace(kept.feedback, min_rating=float(min_rating)))


def drop_ratings(dataset: Dataset, values: Sequence[float]) -> Dataset:
    """Without the rows whose rating is one of ``values``: marks such as -1 (watched but not rated), not ratings.

    Raises:
        DataError: no other rating occurs.
    """
    given = ", ".join(f"{value:g}" for value in values)
    keep = ~np.isin(dataset.interactions.weight, np.asarray(values, dtype=np.float32))
    empty = f"drop_ratings({given}) left no interactions ({len(keep):,} rows, no other rating): drop fewer values"
    return _keep(dataset, keep, f"rated {given}", empty)


def min_interactions(dataset: Dataset, user: int = 0, item: int = 0, repeat: bool = False) -> Dataset:
    """Only users with at least ``user`` rows and items with at least ``item`` rows.

    Once: both are counted in the rows as given, so the rest may be below the limits again. With ``repeat``, until
    nothing changes: the largest set of rows in which every user and every item reaches its limit (the k-core).

    Raises:
        DataError: no such rows exist.
    """
    rows = dataset.interactions
    left = np.arange(len(rows))
    users, items = rows.user, rows.item
    counts = np.bincount(users, minlength=dataset.n_users), np.bincount(items, minlength=dataset.n_items)
    # Each round looks at the rows that are left only, and takes those that go from the counts: most go in the first
    # rounds, and there are the more rounds the larger the data set is.
    while True:
        ok = (counts[0] >= user)[users] & (counts[1] >= item)[items]
        gone = ~ok
        if not gone.any():
            break
        counts[0][:] -= np.bincount(users[gone], minlength=dataset.n_users)
        counts[1][:] -= np.bincount(items[gone], minlength=dataset.n_items)
        left, users, items = left[ok], users[ok], items[ok]
        if not repeat:
            break
    keep = np.zeros(len(rows), dtype=np.bool_)
    keep[left] = True
    largest_user, largest_item = np.bincount(rows.user).max(initial=0), np.bincount(rows.item).max(initial=0)
    limits = f"user={user}, item={item}" + (", repeat=True" if repeat else "")
    largest = f"({len(rows):,} rows, largest user has {largest_user:,}, largest item {largest_item:,})"
    empty = f"min_interactions({limits}) left no interactions {largest}: lower user or item"
    return _keep(dataset, keep, f"too few interactions ({limits})", empty)


def sample_users(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """All rows of a random ``fraction`` of the users, int(fraction x users) of them.

    Drawn as in the tutorial of system A: NumPy's legacy generator picks without replacement among the distinct users
    in the order in which they first appear, so the same file and seed give the users of the published run.

    Raises:
        DataError: the fraction is not above 0 and at most 1, or gives no user.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"fraction={fraction}: must be above 0 and at most 1")
    rows = dataset.interactions
    users, first = np.unique(rows.user, return_index=True)
    size = int(fraction * len(users))
    order = users[np.argsort(first)]
    chosen = np.random.RandomState(seed).choice(order, size=size, replace=False)
    member = np.zeros(dataset.n_users, dtype=np.bool_)
    member[chosen] = True
    empty = f"fraction={fraction:g} left no interactions (of {len(users):,} users): raise fraction"
    return _keep(dataset, member[rows.user], f"users outside the sample of {size:,} of {len(users):,}", empty)


def _keep(dataset: Dataset, keep: NDArray[np.bool_], reason: str, empty: str) -> Dataset:
    """The rows of a mask under maps of the ids that are left; the same dataset where all rows stay."""
    if not keep.any():
        raise DataError(f"{dataset.name}: {empty}")
    if keep.all():
        return dataset
    note = Note(f"dropped: {reason}", int((~keep).sum()), "dropped")
    return dataset.with_rows(dataset.interactions.take(keep), [note]).compact()
