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
        stored: its columns under their own names.
        read: gives the record batches with the listed columns.
    """

    name: str
    names: list[str]
    stored: list[str]
    read: Callable[[list[str]], Iterable[pa.RecordBatch]]
    untyped: bool = False
    line: Callable[[int], int] | None = None

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The rows with the columns of ``wanted``."""
        columns = [self.stored[self.names.index(name)] for name in wanted]
        try:
            for batch in self.read(columns):
                yield pl.DataFrame(
                    {
                        name: plain(batch.column(batch.schema.get_field_index(own)), name)
                        for own, name in zip(columns, wanted, strict=True)
                    }
                )
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
            stored = reader.schema.names

            def checked(_: list[str]) -> Iterator[pa.RecordBatch]:
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    batch.validate(full=True)  # offsets of a damaged file point outside its memory
                    yield batch

            return ArrowTable(file.name, checked_names(names, stored, file.name), stored, checked)
        parquet = pq.ParquetFile(whole)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file.name}: not a readable Parquet file ({brief(error)}): is it whole?") from error
    stored = parquet.schema_arrow.names

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in parquet.iter_batches(BATCH, columns=columns):
            yield batch
            done += len(batch)
            file.progress(ProgressEvent(f"read {file.name}", done, parquet.metadata.num_rows, "row"))

    return ArrowTable(file.name, checked_names(names, stored, file.name), stored, read)


def plain(column: pa.Array, name: str) -> pl.Series:
    """An Arrow column as a polars one; an extension type, such as UUID, by its storage."""
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.large_binary())
    return pl.Series(name, column)
