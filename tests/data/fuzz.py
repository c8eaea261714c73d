"""Random tables of every form, by seed: files, dataframes and options as people have them, and worse.

Whatever is read, the outcome is a Dataset or a PalateError of one line; never another exception, a warning, a word on
standard error, or fewer rows than the source has without a note that counts them.

    python tests/data/fuzz.py 20000         # make fuzz
    python tests/data/fuzz.py 1 --first 37  # one input again
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import os
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from palate.data.audit import audit
from palate.data.columns import one_line
from palate.data.dataset import Dataset
from palate.data.frame import from_frame, to_frame
from palate.data.readers import read_interactions, read_table
from palate.errors import PalateError

NAMES = {
    "user": ["user", "user_id", "userId", "customer", "visitorid", "session_id", "user_id:token", "User ID"],
    "item": ["item", "item_id", "movieId", "sku", "product", "url", "isbn", "item_id:token"],
    "rating": ["rating", "stars", "weight", "qty", "hours", "label", "clicked", "plays", "rating:float"],
    "timestamp": ["timestamp", "time", "date", "ts", "created_at", "event_time", "timestamp:float"],
    "event": ["event", "action", "behavior", "event_type"],
    "extra": ["price", "note", "Unnamed: 0", "genre", "tags", "column_1", "x", "_"],
}
ODD_NAMES = ["", " ", "user", "item", "Größe", "1", "a,b", 'a"b', "a\nb", "\ufeffuser", "_", "名", "user_id", "x" * 300]
ODD = [
    *("", " ", "nan", "NULL", "\\N", "None", "NA", "#N/A", "0", "-1", "-0", "+7", "007", "7.0", " 7", "7 ", "1_000"),
    *("1e999", "inf", "-inf", "9" * 400, "9223372036854775808", "-9223372036854775809", "1e-400", "0x1F", ".", "-"),
    *("1,5", "1.234,5", "1,234", "12.5%", "$3", "\u0661\u0662", "½", "true", "FALSE", "{}", "[1]", '"', '""', "'"),
    *('u"1', '"u1', '32"', "a;b", "a\tb", "a,b", "a::b", "a|b", "\x0b", "\x1f", "\x85", "\u2028", "\x1b[31m", "\x7f"),
    *("\u200b", "é", "e\u0301", "x\u00a0", "\ufeffu1", "𝒳", "🎬", "\u202eabc", "user", "item", "rating", "=1+1"),
    *("2021-13-45", "12/31/2015", "31/12/2015", "0000-00-00", "1970-01-01", "9999-12-31", "1", "20210913", "2015"),
    *("1e18", "1600000000", "1600000000000", "1.6e9", "Sep 13, 2021", "24:00", "a\nb", "a\r\nb", "a\rb", "\\", "#"),
]
EVENTS = ["view", "click", "cart", "purchase", "return", "hide", "View", " view", "foo", ""]
ENCODINGS = ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "shift_jis", "gb18030", "utf-32"]
COUNTED = ("dropped", "refused")


@dataclass
class Input:
    """Something to read.

    Args:
        what: a description.
        read: reads it.
        rows: its rows, where they can be counted.
    """

    what: str
    read: Callable[[], Dataset]
    rows: int | None = None


@dataclass
class Columns:
    """A table as text: names, and the values of each column."""

    roles: list[str]
    names: list[str]
    values: list[list[str]] = field(default_factory=list)

    def rows(self) -> list[tuple[str, ...]]:
        return list(zip(*self.values, strict=True))


def make_input(seed: int, folder: Path) -> Input:
    """The input of a seed; its files are written into the folder."""
    random = Random(seed)
    one = _frame(random) if random.random() < 0.35 else _file(random, folder)
    return Input(f"seed {seed}: {one.what}", one.read, one.rows)


def problem(one: Input, stderr: Callable[[], str]) -> str | None:
    """What is wrong with the outcome of an input, or None."""
    stderr()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = one.read()
            found = _checked(dataset, one.rows)
    except PalateError as error:
        found = _unclear(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of polars is no Exception
        found = "".join(traceback.format_exception(error)[-6:])
    written = stderr()
    return found or (f"on standard error: {written}" if written else None)


@contextmanager
def watched_stderr() -> Iterator[Callable[[], str]]:
    """Gives what was written to the file descriptor of standard error since the last call."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        done = 0

        def written() -> str:
            nonlocal done
            file.seek(done)
            text = file.read()
            done += len(text)
            return text.decode(errors="replace")

        try:
            yield written
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _checked(dataset: Dataset, rows: int | None) -> str | None:
    texts = [dataset.columns, *map(str, dataset.notes), dataset.name]
    if bad := next(filter(None, map(_unclear, texts)), None):
        return bad
    kept = len(dataset.interactions)
    if len(to_frame(dataset)) != kept or not np.isfinite(dataset.interactions.weight).all():
        return "the rows are not whole"
    if not kept or len(dataset.users) < 2 or len(dataset.items) < 2:
        return "too few rows, users or items"
    if dataset.interactions.time is not None and not np.isfinite(dataset.interactions.time).all():
        return "a time that is none"
    assert dataset.fingerprint.rows == kept
    for finding in audit(dataset).findings:
        if bad := _unclear(finding.what):
            return bad
    told = sum(note.rows for note in dataset.notes if note.kind in COUNTED)
    first = sum(note.text.startswith("the first line looks like a row") for note in dataset.notes)
    lists = any(note.text.startswith("lists in a row") for note in dataset.notes)  # a row becomes several
    if rows is not None and not lists and kept + told not in (rows, rows + first):
        return f"{kept} rows and {told} dropped are not {rows}: {dataset.notes}"
    return None


def _unclear(text: str) -> str | None:
    return None if len(text) < 3000 and one_line(text) == text else f"not one plain line: {text!r}"


# Values


def _columns(random: Random) -> Columns:
    roles = ["user", "item", *(one for one in ("rating", "timestamp", "event", "extra") if random.random() < 0.5)]
    random.shuffle(roles)
    n_rows = random.choice([0, 1, 2, 3, 8, 30, 60])
    names = [random.choice(NAMES[role]) if random.random() < 0.95 else random.choice(ODD_NAMES) for role in roles]
    return Columns(roles, names, [_values(random, role, n_rows) for role in roles])


def _values(random: Random, role: str, n_rows: int) -> list[str]:
    style = {"user": _id, "item": _id, "rating": _rating, "timestamp": _time, "event": _event, "extra": _extra}[role](
        random
    )
    odd = random.choice([0.0, 0.0, 0.0, 0.02, 0.2, 1.0])
    chosen = random.sample(ODD, 3)
    values = [random.choice(chosen) if random.random() < odd else style() for _ in range(n_rows)]
    return [random.choice(["", "NA", "0"])] * n_rows if random.random() < 0.02 else values


def _id(random: Random) -> Callable[[], str]:
    start = random.choice([0, 1, 10**9, 2**53, 2**63 - 5, 2**64, -5])
    return random.choice(
        [
            lambda: str(start + random.randrange(12)),
            lambda: f"u{random.randrange(12)}",
            lambda: f"{random.randrange(12):03}",
            lambda: f"{random.randrange(12)}.0",
            lambda: random.choice("aAbBäÄß字é"),
            lambda: random.choice(["a", "b", " a", "b ", "c\u200b"]),
            lambda: f"{random.randrange(9)}.{random.randrange(99)}E+{random.randrange(20)}",
            lambda: f"Movie, The ({random.randrange(9)})",
            lambda: f"{random.getrandbits(128):032x}",
        ]
    )


def _rating(random: Random) -> Callable[[], str]:
    return random.choice(
        [
            lambda: str(random.randint(1, 5)),
            lambda: str(random.randint(0, 10) / 2),
            lambda: f"{random.random() * 5:.3f}".replace(".", ","),
            lambda: f"{random.lognormvariate(2, 3):.2f}",
            lambda: f"{random.randrange(10**6):,}",
            lambda: str(random.randint(0, 1)),
            lambda: random.choice(["true", "false"]),
            lambda: str(random.choice([-1, 1])),
            lambda: "1",
            lambda: f"{random.gauss(0, 1) * 10 ** random.randint(-45, 38):g}",
        ]
    )


def _time(random: Random) -> Callable[[], str]:
    def at() -> datetime:
        return datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=random.randrange(2 * 10**8))

    styles = [
        lambda: str(int(at().timestamp())),
        lambda: str(int(at().timestamp() * 1000)),
        lambda: str(int(at().timestamp() * 10**9)),
        lambda: at().isoformat(),
        lambda: at().strftime("%Y-%m-%d %H:%M:%S"),
        lambda: at().strftime("%Y-%m-%d"),
        lambda: at().strftime("%d.%m.%Y"),
        lambda: at().strftime("%m/%d/%Y %H:%M"),
        lambda: at().strftime("%Y%m%d"),
        lambda: at().strftime("%Y%m%d%H%M%S"),
        lambda: at().strftime("%b %d, %Y"),
        lambda: at().strftime("%a, %d %b %Y %H:%M:%S GMT"),
        lambda: str(random.randrange(100)),
        lambda: f"{random.random() * 50_000:.4f}",
    ]
    if random.random() < 0.8:
        styles = [random.choice(styles)]

    def one() -> str:
        return random.choice(styles)()

    return one


def _event(random: Random) -> Callable[[], str]:
    few = random.sample(EVENTS, 3)
    return lambda: random.choice(few)


def _extra(random: Random) -> Callable[[], str]:
    return lambda: random.choice(ODD) if random.random() < 0.3 else f"{random.random():.3f}"


# Files


def _file(random: Random, folder: Path) -> Input:
    columns, options = _columns(random), _options(random)
    form = random.choices(list(FORMS), [12, 3, 2, 2, 1, 2, 2, 1])[0]
    content, rows, more = FORMS[form](random, columns)
    options = {**options, **{name: value for name, value in more.items() if random.random() < 0.95}}
    clean = options.items() >= more.items() and not {"header", "layout", "separator", "encoding", "names"} & (
        options.keys() - more.keys()
    )
    if random.random() < 0.25:
        content, clean = _damaged(random, content), False
    if random.random() < 0.25:
        packed, form = _packed(random, content, form)
        content, clean = (_damaged(random, packed), False) if random.random() < 0.3 else (packed, clean)
    path = folder / random.choice(["log.csv", "log.tsv", "log.jsonl", "log.parquet", "log.gz", "log", "log.zip"])
    path.write_bytes(content)
    for role in ("user_features", "item_features"):
        if random.random() < 0.05:
            other, _, _ = FORMS["csv"](random, _columns(random))
            (folder / role).write_bytes(other)
            options[role] = folder / role

    def read() -> Dataset:
        if random.random() < 0.1:
            read_table(path)
        return read_interactions(path, **options)

    return Input(f"{form} {options}\n{content[:2000]!r}", read, rows if clean else None)


def _csv(random: Random, columns: Columns) -> tuple[bytes, int | None, dict[str, Any]]:
    """Delimited text, mostly with a header, mostly well quoted."""
    separator = random.choices([",", "\t", ";", "|", "::", " "], [8, 4, 3, 2, 2, 1])[0]
    rows, options = columns.rows(), dict[str, Any]()
    header = random.random() < 0.85
    if not header:
        options = {"header": False, "names": [role if role != "extra" else "_" for role in columns.roles]}
    lines = [tuple(columns.names), *rows] if header else rows
    countable, end = True, random.choice(["\n", "\n", "\r\n", "\r"])
    if len(separator) > 1 or separator == " " or random.random() < 0.2:
        text = end.join(separator.join(row) for row in lines) + random.choice(["", end, end * 3])
        countable = not any(set(value) & set(separator + ' "\r\n\x1f') or not value for row in lines for value in row)
    else:
        out = io.StringIO()
        quoting = random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        mark = random.choice(['"', '"', '"', "'"]) if quoting == csv.QUOTE_ALL else '"'
        csv.writer(out, delimiter=separator, lineterminator=end, quoting=quoting, quotechar=mark).writerows(lines)
        text = out.getvalue() + random.choice(["", end])
        countable = mark == '"' and not any(set(value) & set("\r\n") for row in lines for value in row)
    if countable and random.random() < 0.1:
        text = text.replace(end, end * random.choice([2, 3]))
    encoding = random.choice(ENCODINGS) if random.random() < 0.25 else "utf-8"
    if encoding not in ("utf-8", "utf-8-sig"):
        options["encoding"] = encoding
    return text.encode(encoding, errors="replace"), len(rows) if countable else None, options


def _json_lines(random: Random, columns: Columns) -> tuple[bytes, int | None, dict[str, Any]]:
    lines = [json.dumps(record, ensure_ascii=random.random() < 0.5) for record in _records(random, columns)]
    return random.choice(["\n", "\r\n", "\n\n"]).join(lines).encode(), _unlisted(lines), {}


def _json_array(random: Random, columns: Columns) -> tuple[bytes, int | None, dict[str, Any]]:
    records = _records(random, columns)
    text = json.dumps(records, indent=random.choice([None, 1]))
    return text.encode(), _unlisted([text], len(records)), {}


def _records(random: Random, columns: Columns) -> list[dict[str, Any]]:
    typed = random.random() < 0.5
    lacking = random.random() < 0.3
    return [
        {
            name: _typed(random, value) if typed else value
            for name, value in zip(columns.names, row, strict=True)
            if not (lacking and random.random() < 0.05)
        }
        for row in columns.rows()
    ]


def _typed(random: Random, text: str) -> Any:
    """A number where the text is one, sometimes a null, a truth value, a list or a record."""
    if random.random() < 0.02:
        return random.choice([None, True, [1, 2], [], ["a"], {"a": 1}, {}, 1.5, 2**70, "", [[1]], [None]])
    try:
        number = float(text)
    except ValueError:
        return text
    return number if abs(number) < 1e300 and random.random() < 0.9 else text


def _unlisted(lines: list[str], rows: int | None = None) -> int | None:
    """The number of records, where none holds a list that is several rows."""
    return None if any("[" in line[1:] for line in lines) else len(lines) if rows is None else rows


def _binary(random: Random, columns: Columns) -> tuple[bytes, int | None, dict[str, Any]]:
    frame = _polars(random, columns)
    out = io.BytesIO()
    try:
        if random.random() < 0.7:
            frame.write_parquet(out)
        else:
            frame.write_ipc(out)
    except BaseException:  # a type that the format cannot hold
        return b"", None, {}
    lists = any(isinstance(dtype, pl.List | pl.Array) for dtype in frame.dtypes)
    return out.getvalue(), None if lists else len(frame), {}


def _sqlite(random: Random, columns: Columns) -> tuple[bytes, int | None, dict[str, Any]]:
    import sqlite3

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        connection = sqlite3.connect(path)
        try:
            names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns.names)
            connection.execute(f"CREATE TABLE log ({names})")
            marks = ", ".join("?" * len(columns.names))
            rows = [[_typed(random, value) for value in row] for row in columns.rows()]
            plain = [[value if isinstance(value, str | float | None) else str(value) for value in row] for row in rows]
            connection.executemany(f"INSERT INTO log VALUES ({marks})", plain)
            connection.commit()
        except sqlite3.Error:
            pass
        finally:
            connection.close()
        return path.read_bytes(), None, {}


def _lines(random: Random, columns: Columns) -> tuple[bytes, int | None, dict[str, Any]]:
    item = _id(random)
    lines = []
    for user in range(random.choice([0, 1, 3, 20])):
        items = [item().replace(" ", "") for _ in range(random.randrange(6))]
        lines.append(" ".join([str(user), *items]))
    countable = not any(set(line) & set(",\t;|\u200b") for line in lines)
    rows = sum(len(line.split(" ")) - 1 for line in lines)
    return "\n".join(lines).encode(), rows if countable else None, {"layout": "lines", "separator": "blank"}


def _wide(random: Random, columns: Columns) -> tuple[bytes, int | None, dict[str, Any]]:
    missing, width = random.choice(["99", "", "-1", "NaN"]), random.choice([1, 3, 12])
    lines = [
        ",".join(random.choice([missing, f"{random.random() * 5:.2f}"]) for _ in range(width))
        for _ in range(random.choice([0, 1, 3, 20]))
    ]
    return "\n".join(lines).encode(), None, {"layout": "wide", "missing": random.choice([99.0, -1.0])}


def _noise(random: Random, columns: Columns) -> tuple[bytes, int | None, dict[str, Any]]:
    alphabet = random.choice([bytes(range(256)), b'ab,"\n\r 1', b"\t1234\n.", b'{}[]":,\n1a ', "äé\u2028,\n".encode()])
    return bytes(random.choice(alphabet) for _ in range(random.randrange(200))), None, {}


FORMS = {
    "csv": _csv,
    "json lines": _json_lines,
    "json array": _json_array,
    "binary": _binary,
    "sqlite": _sqlite,
    "lines": _lines,
    "wide": _wide,
    "noise": _noise,
}


def _damaged(random: Random, content: bytes) -> bytes:
    for _ in range(random.choice([1, 1, 3])):
        at = random.randrange(len(content) + 1)
        other = random.randrange(len(content) + 1)
        content = random.choice(
            [
                content[:at],
                content[at:],
                content[:at]
                + random.choice([b'"', b"\0", b"\xff", b"\n", b",", b"\r", b"\x80", b"\n\n"])
                + content[at:],
                content[:at] + bytes([random.randrange(256)]) + content[at + 1 :],
                content[: max(at, other)] + content[min(at, other) :],
                content[: min(at, other)] + content[max(at, other) :],
                b"\n" + content,
            ]
        )
    return content


def _packed(random: Random, content: bytes, form: str) -> tuple[bytes, str]:
    def zipped() -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for number in range(random.choice([1, 1, 1, 0, 2])):
                archive.writestr(f"part-{number}.csv", content)
        return out.getvalue()

    ways = {
        "gzip": lambda: gzip.compress(content, 1, mtime=0),
        "bz2": lambda: bz2.compress(content),
        "xz": lambda: lzma.compress(content),
        "zstd": lambda: pa.Codec("zstd").compress(content, asbytes=True),
        "zip": zipped,
    }
    way = random.choice(list(ways))
    return ways[way](), f"{form} in {way}"


# Frames


def _frame(random: Random) -> Input:
    columns, options = _columns(random), _options(random)
    for name in ("separator", "encoding", "header", "names", "layout", "missing", "decimal"):
        options.pop(name, None)
    frame: Any = _polars(random, columns)
    rows: int | None = len(frame)
    kind = random.choice(["polars", "polars", "pandas", "pandas", "pandas", "arrow", "lazy", "other"])
    try:
        if kind == "pandas":
            frame = _pandas(random, columns)
            rows = len(frame)
        elif kind == "arrow":
            frame = frame.to_arrow()
        elif kind == "lazy":
            frame = frame.lazy()
    except BaseException as error:  # a type that the other library lacks
        kind += f" ({type(error).__name__})"
    if kind == "other":
        frame = random.choice(
            [None, 3, "log.csv", {"user": [1, 2]}, [1], np.zeros((3, 3)), pl.Series([1]), pd.Series()]
        )
    if random.random() < 0.1:
        options["item_features"] = _polars(random, _columns(random))
        options["keep_cold_items"] = random.random() < 0.5
        if random.random() < 0.3:
            options["titles"] = random.choice(["title", "item", "price", "tags"])
    if random.random() < 0.1:
        options["user_features"] = _pandas(random, _columns(random))
    shown = f"{getattr(frame, 'schema', getattr(frame, 'dtypes', ''))}" if kind != "lazy" else ""
    return Input(f"{kind} {options}\n{shown}\n{frame!r}", lambda: from_frame(frame, **options), rows)


def _polars(random: Random, columns: Columns) -> pl.DataFrame:
    made: dict[str, pl.Series] = {}
    for name, values in zip(columns.names, columns.values, strict=True):
        text = pl.Series(name, values, pl.String)
        made[name] = _cast(random, text) if random.random() < 0.5 else text
    return pl.DataFrame(made)


def _cast(random: Random, text: pl.Series) -> pl.Series:
    numbers = text.cast(pl.Float64, strict=False)
    small = numbers.fill_nan(None).clip(0, 100)
    whole = text.cast(pl.Int64, strict=False)
    dates = small.cast(pl.Int64).cast(pl.Date)
    choices: list[Callable[[], pl.Series]] = [
        lambda: whole,
        lambda: text.cast(pl.UInt64, strict=False),
        lambda: text.cast(pl.Int128, strict=False),
        lambda: small.cast(pl.Int8),
        lambda: numbers,
        lambda: numbers.cast(pl.Float32),
        lambda: numbers.fill_null(float("nan")),
        lambda: small.cast(pl.Decimal(20, 3)),
        lambda: text.cast(pl.Categorical),
        lambda: text.cast(pl.Enum(text.unique().drop_nulls())),
        lambda: text.cast(pl.Binary),
        lambda: small > 2,
        lambda: dates,
        lambda: dates.cast(pl.Datetime("ns")),
        lambda: dates.cast(pl.Datetime("ms")).dt.replace_time_zone("Europe/Berlin", ambiguous="earliest"),
        lambda: small.cast(pl.Int64).cast(pl.Duration("us")),
        lambda: small.cast(pl.Int64).cast(pl.Time),
        lambda: pl.Series(text.name, [None] * len(text)),
        lambda: pl.Series(text.name, [None] * len(text), pl.String),
        lambda: pl.Series(text.name, [[one] * random.randrange(3) for one in text], pl.List(pl.String)),
        lambda: pl.Series(text.name, [[1, 2]] * len(text), pl.Array(pl.Int64, 2)),
        lambda: pl.DataFrame({"a": text}).to_struct(text.name),
        lambda: pl.Series(text.name, [object()] * len(text), pl.Object),
        lambda: pl.Series(text.name, [random.choice([one, 2**70, None]) for one in whole], pl.Object),
    ]
    return random.choice(choices)().rename(text.name)


def _pandas(random: Random, columns: Columns) -> pd.DataFrame:
    made = []
    for name, values in zip(columns.names, columns.values, strict=True):
        text = pd.Series(values, dtype=object, name=name)
        numbers = pd.to_numeric(text, errors="coerce").clip(-1e300, 1e300)
        small = numbers.fillna(1).clip(0, 100)
        days = pd.to_datetime(small.astype("int64"), unit="D")
        choices: list[Callable[[], pd.Series]] = [
            lambda text=text: text,
            lambda text=text: text.astype("string"),
            lambda text=text: text.astype("category"),
            lambda numbers=numbers: numbers,
            lambda numbers=numbers: numbers.astype("category"),
            lambda small=small: small.astype("int64").astype("Int64").mask(small > 90),
            lambda small=small: small.round().astype("int64").astype("boolean", errors="ignore"),
            lambda days=days: days,
            lambda days=days: days.dt.tz_localize("Europe/Berlin"),
            lambda days=days: days.dt.to_period("D"),
            lambda days=days: days - days.min(),
            lambda days=days: days.dt.date.astype(object),
            lambda small=small: small.astype(complex),
            lambda small=small: small.astype("Sparse[float]"),
            lambda small=small: pd.Series(pd.cut(small, 3)) if len(small) else small,
            lambda text=text: text.map(lambda one: random.choice([one, 1, 2.5, None, 2**70])),
            lambda text=text: text.map(lambda one: random.choice([one, b"a", (1, 2), [1], {"a": 1}, object()])),
            lambda text=text: text.map(lambda one: Decimal("1.5") if random.random() < 0.5 else date(2020, 1, 1)),
            lambda text=text: pd.Series([2**64 + n for n in range(len(text))], dtype=object),
            lambda text=text: text.astype("string[pyarrow]"),
            lambda small=small: small.astype("double[pyarrow]"),
            lambda text=text: pd.Series([None] * len(text), dtype=object),
            lambda text=text: pd.Series([pd.NA] * len(text)),
            lambda text=text: text.map(lambda one: random.choice([one, pd.NaT, pd.NA, float("nan")])),
        ]
        made.append(random.choice(choices)().rename(name) if random.random() < 0.6 else text)
    frame = pd.concat(made, axis=1)
    if random.random() < 0.1:
        frame.columns = random.choice(
            [
                list(range(len(made))),
                pd.MultiIndex.from_product([["a"], columns.names]),
                [*columns.names[:-1], columns.names[0]],
                [*columns.names[:-1], None],
                pd.CategoricalIndex(columns.names),
            ]
        )
    if random.random() < 0.2 and len(frame):
        frame = frame.iloc[[random.randrange(len(frame)) for _ in range(len(frame))]]
    if random.random() < 0.1:
        frame = frame.set_index(frame.columns[0])
    return frame


# Options

OPTIONS: dict[str, list[Any]] = {
    "user": ["user", "user_id", "x", "column_1"],
    "item": ["item", "sku", "column_2"],
    "rating": ["", "rating", "event", "price", "timestamp"],
    "timestamp": ["", "time", "timestamp", "rating"],
    "weight": ["qty", "rating"],
    "event": ["event", "action", "rating"],
    "event_weights": ["view=1,cart=3,purchase=10", "view", {}, {"view": 1.0}, "view=nan", "missing.toml"],
    "separator": [",", ";", "tab", "", "a", '"', "||"],
    "encoding": ["latin-1", "utf-16", "nonsense", "ascii", "utf-8", "base64", "punycode", "rot13"],
    "header": [True, False],
    "names": [["user", "item"], ["user", "item", "rating"], [], ["a", "a"], ["user", "_", "item"]],
    "layout": ["lines", "wide"],
    "missing": [99.0, float("nan")],
    "decimal": [",", "."],
    "explicit": [True, False],
    "min_rating": ["any", 3, 1e9, float("nan"), "much"],
    "duplicates": ["last", "sum", "strongest", "error", "keep", "none"],
    "sentinels": [[-1.0], [0.0, 99.0], [float("nan")]],
    "drop_invalid": [True] * 4,
    "strip": [True, False],
    "valid_ids": [["NA"], ["", "nan"]],
    "time_unit": ["s", "ms", "ns", "days"],
}


def _options(random: Random) -> dict[str, Any]:
    options = {name: random.choice(values) for name, values in OPTIONS.items() if random.random() < 0.04}
    return options | ({"drop_invalid": True} if random.random() < 0.5 else {})


def main() -> int:
    """Reads inputs in one process and prints those with a problem."""
    parser = argparse.ArgumentParser(description="Read random files and frames.")
    parser.add_argument("count", type=int, nargs="?", default=20_000, help="number of inputs")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    given = parser.parse_args()
    bad = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, watched_stderr() as stderr:
        for seed in range(given.first, given.first + given.count):
            one = make_input(seed, Path(folder))
            began = time.monotonic()
            found = problem(one, stderr)
            if time.monotonic() - began > 10:
                found = found or "took more than ten seconds"
            bad += found is not None
            if found or given.count == 1:
                print(f"{one.what}\n-> {found}\n", flush=True)
            done = seed - given.first + 1
            if done % 500 == 0:
                print(f"{done:,} of {given.count:,} inputs, {bad} with a problem, {time.monotonic() - start:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
