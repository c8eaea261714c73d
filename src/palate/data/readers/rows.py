"""Tables of any kind, one after another, as one frame with the columns in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa

from palate.data.columns import listed
from palate.data.dataset import Note
from palate.data.parsing import Source, of_lists, unlisted
from palate.data.readers import databases
from palate.data.readers.arrow import IPC, PARQUET, open_arrow
from palate.data.readers.exports import recognized
from palate.data.readers.json_lines import is_json, open_json
from palate.data.readers.layouts import check_shape, open_lines, open_wide
from palate.data.readers.options import SKIP, ReadOptions, Table
from palate.data.readers.other_forms import check_form
from palate.data.readers.sources import Data, Place, folders_left_out, is_url, opened, partition, places, short_name
from palate.data.readers.text import first_lines, open_text
from palate.data.readers.typed import Role, TypedColumn
from palate.data.row_store import SHARD, Spill
from palate.errors import DataError
from palate.progress import Progress, silent


@contextmanager
def open_table(place: Place, options: ReadOptions, progress: Progress = silent) -> Iterator[Table]:
    """The table in a file, whatever its format, or the answer of a database.

    Raises:
        DataError: it cannot be read.
    """
    with ExitStack() as stack:
        if databases.is_database(place):
            yield databases.open_database(str(place), options, stack)
            return
        file = stack.enter_context(opened(place, progress))
        if file.head.startswith((PARQUET, IPC)):
            yield open_arrow(file, options.names, stack)
        elif file.head.startswith(databases.SQLITE):
            yield databases.open_sqlite(str(place), file.name, options, stack)
        elif file.head[8:12] == b"DUCK":
            yield databases.open_duckdb(str(place), file.name, options, stack)
        elif file.head.startswith((b"PK\x03\x04", databases.EXCEL_97)):
            yield databases.open_excel(file, options)
        elif file.head[257:262] == b"ustar":
            raise DataError(f"{file.name}: a tar archive: unpack it and name the file")
        elif is_json(file):
            yield open_json(file, options)
        elif options.layout is not None:
            yield (open_lines if options.layout == "lines" else open_wide)(file, options)
        else:
            check_form(file, first_lines(file, options.encoding)[1])
            if options.interactions:
                check_shape(file, options)
            yield open_text(file, options)


def read_rows(
    data: Data,
    options: ReadOptions,
    choose: Callable[[list[str], str], Mapping[str, Role]],
    progress: Progress = silent,
    spill: Spill | None = None,
) -> tuple[pl.DataFrame, Source]:
    """The rows of all files that ``data`` stands for, and where they come from.

    Args:
        data: a file, a folder, a pattern, a URL, or several of them.
        options: how they are read.
        choose: the columns in use and their roles, of all columns and the name of the source.
        progress: called while files are read.
        spill: keeps the rows in shards; those of a killed run are not made again.

    Raises:
        DataError: a file cannot be read, or has other columns than the first one.
    """
    found = places(data)
    # The first row of each file, its name and its lines: not the table, which keeps the head of its file.
    parts: list[tuple[int, str, Callable[[int], int] | None]] = []
    remarks: dict[str, Note] = {}
    columns: list[str] = []
    wanted: dict[str, TypedColumn] = {}
    rows = empty = listed_rows = 0
    untyped = False
    for place in found:
        values = partition(data, place)
        with open_table(place, options, progress) as given:
            table = recognized(given, options.chosen) if options.interactions else given
            names = [name for name in table.names if name != SKIP]
            # Some programs write a partition's column into its files, too.
            values = {name: value for name, value in values.items() if name not in names}
            names += values
            if any("\0" in name for name in names):
                raise DataError(
                    f"{table.name}: a column name holds a NUL character ({listed(names)}): correct the first line, or "
                    "pass its encoding, such as encoding='utf-16' (--encoding utf-16)"
                )
            if parts:
                _require_same(names, table.name, columns, parts[0][1])
            else:
                columns = names
                wanted = {name: TypedColumn(name, role) for name, role in choose(names, table.name).items()}
                for frame, texts in spill.shards() if spill else ():
                    for one, column in wanted.items():
                        column.map(frame[one], texts.get(one))
            parts.append((rows, table.name, table.line))
            untyped = untyped or table.untyped
            constants = [pl.lit(value, pl.String).alias(one) for one, value in values.items()]
            for batch in table.batches([one for one in wanted if one not in values]):
                whole = batch.with_columns(constants) if constants else batch
                flat, n_empty = unlisted(whole, table.name)
                listed_rows, empty = listed_rows + (len(whole) if flat is not whole else 0), empty + n_empty
                rows += len(flat)
                if spill is not None and rows <= spill.rows:
                    continue
                for one, column in wanted.items():
                    column.add(flat[one], table.untyped or one in values)
                _write_shard(wanted, spill, rows, SHARD)
            for note in table.notes():
                before = remarks.get(note.text)
                remarks[note.text] = note if before is None else replace(note, rows=before.rows + note.rows)
    _write_shard(wanted, spill, rows, 1)
    frame = pl.DataFrame({one: column.take() for one, column in wanted.items()})
    pa.default_memory_pool().release_unused()  # Arrow keeps what its batches took
    name = parts[0][1] if len(parts) == 1 else (short_name(data) if isinstance(data, str) else f"{len(parts)} files")
    remarks |= {note.text: note for note in of_lists(listed_rows, empty)}
    if folders := folders_left_out(data):
        pattern = f"'{str(data).rstrip('/')}/**/*'" if isinstance(data, str | Path) else "'FOLDER/**/*'"
        text = f"taken from the folders {listed(folders)} inside, which are not read: name them, or {pattern}"
        remarks["folders"] = Note(text, 0)
    if len(parts) > 1:
        remarks["files"] = Note(f"{len(parts):,} files read as one table", rows)

    def line(row: int) -> str:
        first, file, number = next(part for part in reversed(parts) if part[0] <= row)
        where = "" if number is None else f"line {number(row - first)}"
        return where if len(parts) == 1 else f"{file} {where}".strip()

    has_lines = len(parts) > 1 or parts[0][2] is not None
    return frame, Source(name, line if has_lines else None, tuple(remarks.values()), untyped, owned=True, spill=spill)


def _write_shard(columns: Mapping[str, TypedColumn], spill: Spill | None, rows: int, least: int) -> None:
    """Write the rows since the last shard, of ``rows`` that were read, if there are ``least``."""
    if spill is None or rows - spill.rows < least:
        return
    parts = {name: column.shard() for name, column in columns.items()}
    texts = {name: text for name, (_, text) in parts.items() if text is not None}
    frame = spill.add({name: column for name, (column, _) in parts.items()}, texts)
    for name, column in columns.items():
        column.map(frame[name], texts.get(name))


def first_rows(data: Data, options: ReadOptions, names: Sequence[str], n_rows: int) -> pl.DataFrame:
    """Some columns of the first rows of up to ten files; no rows where they can be read only once, as from a pipe."""
    found, frames = places(data), [pl.DataFrame(schema=dict.fromkeys(names, pl.String))]
    chosen = found[:: -(-len(found) // 10)]
    if not names or any(is_url(one) or not Path(one).is_file() for one in chosen):
        return frames[0]
    try:
        for place in chosen:
            values, left = partition(data, place), n_rows // len(chosen)
            with open_table(place, options) as given:
                table = recognized(given, options.chosen) if options.interactions else given
                stored = [one for one in names if one in table.names]
                constants = [pl.lit(values.get(one), pl.String).alias(one) for one in names if one not in stored]
                for batch in table.batches(stored or table.names[:1]):
                    frames.append(batch.head(left).with_columns(constants).select(names))
                    left -= len(frames[-1])
                    if not left:
                        break
        return pl.concat([one for one in frames if len(one)] or frames, how="vertical_relaxed")
    except (DataError, pl.exceptions.PolarsError):  # the columns in use could be read: the others are only described
        return frames[0]


def _require_same(names: list[str], source: str, expected: list[str], first: str) -> None:
    if set(names) != set(expected):
        raise DataError(
            f"{source} has the columns {listed(names)}, {first} has {listed(expected)}: files that are read as one "
            "table need the same columns: name the files that belong together"
        )
