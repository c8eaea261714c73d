"""Columns of any type to ids, Int64 or String, and the values among them that are no ids.

An id is taken as it is written: "7", "007", "7.0" and " 7" are four ids. Values that a program writes for a missing id
(nan, NULL, \\N) are refused, and so are ids that differ from another one only in blanks, invisible characters or the
Unicode normal form, unless the caller says what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np
import polars as pl

from palate.data.dataset import Note
from palate.data.ids import plain_text
from palate.data.parsing import DATAFRAME, Flaw, Parsed, Source, flaws_of
from palate.errors import DataError

# Written for a missing value by pandas, R, SQL dumps, JavaScript and spreadsheets, in any case; the others as they are.
MISSING = (
    *("nan", "-nan", "null", "(null)", "none", "(none)", "na", "n/a", "#n/a", "#na", "\\n", "<na>", "undefined"),
    # Web analytics and logs write these for an unknown visitor.
    *("(not set)", "not set", "unknown", "(unknown)", "anonymous", "(anonymous)", "-", "--", "?"),
)
SPELLINGS = (
    *(case(text) for text in MISSING for case in (str, str.upper, str.capitalize)),
    "NaN",
    "-NaN",
    "NaT",
    "nil",
)
UNUSUAL = r"^\s|\s$|[^\x00-\x7f]"  # only such a text can change when it is stripped
# Whole numbers below survive in a float.
EXACT: dict[pl.DataType | type[pl.DataType], int] = {pl.Float64: 2**53, pl.Float32: 2**24, pl.Float16: 2**11}


def read_ids(
    column: pl.Series, source: Source = DATAFRAME, *, strip: bool | None = None, valid_ids: Sequence[str] = ()
) -> Parsed:
    """Ids as Int64 or String, null where there is none.

    Integers stay integers where they fit into 64 bits, and so do floats and decimals that are all whole (pandas makes
    floats of integers next to a missing value); other types become strings, bytes UUIDs, UTF-8 or
    hexadecimal. An empty or
    blank string is a missing id.

    Args:
        column: one value per row.
        source: where the rows come from. If its columns are ``untyped``, ids that are all written as integers would be
            are integers.
        strip: True removes blanks around ids and invisible characters, and normalizes Unicode (NFC); False takes ids
            as they are. Default: None, as False, but ids that are then equal to another one are a flaw.
        valid_ids: texts that are ids though they look like a missing value, such as "NA".

    Raises:
        DataError: the column holds lists, structures or objects.
    """
    dtype = column.dtype
    if isinstance(dtype, pl.Categorical):
        return _read_coded(column, source, strip, valid_ids)
    if dtype.is_float():
        return _read_floats(column)
    if dtype == pl.Object and all(isinstance(one, int | UUID | None) for one in column):
        column = pl.Series(column.name, [None if one is None else str(one) for one in column], pl.String)
    elif dtype == pl.Binary:
        column = _decoded(column)
    elif dtype.is_nested() or dtype in (pl.Object, pl.Duration) or isinstance(dtype, pl.BaseExtension):
        field = ": make a field of it a column" if dtype == pl.Struct else ""
        raise DataError(f"{source.name}: column {column.name!r} holds {dtype}: ids must be integers or strings{field}")
    if dtype.is_decimal():
        text = column.cast(pl.String)
        whole = text.str.contains(r"^-?\d+(\.0*)?$").all()
        values = integers(text.str.replace(r"\.0*$", "") if whole else text)
    elif dtype.is_integer():
        if source.spill is not None and not column.null_count() and column.dtype == pl.Int32:
            return Parsed(source.spill.keep(part.cast(pl.Int64) for part in column.get_chunks()), [], [])
        if column.dtype == pl.Int32 and not column.null_count():
            return Parsed(column, [], [])  # half the memory; row numbers are made of it part by part
        values = column.cast(pl.Int64, strict=False)
        values = values if values.null_count() == column.null_count() else column.cast(pl.String)
    else:
        return _read_text(column.cast(pl.String), source, strip, valid_ids)
    return Parsed(values, flaws_of(column, [("no id", values.is_null())]), [])


def _read_coded(column: pl.Series, source: Source, strip: bool | None, valid_ids: Sequence[str]) -> Parsed:
    """Texts by their codes: where the distinct texts need no remark, the rows keep their codes."""
    distinct = column.unique().drop_nulls()
    texts, found = distinct.cast(pl.String), flaws_of(column, [("no id", column.is_null())])
    parsed = _read_text(texts, source, strip, valid_ids)
    if parsed.flaws or parsed.notes or not len(texts):
        return _read_text(column.cast(pl.String), source, strip, valid_ids)
    if parsed.values.dtype == pl.String:
        return Parsed(column, found, [])
    number_of = np.zeros(int(distinct.to_physical().max()) + 1, np.int64)  # type: ignore[arg-type]
    number_of[distinct.to_physical().to_numpy()] = parsed.values.to_numpy()
    values = pl.Series(column.name, number_of[column.to_physical().fill_null(0).to_numpy()])
    return Parsed(values.set(column.is_null(), None), found, [])


def integers(text: pl.Series) -> pl.Series:
    """Int64 where every value is written as an integer would be ("7", not "007" or "+7"), else unchanged."""
    if text.dtype != pl.String:
        return text
    numbers = text
    for part in (text.head(1000), text):  # most columns of texts are known by their first rows
        numbers = part.cast(pl.Int64, strict=False)
        if not (numbers.cast(pl.String) == part).all() or numbers.null_count() > part.null_count():
            return text
    return numbers


def _read_floats(column: pl.Series) -> Parsed:
    values = column.fill_nan(None)
    bound = EXACT[column.dtype.base_type()]
    flaws = [("no id", values.is_null()), ("an infinite id", values.is_infinite().fill_null(False))]
    lost = (values.is_finite() & (values.abs() >= bound)).fill_null(False)
    remedy = f"read the column as text, such as pd.read_csv(..., dtype={{{column.name!r}: str}})"
    inexact = Flaw(column, f"a float of {bound} or more, whose last digits are lost,", lost.to_numpy(), remedy)
    found = [*flaws_of(column, flaws), *([inexact] if lost.any() else [])]
    # Not by a boolean mask: a null in it would let polars choose the value.
    values = values.set(~(values.abs() < bound).fill_null(False), None)
    known = values.drop_nulls()
    if not (known == known.floor()).all():
        fractions = f"numbers with fractions in column {column.name!r} are ids: read as text"
        return Parsed(values.cast(pl.String), found, [Note(fractions, len(values))])
    note = Note(f"whole numbers in column {column.name!r} were stored as floats: read as integers", len(values))
    return Parsed(values.cast(pl.Int64), found, [note] if len(known) else [])


def _decoded(column: pl.Series) -> pl.Series:
    """Bytes as text: UUIDs where all have 16 bytes, UTF-8 where all of them are, else hexadecimal."""
    digits = column.bin.encode("hex")
    # Sixteen letters are bytes of a UUID too, but a UUID has bytes that are no letters.
    if (column.bin.size("b") == 16).all() and not digits.str.contains("^([2-7][0-9a-f])*$").all():
        return digits.str.replace("^(.{8})(.{4})(.{4})(.{4})(.{12})$", "$1-$2-$3-$4-$5")
    try:
        return column.cast(pl.String)
    except pl.exceptions.ComputeError:
        return digits


def _read_text(column: pl.Series, source: Source, strip: bool | None, valid_ids: Sequence[str]) -> Parsed:
    name = repr(column.name)
    # Nearly all ids are plain ASCII: the slow functions see the distinct others only.
    unusual = column.str.contains(UNUSUAL).fill_null(False)
    raw = column.filter(unusual).unique() if unusual.any() else column.clear()
    plain = plain_text(raw)
    raw, plain = raw.filter(raw != plain), plain.filter(raw != plain)
    spelled = [text for text in SPELLINGS if text not in valid_ids]
    nothing = pl.concat([pl.Series(["", *spelled]), raw.filter(plain.is_in(["", *spelled]))])
    blank = pl.concat([pl.Series([""]), raw.filter(plain == "")])
    values, notes, alike = column, [], raw.clear()
    if len(raw) and strip:
        values = column.replace(raw, plain)
        notes.append(Note(f"ids in column {name} stripped of blanks and invisible characters", _rows(column, raw)))
    elif len(raw) and strip is None:
        twin = plain.is_duplicated() | plain.is_in(column.filter(column.is_in(plain.implode())).unique().implode())
        alike = raw.filter(twin & ~raw.is_in(nothing.implode()))
        others = raw.filter(~twin & ~raw.is_in(nothing.implode()))
        text = f"ids in column {name} have blanks or invisible characters, kept: strip=True (--strip) removes them"
        notes += [Note(text, _rows(column, others))] if len(others) else []
    no_id = column.is_null() | column.is_in(blank.implode())
    flaws = flaws_of(column, [("no id", no_id)])
    missing = column.is_in(nothing.implode()) & ~no_id
    if missing.any():
        example = plain_text(column.filter(missing).head(1))[0]
        remedy = f"pass valid_ids=[{example!r}] (--valid-id '{example}') if it is an id"
        flaws.append(Flaw(column, "a text that stands for a missing id", missing.fill_null(False).to_numpy(), remedy))
    if len(alike):
        fact = "an id that differs from another only in blanks, invisible characters or Unicode form"
        remedy = "make them one with strip=True (--strip) or keep them apart with strip=False (--no-strip)"
        flaws.append(Flaw(column, fact, column.is_in(alike.implode()).fill_null(False).to_numpy(), remedy))
    for flaw in flaws:
        values = values.set(pl.Series(flaw.bad), None)
    values = integers(values) if source.untyped else values
    if values.dtype == pl.String:
        notes += _doubts(values, name)
    return Parsed(values, flaws, notes)


def _doubts(text: pl.Series, name: str) -> list[Note]:
    """Notes where every id looks like a number that a program has rewritten."""
    head = text.drop_nulls().head(1000)
    if not len(head) or not head.str.contains(r"^-?\d+(\.0$|(\.\d+)?[eE]\+?\d+$)").all():
        return []
    kind = "end in .0" if head.str.ends_with(".0").all() else "are in scientific notation, which may have cut digits"
    return [Note(f"ids in column {name} {kind}: kept as text, such as {head[0]!r}", len(text))]


def _rows(column: pl.Series, values: pl.Series) -> int:
    return int(column.is_in(values.implode()).sum())
