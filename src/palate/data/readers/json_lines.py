"""JSON: one record per line, or one array of records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import polars as pl

from palate.data.dataset import Note
from palate.data.readers.nested import flat_columns
from palate.data.readers.options import FrameTable, ReadOptions, Table, checked_names
from palate.data.readers.other_forms import check_object, python_records
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
    text: Iterator[bytes] = recoded(file, encoding)
    if not file.head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        records, text = _wrapped(file, text)
        if records is None:
            return JsonLines(file, whole_lines(text), options.names)
        text = iter([records])
    try:
        frame = pl.read_json(b"".join(text), infer_schema_length=None)
    except (pl.exceptions.PolarsError, UnicodeError) as error:
        raise DataError(f"{file.name}: not well-formed JSON ({brief(error)}): correct it") from error
    frame = frame.select(path.alias(name) for name, path in flat_columns(frame.schema).items())
    frame.columns = checked_names(options.names, frame.columns, file.name)
    return FrameTable(file.name, frame)


def _wrapped(file: Opened, text: Iterator[bytes]) -> tuple[bytes | None, Iterator[bytes]]:
    """The records of a file that is one object with a list of records, else None; and the text again."""
    head = file.head.removeprefix(b"\xef\xbb\xbf").strip()
    first, _, rest = head.partition(b"\n")
    try:
        single = isinstance(json.loads(first), dict) and not rest
    except (ValueError, UnicodeError):  # an object over several lines, or longer than the head
        single = True
    if not single:
        return None, text
    whole = b"".join(text)
    try:
        found = json.loads(whole)
    except (ValueError, UnicodeError):
        return None, iter([whole])
    check_object(file, found)
    lists = [one for one in found.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
    return (json.dumps(lists[0]).encode() if len(lists) == 1 else None), iter([whole])


def _as_text(dtype: Any) -> Any:
    """The type of a column whose values are read as text, so that ids keep their spelling."""
    if isinstance(dtype, pl.Struct):
        return pl.Struct([pl.Field(one.name, _as_text(one.dtype)) for one in dtype.fields])
    return pl.List(_as_text(dtype.inner)) if isinstance(dtype, pl.List) else pl.String


class JsonLines:
    """Records, one per line. Numbers are read as text, so that ids keep their spelling."""

    def __init__(self, file: Opened, chunks: Iterator[bytes], names: Sequence[str] | None) -> None:
        name, first = file.name, next(chunks)
        try:
            self._schema = pl.read_ndjson(first, infer_schema_length=None).schema
        except (pl.exceptions.PolarsError, UnicodeError) as error:
            python = re.match(rb"\s*\{u?'", first) is not None
            remedy = python_records(file) if python else "correct it"
            raise DataError(_broken(name, first, 0, error, remedy)) from error
        self.name = name
        self._columns = flat_columns(self._schema)
        self.names = checked_names(names, list(self._columns), name)
        # Empty lines are no rows, so that the line of a row is not known.
        self.untyped = True
        self.line: Callable[[int], int] | None = None
        self._chunks = chain([first], chunks)

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The rows with the columns of ``wanted``; a record that lacks one has a null there."""
        columns = list(self._columns.values())
        paths = [columns[self.names.index(name)].alias(name) for name in wanted]
        roots = dict.fromkeys(root for path in paths for root in path.meta.root_names())
        schema = {name: _as_text(self._schema[name]) for name in roots}
        done = 0
        for chunk in self._chunks:
            try:
                table = pl.read_ndjson(chunk, schema=schema)
            except (pl.exceptions.PolarsError, UnicodeError) as error:
                raise DataError(_broken(self.name, chunk, done, error)) from error
            done += chunk.count(b"\n")
            yield table.select(paths)

    def notes(self) -> list[Note]:
        """None: each record is a row."""
        return []


def _broken(name: str, text: bytes, lines_above: int, error: Exception, remedy: str = "correct it") -> str:
    for number, line in enumerate(text.split(b"\n")):
        try:
            json.loads(line or "{}")
        except (ValueError, UnicodeError):
            shown = line.decode(errors="replace")[:60]
            return f"{name}: line {lines_above + number + 1} is not a JSON record ({shown!r}): {remedy}"
    return f"{name}: not well-formed JSON lines ({brief(error)}): correct them"
