"""Parquet, Arrow files and answers of databases: batches of Arrow columns to polars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from palate.data.dataset import Note
from palate.data.readers.nested import flat_columns
from palate.data.readers.options import checked_names
from palate.data.readers.sources import Opened, brief
from palate.errors import DataError
from palate.progress import ProgressEvent

BATCH = 1 << 18
PARQUET, IPC = b"PAR1", b"ARROW1"


@dataclass
class ArrowTable:
    """A table that comes as record batches.

    Args:
        name: its name in messages.
        names: its columns under the names that are used.
        paths: where each of them is stored; fields of objects, and of the objects in lists, are columns.
        read: gives the record batches with the listed columns.
    """

    name: str
    names: list[str]
    paths: list[pl.Expr]
    read: Callable[[list[str]], Iterable[pa.RecordBatch]]
    untyped: bool = False
    line: Callable[[int], int] | None = None

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The rows with the columns of ``wanted``."""
        paths = [self.paths[self.names.index(name)].alias(name) for name in wanted]
        stored = list(dict.fromkeys(root for path in paths for root in path.meta.root_names()))
        try:
            for batch in self.read(stored):
                columns = {own: plain(batch.column(batch.schema.get_field_index(own)), own) for own in stored}
                yield pl.DataFrame(columns).select(paths)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.name}: cannot be read ({brief(error)}): is it whole?") from error

    def notes(self) -> list[Note]:
        """None: the rows are as they are stored."""
        return []


def open_arrow(file: Opened, names: Sequence[str] | None, stack: ExitStack) -> ArrowTable:
    """A Parquet or Arrow file; it stays open as long as the stack.

    Raises:
        DataError: the file is damaged, or the number of names is wrong.
    """
    whole = stack.enter_context(file.seekable())
    try:
        if file.head.startswith(IPC):
            reader = pa.ipc.open_file(whole)

            def checked(_: list[str]) -> Iterator[pa.RecordBatch]:
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    batch.validate(full=True)  # offsets of a damaged file point outside its memory
                    yield batch

            return _table(file.name, names, reader.schema, checked)
        parquet = pq.ParquetFile(whole)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last one: a damaged name of a column
        raise DataError(f"{file.name}: not a readable Parquet file ({brief(error)}): is it whole?") from error

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in parquet.iter_batches(BATCH, columns=columns):
            yield batch
            done += len(batch)
            file.progress(ProgressEvent(f"read {file.name}", done, parquet.metadata.num_rows, "row"))

    return _table(file.name, names, parquet.schema_arrow, read)


def _table(
    name: str, names: Sequence[str] | None, schema: pa.Schema, read: Callable[[list[str]], Iterable[pa.RecordBatch]]
) -> ArrowTable:
    paths = {}
    for one in schema:
        paths[one.name] = pl.col(one.name)
        if pa.types.is_struct(one.type) or pa.types.is_list(one.type) or pa.types.is_large_list(one.type):
            kind = pl.Series(one.name, pa.array([], one.type)).dtype
            del paths[one.name]
            paths |= flat_columns({one.name: kind})
    return ArrowTable(name, checked_names(names, list(paths), name), list(paths.values()), read)


def plain(column: pa.Array, name: str) -> pl.Series:
    """An Arrow column as a polars one; an extension type, such as UUID, by its storage."""
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.large_binary())
    return pl.Series(name, column)
