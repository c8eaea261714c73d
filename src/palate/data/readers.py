"""CSV, TSV and Parquet files to tables and to Datasets.

Text files are read as text and cast by whole columns afterwards, so that an error can name the row and the value.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from palate.data.columns import find_columns, listed
from palate.data.dataset import Dataset
from palate.data.frame import Duplicates, from_frame
from palate.data.parsing import Source
from palate.errors import DataError

HEAD = 65_536
SEPARATORS = (",", "\t", ";", "|")
PARQUET = (".parquet", ".pq")


def read_table(
    path: str | Path,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    names: Sequence[str] | None = None,
) -> pl.DataFrame:
    """A CSV, TSV or Parquet file, also compressed with gzip, as a table.

    Args:
        path: the file; Parquet is known by its first bytes, whatever its name.
        separator: one character; None finds it among comma, tab, semicolon and bar.
        encoding: any that Python knows, such as "latin-1"; None is UTF-8, with or without a byte order mark.
        header: whether the first line holds the names of the columns.
        names: names to use instead, one per column.

    A column of text becomes Int64 where every value is written as an integer would be (so "007" stays text),
    Float64 where every value is a number, else String. Empty fields are nulls.

    Raises:
        DataError: the file is missing, empty, no text, in another encoding, or its lines differ in fields.
    """
    table, _ = _read(Path(path), _Options(separator, encoding, header, names), only=None)
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
    header: bool = True,
    names: Sequence[str] | None = None,
    name: str | None = None,
    explicit: bool | None = None,
    duplicates: Duplicates = "last",
    sentinels: Sequence[float] = (),
    drop_invalid: bool = False,
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
    table, source = _read(path, _Options(separator, encoding, header, names), only=mapped)
    columns = find_columns(table.columns, source=source.name, **mapped)
    return from_frame(
        table.with_columns(_integers(table[column]) for column in (columns.user_id, columns.item_id)),
        user=user,
        item=item,
        rating=rating,
        timestamp=timestamp,
        weight=weight,
        name=name or path.name.split(".")[0],
        explicit=explicit,
        duplicates=duplicates,
        sentinels=sentinels,
        drop_invalid=drop_invalid,
        user_features=None if user_features is None else read_table(user_features, encoding=encoding),
        item_features=None if item_features is None else read_table(item_features, encoding=encoding),
        titles=titles,
        source=source,
    )


@dataclass(frozen=True)
class _Options:
    """The arguments about a text file."""

    separator: str | None
    encoding: str | None
    header: bool
    names: Sequence[str] | None


@dataclass(frozen=True)
class _Layout:
    """Names, separator and encoding of a text file, as given or found in its first lines."""

    names: list[str]
    separator: str
    encoding: str


def _read(path: Path, options: _Options, only: dict[str, str | None] | None) -> tuple[pl.DataFrame, Source]:
    """The columns of a file that ``find_columns(**only)`` names (None: all), text files as text."""
    head = _head(path)
    if head.startswith(b"PAR1"):
        return _read_parquet(path, options.names, only)
    layout = _layout(path, head, options)
    wanted = _wanted(layout.names, only, path.name)
    try:
        table = pl.read_csv(
            path if layout.encoding == "utf-8" else _recoded(path, layout.encoding),
            has_header=options.header,
            separator=layout.separator,
            columns=[layout.names.index(name) for name in wanted],
            infer_schema=False,
            raise_if_empty=False,
        )
    except (pl.exceptions.PolarsError, OSError, EOFError, UnicodeError) as error:
        raise DataError(_diagnose(path, layout, error)) from error
    table.columns = wanted
    blank, quoted = _scan(path)
    return table.head(len(table) - blank), Source(path.name, None if quoted else int(options.header))


def _wanted(names: list[str], only: dict[str, str | None] | None, source: str) -> list[str]:
    if only is None:
        return names
    columns = find_columns(names, source=source, **only)
    used = {columns.user_id, columns.item_id, columns.rating, columns.timestamp}
    return [name for name in names if name in used]


def _read_parquet(
    path: Path, names: Sequence[str] | None, only: dict[str, str | None] | None
) -> tuple[pl.DataFrame, Source]:
    try:
        found = list(pl.read_parquet_schema(path))
        given = _checked_names(names, found, path.name)
        wanted = _wanted(given, only, path.name)
        table = pl.read_parquet(path, columns=[found[given.index(name)] for name in wanted])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path.name}: not a readable Parquet file ({_brief(error)}): is it whole?") from error
    table.columns = wanted
    return table, Source(path.name)


def _head(path: Path) -> bytes:
    """The first bytes of a file, unpacked."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    try:
        with _open(path) as file:
            head = file.read(HEAD)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name}: cannot be read ({_brief(error)}): is the file whole?") from error
    if not head.strip():
        raise DataError(f"{path.name}: the file is empty")
    return head


def _open(path: Path) -> BinaryIO:
    packed = path.suffix == ".gz"
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def _recoded(path: Path, encoding: str) -> bytes:
    """The whole file as UTF-8, the only encoding that polars reads by itself."""
    with _open(path) as file:
        return file.read().decode(encoding).encode()


def _layout(path: Path, head: bytes, options: _Options) -> _Layout:
    separator, encoding = options.separator, options.encoding or "utf-8"
    if separator is not None and len(separator.encode()) != 1:
        raise DataError(f"{path.name}: separator={separator!r}: must be one plain character")
    if options.encoding is None and head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f'{path.name}: the file is UTF-16: pass encoding="utf-16" (--encoding utf-16)')
    if options.encoding is None and b"\0" in head:
        raise DataError(f"{path.name}: not a text file, nor Parquet: CSV, TSV and Parquet can be read")
    try:
        encoding = codecs.lookup(encoding).name
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except LookupError as error:
        raise DataError(f"{path.name}: encoding={encoding!r} is unknown: try utf-8 or latin-1") from error
    except UnicodeDecodeError as error:
        raise DataError(_wrong_encoding(path, encoding, head[: error.start].count(b"\n") + 1)) from error
    first = text.removeprefix("\ufeff").splitlines()[0]
    separator = separator or _sniff(first)
    found = next(csv.reader([first], delimiter=separator), [])
    if options.header and options.names is None and all(map(_is_number, found)):
        raise DataError(
            f"{path.name}: the first line holds only numbers ({first[:60]!r}): if the file has no header, "
            'pass header=False, names=["user_id", "item_id", ...]'
        )
    if not options.header:
        found = [f"column_{number}" for number in range(1, len(found) + 1)]
    return _Layout(_checked_names(options.names, found, path.name), separator, encoding)


def _checked_names(names: Sequence[str] | None, found: list[str], source: str) -> list[str]:
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


def _diagnose(path: Path, layout: _Layout, error: Exception) -> str:
    """One sentence on why polars gave up, found by reading the file again line by line."""
    number = 0
    try:
        if layout.encoding == "utf-8":
            with _open(path) as file:
                for raw in file:
                    number += 1
                    raw.decode()
        with _open(path) as file:
            rows = csv.reader(codecs.getreader(layout.encoding)(file), delimiter=layout.separator)
            for row in rows:
                if len(row) > len(layout.names):
                    fact = f"line {rows.line_num} has {len(row)} fields instead of {len(layout.names)}"
                    return f"{path.name}: {fact} ({layout.separator.join(row)[:60]!r}): correct or quote it"
    except UnicodeDecodeError:
        return _wrong_encoding(path, layout.encoding, number)
    except (OSError, EOFError, csv.Error) as cause:
        return f"{path.name}: cannot be read ({_brief(cause)}): is the file whole?"
    return f"{path.name}: not a well-formed text table ({_brief(error)}): is a quotation mark left open?"


def _wrong_encoding(path: Path, encoding: str, line: int) -> str:
    if encoding == "utf-8":
        return f'{path.name}: line {line} is not UTF-8: pass the encoding, e.g. encoding="latin-1" (--encoding latin-1)'
    return f"{path.name}: the text is not {encoding}: pass another encoding (--encoding)"


def _brief(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__


def _scan(path: Path) -> tuple[int, bool]:
    """Empty lines at the end of a file, and whether quotes may let a row span lines; a packed file is not scanned."""
    if path.suffix == ".gz":
        return 0, True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        tail = text[-HEAD:]
        ends = tail[len(tail.rstrip(b"\r\n")) :].count(b"\n")
        return max(0, ends - 1), text.find(b'"') >= 0


def _integers(text: pl.Series) -> pl.Series:
    """Int64 where every value is written as an integer would be ("7", not "007" or "+7"), else unchanged."""
    if text.dtype != pl.String:
        return text
    for part in (text.head(1000), text):
        numbers = part.cast(pl.Int64, strict=False)
        if not (numbers.cast(pl.String) == part).all() or numbers.null_count() > part.null_count():
            return text
    return numbers


def _typed(text: pl.Series) -> pl.Series:
    whole = _integers(text)
    if whole.dtype != pl.String:
        return whole
    numbers = text.cast(pl.Float64, strict=False)
    plain = not text.str.contains(r"^0\d").any()
    return numbers if plain and numbers.null_count() == text.null_count() < len(text) else text
