"""Any dataframe to a Dataset, and back: the one door through which rows come in.

dataset = from_frame(pandas_or_polars_or_arrow)     # columns found by their usual names
table = to_frame(dataset)                           # user_id, item_id, rating or weight, timestamp
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

import narwhals as nw
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.column_report import SAMPLE, SHOWN, unused_columns, used_columns
from palate.data.columns import Columns, find_columns, key_column, listed, plain
from palate.data.dataset import Dataset, Interactions, Note
from palate.data.duplicates import AUTO, Duplicates, deduplicate
from palate.data.events import EventWeights, read_events
from palate.data.feedback import Feedback, MinRating
from palate.data.id_columns import read_ids
from palate.data.ids import IdMap
from palate.data.kinds import Judged, as_truth, kind_of, suspects
from palate.data.order import renumbered
from palate.data.parsing import Flaw, Parsed, Source, of_lists, read_ratings, settle, unlisted, with_way_out
from palate.data.row_store import Spill, kept
from palate.data.times import TimeUnit, read_times
from palate.errors import DataError


def from_frame(
    frame: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    weight: str | None = None,
    event: str | None = None,
    event_weights: EventWeights | None = None,
    name: str = "frame",
    explicit: bool | None = None,
    min_rating: MinRating = "auto",
    duplicates: Duplicates = "auto",
    sentinels: Sequence[float] = (),
    drop_invalid: bool = False,
    strip: bool | None = None,
    valid_ids: Sequence[str] = (),
    time_unit: TimeUnit = "auto",
    user_features: Any = None,
    item_features: Any = None,
    keep_cold_items: bool = False,
    titles: str | None = None,
    source: str | Source = "dataframe",
) -> Dataset:
    """A validated Dataset from a pandas, polars or pyarrow table; the rows keep their order.

    Args:
        frame: one row per interaction.
        user, item, rating, timestamp: names of its columns; None finds the usual names, as ``find_columns`` does, and
            an empty string for rating or timestamp uses none.
        weight: name of a column of quantities (plays, hours, pieces) in place of ratings.
        event: name of a column of event types, in place of ratings.
        event_weights: the weight of each type, as a mapping, as text ("view=1,cart=3") or as the path of a TOML file: 0
            is history without being positive, below 0 a dislike. None takes the weights of usual names.
        name: the name of the data set, shown in tables.
        explicit: whether the weights are ratings on a scale. None decides by the name of the column and its values, see
            ``palate.data.kinds``.
        min_rating: which rows are positive, the others being only known as seen. "auto": ratings from three quarters of
            their scale on (4 on a scale from 1 to 5) and other weights above 0; "any": every rating; a number: rows of
            this weight or more. See ``palate.data.feedback``. Default: "auto".
        duplicates: the treatment of several rows with the same user and item: "last" keeps the latest by time (the
            last row among equal times and without times), "sum" adds the weights at the latest time, "strongest" keeps
            the row of the highest weight after the latest dislike, if there is one, "error" raises, "keep" leaves them.
            "auto" is "sum" for quantities, "strongest" for events and labels, else "last". Default: "auto".
        sentinels: ratings that are not ratings (-1: watched but not rated); their rows are dropped and counted.
        drop_invalid: drop rows that cannot be used, counted by reason in the notes, instead of raising.
        strip, valid_ids: blanks around ids, and ids such as "NA", as in ``read_ids``; for the feature tables too.
        time_unit: of times that are numbers, as in ``read_times``. Default: "auto", found by their size.
        user_features, item_features: a table with one row per id, the id in the column named as in ``frame``, or as
            usual, else in the first. An id is found as it is written ("2.10" is not "2.1"). Ids without interactions
            are counted in a note, missing ones get nulls.
        keep_cold_items: keep items of ``item_features`` without interactions, for models that know an item by its
            features; they are left out otherwise.
        titles: the column of ``item_features`` with readable names; None takes one called title or name.
        source: name of the frame in error messages.

    ``id_columns.read_ids`` and ``times.read_times`` describe how ids and times are read.

    Raises:
        DataError: the fact, its place (row, column, value) and a remedy.
    """
    origin = source if isinstance(source, Source) else Source(source)
    if duplicates not in get_args(Duplicates):
        raise DataError(f"duplicates={duplicates!r}: must be one of {', '.join(get_args(Duplicates))}")
    opened = _open(frame, origin.name)
    named = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "weight": weight, "event": event}
    try:
        columns = find_columns(opened.columns, source=origin.name, **named)
    except DataError as error:
        indexed = [str(one) for one in getattr(getattr(frame, "index", None), "names", ()) if one is not None]
        if not indexed or "reset_index" in str(error):
            raise
        raise DataError(f"{error}; the index ({listed(indexed)}) is no column: pass frame.reset_index()") from error
    if event_weights is not None and columns.event is None:
        raise DataError(
            f"{origin.name}: event_weights without a column of event types: name it with event=... (--event)"
        )
    stored = _as_polars(opened, columns.used, origin.name)
    table, empty = unlisted(stored, origin.name)
    lists = [] if table is stored else of_lists(len(stored), empty)
    rest, n_rows, pandas = _rest(opened, columns), len(table), opened.implementation.is_pandas()
    read_id = partial(read_ids, strip=strip, valid_ids=valid_ids)
    source_columns = {one: table[one] for one in table.columns}
    if origin.owned:  # a caller holds the frame until this function returns, so it is emptied in place
        for one in list(frame.columns):
            frame.drop_in_place(one)
    del frame, opened, table, stored
    rows, users, items, event_types, notes = _parse(
        source_columns, columns, event_weights, origin, read_id, time_unit, sentinels, drop_invalid
    )
    judged = _judged(rows["weight"], columns, explicit, bool(weight), origin.name)
    notes += lists + judged.notes
    if judged.kind == "rating" and not sentinels:
        notes += suspects(rows["weight"])
    _require_two(users, columns.user_id, len(rows), origin)
    _require_two(items, columns.item_id, len(rows), origin)
    if keep_cold_items:
        known, (items, cold) = items, _with_cold(items, item_features, columns.item_id, read_id)
        notes += cold
        rows = rows.with_columns(item=pl.Series(items.rows(known.ids)[rows["item"].to_numpy()]))
    policy = AUTO[judged.kind] if duplicates == "auto" else duplicates
    rows, dropped = deduplicate(rows, policy, users, items, origin)
    interactions = _interactions(rows)
    feedback = Feedback.of(judged.kind, interactions.weight, min_rating, columns.event or columns.rating)
    line = used_columns(columns, feedback, event_types) + unused_columns(rest, n_rows)
    user_table, user_notes = _align(user_features, users, columns.user_id, "user", read_id)
    item_table, item_notes = _align(item_features, items, columns.item_id, "item", read_id)
    notes += _not_chosen(feedback, interactions.weight)
    return Dataset(
        name=name,
        users=users,
        items=items,
        interactions=interactions,
        feedback=feedback,
        user_features=user_table,
        item_features=item_table,
        titles=_titles(item_table, items, titles),
        notes=(*origin.notes, *notes, *dropped, *user_notes, *item_notes),
        columns=line,
        pandas=pandas,
    )


def to_frame(dataset: Dataset) -> Any:
    """The rows with their external ids, as pandas where the data came as pandas, else as polars."""
    return dataset.to_frame()


def _open(frame: Any, source: str) -> nw.DataFrame[Any]:
    """Any table behind narwhals, with column names that are strings."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    try:
        table: nw.DataFrame[Any] = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        kind, remedy = type(frame).__name__, "pass a pandas, polars or pyarrow one"
        remedy = "pass its reset_index()" if hasattr(frame, "reset_index") else remedy
        raise DataError(f"{source}: a {kind} is not a table: {remedy}") from error
    except (nw.exceptions.NarwhalsError, ValueError) as error:
        raise DataError(f"{source}: two columns have the same name: rename one of them") from error
    odd = [name for name in table.columns if not isinstance(name, str)]
    if odd:
        raise DataError(f"{source}: the column name {odd[0]!r} is not a string: rename the columns")
    return table


def _as_polars(table: nw.DataFrame[Any], names: Sequence[str], source: str) -> pl.DataFrame:
    """The named columns, without a copy where the formats allow it."""
    try:
        frame: pl.DataFrame = table.select(*names).to_polars()
    except OverflowError:  # integers of pandas beyond 64 bits are Python objects
        columns = [pl.Series(name, table[name].to_list(), pl.Object) for name in names]
        frame = pl.DataFrame([_narrowed(column) for column in columns])
    except (pa.ArrowException, pl.exceptions.PolarsError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{source}: a column mixes types ({reason}): give it one type, such as str") from error
    return frame


def _narrowed(column: pl.Series) -> pl.Series:
    """A column of Python objects in a type of polars if one fits."""
    try:
        return pl.Series(column.name, column.to_list())
    except (OverflowError, TypeError, pl.exceptions.PolarsError):
        return column


def _rest(table: nw.DataFrame[Any], columns: Columns) -> pl.DataFrame:
    """The first rows of the unused columns that are shown; a column that polars cannot hold is empty."""
    rest: dict[str, pl.Series] = {}
    for name in [name for name in table.columns if name not in columns.used]:
        try:
            rest[name] = _as_polars(table.head(SAMPLE if len(rest) < SHOWN else 0), [name], "").to_series()
        except DataError:
            rest[name] = pl.Series(name, [None] * min(SAMPLE, len(table)))
    return pl.DataFrame(rest)


def _judged(weights: pl.Series, columns: Columns, explicit: bool | None, weight: bool, source: str) -> Judged:
    """The kind of the weights."""
    if columns.rating is not None:
        return kind_of(columns.rating, weights, explicit=explicit, weight=weight)
    if explicit:
        raise DataError(f"{source}: explicit=True needs a rating column: name it with rating=... (--rating)")
    return Judged("none" if columns.event is None else "event", [])


def _parse(
    table: dict[str, pl.Series],
    columns: Columns,
    event_weights: EventWeights | None,
    source: Source,
    read_id: Callable[[pl.Series, Source], Parsed],
    time_unit: TimeUnit,
    sentinels: Sequence[float],
    drop_invalid: bool,
) -> tuple[pl.DataFrame, IdMap, IdMap, dict[str, float], list[Note]]:
    """Valid rows as user and item (row numbers), weight and, where mapped, time; the id maps; weights of event types.

    The columns are taken out of ``table`` one by one.
    """
    n_rows = len(table[columns.user_id])
    if not n_rows:
        raise DataError(f"{source.name}: no rows: a data set needs at least two users and two items")
    header, notes = _repeated_header(table, columns), list[Note]()
    if header and drop_invalid:  # at once: an id column with its own name in it would not be one of integers
        keep, notes = settle(header, source, n_rows, drop_invalid)
        table, header = {name: column.filter(pl.Series(keep)) for name, column in table.items()}, []
    n_left = len(table[columns.user_id])
    parsed, maps = dict[str, Parsed](), list[IdMap]()
    for role, name in (("user", columns.user_id), ("item", columns.item_id)):
        ids = read_id(table.pop(name), source)
        found, row_numbers = _numbered(ids.values, source.spill)
        maps.append(found)
        parsed[role] = ids._replace(values=row_numbers)
        del ids
    event_types: dict[str, float] = {}
    if columns.event is not None:
        parsed["weight"], event_types = read_events(table.pop(columns.event), event_weights, source)
    elif columns.rating is not None:
        parsed["weight"] = with_way_out(read_ratings(as_truth(table.pop(columns.rating)), source), "rating")
    if columns.timestamp is not None:
        parsed["time"] = with_way_out(read_times(table.pop(columns.timestamp), source, time_unit), "time")
    for role, column in parsed.items():
        if source.spill is not None and role in ("weight", "time") and not column.values.null_count():
            parsed[role] = column._replace(values=source.spill.keep([column.values]))
    flaws = header + [flaw for column in parsed.values() for flaw in column.flaws]
    keep, dropped = settle(flaws, source, n_left, drop_invalid)
    rows = pl.DataFrame({role: column.values for role, column in parsed.items()})
    rows = rows if keep.all() else rows.filter(keep)
    notes += [note for column in parsed.values() for note in column.notes] + dropped
    weighted = "weight" in parsed
    del parsed, flaws, header
    if not weighted:
        if sentinels:
            raise DataError(
                f"{source.name}: sentinels={tuple(sentinels)} but no rating column: name it with rating=... (--rating)"
            )
        rows = rows.with_columns(weight=pl.lit(1.0, dtype=pl.Float32))
    rows = _without(sentinels, rows, notes)
    if rows.is_empty():
        reasons = ", ".join(map(str, notes))
        raise DataError(
            f"{source.name}: none of {n_rows:,} rows is left ({reasons}): correct them, or leave out an "
            'optional column (--rating "", --time "")'
        )
    if len(rows) < n_left:
        rows, maps = _compacted(rows, maps)
    return rows, maps[0], maps[1], event_types, notes


def _without(sentinels: Sequence[float], rows: pl.DataFrame, notes: list[Note]) -> pl.DataFrame:
    for value in dict.fromkeys(sentinels):
        kept = rows.filter(pl.col("weight") != np.float32(value))
        if len(kept) < len(rows):
            notes.append(Note(f"dropped: sentinel rating {value:g}", len(rows) - len(kept), "dropped"))
        rows = kept
    return rows


def _compacted(rows: pl.DataFrame, maps: Sequence[IdMap]) -> tuple[pl.DataFrame, list[IdMap]]:
    """Rows and maps without the ids of dropped rows."""
    left = []
    for role, ids in zip(("user", "item"), maps, strict=True):
        occurring, new = renumbered(rows[role].to_numpy(), len(ids))
        left.append(IdMap(ids.ids.gather(occurring)))
        rows = rows.with_columns(pl.Series(role, new[rows[role].to_numpy()]))
    return rows, left


def _numbered(ids: pl.Series, spill: Spill | None) -> tuple[IdMap, pl.Series]:
    """The map of a column of ids and the row number of each, -1 where there is none."""
    if not isinstance(ids.dtype, pl.Categorical):
        found = IdMap.of(ids.unique().cast(pl.Int64) if ids.dtype == pl.Int32 else ids)
        return found, kept(spill, ids, lambda part: pl.Series(found.rows(part)))
    distinct = ids.unique().drop_nulls()
    texts, codes = distinct.cast(pl.String), distinct.to_physical().to_numpy()
    found = IdMap.of(texts)
    # One place more, to which the codes of nulls point.
    row_of = np.full(int(codes.max(initial=0)) + 2, -1, np.int32)
    row_of[codes] = found.rows(texts)
    last = len(row_of) - 1
    return found, kept(spill, ids, lambda part: pl.Series(row_of[part.to_physical().fill_null(last).to_numpy()]))


def _repeated_header(table: dict[str, pl.Series], columns: Columns) -> list[Flaw]:
    """Rows that hold the names of the columns, as where several files were joined into one."""
    named = np.ones(len(table[columns.user_id]), np.bool_)
    for name in (columns.user_id, columns.item_id):
        text = table[name]
        if isinstance(text.dtype, pl.Categorical):
            text = text.cast(pl.String) if (text.unique().cast(pl.String).str.strip_chars() == name).any() else text
        if text.dtype != pl.String:
            return []
        named &= (text.str.strip_chars() == name).fill_null(False).to_numpy()
    return [Flaw(table[columns.user_id], "the names of the columns once more", named)] if named.any() else []


def _not_chosen(feedback: Feedback, weight: NDArray[np.float32]) -> list[Note]:
    """How weights of 0 and below are taken, and a rule of ratings by which every row is positive."""
    if feedback.kind == "rating":
        everything = feedback.min_rating is not None and bool(feedback.positive(weight).all())
        return [Note(f"every row is positive ({feedback.rule})", len(weight))] if everything else []
    counted = (
        ("weight 0: taken as shown but not chosen; seen, not positive", int((weight == 0).sum())),
        ("weight below 0: taken as returned or disliked; seen, not positive", int((weight < 0).sum())),
    )
    return [Note(text, rows) for text, rows in counted if rows]


def _require_two(ids: IdMap, column: str, n_rows: int, source: Source) -> None:
    if len(ids) < 2:
        raise DataError(
            f"{source.name}: column {column!r} has only the value {ids.ids[0]!r} ({n_rows:,} valid rows): "
            "at least two different ones are needed; was the right column chosen?"
        )


def _interactions(rows: pl.DataFrame) -> Interactions:
    return Interactions(
        user=rows["user"].to_numpy(),
        item=rows["item"].to_numpy(),
        weight=rows["weight"].to_numpy(),
        time=rows["time"].to_numpy() if "time" in rows.columns else None,
    )


def _align(
    features: Any, ids: IdMap, column: str, kind: str, read_id: Callable[[pl.Series, Source], Parsed]
) -> tuple[pl.DataFrame | None, list[Note]]:
    """The features as one row per id in map order, without the id column."""
    if features is None:
        return None, []
    table, key, named = _keyed(features, column, kind, read_id)
    rows = ids.rows(named)
    known = np.flatnonzero(rows >= 0)
    counts = np.bincount(rows[known], minlength=len(ids))
    if counts.max(initial=0) > 1:
        twice = ids.ids.gather(np.flatnonzero(counts > 1)[:3]).to_list()
        raise DataError(
            f"{kind} features: ids {listed(twice)} occur more than once in column {key!r}: keep one row each"
        )
    if not len(known):
        raise DataError(
            f"{kind} features: none of {len(table):,} ids in column {key!r} occurs in the interactions: "
            f"is it the right column? interactions have ids such as {listed(ids.ids.head(3).to_list())}"
        )
    at = np.full(len(ids), -1, dtype=np.int64)
    at[rows[known]] = known
    index = pl.Series(at)
    notes = [
        Note(f"{kind} features of ids without interactions, left out", len(table) - len(known)),
        Note(f"{kind}s without features, given nulls", int((counts == 0).sum())),
    ]
    aligned = table.drop(key).select(pl.all().gather(index.set(index < 0, None)))
    return aligned, [note for note in notes if note.rows]


def _keyed(
    features: Any, column: str, kind: str, read_id: Callable[[pl.Series, Source], Parsed]
) -> tuple[pl.DataFrame, str, pl.Series]:
    """A table about ids, the column that holds them, and the ids."""
    opened = _open(features, f"{kind} features")
    table = _as_polars(opened, opened.columns, f"{kind} features")
    if not table.columns:
        raise DataError(f"{kind} features: no columns: the first must hold the ids")
    key = key_column(table.columns, column, kind)
    return table, key, read_id(table[key], Source(f"{kind} features")).values


def _with_cold(
    items: IdMap, features: Any, column: str, read_id: Callable[[pl.Series, Source], Parsed]
) -> tuple[IdMap, list[Note]]:
    """All items of the rows and of the feature table, sorted like any new map."""
    if features is None:
        raise DataError("keep_cold_items=True needs a table about the items: give item_features")
    named = _keyed(features, column, "item", read_id)[2].cast(items.ids.dtype, strict=False)
    every = IdMap.of(pl.concat([items.ids, named]))
    cold = len(every) - len(items)
    return every, [Note("items without interactions, kept for their features", cold)] if cold else []


def _titles(features: pl.DataFrame | None, items: IdMap, column: str | None) -> pl.Series | None:
    """Readable names in map order; an item without one is called by its id."""
    names = [] if features is None else features.columns
    if column is not None and column not in names:
        raise DataError(f"titles={column!r} is not a column of the item features: the columns are {listed(names)}")
    if column is None:
        likely = ("title", "name", "movietitle", "itemname", "productname")
        column = next((name for title in likely for name in names if plain(name) == title), None)
    if features is None or column is None:
        return None
    return features[column].cast(pl.String).fill_null(items.ids.cast(pl.String)).rename("title")
