"""Splits that others have made: training rows, test rows and, where they listed some, negatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.columns import find_columns
from palate.data.dataset import Dataset, Interactions, Note
from palate.data.feedback import Feedback, MinRating
from palate.data.id_columns import read_ids
from palate.data.ids import IdMap
from palate.data.kinds import Judged, kind_of
from palate.data.parsing import Source, read_ratings, settle
from palate.data.splits.split import Candidates, Split, counted, distinct
from palate.data.splits.strategies import cold_notes
from palate.data.times import TimeUnit, read_times
from palate.errors import DataError


def from_parts(
    train: Any,
    test: Any,
    negatives: Any = None,
    *,
    name: str,
    how: str,
    validation: Any = None,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    weight: str | None = None,
    min_rating: MinRating = "auto",
    time_unit: TimeUnit = "auto",
    drop_invalid: bool = False,
) -> Split:
    """A split that others have made, with one numbering over train, test and negatives; cold rows are kept.

    Args:
        train, test: pandas, polars or pyarrow tables, one row per interaction, read as by ``from_frame``.
        negatives: a table of users and items, as many for each test user, or an array of item ids (rows of test, n)
            aligned with a test that holds one row per user.
        name, how: shown in tables.
        validation: a table like test, of rows to choose settings by. Default: they are taken out of train.
        user, item, rating, timestamp, weight: names of the columns, as in ``from_frame``. Default: the usual names.
        min_rating: which rows are positive, as in ``from_frame``, found from the rows of both parts.
        time_unit, drop_invalid: as in ``from_frame``.

    Raises:
        DataError: a column is missing, an id is null, or the negatives do not fit the test users.
    """
    given = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "weight": weight}
    train, test = _as_polars(train), _as_polars(test)
    negatives = negatives if isinstance(negatives, np.ndarray | None) else _as_polars(negatives)
    strength = find_columns(train.columns, source="train", **given).rating
    train, dropped = _renamed(train, "train", given, time_unit, drop_invalid)
    test, more = _renamed(test, "test", given, time_unit, drop_invalid)
    listed = None if negatives is None else _listed(negatives, test, user, item)
    chosen, last = None, list[Note]()
    if validation is not None:
        chosen, last = _renamed(_as_polars(validation), "validation", given, time_unit, drop_invalid)
    parts = [part.select("user", "item") for part in (train, test, listed, chosen) if part is not None]
    every = pl.concat(parts, how="vertical_relaxed")
    if nulls := sum(every.null_count().row(0)):
        raise DataError(f"{nulls} ids in train, test, validation or negatives are null: drop or fill those rows first")
    users, items = IdMap.of(every["user"]), IdMap.of(every["item"])
    for side, part in (("test", test), ("validation", chosen)):
        if part is not None and ("timestamp" in train.columns) != ("timestamp" in part.columns):
            raise DataError(
                f"only one of train and {side} has a timestamp column: give it to both, or pass "
                'timestamp="" to use none'
            )
    known, held = (_as_rows(part, users, items) for part in (train, test))
    weights = np.concatenate([known.weight, held.weight])
    judged = Judged("none", []) if strength is None else kind_of(strength, pl.Series(weights), weight=bool(weight))
    feedback = Feedback.of(judged.kind, weights, min_rating, strength)
    data = Dataset(name, users, items, known, feedback, notes=tuple(judged.notes))
    notes = (*dropped, *more, *last, *cold_notes(known, held, data, "kept"))
    candidates = None
    if listed is not None:
        candidates = _as_candidates(users.rows(listed["user"]), items.rows(listed["item"]), held, how)
        notes += _flaws(candidates, known, held, data.n_items)
    chosen_rows = None if chosen is None else data.with_rows(_as_rows(chosen, users, items))
    return Split(data, data.with_rows(held), how, notes, candidates, chosen_rows)


def _as_polars(table: Any) -> pl.DataFrame:
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    try:
        opened: nw.DataFrame[Any] = nw.from_native(table, eager_only=True)
        return opened.to_polars()
    except (TypeError, ValueError, OverflowError, pa.ArrowException, nw.exceptions.NarwhalsError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"a {type(table).__name__} cannot be read ({reason}): pass pandas, polars or pyarrow"
        ) from error


def join_parts(train: Dataset, test: Dataset, how: str, validation: Dataset | None = None) -> Split:
    """A split of data sets that were read apart, with one numbering over all; cold rows are kept.

    Features and titles are those of the training part; the rule for positive rows too.

    Args:
        train, test: the two sets of rows.
        how: where they come from, in words.
        validation: rows to choose settings by. Default: none.

    Raises:
        DataError: only some parts have times.
    """
    others = [test] if validation is None else [test, validation]
    for part in others:
        if (train.interactions.time is None) != (part.interactions.time is None):
            raise DataError(
                f"only one of {train.name} and {part.name} has times: give them to both, or to none (--time '')"
            )
    maps = []
    for kind in ("users", "items"):
        ids = [getattr(part, kind).ids for part in (train, *others)]
        # Ids that are integers in one part only are texts in the whole: 7 and "7" are the same id.
        same = len({one.dtype for one in ids}) == 1
        maps.append(IdMap.of(pl.concat(ids if same else [one.cast(pl.String) for one in ids])))
    users, items = maps

    def moved(part: Dataset) -> Interactions:
        rows = part.interactions
        user, item = users.rows(part.users.ids)[rows.user], items.rows(part.items.ids)[rows.item]
        return replace(rows, user=user, item=item)

    def spread(table: pl.DataFrame | None, old: IdMap, new: IdMap) -> pl.DataFrame | None:
        place = pl.Series(old.rows(new.ids), dtype=pl.Int64)
        return None if table is None else table.select(pl.all().gather(place.set(place < 0, None)))

    names = None if train.titles is None else spread(train.titles.to_frame("title"), train.items, items)
    known = replace(
        train,
        users=users,
        items=items,
        interactions=moved(train),
        user_features=spread(train.user_features, train.users, users),
        item_features=spread(train.item_features, train.items, items),
        titles=None if names is None else names["title"].fill_null(items.ids.cast(pl.String)),
    )
    held, *chosen = (replace(known, name=one.name, interactions=moved(one), notes=one.notes) for one in others)
    notes = cold_notes(known.interactions, held.interactions, known, "kept")
    pairs = [rows.user.astype(np.int64) * len(items) + rows.item for rows in (known.interactions, held.interactions)]
    again = (
        "test rows whose pair of user and item is in the training rows too",
        int(np.isin(pairs[1], pairs[0]).sum()),
    )
    return Split(known, held, how, (*notes, *counted(again)), validation=chosen[0] if chosen else None)


def _renamed(
    frame: pl.DataFrame,
    side: str,
    given: dict[str, str | None],
    time_unit: TimeUnit = "auto",
    drop_invalid: bool = False,
) -> tuple[pl.DataFrame, list[Note]]:
    """The columns in use, called user, item, rating and timestamp; ids and times read as those of a data frame."""
    columns = find_columns(frame.columns, source=side, **given)
    source = Source(side)
    parsed = {"user": read_ids(frame[columns.user_id], source), "item": read_ids(frame[columns.item_id], source)}
    if columns.rating is not None:
        parsed["rating"] = read_ratings(frame[columns.rating], source)
    if columns.timestamp is not None:
        parsed["timestamp"] = read_times(frame[columns.timestamp], source, time_unit)
    flaws = [flaw for one in parsed.values() for flaw in one.flaws]
    keep, dropped = settle(flaws, source, len(frame), drop_invalid)
    rows = pl.DataFrame({role: one.values for role, one in parsed.items()}).filter(keep)
    return rows, [*(note for one in parsed.values() for note in one.notes), *dropped]


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
        given = {"user": user, "item": item, "rating": "", "timestamp": ""}
        return _renamed(negatives, "negatives", given)[0]
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
