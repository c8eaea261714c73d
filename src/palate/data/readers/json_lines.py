"""JSON: one record per line, or one array of records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import polars as pl

from palate.data.dataset import Note
from palate.data.readers.options import FrameTable, ReadOptions, Table, checked_names
from palate.data.readers.sources import Opened, brief
from palate.data.readers.text import first_lines, recoded, whole_lines
from palate.errors import DataError


def is_json(file: Opened) -> bool:
    """Whether a file begins as a JSON record or an array of such."""
    text = file.head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith(b"{") or (text.startswith(b"[") and text[1:].lstrip()[:1] in (b"{", b"]", b""))


def open_json(file: Opened, options: ReadOptions) -> Table:
    """The table of a JSON file.

    Raises:
        DataError: it is not well formed, or has no records.
    """
    encoding, _ = first_lines(file, options.encoding)
    text = recoded(file, encoding)
    if not file.head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return JsonLines(file.name, whole_lines(text), options.names)
    try:
        frame = pl.read_json(b"".join(text), infer_schema_length=None)
    except (pl.exceptions.PolarsError, UnicodeError) as error:
        raise DataError(f"{file.name}: not well-formed JSON ({brief(error)}): correct it") from error
    frame.columns = checked_names(options.names, frame.columns, file.name)
    return FrameTable(file.name, frame)


class JsonLines:
    """Records, one per line. Numbers are read as text, so that ids keep their spelling."""

    def __init__(self, name: str, chunks: Iterator[bytes], names: Sequence[str] | None) -> None:
        first = next(chunks)
        try:
            self._schema = pl.read_ndjson(first, infer_schema_length=None).schema
        except (pl.exceptions.PolarsError, UnicodeError) as error:
            raise DataError(_broken(name, first, 0, error)) from error
        self.name = name
        self.names = checked_names(names, self._schema.names(), name)
        # Empty lines are no rows, so that the line of a row is not known.
        self.untyped = True
        self.line: Callable[[int], int] | None = None
        self._chunks = chain([first], chunks)

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The rows with the columns of ``wanted``; a record that lacks one has a null there."""
        stored = [self._schema.names()[self.names.index(name)] for name in wanted]
        lists = {name for name in stored if isinstance(self._schema[name], pl.List)}
        schema = {name: pl.List(pl.String) if name in lists else pl.String for name in stored}
        done = 0
        for chunk in self._chunks:
            try:
                table = pl.read_ndjson(chunk, schema=schema)
            except (pl.exceptions.PolarsError, UnicodeError) as error:
                raise DataError(_broken(self.name, chunk, done, error)) from error
            done += chunk.count(b"\n")
            table.columns = list(wanted)
            yield table

    def notes(self) -> list[Note]:
        """None: each record is a row."""
        return []


def _broken(name: str, text: bytes, lines_above: int, error: Exception) -> str:
    for number, line in enumerate(text.split(b"\n")):
        try:
            json.loads(line or "{}")
        except (ValueError, UnicodeError):
            shown = line.decode(errors="replace")[:60]
            return f"{name}: line {lines_above + number + 1} is not a JSON record ({shown!r}): correct it"
    return f"{name}: not well-formed JSON lines ({brief(error)}): correct them"
