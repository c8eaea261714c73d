"""Rows of delimited text, reconciled with its line ends: no quotation mark swallows a row.

A quotation mark that opens a field and is not closed, such as an inch mark, makes a CSV reader take the lines up to the
next mark as one field. So each block of lines is checked before it is parsed:

1. A mark that opens no field is text, as in RFC 4180 and in Python's csv module: ``TV 32"``.
2. A line whose marks are all those of closed fields is one row. This is decided for all lines at once, in NumPy.
3. A line that is not closed is joined with the lines after it where this gives a well-formed row. If each of these
   lines would be a row by itself, or if no well-formed row comes out, the marks are text.

Lines of the third kind are rewritten, so that one parser reads the whole block. Lines without any value are no rows.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from palate.data.dataset import Note
from palate.errors import DataError

NEWLINE, RETURN, QUOTE = 10, 13, 34
MARK = b'"'


@dataclass(frozen=True)
class Block:
    """Whole rows of text, ready for a parser.

    Args:
        data: UTF-8 text of ``rows`` rows.
        rows: the number of rows, counted by line ends.
        quoted: whether fields may be quoted; False where every quotation mark is text.
    """

    data: bytes
    rows: int
    quoted: bool


@dataclass
class RowReader:
    """Cuts a stream of text into blocks of whole rows, and remembers on which lines a row is.

    Args:
        source: name of the file in error messages.
        separator: one byte.
        n_fields: fields of a row.
        first_line: 1-based number of the first line of the text in its file.
        keep_empty: whether lines without any value are rows.
    """

    source: str
    separator: bytes
    n_fields: int
    first_line: int = 1
    keep_empty: bool = False
    rows: int = 0
    _lines: int = 0
    # (row, lines above it beyond one per row), one pair per row that spans lines and per line that is no row.
    _jumps: array[int] = field(default_factory=lambda: array("q"))
    _spanning: tuple[int, int] = (0, 0)  # rows, line of the first
    _literal: tuple[int, int] = (0, 0)
    _short: tuple[int, int] = (0, 0)
    _empty: tuple[int, int] = (0, 0)

    def line(self, row: int) -> int:
        """The 1-based number of the line on which a 0-based row begins."""
        jumps = np.frombuffer(self._jumps, np.int64).reshape(-1, 2) if self._jumps else np.empty((0, 2), np.int64)
        place = int(jumps[:, 0].searchsorted(row, side="right"))
        return self.first_line + row + (int(jumps[place - 1, 1]) if place else 0)

    def notes(self) -> list[Note]:
        """Rows that were not one plain line each."""
        texts = {
            "rows with a quoted field that spans lines, the first in line {}": self._spanning,
            "rows with an unclosed or misplaced quotation mark, read as text, the first in line {}": self._literal,
            "rows with fewer fields than columns, the rest taken as empty, the first in line {}": self._short,
            "lines without any value, which are no rows, left out, the first is line {}": self._empty,
        }
        return [Note(f"{self.source}: {text.format(line)}", rows) for text, (rows, line) in texts.items() if rows]

    def blocks(self, chunks: Iterable[bytes]) -> Iterator[Block]:
        """The rows of consecutive chunks of text, of any size, in blocks.

        Raises:
            DataError: a line has too many fields, or its quotation marks make no sense under any reading.
        """
        # Chunks are joined only while no row ends in them: a long row must not be copied once per chunk.
        waiting: list[bytes] = []
        for chunk, final in _with_last(chunks):
            waiting.append(chunk)
            if not final and b"\n" not in chunk:
                continue
            text = b"".join(waiting)
            # Empty lines wait for the text after them, since those at the end of a file are no rows.
            end = len(text) if final else text.rfind(b"\n") + 1
            end = len(text[:end].rstrip(b"\r\n"))
            done = 0
            if end:
                line_end = text.find(b"\n", end)
                block, done = self._block(text[: line_end + 1 if line_end >= 0 else end], final)
                if block.rows:
                    yield block
            waiting = [text[done:]]

    def _block(self, text: bytes, final: bool) -> tuple[Block, int]:
        """The block of a text that ends with a line, and how many bytes of it were used."""
        buffer = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(buffer == NEWLINE)
        if buffer[-1] != NEWLINE:
            ends = np.append(ends, len(buffer))
        separators = np.flatnonzero(buffer == self.separator[0])
        doubtful, quoted = np.empty(0, np.int64), False
        if MARK in text:
            marks = np.flatnonzero(buffer == QUOTE)
            before, after = _neighbors(buffer, marks)
            opens = (before == self.separator[0]) | (before == NEWLINE)
            quoted = bool(opens.any())
            if quoted:
                after_ok = np.isin(after, [self.separator[0], NEWLINE, RETURN, QUOTE])
                doubtful, separators = _check_marks(ends, marks, opens, after_ok, separators)
        extra = np.diff(separators.searchsorted(ends), prepend=0) - (self.n_fields - 1)
        extra[doubtful] = 0
        rewritten: list[tuple[int, int, bytes]] = []  # first line, line after the last, row
        last = len(ends)
        free = 0
        for line in doubtful.tolist():
            if line < free:
                continue
            free, row = self._doubtful(text, ends, line, final)
            if not row:  # the row may go on in the next chunk
                last = line
                break
            rewritten.append((line, free, row))
            extra[line:free] = 0
        empty = np.empty(0, np.int64)
        if self.n_fields > 1 and not self.keep_empty:
            inside = (np.arange(first, after) for first, after, _ in rewritten)
            empty = _without_values(text, ends, extra, self.separator, self.n_fields)
            empty = np.setdiff1d(empty[empty < last], np.concatenate([*inside, empty[:0]]), assume_unique=True)
            extra[empty] = 0
        if len(empty):
            self._empty = _more(self._empty, self._number(int(empty[0])), len(empty))
        self._check_fields(extra[:last], text, ends)
        start = 0 if last == 0 else int(ends[last - 1]) + 1
        data = _replaced(text[: min(start, len(text))], ends, rewritten, empty)
        # Lines from which on there are more lines than rows above, and how many more.
        spanning = [(first + 1, after - first - 1) for first, after, _ in rewritten if after - first > 1]
        jumps_JC = np.array(spanning, np.int64).reshape(-1, 2)
        jumps_JC = np.concatenate((jumps_JC, np.column_stack((empty, np.ones_like(empty)))))
        at_J, more_J = jumps_JC[np.argsort(jumps_JC[:, 0])].T
        sums_J = (self._jumps[-1] if self._jumps else 0) + more_J.cumsum()
        self._jumps.frombytes(np.column_stack((self._lines + at_J - sums_J + more_J, sums_J)).tobytes())
        rows = last - int(more_J.sum())
        self._lines += last
        self.rows += rows
        return Block(data, rows, quoted), min(start, len(text))

    def _doubtful(self, text: bytes, ends: NDArray[np.int64], line: int, final: bool) -> tuple[int, bytes]:
        """The line after a row that begins at ``line``, and the row with its fields quoted as RFC 4180 asks for.

        The row is empty where more text is needed to decide.
        """
        separator = self.separator.decode()
        lines = (_line(text, ends, number) for number in range(line, len(ends)))
        first = next(lines)
        reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
        fields, n_lines = [], 1
        try:
            fields, n_lines = next(reader), reader.line_num
        except csv.Error as error:
            # The limit of csv on the length of a field (128 KiB) ends the search for the closing mark.
            if not final and "unexpected end" in str(error):
                return line, b""
        apart = [_line(text, ends, number).rstrip("\r\n") for number in range(line, line + n_lines)]
        if len(fields) == self.n_fields and not (n_lines > 1 and self._are_rows(apart)):
            if n_lines > 1:
                self._spanning = _more(self._spanning, self._number(line))
            return line + n_lines, _quoted(fields, separator)
        # MySQL and some crawlers write a mark inside a field as \" and not as "".
        escaped = [one.replace("\0", '"') for one in _lenient(apart[0].replace('\\"', "\0"), separator)]
        for found in (apart[0].split(separator), _lenient(apart[0], separator), escaped):
            if len(found) == self.n_fields:
                self._literal = _more(self._literal, self._number(line))
                return line + 1, _quoted(found, separator)
        raise DataError(
            f"{self.source}: line {self._number(line)} ({apart[0][:60]!r}) cannot be read as {self.n_fields} fields: "
            "is a quotation mark left open?"
        )

    def _are_rows(self, lines: list[str]) -> bool:
        """Whether each of several lines is a row by itself: as many fields as columns, numbers in the same columns.

        Columns with a quotation mark in them are not compared, since a mark makes a number a text.
        """
        rows = [_lenient(line, self.separator.decode()) for line in lines if line.strip()]
        if any(len(fields) != self.n_fields for fields in rows):
            return False
        columns = [column for column in zip(*rows, strict=True) if not any('"' in text for text in column)]
        return all(len({_is_number(text) for text in column}) == 1 for column in columns)

    def _number(self, line: int) -> int:
        return self.first_line + self._lines + line

    def _check_fields(self, extra: NDArray[np.int64], text: bytes, ends: NDArray[np.int64]) -> None:
        many = np.flatnonzero(extra > 0)
        if len(many):
            line = int(many[0])
            shown = _line(text, ends, line).strip()[:60]
            raise DataError(
                f"{self.source}: line {self._number(line)} has {self.n_fields + int(extra[line])} fields instead of "
                f"{self.n_fields} ({shown!r}): correct or quote it"
            )
        short = np.flatnonzero(extra < 0)
        if len(short):
            self._short = _more(self._short, self._number(int(short[0])), len(short))


def _with_last(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each chunk, and whether it is the last one; the last may be empty."""
    for chunk in chunks:
        yield chunk, False
    yield b"", True


def _neighbors(buffer: NDArray[np.uint8], marks: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The bytes before and after each mark; beyond the text is a line end."""
    before, after = buffer[marks - 1], buffer[np.minimum(marks + 1, len(buffer) - 1)]
    if marks[0] == 0:
        before[0] = NEWLINE
    if marks[-1] == len(buffer) - 1:
        after[-1] = NEWLINE
    return before, after


def _check_marks(
    ends: NDArray[np.int64],
    marks: NDArray[np.int64],
    opens: NDArray[np.bool_],
    after_ok: NDArray[np.bool_],
    separators: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lines that are no RFC 4180 rows by themselves, and the separators outside of quoted fields.

    In a well-formed line, the marks at even places begin a field or are the second of a doubled mark; those at odd
    places end a field or are the first of a doubled mark; and their number is even.
    """
    line = ends.searchsorted(marks)
    new = np.diff(line, prepend=-1) != 0
    first = np.flatnonzero(new)
    # The place of the first mark of its line, for each mark and each separator.
    start = first[np.cumsum(new) - 1]
    even = (np.arange(len(marks)) - start) % 2 == 0
    doubled = ~new & (np.diff(marks, prepend=-2) == 1)
    good = np.where(even, opens | doubled, after_ok)
    odd_count = np.diff(np.append(first, len(marks))) % 2 == 1
    doubtful = np.union1d(line[~good], line[first[odd_count]])
    marks_before = marks.searchsorted(separators)
    marks_above = marks.searchsorted(np.append(-1, ends)[ends.searchsorted(separators)])
    return doubtful, separators[(marks_before - marks_above) % 2 == 0]


def _without_values(
    text: bytes, ends: NDArray[np.int64], extra: NDArray[np.int64], separator: bytes, n_fields: int
) -> NDArray[np.int64]:
    """The lines with nothing but blanks and separators; some may be inside a quoted field."""
    starts, nothing = np.append(0, ends[:-1] + 1), b"\r\n " + separator
    likely = np.isin(np.frombuffer(text, np.uint8)[starts], list(nothing))
    lines = np.flatnonzero(likely & ((extra == 1 - n_fields) | (ends - starts <= n_fields)))
    spans = zip(starts[lines].tolist(), ends[lines].tolist(), strict=True)
    return lines[np.array([not text[start:end].strip(nothing) for start, end in spans], np.bool_)]


def _line(text: bytes, ends: NDArray[np.int64], number: int) -> str:
    start = int(ends[number - 1]) + 1 if number else 0
    # Bytes that are not UTF-8 pass unchanged: the parser complains about them, with the line.
    return text[start : int(ends[number]) + 1].decode(errors="surrogateescape")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lenient(line: str, separator: str) -> list[str]:
    """Fields of a line in which a mark closes a field only before a separator: ``"a" b, c",5`` has two."""
    end = f"(?:{re.escape(separator)}|$)"
    pattern = re.compile(rf'(?:"((?:[^"]|"(?!{end}))*)"|([^{re.escape(separator)}]*)){end}')
    fields, at = [], 0
    while at <= len(line) and (found := pattern.match(line, at)):
        fields.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        at = found.end() if found.end() > found.start() and line[found.end() - 1] == separator else len(line) + 1
    return fields


def _quoted(fields: list[str], separator: str) -> bytes:
    """The fields as one row; an empty field stays empty, since a quoted empty text is no null."""
    needs = re.compile(f'["\r\n{re.escape(separator)}]')
    quoted = ('"' + text.replace('"', '""') + '"' if needs.search(text) else text for text in fields)
    return separator.join(quoted).encode(errors="surrogateescape") + b"\n"


def _replaced(
    text: bytes, ends: NDArray[np.int64], rows: list[tuple[int, int, bytes]], empty: NDArray[np.int64]
) -> bytes:
    """The text with some of its lines replaced, and without others."""
    if not rows and not len(empty):
        return text
    buffer, kept = np.frombuffer(text, np.uint8), np.ones(len(text), np.bool_)
    if len(empty):
        starts = np.append(0, ends[:-1] + 1)[empty]
        change = np.zeros(len(text) + 1, np.int8)
        change[starts] += 1
        change[np.minimum(ends[empty] + 1, len(text))] -= 1
        kept = change[: len(text)].cumsum(dtype=np.int8) == 0
    parts, at = [], 0
    for first, after, row in [*rows, (len(ends), len(ends), b"")]:
        end = min(int(ends[first - 1]) + 1 if first else 0, len(text))
        parts += [buffer[at:end][kept[at:end]].tobytes(), row]
        at = int(ends[after - 1]) + 1
    return b"".join(parts)


def _more(seen: tuple[int, int], line: int, rows: int = 1) -> tuple[int, int]:
    """A count of rows with the line of the first one."""
    count, first = seen
    return count + rows, first if count else line
