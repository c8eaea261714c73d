"""Delimited text: names, separator and encoding from its first lines, then its rows in batches of text columns."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import polars as pl

from palate.data.dataset import Note
from palate.data.readers.first_lines import (
    SAMPLE,
    check_separator,
    comments,
    fields,
    find_separator,
    has_blanks,
    is_data,
    is_single_quoted,
    no_header,
    usual_names,
)
from palate.data.readers.options import ReadOptions, checked_names
from palate.data.readers.other_forms import check_start
from palate.data.readers.quotes import Block, RowReader
from palate.data.readers.sources import HEAD, Opened, brief
from palate.errors import DataError

# A separator of several characters, or blanks, become this byte, since the parser takes one.
UNIT = b"\x1f"
# Hardly any text of any encoding holds these; random or packed bytes have one in nine.
CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1f\x7f]")
# Text in single quotation marks is read with the two kinds of marks exchanged.
EXCHANGED = str.maketrans("\"'", "'\"")


class TextTable:
    """The rows of a delimited text file, from the line after ``skip`` lines on, as columns of text.

    Args:
        file: the file.
        names: of its columns.
        separator: a mark between fields, of any length.
        encoding: of the file.
        skip: lines above the first row.
        single: whether fields are in single quotation marks.
        blanks: whether blanks around separators are no part of the fields.
        keep_empty: whether lines without any value are rows.
        remarks: on the first lines.
    """

    def __init__(
        self,
        file: Opened,
        names: list[str],
        separator: str,
        encoding: str,
        skip: int,
        single: bool = False,
        blanks: bool = False,
        keep_empty: bool = False,
        remarks: Sequence[Note] = (),
    ) -> None:
        self.name, self.names, self.separator = file.name, names, separator
        self._file, self._encoding, self._skip, self._remarks = file, encoding, skip, remarks
        self._single, self._blanks = single, blanks
        self._byte = UNIT if len(separator) > 1 or separator == " " else separator.encode()
        self._reader = RowReader(file.name, self._byte, len(names), skip + 1, keep_empty)
        self.untyped = True
        self.line: Callable[[int], int] | None = self._reader.line

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The rows with the columns of ``wanted``."""
        text = _without_lines(recoded(self._file, self._encoding), self._skip)
        if self._single:
            text = (part.translate(bytes.maketrans(b"\"'", b"'\"")) for part in text)
        if self._byte != self.separator.encode():
            text = (_single(part, self.separator, self.name) for part in whole_lines(text))
        if self._blanks:  # a mark opens a field only next to a separator
            mark = re.escape(self._byte)
            before, after = (
                re.compile(rb'(^|%b) +"' % mark, re.MULTILINE),
                re.compile(rb'" +(%b|\r?$)' % mark, re.MULTILINE),
            )
            text = (
                after.sub(rb'"\1', before.sub(rb'\1"', part)) if b'"' in part else part for part in whole_lines(text)
            )
        columns = [f"c{self.names.index(name)}" for name in wanted]
        for block in self._reader.blocks(text):
            table = _parsed(block, self._byte.decode(), columns, self._reader)
            table.columns = list(wanted)
            if self._byte == UNIT and block.quoted:  # a separator inside a quoted field
                table = table.with_columns(pl.all().str.replace_all(UNIT.decode(), self.separator, literal=True))
            if self._single:
                table = table.with_columns(pl.all().str.replace_many(["'", '"'], ['"', "'"]))
            if self._blanks:
                stripped = table.select(pl.all().str.strip_chars(" "))
                table = stripped.select(pl.when(pl.col(one) != "").then(pl.col(one)).alias(one) for one in wanted)
            yield table

    def notes(self) -> list[Note]:
        """Remarks on the header and on rows that were not one plain line each."""
        forms = {
            "fields in single quotation marks, which were taken off": self._single,
            f"blanks around the separator {self.separator!r}, taken off": self._blanks,
        }
        said = [Note(f"{self.name}: {text}", self._reader.rows) for text, found in forms.items() if found]
        return [*self._remarks, *said, *self._reader.notes()]


def open_text(file: Opened, options: ReadOptions, check: bool = True) -> TextTable:
    """A text file with the names, separator and encoding that are given or found in its first lines.

    Args:
        file: the file.
        options: what is known about it.
        check: refuse a first line that looks like a row where no names are given, and leave out lines without values.

    Raises:
        DataError: the file is not text, or in another encoding, or its names cannot be used.
    """
    encoding, lines = first_lines(file, options.encoding)
    excel = re.fullmatch(r"sep=(.)", lines[0])  # the first line that Excel itself writes and understands
    above = 1 if excel else 0
    lines = lines[above:]
    notes: tuple[Note, ...] = ()
    if head := comments(lines):
        remarks = sum(bool(line.strip()) for line in lines[:head])
        notes = (Note("lines above the table that begin with # or %, left out", remarks),) if remarks else ()
        above, lines = above + head, lines[head:]
    if single := is_single_quoted(lines[:SAMPLE]):
        lines = [line.translate(EXCHANGED) for line in lines]
    separator = options.separator or (excel[1] if excel else None)
    separator = find_separator(lines[:SAMPLE]) if separator is None else check_separator(separator, file.name)
    blanks = has_blanks(lines[1:SAMPLE], separator)
    names, header = options.names, options.header
    if len(separator) == 1 and separator != " ":
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=blanks)
        found, skip = next(reader, []), reader.line_num
    else:
        found, skip = fields(lines[0], separator), 1
    found = [(name.translate(EXCHANGED) if single else name).strip(" ") for name in found]
    found = _with_nameless(found, lines[skip : skip + SAMPLE], separator)
    if check and names is None:
        check_start(file, lines, len(found), separator)
    if header is None:
        rows = [fields(line, separator) for line in lines[skip : skip + SAMPLE] if line.strip()]
        shown = is_data(found, rows)
        # Names for all columns are given for files without a header: without a sign of one, no row is taken for it.
        row = names is not None and not usual_names(found) if shown is None else shown
        header = not row or bool(set(found) & set(options.chosen))
        if check and not header and names is None:
            raise DataError(no_header(file.name, [found, *rows]))
        if not header:
            how = "looks like a row and was" if shown else "may be a row or names of columns; it was"
            remedy = "" if shown else ", as names are given (--header if it holds names)"
            notes += (Note(f"the first line {how} read as {'one' if shown else 'a row'}{remedy}", 1),)
    if not header:
        found, skip = [f"column_{number}" for number in range(1, len(found) + 1)], 0
    found = checked_names(names, found, file.name)
    return TextTable(file, found, separator, encoding, above + skip, single, blanks, not check, notes)


def _with_nameless(found: list[str], lines: Sequence[str], separator: str) -> list[str]:
    """The names with one for a column without: numbers of rows in front, or nothing behind a last separator."""
    rows = [fields(line, separator) for line in lines if line.strip()]
    if len(rows) < 2 or {len(row) for row in rows} != {len(found) + 1}:
        return found
    if not any(row[-1] for row in rows):
        return [*found, ""]
    first = [int(row[0]) if row[0].isdecimal() else -1 for row in rows]
    numbered = first[0] in (0, 1) and first == list(range(first[0], first[0] + len(first)))
    return ["", *found] if numbered else found  # as R writes tables


def first_lines(file: Opened, encoding: str | None) -> tuple[str, list[str]]:
    """The encoding of a text file under its usual name, and its first lines.

    Raises:
        DataError: the file is not text, or in another encoding.
    """
    given = encoding
    if encoding is None and (wide := _wide_encoding(file.head)):
        kind = wide[:6].upper()
        raise DataError(f'{file.name}: the file is {kind}: pass encoding="{wide}" (--encoding {wide})')
    if encoding is None and b"\0" in file.head:
        raise DataError(f"{file.name}: not a text file, nor Parquet: CSV, TSV and Parquet can be read")
    try:
        found = codecs.lookup(encoding or "utf-8")
        if not found._is_text_encoding:  # base64 and rot13 are codecs of Python, but give no text
            raise LookupError
        encoding, whole = found.name, len(file.head) < HEAD
        text = codecs.getincrementaldecoder(encoding)().decode(file.head, whole)
    except LookupError as error:
        raise DataError(f"{file.name}: encoding={encoding!r} is unknown: try utf-8 or latin-1") from error
    except UnicodeError as error:
        line = file.head[: getattr(error, "start", 0)].count(b"\n") + 1
        if given is None and len(CONTROL.findall(file.head)) > len(file.head) / 50:
            raise DataError(
                f"{file.name}: not a text file, nor Parquet: text tables, JSON lines and Parquet can be read"
            ) from error
        raise DataError(_wrong_encoding(file.name, str(encoding), line, file.head)) from error
    if text.startswith("%%MatrixMarket"):
        raise DataError(
            f"{file.name}: a Matrix Market file: read it with scipy.io.mmread, and pass its row, col and data"
        )
    lines = re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))
    # The last line may be cut, or empty after the last line end.
    if len(lines) > 1 and (len(file.head) >= HEAD or not lines[-1]):
        lines.pop()
    while len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    if not any(map(str.strip, lines)):
        raise DataError(f"{file.name}: the file begins with empty lines only: name a file with rows")
    return encoding, lines


def _wide_encoding(head: bytes) -> str:
    """The encoding of text with several bytes per character, by its mark or by its zero bytes; empty if it is not."""
    if head[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "utf-32"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)  # nearly all characters of a table are below 256
    if max(even, odd) < len(head) / 4 or min(even, odd):
        return ""
    return "utf-16-le" if odd else "utf-16-be"


def recoded(file: Opened, encoding: str) -> Iterator[bytes]:
    """The text as UTF-8, the only encoding that polars reads by itself, without a byte order mark."""
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
    # Line ends of old Macs: a carriage return alone.
    old_mac = b"\r" in file.head and b"\n" not in file.head
    for number, chunk in enumerate(file.chunks()):
        try:
            text = chunk if decoder is None else decoder.decode(chunk).encode()
        except UnicodeError as error:
            raise DataError(_wrong_encoding(file.name, encoding, 0)) from error
        text = text.removeprefix(codecs.BOM_UTF8) if number == 0 else text
        yield text.replace(b"\r", b"\n") if old_mac else text


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same text, cut at line ends."""
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        end = text.rfind(b"\n") + 1
        rest = text[end:]
        if end:
            yield text[:end]
    if rest:
        yield rest


def _single(text: bytes, separator: str, source: str) -> bytes:
    """The text with another separator of one byte."""
    if UNIT in text:
        raise DataError(f"{source}: the text has the control character 0x1F, which separator={separator!r} cannot have")
    if separator == " ":
        text = re.sub(rb"(?m)^ +| +(?=\r?$)", b"", text)
        text = re.sub(rb"  +", b" ", text)
    return text.replace(separator.encode(), UNIT)


def _without_lines(chunks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    for chunk in chunks:
        rest = chunk
        while skip and rest:
            _, end, rest = rest.partition(b"\n")
            skip -= len(end)
        if rest:
            yield rest


def _parsed(block: Block, separator: str, columns: list[str], reader: RowReader) -> pl.DataFrame:
    """The text columns of one block; the number of its rows is checked."""
    header = separator.join(f"c{number}" for number in range(reader.n_fields))
    try:
        table = pl.read_csv(
            b"".join([header.encode(), b"\n", block.data]),
            separator=separator,
            quote_char='"' if block.quoted else None,
            columns=columns,
            infer_schema=False,
            raise_if_empty=False,
        )
    except (pl.exceptions.PolarsError, UnicodeError) as error:
        first = reader.rows - block.rows
        for number, line in enumerate(block.data.split(b"\n")):
            try:
                line.decode()
            except UnicodeDecodeError:
                where = reader.line(first + number)
                raise DataError(_wrong_encoding(reader.source, "utf-8", where, block.data)) from error
        raise DataError(f"{reader.source}: not a well-formed text table ({brief(error)}): correct it") from error
    if len(table) != block.rows:
        first, last = reader.line(reader.rows - block.rows), reader.line(reader.rows)
        raise DataError(
            f"{reader.source}: {block.rows:,} rows in lines {first} to {last} were read as {len(table):,}: "
            "correct the quotation marks there"
        )
    return table.select(columns)


def _wrong_encoding(source: str, encoding: str, line: int, text: bytes = b"") -> str:
    if encoding == "utf-8":
        # These bytes are control characters in Latin-1, and the euro sign and curved quotation marks in Windows-1252.
        likely = "cp1252" if re.search(rb"[\x80-\x9f]", text) else "latin-1"
        return f'{source}: line {line} is not UTF-8: pass the encoding, e.g. encoding="{likely}" (--encoding {likely})'
    return f"{source}: the text is not {encoding}: pass another encoding (--encoding)"
