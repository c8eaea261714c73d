"""CSV, TSV and Parquet files to tables and to Datasets.

Text files are read as text and cast by whole columns afterwards, so that an error can name the row and the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from palate.data.columns import find_columns
from palate.data.dataset import Dataset
from palate.data.feedback import MinRating
from palate.data.frame import Duplicates, from_frame
from palate.data.id_columns import integers
from palate.data.parsing import Source
from palate.data.readers.first_lines import SKIP
from palate.data.readers.sources import Opened, brief, opened
from palate.data.readers.text import TextOptions, checked_names, find_layout
from palate.data.times import TimeUnit
from palate.errors import DataError


def read_table(
    path: str | Path,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    names: Sequence[str] | None = None,
) -> pl.DataFrame:
    """A CSV, TSV or Parquet file, also compressed with gzip, as a table.

    Args:
        path: the file; Parquet is known by its first bytes, whatever its name.
        separator: a mark between columns, such as ";", "::" or "tab"; None finds it among comma, tab, semicolon, bar,
            double colon and blanks.
        encoding: any that Python knows, such as "latin-1"; None is UTF-8, with or without a byte order mark.
        header: whether the first line holds the names of the columns; None decides by comparing it with the lines
            below, and refuses a line that looks like a row where no ``names`` are given.
        names: names to use instead, one per column; "_" for a column that is not read.

    A column of text becomes Int64 where every value is written as an integer would be (so "007" stays text),
    Float64 where every value is a number, else String. Empty fields are nulls.

    Raises:
        DataError: the file is missing, empty, no text, in another encoding, or its lines differ in fields.
    """
    table, _ = _read(Path(path), TextOptions(separator, encoding, header, names), only=None)
    return table.select(_typed(column) for column in table)


def read_interactions(
    path: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    weight: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    names: Sequence[str] | None = None,
    name: str | None = None,
    explicit: bool | None = None,
    min_rating: MinRating = "auto",
    duplicates: Duplicates = "last",
    sentinels: Sequence[float] = (),
    drop_invalid: bool = False,
    strip: bool | None = None,
    valid_ids: Sequence[str] = (),
    time_unit: TimeUnit = "auto",
    user_features: str | Path | None = None,
    item_features: str | Path | None = None,
    titles: str | None = None,
) -> Dataset:
    """One file of interactions, with feature files where there are some, as a validated Dataset.

    Columns are found or given as in ``find_columns``, files are read as in ``read_table`` and rows are judged as
    in ``from_frame``. Only the columns in use are read. ``name`` is the name of the file where it is None.

    Raises:
        DataError: the fact, its place (file, row, line, column, value) and a remedy.
    """
    path = Path(path)
    mapped = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "weight": weight}
    table, source = _read(path, TextOptions(separator, encoding, header, names), only=mapped)
    return from_frame(
        table,
        user=user,
        item=item,
        rating=rating,
        timestamp=timestamp,
        weight=weight,
        name=name or path.name.split(".")[0],
        explicit=explicit,
        min_rating=min_rating,
        duplicates=duplicates,
        sentinels=sentinels,
        drop_invalid=drop_invalid,
        strip=strip,
        valid_ids=valid_ids,
        time_unit=time_unit,
        user_features=None if user_features is None else read_table(user_features, encoding=encoding),
        item_features=None if item_features is None else read_table(item_features, encoding=encoding),
        titles=titles,
        source=source,
    )


def _read(path: Path, options: TextOptions, only: dict[str, str | None] | None) -> tuple[pl.DataFrame, Source]:
    """The columns of a file that ``find_columns(**only)`` names (None: all), text files as text."""
    with opened(path) as file:
        if file.head.startswith(b"PAR1"):
            return _read_parquet(file, options.names, only)
        layout = find_layout(file, options, tuple((only or {}).values()))
        wanted = _wanted(layout.names, only, path.name)
        reader = layout.reader(file)
        batches = list(layout.batches(file, reader, wanted))
    table = pl.concat(batches) if batches else pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
    notes = (*layout.notes, *reader.notes())
    return table, Source(path.name, lambda row: f"line {reader.line(row)}", notes, untyped=True)


def _wanted(names: list[str], only: dict[str, str | None] | None, source: str) -> list[str]:
    names = [name for name in names if name != SKIP]
    if only is None:
        return names
    columns = find_columns(names, source=source, **only)
    used = {columns.user_id, columns.item_id, columns.rating, columns.timestamp}
    return [name for name in names if name in used]


def _read_parquet(
    file: Opened, names: Sequence[str] | None, only: dict[str, str | None] | None
) -> tuple[pl.DataFrame, Source]:
    data = file.path if not file.packed else b"".join(file.chunks())
    try:
        found = list(pl.read_parquet_schema(data))
        given = checked_names(names, found, file.name)
        wanted = _wanted(given, only, file.name)
        table = pl.read_parquet(data, columns=[found[given.index(name)] for name in wanted])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file.name}: not a readable Parquet file ({brief(error)}): is it whole?") from error
    table.columns = wanted
    return table, Source(file.name)


def _typed(text: pl.Series) -> pl.Series:
    whole = integers(text)
    if whole.dtype != pl.String:
        return whole
    numbers = text.cast(pl.Float64, strict=False)
    plain = not text.str.contains(r"^0\d").any()
    return numbers if plain and numbers.null_count() == text.null_count() < len(text) else text
