"""Columns of any type to points in time, in seconds since 1970 (UTC).

A number says nothing about its unit, so a value counts as a time only if it falls into the years 1980 to next year in
exactly one unit or as a compact date; those ranges do not overlap. Any other value among times is refused: a 0 is a
missing time, not January 1970, and milliseconds taken for seconds are no year 55,000.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import Note
from palate.data.parsing import DATAFRAME, Flaw, Parsed, Source, flaws_of, numbers_of
from palate.data.row_store import kept
from palate.errors import DataError

TimeUnit = Literal["auto", "s", "ms", "us", "ns", "dmy", "mdy"]
EARLIEST = 315_532_800.0  # 1980-01-01: no log is older
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
COMPACT = {8: "dates such as {}", 12: "dates with minutes such as {}", 14: "dates with seconds such as {}"}
ORDERS = ("dmy", "mdy")  # of dates with the year last
SHORT = {4: "years", 6: "months"}  # small numbers, taken for dates only where every value is one
DATES = ("%Y-%m-%d", "%Y%m%d", "%d %B %Y", "%B %d %Y", "%d-%B-%Y")  # %B reads short names too
CLOCKS = ("%H:%M:%S%.f", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%H%M%S")
OTHERS = ("%d/%B/%Y:%H:%M:%S %z", "%B %d %H:%M:%S %z %Y", "%B %d %H:%M:%S %Y", "%m %d, %Y")
ZONES = ("%#z", " %#z")
PROBED = 1000  # values that a format is tried on first


def read_times(column: pl.Series, source: Source = DATAFRAME, unit: TimeUnit = "auto") -> Parsed:
    """Points in time as Float64 seconds since 1970 (UTC), null where there is none; no zone means UTC.

    Numbers are seconds, milli-, micro- or nanoseconds since 1970, or compact dates (20150402, 201504022353,
    20150402235347): each value as the one that lies in the years 1980 to next year. Numbers that are all smaller than
    any of these are steps from an unknown start. Text is ISO 8601 in its usual spellings ("2015-04-02 23:53:47",
    "2015-04-02T23:53+02:00", "2015/04/02"), a date with the name of the month ("02-Apr-15", too), a number, or a date
    with the year last ("12/31/2015") where some value shows whether the day or the month comes first; with points
    ("31.12.2015") it is the day. Such a year may have two digits behind points, or where ``unit`` gives the order.

    Args:
        column: one value per row.
        source: where the rows come from.
        unit: of numbers ("s", "ms", "us", "ns"), whose times are then taken of any year; or the order of dates with
            the year last, "dmy" or "mdy". Default: "auto", found as above.

    Raises:
        DataError: the type cannot be a time, or dates with the year last could be read both ways.
    """
    if unit not in get_args(TimeUnit):
        raise DataError(f"time_unit={unit!r}: must be one of {', '.join(get_args(TimeUnit))}")
    notes: list[Note] = []
    order = unit if unit in ORDERS else ""
    unit = "auto" if order else unit
    missing = column.is_null()
    if column.dtype in (pl.Date, pl.Datetime):
        seconds = _seconds(column)
    elif column.dtype.is_numeric() or column.dtype == pl.Null:
        spill = None if column.null_count() else source.spill
        values = kept(spill, column, lambda part: part.cast(pl.Float64))
        factor = _only_unit(values) if unit == "auto" else None
        if factor is not None:  # most columns: no further ones of the same length are made
            return Parsed(values if factor == 1 else values / factor, [], [])
        seconds, notes = _numeric(values.to_numpy(), column.name, unit)
    elif column.dtype == pl.String:
        numbers = numbers_of(column)
        missing = missing | (column.str.strip_chars() == "").fill_null(False)
        written = numbers.is_null() & ~missing
        seconds, notes = _numeric(numbers.to_numpy(), column.name, unit, relative=not written.any())
        cut = int(column.str.contains(r"^\s*\d(\.\d{1,8})?[eE]\+?\d+\s*$").sum())  # a second has nine decimals
        if cut:
            fact = f"times in column {column.name!r} are in scientific notation, which has cut the seconds"
            notes = [*notes, Note(fact, cut, "mixed-times")]
        if written.any():
            dates, zones = _spelled(column.set(~written, None), source, order)
            seconds, notes = np.where(written.to_numpy(), dates, seconds), notes + zones
            if not numbers.is_null().all():
                mixed = f"times in column {column.name!r} are both numbers and written dates: each read as what it is"
                notes.append(Note(mixed, len(column), "mixed-times"))
    else:
        raise DataError(f"{source.name}: column {column.name!r} holds {column.dtype}: times must be numbers or dates")
    unreadable = pl.Series(~np.isfinite(seconds)) & ~missing
    flaws = flaws_of(column, [("no timestamp", missing), ("an unreadable timestamp", unreadable)])
    relative = any(note.kind == "relative-times" for note in notes)
    if unit == "auto" and not relative:
        years = f"1980 to {datetime.now(UTC).year + 1}"
        odd = np.isfinite(seconds) & ((seconds < EARLIEST) | (seconds >= _latest()))
        remedy = "take times of any year, and numbers in this unit, with time_unit='s' (--time-unit s)"
        flaws += [Flaw(column, f"a time outside the years {years}", odd, remedy)] if odd.any() else []
    return Parsed(pl.Series(column.name, seconds, nan_to_null=True), flaws, notes)


def _latest() -> float:
    return datetime(datetime.now(UTC).year + 2, 1, 1, tzinfo=UTC).timestamp()


def _only_unit(numbers: pl.Series) -> float | None:
    """How many of the unit are a second, where all numbers are likely times in one unit and none is missing."""
    if not len(numbers) or numbers.null_count() or numbers.is_nan().any():
        return None
    lowest, highest = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    fits = (one for one in UNITS.values() if lowest >= EARLIEST * one and highest < _latest() * one)
    return next(fits, None)


def _numeric(
    numbers: NDArray[np.float64], name: str, unit: TimeUnit, relative: bool = True
) -> tuple[NDArray[np.float64], list[Note]]:
    """Seconds of numbers, NaN where there is none; a number that is no time by itself stays as it is."""
    if unit != "auto":
        return numbers / UNITS[unit], []
    known = int(np.isfinite(numbers).sum())
    seconds, found = numbers.copy(), dict[str, int]()
    for short, factor in UNITS.items():
        fits = (numbers >= EARLIEST * factor) & (numbers < _latest() * factor)
        # Not multiplied by 1/1000, which would move whole seconds.
        seconds[fits] = numbers[fits] / factor
        found[NAMES[short]] = int(fits.sum())
    if max(found.values()) == known:
        return seconds, []
    for digits, words in (SHORT | COMPACT).items():
        at, dates = _compact(numbers, digits)
        if len(at) and (digits in COMPACT or len(at) == known):
            seconds[at] = dates
            found[words.format(f"{numbers[at[0]]:.0f}")] = len(at)
    if relative and 2 * sum(found.values()) < known and np.nanmax(np.abs(numbers), initial=0) < EARLIEST:
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        text = f"times in column {name!r} are no dates ({low:g} to {high:g}): taken as seconds from an unknown start"
        return numbers, [Note(text, known, "relative-times")]
    kinds = {words: rows for words, rows in found.items() if rows}
    if len(kinds) > 1:
        listed = ", ".join(f"{words} ({rows:,})" for words, rows in kinds.items())
        return seconds, [
            Note(f"times in column {name!r} mix {listed}: each converted by its own", known, "mixed-times")
        ]
    compact = [(words, rows) for words, rows in kinds.items() if words not in NAMES.values()]
    return seconds, [Note(f"times in column {name!r} read as {words}", rows) for words, rows in compact]


def _compact(numbers: NDArray[np.float64], digits: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The places of numbers that are a date in so many digits, year first, and their seconds."""
    scale = 10.0 ** (digits - 4)
    at = np.flatnonzero((numbers >= 1980 * scale) & (numbers < (datetime.now(UTC).year + 2) * scale))
    at = at[numbers[at] == np.floor(numbers[at])]
    rest, parts = numbers[at].astype(np.int64), []
    for _ in range((digits - 4) // 2):
        rest, part = np.divmod(rest, 100)
        parts.append(part)
    month, day, hour, minute, second = (*reversed(parts), *[None] * 5)[:5]
    months = (rest - 1970) * 12 + (0 if month is None else month - 1)
    days = months.astype("M8[M]").astype("M8[D]") + np.asarray(0 if day is None else day - 1).astype("m8[D]")
    clock = [0 if part is None else part for part in (hour, minute, second)]
    real = (days.astype("M8[M]").astype(np.int64) == months) & (clock[0] < 24) & (clock[1] < 60) & (clock[2] < 60)
    real &= True if month is None else (month > 0) & (month < 13)
    seconds = days.astype("M8[s]").astype(np.int64) + clock[0] * 3600 + clock[1] * 60 + clock[2]
    return at[real], seconds[real].astype(np.float64)


def _seconds(dates: pl.Series) -> NDArray[np.float64]:
    dates = dates.cast(pl.Datetime("us")) if dates.dtype == pl.Date else dates
    return np.asarray(dates.dt.timestamp("us").cast(pl.Float64).to_numpy() / 1e6)


def _spelled(column: pl.Series, source: Source, order: str) -> tuple[NDArray[np.float64], list[Note]]:
    """Seconds from written dates; each format is tried only where those before it did not fit."""
    text = _with_centuries(column.str.strip_chars(), source, order)
    if text.str.contains(r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{4}").any():
        text = _year_first(text, column.name, source, order)
    text = text.str.replace(r"\s*\([^)]*\)$", "").str.replace(r"(?:UTC|GMT)([+-]\d)", "$1")  # as JavaScript writes it
    text = text.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3").str.replace(r"^(\S{8,10})T", "$1 ")
    months = text.str.contains(r"^\d{4}-\d{1,2}$").fill_null(False)
    text = text.str.replace(r"^(\d{4}-\d{1,2})$", "$1-01").str.replace(r"^(\d{4}-\d\d?-\d\d? \d\d)$", "$1:00")
    text = text.str.replace(r"\s*(UTC|GMT)$", "Z").str.replace(r"(:\d\d),(\d+)", "$1.$2")
    text = text.str.replace(r"^(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+", "").str.replace(r"^(\D+ \d+),", "$1")
    clocks = [f"{date} {clock}" for date in DATES for clock in CLOCKS]
    spellings = [*DATES, *clocks, *(f"{one}{zone}" for one in clocks for zone in ZONES), *OTHERS]
    spellings.sort(key=lambda one: not one.startswith("%Y-%m-%d"))  # stable: the usual ones first
    seconds, zoned = np.full(len(text), np.nan), 0
    left = np.flatnonzero(text.is_not_null().to_numpy())
    # A format that fits none of the first values is put off, so that a column is read in one pass, or in two.
    for spelling, first in ((one, first) for first in (PROBED, None) for one in spellings):
        if not len(left):
            break
        if first and _parsed(text[left[:first]], spelling).is_null().all():
            continue
        found = _parsed(text[left], spelling)
        fits = found.is_not_null().to_numpy()
        seconds[left[fits]] = _seconds(found.drop_nulls())
        zoned += int(fits.sum()) if "z" in spelling else 0
        left = left[~fits]
    unzoned = int(np.isfinite(seconds).sum()) - zoned
    notes = [Note(f"times in column {column.name!r} read as months", int(months.sum()))] if months.any() else []
    if not (zoned and unzoned):
        return seconds, notes
    mixed = f"times in column {column.name!r} without a zone, among others with one: taken as UTC"
    return seconds, [*notes, Note(mixed, unzoned)]


def _parsed(text: pl.Series, spelling: str) -> pl.Series:
    return text.str.to_datetime(spelling, strict=False, time_unit="us", ambiguous="null")


def _with_centuries(text: pl.Series, source: Source, order: str) -> pl.Series:
    """Years of two digits behind the day and the month, such as 13-Sep-20, with four."""
    named, numbers = r"^(\d{1,2}[-/ ][A-Za-z]{3,9}[-/ ])(\d{2})([ T]|$)", r"^(\d{1,2}[/.-]\d{1,2}[/.-])(\d{2})([ T]|$)"
    short = text.str.contains(numbers).fill_null(False)
    points = bool(text.filter(short).str.contains(r"^\d+\.\d+\.").all())  # the day is first, the year last
    if short.any() and int(short.sum()) == len(text) - text.null_count() and not (order or points):
        raise DataError(
            f"{source.name}: dates like {text.filter(short)[0]!r} in column {text.name!r} have years of two digits: "
            'pass time_unit="dmy" or "mdy" if these are last (--time-unit dmy: the day is first), or write them as '
            "2015-12-31"
        )
    for pattern in (named, numbers) if order or points else (named,):
        if text.str.contains(pattern).any():
            years = text.str.extract(pattern, 2).cast(pl.Int32)
            this = (years <= (datetime.now(UTC).year + 1) % 100).fill_null(False)
            now, past = (text.str.replace(pattern, f"${{1}}{century}${{2}}${{3}}") for century in (20, 19))
            text = now.zip_with(this, past)
    return text


def _year_first(text: pl.Series, column: str, source: Source, order: str) -> pl.Series:
    """Dates with the year last, rewritten with the year first once it is clear which number is the month."""
    parts = text.str.extract_groups(r"^(?<a>\d{1,2})(?<mark>[/.-])(?<b>\d{1,2})[/.-](?<year>\d{4})").struct.unnest()
    points = bool((parts["mark"].drop_nulls() == ".").all())  # dates with points have the day first
    day_first = order == "dmy" or bool((parts["a"].cast(pl.Int32) > 12).any())
    month_first = order == "mdy" or bool((parts["b"].cast(pl.Int32) > 12).any())
    day_first = day_first or (points and not month_first)
    if day_first == month_first:
        example = text.filter(parts["year"].is_not_null())[0]
        fact = "both orders occur" if day_first else "it is unclear which number is the month"
        known = 'pass time_unit="dmy" or "mdy" (--time-unit dmy: the day is first), or '
        raise DataError(
            f"{source.name}: dates like {example!r} in column {column!r}: {fact}: {'' if day_first else known}"
            "write them as 2015-12-31"
        )
    groups = "$3-$2-$1" if day_first else "$3-$1-$2"
    return text.str.replace(r"^(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})", groups)
