"""Requests: external ids, histories and features of any kind, checked and turned into rows of integers.

Every mistake of a caller ends here, in one line that names the user, the item and the value.

Shape legend: B users of a request, H history events of all of them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence, Sized
from datetime import datetime
from decimal import Decimal
from itertools import chain
from numbers import Real
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import History, Note
from palate.data.ids import IdMap
from palate.errors import DataError
from palate.recommend.top_n import rows_of

Id = int | str
Ids = Id | Sequence[Id] | NDArray[Any] | pl.Series
Event = Id | tuple[Id, float] | tuple[Id, float, float]
"""An item id, with its weight, with its time in seconds since 1970.

The weight is a rating where the training data are ratings: one below the rule for positive rows is only known as seen.
Below 0 it is a dislike. Default: a like.
"""
Histories = Mapping[Any, Sequence[Event]]
UserFeatures = Mapping[Any, Mapping[str, Any]]
"""Per user of the request, a value by name of feature."""

LIST_SEPARATOR = "|"
MANY = 1_000_000  # no list of reasons is longer: a history has fewer items


def as_ids(name: str, values: Any) -> pl.Series:
    """Ids as a Series of Int64 or String, in their order.

    Args:
        name: of the Series, and in messages.
        values: one id, a list, an array, or a Series of polars, pandas or another library that narwhals reads.

    Raises:
        DataError: they are neither integers nor strings, or both, or not a flat list.
    """
    if isinstance(values, str | int | np.integer) and not isinstance(values, bool):
        values = [values]
    if not isinstance(values, list | tuple | np.ndarray | pl.Series):
        native = nw.from_native(values, pass_through=True, allow_series=True)
        if isinstance(native, nw.DataFrame | nw.LazyFrame):
            columns = ", ".join(native.collect_schema().names())
            raise DataError(f"{name} is a table (columns {columns}): give its column of ids")
        if not isinstance(native, nw.Series | Iterable):
            raise DataError(f"{name} is {values!r}: give an id or a list of ids")
        values = native.to_polars() if isinstance(native, nw.Series) else list(values)
    try:
        series = pl.Series(name, values)
    except (TypeError, OverflowError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{name} mixes kinds of ids ({reason}): give all integers or all strings") from None
    if type(series.dtype) is pl.String or type(series.dtype) is pl.Int64:
        return series  # nearly all requests; the questions below take longer than finding the id
    if series.dtype.is_integer():
        found = series.cast(pl.Int64, strict=False)
        if found.null_count() > series.null_count():
            large = series.filter(found.is_null() & series.is_not_null())[0]
            raise DataError(f"{name} holds {large}, which does not fit into 64 bits: cast the ids to strings")
        return found
    if isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum | pl.Null):
        return series.cast(pl.String)
    kind = "lists" if series.dtype.is_nested() else f"{series.dtype} values"
    raise DataError(f"{name} holds {kind}: ids must be integers or strings, cast them first")


def as_users(values: Any) -> pl.Series:
    """The distinct user ids of a request, in their order.

    Raises:
        DataError: as ``as_ids``, or an id is missing.
    """
    series = as_ids("user_id", values)
    if series.null_count():
        raise DataError(f"{series.null_count()} of {len(series):,} user ids are missing: leave them out")
    return series if len(series) < 2 else series.unique(maintain_order=True)


def as_seconds(at: Any) -> float | None:
    """The time of a request in seconds since 1970; a datetime without a zone is UTC by polars' rule.

    Raises:
        DataError: it is infinite, or not a number.
    """
    if isinstance(at, datetime):
        return float(pl.Series([at]).cast(pl.Datetime("us")).dt.timestamp("us")[0]) / 1e6
    if at is None:
        return None
    seconds = np.nan if isinstance(at, bool) else _number(at)
    if not np.isfinite(seconds):
        raise DataError(f"at={at!r}: not a time, give seconds since 1970 or a datetime, or leave it out")
    return seconds


def as_k(k: Any) -> int:
    """The length of a list.

    Raises:
        DataError: it is below 1, or not an integer.
    """
    number = _integer(k)
    if number is None or isinstance(k, bool):
        raise DataError(f"k={k!r}: must be an integer, the number of items of a list")
    if number < 1:
        raise DataError(f"k={k}: ask for at least 1 item")
    return number


def as_reasons(reasons: Any) -> int:
    """The number of items named in support of each row.

    Raises:
        DataError: it is below 0, or not an integer.
    """
    number = _integer(reasons)
    if number is None or isinstance(reasons, bool) or number < 0:
        raise DataError(f"reasons={reasons!r}: must be an integer of at least 0, the items named for each row")
    return min(number, MANY)


def _integer(value: Any) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None


def _number(value: Any) -> float:
    """A number of any kind as a float; infinite where it is none, or too large for one."""
    try:
        return float(value) if isinstance(value, Real | Decimal) else np.inf
    except OverflowError:
        return np.inf


class _Events(NamedTuple):
    """Histories as columns: owner (H,) place of the user, item ids, weight (H,), time (H,), NaN where unknown."""

    owner: NDArray[np.int64]
    item: pl.Series
    weight: NDArray[np.float32]
    time: NDArray[np.float64]


def given_events(asked: pl.Series, histories: Histories, items: IdMap, default_weight: float = 1.0) -> History:
    """The known items of ``histories``, one history per user of the request; times are NaN where none was given.

    Args:
        asked: the users of the request.
        histories: events per user.
        items: the catalog.
        default_weight: weight of an event without one.

    Raises:
        DataError: ``histories`` names another user, or an event is no id, pair or triple, or not finite.
    """
    events = _events(asked.cast(pl.String).to_list(), histories, default_weight)
    row = items.rows(events.item)
    known = row >= 0
    counts = np.bincount(events.owner[known], minlength=len(asked))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return History(offsets, row[known], events.weight[known], events.time[known])


def unknown_items(histories: Histories, items: IdMap, name: str) -> Note | None:
    """A note on the history items that the catalog ``name`` lacks, or None."""
    events = _events([str(user) for user in histories], histories)
    unknown = events.item.filter(items.rows(events.item) < 0).cast(pl.String)
    if unknown.is_empty():
        return None
    names = ", ".join(unknown.unique(maintain_order=True).fill_null("null").head(5))
    return Note(f"history items unknown to {name or 'the catalog'} ({names})", len(unknown))


def _events(names: list[str], histories: Any, default_weight: float = 1.0) -> _Events:
    if not isinstance(histories, Mapping):
        raise DataError("histories must be a dictionary: {user: [item, item, ...]}")
    lists = {str(user): events for user, events in histories.items()}
    for user in lists.keys() - set(names):
        raise DataError(f"histories names user {user!r}, who is not asked for: add the id to users")
    for name, events in lists.items():
        if isinstance(events, str | Mapping) or not isinstance(events, Iterable):
            raise DataError(f"the history of user {name!r} is {events!r}: put the item ids into a list")
    # A generator can be read only once, and has no length.
    per_user: list[Any] = [
        events if isinstance(events := lists.get(name, ()), Sized) else list(events) for name in names
    ]
    counts = [len(events) for events in per_user]
    owner = np.repeat(np.arange(len(per_user)), counts)
    flat: list[Any] = list(chain.from_iterable(per_user))
    if not {tuple, list} & set(map(type, flat)):  # ids alone, as most requests: no loop in Python
        weights = np.full(len(flat), default_weight, np.float32)
        return _Events(owner, as_ids("item_id", flat), weights, np.full(len(flat), np.nan))
    rows = [event if isinstance(event, tuple | list) else (event,) for event in flat]
    for place, row in enumerate(rows):
        if not 1 <= len(row) <= 3:
            user = names[owner[place]]
            raise DataError(
                f"history event {row!r} of user {user!r}: give an item id, (id, weight) or (id, weight, time)"
            )
    weight = _numbers([row[1] if len(row) > 1 else default_weight for row in rows], "weight", rows, names, owner)
    time = _numbers([np.nan if len(row) < 3 or row[2] is None else row[2] for row in rows], "time", rows, names, owner)
    return _Events(owner, as_ids("item_id", [row[0] for row in rows]), weight.astype(np.float32), time)


def _numbers(
    values: list[Any], what: str, rows: list[Any], names: list[str], owner: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Finite numbers of events; a time that was not given is NaN."""
    try:
        found = np.array(values)
    except ValueError:  # lists of several lengths among them
        found = np.empty(0, object)
    # NumPy would read the text "1.5" as a number, and a list of one number as that number.
    numeric = found.dtype.kind in "biuf" and found.ndim == 1
    found = found.astype(np.float64) if numeric else np.array([_number(value) for value in values])
    # A weight must stay finite as float32, which the models compute with.
    bad = np.isinf(found) if what == "time" else ~(np.abs(found) <= np.finfo(np.float32).max)
    if bad.any():
        place = int(bad.argmax())
        raise DataError(
            f"the history of user {names[owner[place]]!r} gives item {rows[place][0]!r} the {what} {values[place]!r}: "
            "give a finite number, or leave it out"
        )
    return found


def features_of(
    table: pl.DataFrame | None, asked: pl.Series, rows: NDArray[np.integer[Any]], provided: UserFeatures
) -> pl.DataFrame:
    """One row of features per user of the request (B); values of the request override those of the table.

    Args:
        table: one row per known user, or None.
        asked: ids (B,).
        rows: their row numbers in the table (B,), -1 where they are not in it.
        provided: values by name, for some of them.

    Raises:
        DataError: a name is no feature of the table, a value does not fit, or a user is not asked for.
    """
    names = asked.cast(pl.String).to_list()
    if not isinstance(provided, Mapping) or not all(isinstance(values, Mapping) for values in provided.values()):
        raise DataError("features must be a dictionary of dictionaries: {user: {feature: value}}")
    others = {str(user) for user in provided} - set(names)
    if others:
        raise DataError(f"features name user {min(others)!r}, who is not asked for: add the id to users")
    columns = dict.fromkeys(name for values in provided.values() for name in values)
    for name in columns:
        if table is None or name not in table.columns:
            known = ", ".join([] if table is None else table.columns) or "none"
            raise DataError(f"no user feature {name!r}: the user features are {known}")
    if table is None:
        return pl.DataFrame()
    by_name = {str(user): values for user, values in provided.items()}
    known_rows = rows_of(table, rows)
    new = [typed(name, [by_name.get(user, {}).get(name) for user in names], table[name].dtype) for name in columns]
    return known_rows.with_columns(pl.coalesce(column, pl.col(column.name)).alias(column.name) for column in new)


def typed(name: str, values: pl.Series | list[Any], dtype: pl.DataType) -> pl.Series:
    """Values as a column of the type that training had; a text becomes a list at each |.

    Raises:
        DataError: a value does not fit the type.
    """
    if dtype.is_float() and isinstance(values, list):
        # JSON writes 2 for 2.0, and polars builds no column of both.
        values = [float(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in values]
    try:
        column = pl.Series(name, values, strict=True)
        if isinstance(dtype, pl.List) and column.dtype == pl.String:
            column = column.str.split(LIST_SEPARATOR)
        return column.cast(dtype)
    except (pl.exceptions.PolarsError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"values of feature {name!r} are no {dtype} ({reason}): write them as in training") from None
