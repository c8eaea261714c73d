"""Tables in files, folders, URLs and databases, and Datasets of their rows.

Text is read as text and cast by whole columns afterwards, so that an error can name the row and the value. ``rows``
knows the formats; ``text``, ``arrow``, ``json_lines`` and ``databases`` read one each; ``sources`` opens the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from palate.data.column_report import SAMPLE, SHOWN, unused_columns
from palate.data.columns import find_columns, key_column
from palate.data.dataset import Dataset
from palate.data.duplicates import Duplicates
from palate.data.events import EventWeights
from palate.data.feedback import MinRating
from palate.data.frame import from_frame
from palate.data.id_columns import integers
from palate.data.parsing import listed_cells, of_lists, unlisted
from palate.data.readers.numbers import Decimal, with_points
from palate.data.readers.options import POSITION, ReadOptions, Shape
from palate.data.readers.rows import first_rows, read_rows
from palate.data.readers.sources import Data, Place, places, short_name
from palate.data.readers.typed import Role
from palate.data.row_store import Spill, is_store, load_store
from palate.data.times import TimeUnit
from palate.errors import DataError
from palate.progress import Progress, silent


def read_table(
    data: Data,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    names: Sequence[str] | None = None,
    query: str | None = None,
    table: str | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table in a file, several files, a URL or a database; the format is known by the content, not by the name.

    Args:
        data: CSV, TSV or other delimited text, JSON lines, a JSON array of records, Parquet, Arrow, Excel, DuckDB or
            SQLite, also compressed (gzip, Zstandard, bzip2, xz, LZ4, a zip archive of one file). A path; a folder, a
            pattern such as "log-*.csv" or a list, read as one table with the same columns in each file; "-" for
            standard input; a URL (https, s3, gs); or that of a database ("postgresql://user@host/shop").
        separator: a mark between columns, such as ";", "::" or "tab"; None finds it among comma, tab, semicolon, bar,
            double colon and blanks.
        encoding: any that Python knows, such as "latin-1"; None is UTF-8, with or without a byte order mark.
        header: whether the first line holds the names of the columns; None decides by comparing it with the lines
            below, and refuses a line that looks like a row where no ``names`` are given.
        names: names to use instead, one per column; "_" for a column that is not read.
        query: SQL for a database. table: a table of a database or a sheet of a workbook. One is needed where there
            are several tables.
        progress: called while a long file is read.

    A column of text becomes Int64 where every value is written as an integer would be (so "007" stays text),
    Float64 where every value is a number, else String. Empty fields are nulls.

    Raises:
        DataError: the data is missing, empty or damaged, in another encoding, or its lines differ in fields.
    """
    options = ReadOptions(separator, encoding, header, names, query, table)
    frame, _ = read_rows(data, options, lambda found, _: dict.fromkeys(found, "any"), progress)
    return frame.select(_typed(column) for column in frame)


def read_interactions(
    data: Data,
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    weight: str | None = None,
    event: str | None = None,
    event_weights: EventWeights | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    names: Sequence[str] | None = None,
    query: str | None = None,
    table: str | None = None,
    layout: Shape | None = None,
    missing: float | None = None,
    decimal: Decimal | None = None,
    name: str | None = None,
    explicit: bool | None = None,
    min_rating: MinRating = "auto",
    duplicates: Duplicates = "auto",
    sentinels: Sequence[float] = (),
    drop_invalid: bool = False,
    strip: bool | None = None,
    valid_ids: Sequence[str] = (),
    time_unit: TimeUnit = "auto",
    user_features: Data | None = None,
    item_features: Data | None = None,
    titles: str | None = None,
    progress: Progress = silent,
    spill: Spill | None = None,
) -> Dataset:
    """Interactions of a file, several files, a URL or a database, with feature files, as a validated Dataset.

    Columns are found or given as in ``find_columns``, files are read as in ``read_table`` and rows are judged as
    in ``from_frame``. Only the columns in use are read. ``name`` is the name of the file where it is None.

    Args:
        layout: "lines" for a text file with one line per user (user item item ..., oldest first, with or without the
            number of items), "wide" for a matrix of users by items; None for one row per interaction.
        missing: the value that means no rating in a matrix, such as 99.
        decimal: the decimal mark of ratings and weights; None finds it.
        spill: files that hold the columns instead of memory: see ``palate.prepare``.

    The folder of a row store (``palate.prepare``) is read as it was prepared: of the arguments that say how rows are
    read, only ``min_rating`` and ``name`` apply.

    Raises:
        DataError: the fact, its place (file, row, line, column, value) and a remedy.
    """
    if is_store(data):
        given = {
            "user": user, "item": item, "rating": rating, "timestamp": timestamp, "weight": weight, "event": event,
            "event_weights": event_weights, "separator": separator, "encoding": encoding, "header": header,
            "names": names, "query": query, "table": table, "layout": layout, "missing": missing, "decimal": decimal,
            "explicit": explicit, "duplicates": None if duplicates == "auto" else duplicates,
            "sentinels": sentinels or None, "drop_invalid": drop_invalid or None, "strip": strip,
            "valid_ids": valid_ids or None, "time_unit": None if time_unit == "auto" else time_unit,
            "user_features": user_features, "item_features": item_features, "titles": titles,
        }  # fmt: skip
        if applied := [name for name, value in given.items() if value is not None]:
            raise DataError(
                f"{data} is a row store, whose rows are read already: {', '.join(applied)} cannot change them: prepare "
                "the log again with these options (palate prepare LOG --out STORE)"
            )
        store = load_store(Path(str(data)))
        store = store if name is None else replace(store, name=name)
        return store if min_rating == "auto" else store.with_min_rating(min_rating)
    mapped = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "weight": weight, "event": event}
    chosen = [one for one in mapped.values() if one]
    options = ReadOptions(separator, encoding, header, names, query, table, layout, missing, True, chosen)

    unused: list[str] = []

    def used(found: list[str], source: str) -> dict[str, Role]:
        if POSITION in found and timestamp is None:
            mapped["timestamp"] = POSITION
        columns = find_columns(found, source=source, **mapped)
        unused.extend(one for one in found if one not in columns.used)
        roles: dict[str | None, Role] = {columns.user_id: "id", columns.item_id: "id"}
        roles |= {columns.rating: "number", columns.timestamp: "time"}
        return {one: roles.get(one, "any") for one in found if one in columns.used}

    frame, source = read_rows(data, options, used, progress, spill)
    used_columns = find_columns(frame.columns, source=source.name, **mapped)
    cells = listed_cells(frame, used_columns.user_id, used_columns.item_id) if source.untyped else frame
    if cells is not frame:
        frame, n_empty = unlisted(cells, source.name)
        source = replace(source, line=None, notes=(*source.notes, *of_lists(len(cells), n_empty)))
    number = used_columns.rating
    if number is not None and frame[number].dtype == pl.String:
        numbers, notes = with_points(frame[number], decimal, source.name)
        frame, source = frame.with_columns(numbers), replace(source, notes=(*source.notes, *notes))
        del numbers
    n_rows = len(frame)  # the frame is emptied while its columns are read
    dataset = from_frame(
        frame,
        user=user,
        item=item,
        rating=rating,
        timestamp=mapped["timestamp"],
        weight=weight,
        event=event,
        event_weights=event_weights,
        name=name or _short_name(data),
        explicit=explicit,
        min_rating=min_rating,
        duplicates=duplicates,
        sentinels=sentinels,
        drop_invalid=drop_invalid,
        strip=strip,
        valid_ids=valid_ids,
        # With a unit, numbers of any size are taken.
        time_unit="s" if mapped["timestamp"] == POSITION else time_unit,
        user_features=_features(user_features, encoding, used_columns.user_id, "user"),
        item_features=_features(item_features, encoding, used_columns.item_id, "item"),
        titles=titles,
        source=source,
    )
    rest = first_rows(data, options, unused[:SHOWN], SAMPLE)
    rest = rest.with_columns(pl.lit(None).alias(name) for name in unused[SHOWN:])
    line = dataset.columns.replace(f"time={POSITION} (UTC)", f"time={POSITION}")
    return replace(dataset, columns=line + unused_columns(rest, n_rows))


def _features(data: Data | None, encoding: str | None, column: str, role: str) -> pl.DataFrame | None:
    """A table about users or items, whose ids stay text, since 2.10 and 2.1, or 007 and 7, are different ids."""
    if data is None:
        return None
    frame, _ = read_rows(data, ReadOptions(encoding=encoding), lambda found, _: dict.fromkeys(found, "any"))
    key = key_column(frame.columns, column, role)
    return frame.select(one if one.name == key else _typed(one) for one in frame)


def _short_name(data: Data) -> str:
    """A name for the data set: that of the file without its endings, or of the folder."""
    place: Place = data if isinstance(data, str) or not isinstance(data, Sequence) else places(data)[0]
    return short_name(place).split(".")[0].strip("*_- ") or "data"


def _typed(text: pl.Series) -> pl.Series:
    whole = integers(text)
    if whole.dtype != pl.String:
        return whole
    numbers = text.cast(pl.Float64, strict=False)
    plain = not text.str.contains(r"^0\d").any()
    return numbers if plain and numbers.null_count() == text.null_count() < len(text) else text
