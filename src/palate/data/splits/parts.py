"""Splits that others have made: training rows, test rows and, where they listed some, negatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Interactions, Note
from palate.data.ids import IdMap
from palate.data.splits.split import Candidates, Split, counted, distinct
from palate.data.splits.strategies import cold_notes
from palate.errors import DataError

__all__ = ["from_parts"]


def from_parts(
    train: pl.DataFrame,
    test: pl.DataFrame,
    negatives: pl.DataFrame | NDArray[Any] | None = None,
    *,
    name: str,
    how: str,
) -> Split:
    """A split that others have made, with one numbering over train, test and negatives; cold rows are kept.

    Args:
        train, test: columns user_id, item_id and, where known, rating or weight, and timestamp (seconds since 1970
            or a date). A rating column makes the data explicit.
        negatives: columns user_id and item_id, as many for each test user, or an array of item ids (rows of test, n)
            aligned with a test that holds one row per user.
        name, how: shown in tables.

    Raises:
        DataError: a column is missing, an id is null, or the negatives do not fit the test users.
    """
    pairs = [
        part.select(_need(part, ["user_id", "item_id"], side)) for side, part in (("train", train), ("test", test))
    ]
    listed = None if negatives is None else _listed(negatives, test)
    every = pl.concat([*pairs, *([] if listed is None else [listed])], how="vertical_relaxed")
    if nulls := sum(every.null_count().row(0)):
        raise DataError(f"{nulls} ids in train, test or negatives are null: drop or fill those rows first")
    users, items = IdMap.of(every["user_id"]), IdMap.of(every["item_id"])
    if ("timestamp" in train.columns) != ("timestamp" in test.columns):
        raise DataError("only one of train and test has a timestamp column: give it to both or to neither")
    known, held = (_as_rows(part, users, items) for part in (train, test))
    data = Dataset(name, users, items, known, explicit="rating" in train.columns)
    notes = cold_notes(known, held, data, "kept")
    candidates = None
    if listed is not None:
        candidates = _as_candidates(users.rows(listed["user_id"]), items.rows(listed["item_id"]), held, how)
        notes += _flaws(candidates, known, held, data.n_items)
    return Split(data, data.with_rows(held), how, notes, candidates)


def _need(frame: pl.DataFrame, columns: list[str], side: str) -> list[str]:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"{side} lacks the column {', '.join(missing)} (it has {', '.join(frame.columns)}): rename it")
    return columns


def _as_rows(frame: pl.DataFrame, users: IdMap, items: IdMap) -> Interactions:
    strength = next((column for column in ("rating", "weight") if column in frame.columns), None)
    weight = np.ones(len(frame), np.float32) if strength is None else _numbers(frame[strength]).astype(np.float32)
    time = _numbers(frame["timestamp"]) if "timestamp" in frame.columns else None
    return Interactions(users.rows(frame["user_id"]), items.rows(frame["item_id"]), weight, time)


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.timestamp("us") / 1e6
    if not column.dtype.is_numeric() or not column.cast(pl.Float64).is_finite().all() or column.has_nulls():
        raise DataError(
            f"column {column.name} must be finite numbers without nulls, got {column.dtype}: clean it first"
        )
    return column.cast(pl.Float64).to_numpy(writable=True)


def _listed(negatives: pl.DataFrame | NDArray[Any], test: pl.DataFrame) -> pl.DataFrame:
    """Negatives as rows of (user_id, item_id)."""
    if isinstance(negatives, pl.DataFrame):
        return negatives.select(_need(negatives, ["user_id", "item_id"], "negatives"))
    n_users = test["user_id"].n_unique()
    if negatives.ndim != 2 or not len(negatives) == len(test) == n_users:
        raise DataError(
            f"negatives of shape {negatives.shape} for {len(test):,} test rows of {n_users:,} users: "
            "give one row of negatives per test row and one test row per user, or a frame with user_id and item_id"
        )
    repeated = test["user_id"].gather(np.repeat(np.arange(len(test)), negatives.shape[1]))
    return pl.DataFrame({"user_id": repeated, "item_id": negatives.ravel()})


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
