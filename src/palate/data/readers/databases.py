"""Databases by SQL: PostgreSQL and others through ADBC, DuckDB and SQLite files; and sheets of Excel workbooks."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import pyarrow as pa

from palate.data.columns import listed
from palate.data.dataset import Note
from palate.data.readers.arrow import BATCH, ArrowTable
from palate.data.readers.options import FrameTable, ReadOptions, checked_names
from palate.data.readers.sources import CLOUD, WEB, Opened, Place, brief, is_url, short_name
from palate.errors import DataError

EXCEL_97 = b"\xd0\xcf\x11\xe0"
SQLITE = b"SQLite format 3\x00"
TABLES = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
)
FETCH = 65_536


def is_database(place: Place) -> bool:
    """Whether a place is the URL of a database."""
    return is_url(place) and urlsplit(str(place)).scheme.lower() not in (*WEB, *CLOUD)


def open_database(url: str, options: ReadOptions, stack: ExitStack) -> ArrowTable:
    """The answer of a database to a query; also of the files ``duckdb:///shop.db`` and ``sqlite:///shop.db``.

    Raises:
        DataError: there is no driver, no connection, no such table, or the query is wrong.
    """
    parts = urlsplit(url)
    scheme, name = parts.scheme.lower(), short_name(url)
    if scheme in ("duckdb", "sqlite"):
        # As in SQLAlchemy: sqlite:///shop.db is a relative path, sqlite:////data/shop.db an absolute one.
        path = unquote(url.split("://", 1)[1].removeprefix("/"))
        return (open_duckdb if scheme == "duckdb" else open_sqlite)(path, name, options, stack)
    scheme = "postgresql" if scheme == "postgres" else scheme
    if scheme != "postgresql" and importlib.util.find_spec(f"adbc_driver_{scheme}") is None:
        raise DataError(
            f"{name}: {scheme}:// cannot be read: choose https, s3, gs, postgresql, duckdb or sqlite, or install the "
            "ADBC driver of this database, or export the table as Parquet"
        )
    module = _driver(f"adbc_driver_{scheme}.dbapi", "PostgreSQL needs its ADBC driver", "sql")
    try:
        connection = stack.enter_context(module.connect(url))
        cursor = stack.enter_context(connection.cursor())
        query = options.query or _all_rows(options.table, lambda: _tables(cursor, TABLES), name)
        cursor.execute(query)
        return _arrow_table(cursor.fetch_record_batch(), name, options)
    except module.Error as error:
        raise DataError(f"{name}: the database answers: {_without_password(brief(error), url)}") from error


def open_duckdb(path: str, name: str, options: ReadOptions, stack: ExitStack) -> ArrowTable:
    """The answer of a DuckDB file to a query, or its only table.

    Raises:
        DataError: DuckDB is not installed, or the file, the table or the query is wrong.
    """
    duckdb = _driver("duckdb", "a DuckDB file needs DuckDB", "sql")
    try:
        connection = stack.enter_context(duckdb.connect(path, read_only=True))
        query = options.query or _all_rows(options.table, lambda: _tables(connection, TABLES), name)
        found = connection.sql(query)
        if found is None:
            raise DataError(f"{name}: the query gives no rows: pass a SELECT")
        # The name of the method changed in DuckDB 1.4.
        read = getattr(found, "to_arrow_reader", None) or found.fetch_arrow_reader
        return _arrow_table(read(BATCH), name, options)
    except duckdb.Error as error:
        raise DataError(f"{name}: the database answers: {brief(error)}") from error


def open_sqlite(path: str, name: str, options: ReadOptions, stack: ExitStack) -> ArrowTable:
    """The answer of an SQLite file to a query, or its only table.

    Raises:
        DataError: the file, the table or the query is wrong.
    """
    names = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        stack.callback(connection.close)
        cursor = connection.cursor()
        query = options.query or _all_rows(options.table, lambda: _tables(cursor, names), name)
        cursor.execute(query)
        stored = [column[0] for column in cursor.description or ()]
        first = cursor.fetchmany(FETCH)
    except sqlite3.Error as error:
        raise DataError(f"{name}: the database answers: {brief(error)}") from error

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        rows = first
        while rows:
            values = dict(zip(stored, zip(*rows, strict=True), strict=True))
            yield pa.RecordBatch.from_pydict({column: _typed(values[column]) for column in columns})
            rows = cursor.fetchmany(FETCH)

    return ArrowTable(name, checked_names(options.names, stored, name), list(map(pl.col, stored)), read)


def open_excel(file: Opened, options: ReadOptions) -> FrameTable:
    """A sheet of an Excel workbook: the named one, else the first.

    Raises:
        DataError: fastexcel is not installed, or there is no such sheet.
    """
    fastexcel = _driver("fastexcel", "an Excel workbook needs fastexcel", "excel")
    with file.seekable() as whole:
        content = whole.read()
    try:
        book = fastexcel.read_excel(content)
        sheet = options.table or book.sheet_names[0]
        if sheet not in book.sheet_names:
            raise DataError(f"{file.name}: no sheet {sheet!r}: the sheets are {listed(book.sheet_names)}")
        frame: pl.DataFrame = book.load_sheet(sheet, header_row=None if options.header is False else 0).to_polars()
    except fastexcel.FastExcelError as error:
        raise DataError(f"{file.name}: not a readable Excel workbook ({brief(error)})") from error
    frame.columns = checked_names(options.names, frame.columns, file.name)
    others = len(book.sheet_names) - 1
    text = f"{file.name}: sheets other than {sheet!r}, not read (--table names one)"
    return FrameTable(file.name, frame, [Note(text, others)] if others and not options.table else [])


def _driver(module: str, need: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"{need}, which is not installed: pip install 'palate[{extra}]'") from error


def _all_rows(table: str | None, tables: Any, name: str) -> str:
    """The query for all rows of a table: the named one, or the only one."""
    if table is None:
        found = tables()
        if len(found) != 1:
            raise DataError(
                f"{name}: the database has {len(found)} tables ({listed(found)}): name one with --table (table=), "
                'or pass --query "SELECT ..." (query=)'
            )
        table = found[0]
    return f"SELECT * FROM {'.'.join(_quoted(part) for part in table.split('.'))}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _tables(cursor: Any, query: str) -> list[str]:
    cursor.execute(query)
    return sorted(row[0] for row in cursor.fetchall())


def _arrow_table(reader: pa.RecordBatchReader, name: str, options: ReadOptions) -> ArrowTable:
    stored = reader.schema.names

    def read(columns: list[str]) -> Iterable[pa.RecordBatch]:
        return (batch.select(columns) for batch in reader)

    return ArrowTable(name, checked_names(options.names, stored, name), list(map(pl.col, stored)), read)


def _typed(values: Sequence[Any]) -> pa.Array:
    """A column of SQLite, in which any row may have another type: text where they differ."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {int} or kinds <= {int, float} or kinds <= {bytes}:
        return pa.array([float(one) for one in values] if kinds == {int, float} else list(values))
    return pa.array([None if one is None else str(one) for one in values])


def _without_password(text: str, url: str) -> str:
    password = re.search(r"://[^/@]*:([^/@]*)@", url)
    return text.replace(password[1], "***") if password and password[1] else text
