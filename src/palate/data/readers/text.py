"""Delimited text: names, separator and encoding from its first lines, then its rows in batches of text columns."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from palate.data.columns import listed
from palate.data.readers.quotes import Block, RowReader
from palate.data.readers.sources import Opened, brief
from palate.errors import DataError
from palate.progress import Progress, silent

SEPARATORS = (",", "\t", ";", "|")


@dataclass(frozen=True)
class TextOptions:
    """The arguments about a text file, see ``read_table``."""

    separator: str | None = None
    encoding: str | None = None
    header: bool = True
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Layout:
    """Names, separator and encoding of a text file, and the lines above its first row."""

    names: list[str]
    separator: str
    encoding: str
    skip: int

    def batches(
        self, file: Opened, reader: RowReader, wanted: Sequence[str], progress: Progress = silent
    ) -> Iterator[pl.DataFrame]:
        """The rows of a file as tables of text, with the columns of ``wanted``."""
        text = _without_lines(_recoded(file.chunks(progress), self.encoding, file.name), self.skip)
        columns = [f"c{self.names.index(name)}" for name in wanted]
        for block in reader.blocks(text):
            table = _parsed(block, self, columns, reader)
            table.columns = list(wanted)
            yield table


def find_layout(file: Opened, options: TextOptions) -> Layout:
    """The layout of a text file, as given or found in its first lines.

    Raises:
        DataError: the file is not text, or in another encoding, or its names cannot be used.
    """
    separator, encoding = options.separator, options.encoding or "utf-8"
    if separator is not None and len(separator.encode()) != 1:
        raise DataError(f"{file.name}: separator={separator!r}: must be one plain character")
    if options.encoding is None and file.head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f'{file.name}: the file is UTF-16: pass encoding="utf-16" (--encoding utf-16)')
    if options.encoding is None and b"\0" in file.head:
        raise DataError(f"{file.name}: not a text file, nor Parquet: CSV, TSV and Parquet can be read")
    try:
        encoding = codecs.lookup(encoding).name
        text = codecs.getincrementaldecoder(encoding)().decode(file.head)
    except LookupError as error:
        raise DataError(f"{file.name}: encoding={encoding!r} is unknown: try utf-8 or latin-1") from error
    except UnicodeDecodeError as error:
        raise DataError(_wrong_encoding(file.name, encoding, file.head[: error.start].count(b"\n") + 1)) from error
    lines = text.removeprefix("\ufeff").splitlines()
    separator = separator or _sniff(lines[0])
    reader = csv.reader(lines, delimiter=separator)
    found, skip = next(reader, []), reader.line_num
    if options.header and options.names is None and all(map(_is_number, found)):
        raise DataError(
            f"{file.name}: the first line holds only numbers ({lines[0][:60]!r}): if the file has no header, "
            'pass header=False, names=["user_id", "item_id", ...]'
        )
    if not options.header:
        found, skip = [f"column_{number}" for number in range(1, len(found) + 1)], 0
    return Layout(checked_names(options.names, found, file.name), separator, encoding, skip)


def checked_names(names: Sequence[str] | None, found: list[str], source: str) -> list[str]:
    """The given names, else those found.

    Raises:
        DataError: their number is wrong, or one occurs twice.
    """
    chosen = found if names is None else list(names)
    if len(chosen) != len(found):
        raise DataError(f"{source}: {len(chosen)} names for {len(found)} columns: give one name per column")
    twice = [name for name in dict.fromkeys(chosen) if chosen.count(name) > 1]
    if twice:
        raise DataError(f"{source}: column {listed(twice)} occurs more than once: rename, or pass names=")
    return chosen


def _is_number(text: str) -> bool:
    return text.strip().lstrip("+-").replace(".", "", 1).isdigit()


def _sniff(line: str) -> str:
    """The separator that gives the first line the most fields; the comma where none does."""
    return max(SEPARATORS, key=lambda separator: len(next(csv.reader([line], delimiter=separator))))


def _recoded(chunks: Iterable[bytes], encoding: str, source: str) -> Iterator[bytes]:
    """The text as UTF-8, the only encoding that polars reads by itself, without a byte order mark."""
    decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
    for number, chunk in enumerate(chunks):
        try:
            text = chunk if decoder is None else decoder.decode(chunk).encode()
        except UnicodeError as error:
            raise DataError(_wrong_encoding(source, encoding, 0)) from error
        yield text.removeprefix(codecs.BOM_UTF8) if number == 0 else text


def _without_lines(chunks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    for chunk in chunks:
        rest = chunk
        while skip and rest:
            _, end, rest = rest.partition(b"\n")
            skip -= len(end)
        if rest:
            yield rest


def _parsed(block: Block, layout: Layout, columns: list[str], reader: RowReader) -> pl.DataFrame:
    """The text columns of one block; the number of its rows is checked."""
    separator = layout.separator
    header = separator.join(f"c{number}" for number in range(len(layout.names)))
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
                raise DataError(_wrong_encoding(reader.source, "utf-8", reader.line(first + number))) from error
        raise DataError(f"{reader.source}: not a well-formed text table ({brief(error)}): correct it") from error
    if len(table) != block.rows:
        first, last = reader.line(reader.rows - block.rows), reader.line(reader.rows)
        raise DataError(
            f"{reader.source}: {block.rows:,} rows in lines {first} to {last} were read as {len(table):,}: "
            "correct the quotation marks there"
        )
    return table.select(columns)


def _wrong_encoding(source: str, encoding: str, line: int) -> str:
    if encoding == "utf-8":
        return f'{source}: line {line} is not UTF-8: pass the encoding, e.g. encoding="latin-1" (--encoding latin-1)'
    return f"{source}: the text is not {encoding}: pass another encoding (--encoding)"
