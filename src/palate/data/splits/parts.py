"""Splits that others have made: training rows, test rows and, where they listed some, negatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.columns import find_columns
from palate.data.dataset import Dataset, Interactions, Note
from palate.data.feedback import Feedback, MinRating
from palate.data.ids import IdMap
from palate.data.kinds import Judged, kind_of
from palate.data.splits.split import Candidates, Split, counted, distinct
from palate.data.splits.strategies import cold_notes
from palate.errors import DataError


def from_parts(
    train: pl.DataFrame,
    test: pl.DataFrame,
    negatives: pl.DataFrame | NDArray[Any] | None = None,
    *,
    name: str,
    how: str,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    weight: str | None = None,
    min_rating: MinRating = "auto",
) -> Split:
    """A split that others have made, with one numbering over train, test and negatives; cold rows are kept.

    Args:
        train, test: one row per interaction. A rating column makes the data explicit; times are dates or seconds since
            1970.
        negatives: a table of users and items, as many for each test user, or an array of item ids (rows of test, n)
            aligned with a test that holds one row per user.
        name, how: shown in tables.
        user, item, rating, timestamp, weight: names of the columns, as in ``from_frame``. Default: the usual names.
        min_rating: which rows are positive, as in ``from_frame``, found from the rows of both parts.

    Raises:
        DataError: a column is missing, an id is null, or the negatives do not fit the test users.
    """
    given = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "weight": weight}
    strength = find_columns(train.columns, source="train", **given).rating
    train, test = (_renamed(part, side, **given) for side, part in (("train", train), ("test", test)))
    listed = None if negatives is None else _listed(negatives, test, user, item)
    parts = [part.select("user", "item") for part in (train, test, *([] if listed is None else [listed]))]
    every = pl.concat(parts, how="vertical_relaxed")
    if nulls := sum(every.null_count().row(0)):
        raise DataError(f"{nulls} ids in train, test or negatives are null: drop or fill those rows first")
    users, items = IdMap.of(every["user"]), IdMap.of(every["item"])
    if ("timestamp" in train.columns) != ("timestamp" in test.columns):
        raise DataError(
            'only one of train and test has a timestamp column: give it to both, or pass timestamp="" to use none'
        )
    known, held = (_as_rows(part, users, items) for part in (train, test))
    weights = np.concatenate([known.weight, held.weight])
    judged = Judged("none", []) if strength is None else kind_of(strength, weights, weight=bool(weight))
    feedback = Feedback.of(judged.kind, weights, min_rating, strength)
    data = Dataset(name, users, items, known, feedback, notes=tuple(judged.notes))
    notes = cold_notes(known, held, data, "kept")
    candidates = None
    if listed is not None:
        candidates = _as_candidates(users.rows(listed["user"]), items.rows(listed["item"]), held, how)
        notes += _flaws(candidates, known, held, data.n_items)
    return Split(data, data.with_rows(held), how, notes, candidates)


def _renamed(frame: pl.DataFrame, side: str, **given: str | None) -> pl.DataFrame:
    """The columns in use, called user, item, rating and timestamp."""
    columns = find_columns(frame.columns, source=side, **given)
    named = {"user": columns.user_id, "item": columns.item_id, "rating": columns.rating, "timestamp": columns.timestamp}
    return frame.select(pl.col(column).alias(role) for role, column in named.items() if column is not None)


def _as_rows(frame: pl.DataFrame, users: IdMap, items: IdMap) -> Interactions:
    weight = (
        _numbers(frame["rating"]).astype(np.float32) if "rating" in frame.columns else np.ones(len(frame), np.float32)
    )
    time = _numbers(frame["timestamp"]) if "timestamp" in frame.columns else None
    return Interactions(users.rows(frame["user"]), items.rows(frame["item"]), weight, time)


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.timestamp("us") / 1e6
    if not column.dtype.is_numeric() or not column.cast(pl.Float64).is_finite().all() or column.has_nulls():
        raise DataError(
            f"column {column.name} must be finite numbers without nulls, got {column.dtype}: clean it first"
        )
    return column.cast(pl.Float64).to_numpy(writable=True)


def _listed(
    negatives: pl.DataFrame | NDArray[Any], test: pl.DataFrame, user: str | None, item: str | None
) -> pl.DataFrame:
    """Negatives as rows of (user, item)."""
    if isinstance(negatives, pl.DataFrame):
        return _renamed(negatives, "negatives", user=user, item=item, rating="", timestamp="")
    n_users = test["user"].n_unique()
    if negatives.ndim != 2 or not len(negatives) == len(test) == n_users:
        raise DataError(
            f"negatives of shape {negatives.shape} for {len(test):,} test rows of {n_users:,} users: "
            "give one row of negatives per test row and one test row per user, or a table of users and items"
        )
    repeated = test["user"].gather(np.repeat(np.arange(len(test)), negatives.shape[1]))
    return pl.DataFrame({"user": repeated, "item": negatives.ravel()})


def _as_candidates(user: NDArray[np.int32], item: NDArray[np.int32], held: Interactions, how: str) -> Candidates:
    wanted, listed = distinct(held.user), distinct(user)
    counts = np.bincount(user)[listed]
    if not np.array_equal(wanted, listed):
        raise DataError(
            f"negatives name {len(listed):,} users, {np.isin(listed, wanted).sum():,} of them among the "
            f"{len(wanted):,} test users: list negatives for exactly the test users"
        )
    if counts.min() != counts.max():
        raise DataError(f"users have {counts.min()} to {counts.max()} negatives: list as many for each user")
    table = item[np.argsort(user, kind="stable")].reshape(len(wanted), -1)
    return Candidates(wanted, table, f"{table.shape[1]} listed negatives ({how})")


def _flaws(candidates: Candidates, known: Interactions, held: Interactions, n_items: int) -> tuple[Note, ...]:
    """Listed negatives that are none: they are kept as published, and counted."""
    listed = candidates.users[:, None].astype(np.int64) * n_items + candidates.negatives
    known_pairs, held_pairs = (rows.user.astype(np.int64) * n_items + rows.item for rows in (known, held))
    return counted(
        ("listed negatives that are a test item of that user, kept", int(np.isin(listed, held_pairs).sum())),
        ("listed negatives that the user has in train, kept", int(np.isin(listed, known_pairs).sum())),
    )
