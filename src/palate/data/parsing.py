"""Columns of any type to ids, ratings and seconds, and the flaws found on the way.

Each ``read_*`` function takes one column and gives its values with a null wherever a row cannot be used, next to
the flaws that say why. ``settle`` then either raises with rows and values, or drops the rows and counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.columns import shortened
from palate.data.dataset import Note
from palate.errors import DataError

EXACT = 2**53  # whole numbers up to here survive a float64
MILLI, MICRO, NANO = 1e11, 1e14, 1e17
ISO_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z")


@dataclass(frozen=True)
class Source:
    """Where rows come from, so that a message can point at them.

    Args:
        name: a file name or "dataframe".
        line: the place in the file of a 0-based row number, such as "line 7"; None where rows have no lines.
        notes: remarks on how the rows were read.
    """

    name: str = "dataframe"
    line: Callable[[int], str] | None = None
    notes: tuple[Note, ...] = ()

    def place(self, row: int) -> str:
        """The 1-based row, and the line of the file where it is known, for a 0-based row number."""
        line = "" if self.line is None else f" ({self.line(row)})"
        return f"row {row + 1}{line}"


@dataclass(frozen=True)
class Flaw:
    """Rows of one column that cannot be used, and why: ``bad`` is (N,) bool over all rows."""

    column: pl.Series
    fact: str
    bad: NDArray[np.bool_]

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
        raise DataError(f"{source.name}: {facts}: correct them, or pass drop_invalid=True (--drop-invalid)")
    notes = []
    for flaw in found:
        text = f"dropped: {flaw.fact} in column {flaw.column.name!r}"
        notes.append(Note(text, int((flaw.bad & keep).sum()), "refused"))
        keep &= ~flaw.bad
    return keep, [note for note in notes if note.rows]


def read_ids(column: pl.Series, source: Source = Source()) -> Parsed:
    """Ids as Int64 or String.

    Integers of any width stay integers where they fit into 64 bits. Floats that are all whole (pandas makes
    them of integers next to a missing value) become integers with a note; other types become strings.
    An empty string is a missing id.
    """
    dtype, notes = column.dtype, []
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise DataError(f"{source.name}: column {column.name!r} holds {dtype}: ids must be integers or strings")
    if dtype.is_float():
        column = column.fill_nan(None)
        if _whole(column):
            values = column.cast(pl.Int64)
            notes = [
                Note(f"whole numbers in column {column.name!r} were stored as floats: read as integers", len(values))
            ]
        else:
            values = column.cast(pl.String)
    elif dtype.is_integer():
        values = column.cast(pl.Int64, strict=False)
        values = values if values.null_count() == column.null_count() else column.cast(pl.String)
    else:
        text = column.cast(pl.String)
        values = text.set(text == "", None) if (text == "").any() else text
    return Parsed(values, _flaws(column, [("no id", values.is_null())]), notes)


def _whole(column: pl.Series) -> bool:
    values = column.drop_nulls()
    return bool(len(values)) and bool(((values == values.floor()) & (values.abs() < EXACT)).all())


def read_ratings(column: pl.Series, source: Source = Source()) -> Parsed:
    """Ratings or weights as Float32; text that spells a number counts as one."""
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Null)):
        raise DataError(f"{source.name}: column {column.name!r} holds {column.dtype}: ratings must be numbers")
    wide = _numbers(column) if column.dtype == pl.String else column.cast(pl.Float64)
    values = wide.cast(pl.Float32)
    missing = column.is_null()
    endless = values.is_nan() | values.is_infinite()
    flaws = _flaws(
        column,
        [
            ("no rating", missing),
            ("a rating that is not a number", wide.is_null() & ~missing),
            ("a NaN or infinite rating", endless.fill_null(False)),
        ],
    )
    return Parsed(values, flaws, [])


def _numbers(text: pl.Series) -> pl.Series:
    """Float64, null where the text is not a number."""
    values = text.cast(pl.Float64, strict=False)
    if values.null_count() > text.null_count():
        values = text.str.strip_chars().cast(pl.Float64, strict=False)
    return values


def read_times(column: pl.Series, source: Source = Source()) -> Parsed:
    """Points in time as Float64 seconds since 1970 (UTC); a time without a zone is taken as UTC.

    Numbers are seconds, or milliseconds, microseconds or nanoseconds where the median magnitude exceeds 1e11, 1e14
    or 1e17. Numbers that are all eight-digit dates (20150402) are read as dates. Text is ISO 8601 in its usual
    spellings ("2015-04-02 23:53:47", "2015-04-02T23:53+02:00", "2015-04-02", "2015/04/02"), a number, or a
    date with the year last ("12/31/2015") where some value shows whether the day or the month comes first.

    Raises:
        DataError: the type cannot be a time, or dates with the year last could be read both ways.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        values = _from_dates(column)
    elif column.dtype.is_numeric() or column.dtype == pl.Null:
        values = _epoch(column.cast(pl.Float64))
    elif column.dtype == pl.String:
        numbers = _numbers(column)
        mostly_numbers = numbers.null_count() - column.null_count() < (len(column) - column.null_count()) / 2
        values = _epoch(numbers) if mostly_numbers else _spelled(column, source)
    else:
        raise DataError(f"{source.name}: column {column.name!r} holds {column.dtype}: times must be numbers or dates")
    missing = column.is_null()
    unreadable = (~values.is_finite()).fill_null(True) & ~missing
    return Parsed(values, _flaws(column, [("no timestamp", missing), ("an unreadable timestamp", unreadable)]), [])


def _epoch(numbers: pl.Series) -> pl.Series:
    """Seconds from numbers of any unit; NaN and infinity stay."""
    typical = numbers.filter(numbers.is_finite()).abs().median()
    size = typical if isinstance(typical, float) else 0.0
    if 1.9e7 < size < 2.2e7:
        dates = numbers.cast(pl.Int64, strict=False).cast(pl.String).str.to_date("%Y%m%d", strict=False)
        if dates.null_count() == numbers.null_count():
            return _from_dates(dates)
    return _divide(numbers, 1e9 if size > NANO else 1e6 if size > MICRO else 1e3 if size > MILLI else 1.0)


def _from_dates(dates: pl.Series) -> pl.Series:
    if dates.dtype == pl.Date:
        dates = dates.cast(pl.Datetime("us"))
    return _divide(dates.dt.timestamp("us"), 1e6)


def _divide(numbers: pl.Series, by: float) -> pl.Series:
    """Correctly rounded, null where not a number: polars multiplies by 1/1000, which moves whole seconds."""
    return pl.Series(numbers.name, numbers.cast(pl.Float64).to_numpy() / by, nan_to_null=True)


def _spelled(column: pl.Series, source: Source) -> pl.Series:
    """Seconds from written dates; each format is tried only where those before it did not fit."""
    text = column.str.strip_chars()
    if text.str.contains(r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{4}").any():
        text = _year_first(text, column.name, source)
    text = text.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3").str.replace(r"^(\S{8,10})T", "$1 ")
    text = text.str.replace(r"\s*(UTC|GMT)$", "Z")
    seconds = pl.Series(column.name, np.full(len(text), np.nan), nan_to_null=True)
    for spelling in ISO_FORMATS:
        rest = seconds.is_null()
        if not (rest & text.is_not_null()).any():
            break
        todo = text if rest.all() else text.set(~rest, None)
        found = todo.str.to_datetime(spelling, strict=False, time_unit="us", ambiguous="null")
        seconds = seconds.zip_with(~rest, _from_dates(found))
    return seconds


def _year_first(text: pl.Series, column: str, source: Source) -> pl.Series:
    """Dates with the year last, rewritten with the year first once it is clear which number is the month."""
    parts = text.str.extract_groups(r"^(?<a>\d{1,2})[/.-](?<b>\d{1,2})[/.-](?<year>\d{4})").struct.unnest()
    day_first = bool((parts["a"].cast(pl.Int32) > 12).any())
    month_first = bool((parts["b"].cast(pl.Int32) > 12).any())
    if day_first == month_first:
        example = text.filter(parts["year"].is_not_null())[0]
        fact = "both orders occur" if day_first else "it is unclear which number is the month"
        raise DataError(f"{source.name}: dates like {example!r} in column {column!r}: {fact}: write them as 2015-12-31")
    order = "$3-$2-$1" if day_first else "$3-$1-$2"
    return text.str.replace(r"^(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})", order)


def _flaws(column: pl.Series, checks: Sequence[tuple[str, pl.Series]]) -> list[Flaw]:
    return [Flaw(column, fact, bad.to_numpy()) for fact, bad in checks if bad.any()]
