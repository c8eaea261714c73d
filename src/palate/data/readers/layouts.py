"""Text that is no table of interactions: one line per user, or a matrix of users by items."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import polars as pl

from palate.data.dataset import Note
from palate.data.id_columns import MISSING
from palate.data.readers.first_lines import (
    SAMPLE,
    check_separator,
    comments,
    fields,
    find_separator,
    is_data,
    is_number,
    number,
    usual_names,
)
from palate.data.readers.options import POSITION, ReadOptions, Table
from palate.data.readers.sources import Opened
from palate.data.readers.text import TextTable, first_lines, open_text, recoded, whole_lines
from palate.errors import DataError

WIDE = 10  # columns of numbers from which on a table may be a matrix


def open_lines(file: Opened, options: ReadOptions) -> Table:
    """A file with one line per user: the user, then the items in the order of time.

    Raises:
        DataError: the file is not text.
    """
    encoding, lines = first_lines(file, options.encoding)
    sample = lines[int(options.header is True) :][:SAMPLE]
    given = None if options.separator is None else check_separator(options.separator, file.name)
    separator = given or _most(sample)
    parts = [fields(line, separator) for line in sample]
    if given is None and all(len(one) == 2 for one in parts):  # the user, then items with another mark between them
        inner = _most([one[1] for one in parts])
        separator = inner if any(inner in one[1].strip() for one in parts) else separator
    mark = _user_mark(sample, separator)
    if mark:
        sample = [re.sub(mark, separator, line, count=1) for line in sample]
    count_at = _count_at([fields(one, separator) for one in sample])
    return _LinesTable(file, encoding, separator, mark, count_at, options)


def open_wide(file: Opened, options: ReadOptions) -> Table:
    """A matrix with one line per user and one column per item; empty cells and ``missing`` are no ratings.

    Raises:
        DataError: the file is not text, or a value that is in most cells looks like a code for a missing rating.
    """
    _, lines = first_lines(file, options.encoding)
    return _WideTable(open_text(file, options, check=False), lines, options)


def check_shape(file: Opened, options: ReadOptions) -> None:
    """Refuse a file that is no table of interactions but looks like one of the other layouts.

    Raises:
        DataError: with the layout to pass.
    """
    _, lines = first_lines(file, options.encoding)
    lines = lines[comments(lines) :]
    separator = (options.separator and check_separator(options.separator, file.name)) or find_separator(lines[:SAMPLE])
    named = usual_names(fields(lines[0], separator))
    if options.chosen or options.names or named > 1:
        return
    sample = [line for line in lines[:SAMPLE] if line.strip()]
    blank = " " if len(fields(lines[0], separator)) == 1 else separator
    rows = [fields(line, blank) for line in sample]
    counts = [len(row) for row in rows]
    usual = max(map(counts.count, counts))
    if not named and usual == len(counts) == counts.count(2):  # user, then items with another mark between them
        marks = (mark for mark in (",", ";", "|", " ") if mark != separator)
        listed = max(([len(fields(row[1], mark)) for row in rows] for mark in marks), key=sum)
        counts = [1 + one for one in listed] if 2 * len(listed) <= sum(listed) else counts
        usual = max(map(counts.count, counts))
    if not named and len(set(counts)) > min(2, len(counts) // 2) and usual <= 0.8 * len(counts) and min(counts) > 0:
        raise DataError(
            f"{file.name}: the lines have {min(counts)} to {max(counts)} fields: if each line is a user followed by "
            'items, pass --layout lines (layout="lines")'
        )
    cells = (
        ["" if one.strip().lower() in MISSING else one for one in column] for column in zip(*rows[1:], strict=False)
    )
    numeric = [column for column in cells if all(is_number(one) or not one for one in column)]
    if len(rows) > 2 and len(numeric) >= max(WIDE, 0.8 * counts[0]) and usual == len(counts):
        code = _likely_code([number(one) for column in numeric for one in column if one])
        missing = "" if code is None else f" --missing {code:g}"
        also = "" if code is None else f", missing={code:g}"
        raise DataError(
            f"{file.name}: {counts[0]} columns of numbers: if each line is a user and each column an item, pass "
            f'--layout wide{missing} (layout="wide"{also}); else name the columns with --user and --item'
        )


class _LinesTable:
    """The interactions of a file with one line per user."""

    def __init__(
        self, file: Opened, encoding: str, separator: str, mark: str, count_at: int | None, options: ReadOptions
    ) -> None:
        self.name, self.untyped = file.name, True
        self.names = list(options.names or ("user", "item"))
        if len(self.names) != 2:
            raise DataError(f"{file.name}: {len(self.names)} names: one line per user has two, such as user,item")
        self.names.append(POSITION)
        self.line: Callable[[int], int] | None = None
        self._file, self._encoding, self._separator, self._count_at = file, encoding, separator, count_at
        self._mark = mark
        self._skip = int(options.header is True)
        self._rows = self._alone = 0

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """One row per item of a line."""
        above = 0
        user, item, position = self.names
        for chunk in whole_lines(recoded(self._file, self._encoding)):
            lines = pl.Series(chunk.decode().splitlines()[self._skip :], dtype=pl.String).str.strip_chars(" \r")
            self._skip = 0
            if self._mark:
                lines = lines.str.replace(self._mark, self._separator)
            if self._separator == " ":
                lines = lines.str.replace_all(" +", " ")
            parts = pl.DataFrame({"parts": lines}).with_row_index("number", above + 1).filter(pl.col("parts") != "")
            above += len(lines)
            parts = parts.with_columns(pl.col("parts").str.split(self._separator))
            # Where the first field is the number of items, the user is the number of the line.
            who = pl.col("number").cast(pl.String) if self._count_at == 0 else pl.col("parts").list.first()
            items = pl.col("parts").list.slice(1 if self._count_at is None else self._count_at + 1)
            table = parts.select(who.alias(user), items.alias(item))
            full = table.filter(pl.col(item).list.len() > 0)
            self._alone += len(table) - len(full)
            numbers = pl.int_ranges(1, pl.col(item).list.len() + 1).alias(position)
            table = full.with_columns(numbers).explode(item, position)
            self._rows += len(table)
            yield table.select(wanted)

    def notes(self) -> list[Note]:
        """How the lines were taken."""
        count = {
            None: "one line per user, the user first",
            0: "one line per user, the number of items first: users are line numbers",
            1: "one line per user, the user and the number of items first",
        }[self._count_at]
        alone = [Note("users without items, left out", self._alone)] if self._alone else []
        return [Note(f"{count}; the order in a line is taken as time", self._rows, "order-times"), *alone]


class _WideTable:
    """The ratings in a matrix of users by items."""

    def __init__(self, table: TextTable, lines: Sequence[str], options: ReadOptions) -> None:
        self.name, self.untyped = table.name, True
        self.names = ["user", "item", "rating"]
        self.line: Callable[[int], int] | None = None
        self._table, self._missing = table, options.missing
        separator = table.separator
        rows = [fields(line, separator) for line in lines[:SAMPLE] if line.strip()]
        header = options.header if options.header is not None else not is_data(rows[0], rows[1:])
        body = rows[1:] if header else rows
        if len(rows[0]) < 2:
            raise DataError(
                f"{self.name}: one column where a matrix of users by items has several: leave --layout (layout=) "
                "out, or name the separator (--separator)"
            )
        first = [row[0] for row in body]
        others = [number(one) for row in body for one in row[1:] if is_number(one)]
        code = _likely_code(others) if self._missing is None else None
        if code is not None:
            far = ", far from the rest" if code else ""
            raise DataError(
                f"{self.name}: {code:g} is in {others.count(code) / len(others):.0%} of the cells{far}: if it means a "
                f"missing rating, pass --missing {code:g} (missing={code:g}), else --missing nan"
            )
        rated = [sum(is_number(one) and number(one) != self._missing for one in row[1:]) for row in body]
        counts = all(is_number(one) and number(one) == count for one, count in zip(first, rated, strict=True))
        ids = len(set(first)) == len(first) and all(
            one and not (is_number(one) and re.search("[.,]", one)) for one in first
        )
        self._first: str = "user" if header or (ids and not counts) else "count" if counts else "item"
        if not header:  # the columns are numbered from the first item on
            start = 0 if self._first == "item" else 1
            table.names = [f"column_{at + 1 - start}" for at in range(len(rows[0]))]
        self._header = header
        self._rows = self._empty = 0

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """One row per cell with a rating, line by line."""
        # A mark before the names of items: one of them may be called user or number.
        names, above = [f"={name}" for name in self._table.names], 0
        items = names if self._first == "item" else names[1:]
        for block in self._table.batches(self._table.names):
            block.columns = names
            table = block.with_row_index("number", above + 1)
            above += len(block)
            who = pl.col(names[0]) if self._first == "user" else pl.col("number").cast(pl.String)
            long = table.select(pl.col("number"), who.alias("user"), *items).unpivot(
                items, index=["number", "user"], variable_name="item", value_name="rating"
            )
            value = pl.col("rating").str.strip_chars()
            rating = value.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
            spelled = value.str.to_lowercase().is_in(MISSING)
            self._empty += int(long.select(spelled.sum()).item())
            kept = value.is_not_null() & (value != "") & ~spelled
            if self._missing is not None:
                kept &= rating.ne_missing(self._missing)
            long = long.filter(kept).sort("number", maintain_order=True)
            long = long.with_columns(pl.col("item").str.strip_prefix("=" if self._header else "=column_"))
            self._rows += len(long)
            yield long.select(wanted)

    def notes(self) -> list[Note]:
        """How the matrix was taken."""
        users = {
            "user": "the first column holds the users",
            "count": "the first column holds the number of ratings, users are line numbers",
            "item": "users are line numbers",
        }[self._first]
        items = "the names of columns" if self._header else "the numbers of columns"
        empty = [Note("cells such as NA, taken as empty", self._empty)] if self._empty else []
        text = f"a matrix of users by items: {users}, items are {items}"
        return [Note(text, self._rows), *empty, *self._table.notes()]


def _most(lines: Sequence[str]) -> str:
    """The separator that gives the most fields."""
    return max(("\t", ",", ";", "|", "::", " "), key=lambda one: sum(len(fields(line, one)) for line in lines))


def _user_mark(lines: Sequence[str], separator: str) -> str:
    """A pattern for the mark behind the user where it is not the one between items ("u1<tab>a,b", "u1: a b"), or ""."""
    for mark in ("\t", "::", ";", r"\|", r":(?=\s|$)"):
        found = [re.findall(mark, line) for line in lines]
        if not re.fullmatch(mark, separator) and all(len(one) == 1 for one in found):
            heads = [re.split(mark, line)[0] for line in lines]
            if not any(separator in head.strip() for head in heads):
                return rf"\s*{mark.replace('(?=', '(?:')}\s*"
    return ""


def _count_at(rows: Sequence[Sequence[str]]) -> int | None:
    """The place of the number of items that follow, 0 or 1, if all of several lines have it."""
    for at in (0, 1):
        if len(rows) > 1 and all(len(row) > at and row[at] == str(len(row) - at - 1) for row in rows):
            return at
    return None


def _likely_code(values: Sequence[float]) -> float | None:
    """A value that a fifth of the cells have and that is as far from the others as they are wide, such as 99."""
    if not values:
        return None
    often = max(set(values), key=values.count)
    others = [one for one in values if one != often]
    if often == 0 and others and min(others) > 0 and len(others) <= len(values) / 2:
        return often  # hardly any user has had most of the items
    if values.count(often) < 0.2 * len(values) or len(set(others)) < 2:
        return None
    low, high = min(others), max(others)
    return often if often > high + (high - low) or often < low - (high - low) else None
