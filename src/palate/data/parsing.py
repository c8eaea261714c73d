"""Columns to values and the flaws found on the way: what ids, ratings and times share, and ratings.

Each ``read_*`` function (here, in ``id_columns`` and in ``times``) takes one column and gives its values with a null
wherever a row cannot be used, next to the flaws that say why. ``settle`` then either raises with rows and values, or
drops the rows and counts them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.columns import shortened
from palate.data.dataset import Note
from palate.data.row_store import Spill
from palate.errors import DataError

FEW = 12  # distinct words of a column that may hold event types


@dataclass(frozen=True)
class Source:
    """Where rows come from, so that a message can point at them.

    Args:
        name: a file name or "dataframe".
        line: the place in the file of a 0-based row number, such as "line 7"; None where rows have no lines.
        notes: remarks on how the rows were read.
        untyped: whether every column came as text, as from a text file: integers among ids are then found by spelling.
        owned: whether the frame of the rows is nobody else's, so that its columns are freed while they are read.
        spill: keeps finished columns in files; None keeps them in memory.
    """

    name: str = "dataframe"
    line: Callable[[int], str] | None = None
    notes: tuple[Note, ...] = ()
    untyped: bool = False
    owned: bool = False
    spill: Spill | None = None

    def place(self, row: int) -> str:
        """The 1-based row, and the line of the file where it is known, for a 0-based row number."""
        line = "" if self.line is None else f" ({self.line(row)})"
        return f"row {row + 1}{line}"


DATAFRAME = Source()


@dataclass(frozen=True)
class Flaw:
    """Rows of one column that cannot be used, and why: ``bad`` is (N,) bool over all rows.

    ``remedy`` is a way out besides correcting or dropping the rows, or empty.
    """

    column: pl.Series
    fact: str
    bad: NDArray[np.bool_]
    remedy: str = ""

    def describe(self, source: Source) -> str:
        """The fact, the count and the first three rows with their values."""
        rows = np.flatnonzero(self.bad)
        shown = ", ".join(f"{source.place(int(row))}: {shortened(self.column[int(row)])}" for row in rows[:3])
        more = ", ..." if len(rows) > 3 else ""
        return f"{self.fact} in column {self.column.name!r} in {counted(len(rows))}: {shown}{more}"


class Parsed(NamedTuple):
    """The values of a column (null where a flaw is), its flaws, and notes on conversions."""

    values: pl.Series
    flaws: list[Flaw]
    notes: list[Note]


def counted(n_rows: int) -> str:
    """A number of rows in words for a message."""
    return "1 row" if n_rows == 1 else f"{n_rows:,} rows"


def settle(
    flaws: Iterable[Flaw], source: Source, n_rows: int, drop_invalid: bool
) -> tuple[NDArray[np.bool_], list[Note]]:
    """The rows to keep, (n_rows,) bool, with one note per flaw; a row with two flaws counts for the first.

    Raises:
        DataError: rows are flawed and ``drop_invalid`` is off; the message names all flaws.
    """
    keep = np.ones(n_rows, dtype=np.bool_)
    found = [flaw for flaw in flaws if flaw.bad.any()]
    if found and not drop_invalid:
        facts = "; ".join(flaw.describe(source) for flaw in found)
        others = list(dict.fromkeys(flaw.remedy for flaw in found if flaw.remedy))
        if not np.logical_or.reduce([flaw.bad for flaw in found]).all():  # else no row would be left
            others.append("pass drop_invalid=True (--drop-invalid)")
        remedies = ", ".join(["correct them", *others[:-1]]) + "".join(f", or {one}" for one in others[-1:])
        raise DataError(f"{source.name}: {facts}: {remedies}")
    notes = []
    for flaw in found:
        text = f"dropped: {flaw.fact} in column {flaw.column.name!r}"
        notes.append(Note(text, int((flaw.bad & keep).sum()), "refused"))
        keep &= ~flaw.bad
    return keep, [note for note in notes if note.rows]


def read_ratings(column: pl.Series, source: Source = DATAFRAME) -> Parsed:
    """Ratings or weights as Float32; text that spells a number counts as one, durations are seconds."""
    if column.dtype == pl.Float32 and not column.null_count() and column.is_finite().all():
        return Parsed(column, [], [])  # most files: no wider copy is made
    if column.dtype == pl.Duration:
        column = column.dt.total_microseconds().cast(pl.Float64) / 1e6
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Null)):
        raise DataError(f"{source.name}: column {column.name!r} holds {column.dtype}: ratings must be numbers")
    wide = numbers_of(column) if column.dtype == pl.String else column.cast(pl.Float64)
    values = wide.cast(pl.Float32)
    missing = column.is_null()
    endless = values.is_nan() | values.is_infinite()
    flaws = flaws_of(
        column,
        [
            ("no rating", missing),
            ("a rating that is not a number", wide.is_null() & ~missing),
            ("a NaN or infinite rating", endless.fill_null(False)),
        ],
    )
    return Parsed(values, flaws, [])


def with_way_out(parsed: Parsed, role: Literal["rating", "time"]) -> Parsed:
    """The column with a better remedy than dropping rows, for flaws of half of the rows: it may not be of that role."""
    flaws = []
    for flaw in parsed.flaws:
        remedy, column = flaw.remedy, flaw.column
        if not remedy and 2 * flaw.bad.sum() >= len(flaw.bad):
            remedy = f'leave the column out with {"rating" if role == "rating" else "timestamp"}="" (--{role} "")'
            values = column.unique().drop_nulls() if column.dtype == pl.String else column.clear()
            if role == "rating" and 2 <= len(values) <= FEW and not values.cast(pl.String).str.contains(r"\d").any():
                events = f"name it as event types with event={column.name!r} (--event {shlex.quote(column.name)})"
                remedy = f"{events}, {remedy}"
        flaws.append(replace(flaw, remedy=remedy))
    return parsed._replace(flaws=flaws)


def numbers_of(text: pl.Series) -> pl.Series:
    """Float64, null where the text is not a number."""
    values = text.cast(pl.Float64, strict=False)
    if values.null_count() > text.null_count():
        values = text.str.strip_chars().cast(pl.Float64, strict=False)
    return values


def flaws_of(column: pl.Series, checks: Sequence[tuple[str, pl.Series]]) -> list[Flaw]:
    """A flaw for each fact that is true of some rows."""
    return [Flaw(column, fact, bad.to_numpy()) for fact, bad in checks if bad.any()]


def of_lists(listed: int, empty: int) -> list[Note]:
    """Notes on rows that held lists, and on those of which the list was empty."""
    counts = {"lists in a row, read as one interaction per element": listed, "an empty list: no interaction": empty}
    return [Note(text, rows) for text, rows in counts.items() if rows]


def listed_cells(frame: pl.DataFrame, user: str, item: str) -> pl.DataFrame:
    """The frame with lists of items where each row is another user with a text of several: "a,b" or "['a', 'b']"."""
    users, items = frame[user], frame[item]
    if (
        not isinstance(items.dtype, pl.String | pl.Categorical)
        or len(frame) < 3
        or users.head(1000).is_duplicated().any()
    ):
        return frame
    text = items.cast(pl.String).str.strip_chars("[](){} ")
    for mark in (",", ";", "|", " "):
        parts = text.str.split(mark).list.eval(pl.element().str.strip_chars(" '\""))
        several = int((parts.list.len() > 1).sum())
        # Titles with a blank share words too, but not for users who occur only once.
        if several >= 0.8 * len(frame) and not users.is_duplicated().any():
            flat = parts.explode()
            if flat.n_unique() <= 0.8 * len(flat):
                return frame.with_columns(parts)
    return frame


def unlisted(frame: pl.DataFrame, source: str) -> tuple[pl.DataFrame, int]:
    """One row per element where columns hold lists, and the number of rows with an empty list, which are left out.

    Raises:
        DataError: two lists of a row differ in length.
    """
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List | pl.Array)]
    if not lists:
        return frame, 0
    frame = frame.with_columns(pl.col(name).cast(pl.List(frame.schema[name].inner)) for name in lists)  # type: ignore[attr-defined]
    full = frame.filter(pl.all_horizontal(pl.col(name).list.len() > 0 for name in lists))
    try:
        return full.explode(lists), len(frame) - len(full)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{source}: the lists of a row differ in length ({', '.join(lists)}): correct them") from error
