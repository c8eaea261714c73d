"""Readers for the file formats of the named data sets: an opened zip file or folder to a Dataset.

Rows keep the order of their file, because published protocols break ties of time by it.
"""

from __future__ import annotations

import gzip
import html
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Note
from palate.data.frame import from_frame
from palate.errors import DataError

UNRATED = -1.0

# The flags of u.item, in the order of u.genre.
# fmt: off
ML_100K_GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]
# fmt: on


@dataclass(frozen=True)
class Archive:
    """A zip file or a folder whose files are found by their bare names, gzipped or not.

    Args:
        path: the zip file or folder.
        members: bare name without ".gz" -> path inside the zip file or folder.
    """

    path: Path
    members: dict[str, str]

    @classmethod
    def open(cls, path: Path) -> Archive:
        """List the files of a zip file, or of a folder and its subfolders.

        Raises:
            DataError: there is no such file, or it is not a zip file.
        """
        try:
            if path.is_dir():
                found = [p.relative_to(path).as_posix() for pattern in ("*", "*/*") for p in path.glob(pattern)]
            else:
                with zipfile.ZipFile(path) as file:
                    found = file.namelist()
        except zipfile.BadZipFile as error:
            raise DataError(f"{path}: not a readable zip file ({error}): get it again") from None
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        # The member with the shortest path wins, so an extra copy in a subfolder is ignored.
        found.sort(key=lambda name: (name.count("/"), name), reverse=True)
        return cls(path, {PurePosixPath(name).name.removesuffix(".gz"): name for name in found})

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> bytes:
        """The bytes of one file, unpacked.

        Raises:
            DataError: it is not there, or damaged.
        """
        if name not in self:
            raise DataError(f"{self.path}: no file {name}: it holds {', '.join(sorted(self.members)[:20])}")
        member = self.members[name]
        try:
            if self.path.is_dir():
                raw = (self.path / member).read_bytes()
            else:
                with zipfile.ZipFile(self.path) as file:
                    raw = file.read(member)
            return gzip.decompress(raw) if member.endswith(".gz") else raw
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: {member} is damaged ({error}): get it again") from None

    def table(self, name: str, **options: Any) -> pl.DataFrame:
        """One file read with polars' ``read_csv`` and ``options``; the whole file is loaded into memory."""
        return pl.read_csv(self.read(name), **options)

    def latin1_table(self, name: str, separator: str, columns: list[str], **options: Any) -> pl.DataFrame:
        """A file in latin-1 without header or quotes, whose separator may have two characters."""
        # polars allows separators of one character: the unit separator does not occur in the texts.
        text = self.read(name).decode("latin-1").replace(separator, "\x1f").encode()
        return pl.read_csv(text, separator="\x1f", has_header=False, quote_char=None, new_columns=columns, **options)


P = ParamSpec("P")
T = TypeVar("T")


def _format_checked(read: Callable[Concatenate[Archive, P], T]) -> Callable[Concatenate[Archive, P], T]:
    """Turn an error of polars into a DataError that names the file."""

    @wraps(read)
    def checked(archive: Archive, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(archive, *args, **kwargs)
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{archive.path}: not in the expected format ({reason}): get it again") from None

    return checked


@_format_checked
def read_ml_100k(archive: Archive, name: str = "ml-100k") -> Dataset:
    """MovieLens 100K: u.data, u.item (latin-1, 19 genre flags in the order of u.genre) and u.user."""
    rows = archive.table(
        "u.data", separator="\t", has_header=False, new_columns=["user_id", "item_id", "rating", "timestamp"]
    )
    head = ["item_id", "title", "release_date", "video_release_date", "url"]
    items = archive.latin1_table(
        "u.item", "|", head + ML_100K_GENRES, schema_overrides={"video_release_date": pl.String}
    )
    flags = [pl.when(pl.col(genre) == 1).then(pl.lit(genre)) for genre in ML_100K_GENRES]
    items = items.select(
        "item_id",
        pl.col("title").str.strip_chars(),
        _year(),
        pl.col("release_date").str.to_date("%d-%b-%Y"),
        genres=pl.concat_list(flags).list.drop_nulls(),
    )
    users = archive.latin1_table(
        "u.user", "|", ["user_id", "age", "gender", "occupation", "zip"], schema_overrides={"zip": pl.String}
    )
    return _movielens(archive, rows, items, name, users)


@_format_checked
def read_ml_1m(archive: Archive, name: str = "ml-1m") -> Dataset:
    """MovieLens 1M: ratings.dat, movies.dat (latin-1) and users.dat, separated by two colons.

    Age and occupation are the codes of the data set's README.
    """
    rows = archive.latin1_table("ratings.dat", "::", ["user_id", "item_id", "rating", "timestamp"])
    items = archive.latin1_table("movies.dat", "::", ["item_id", "title", "genres"])
    columns = ["user_id", "gender", "age", "occupation", "zip"]
    users = archive.latin1_table("users.dat", "::", columns, schema_overrides={"zip": pl.String})
    return _movielens(archive, rows, _with_genres(items), name, users)


@_format_checked
def read_ml_csv(archive: Archive, name: str) -> Dataset:
    """MovieLens 20M, 25M and latest: ratings.csv and movies.csv, or rating.csv and movie.csv as Kaggle has them.

    Kaggle's copy writes the time as a date, which is read as UTC.
    """
    ratings, movies = ("ratings.csv", "movies.csv") if "ratings.csv" in archive else ("rating.csv", "movie.csv")
    narrow = {"userId": pl.Int32, "movieId": pl.Int32, "rating": pl.Float32}
    rows = archive.table(ratings, schema_overrides=narrow)
    items = archive.table(movies)
    rows = rows.rename({"userId": "user_id", "movieId": "item_id"}, strict=False)
    items = items.rename({"movieId": "item_id"}, strict=False)
    return _movielens(archive, rows, _with_genres(items), name)


@_format_checked
def read_anime(archive: Archive, name: str = "anime", *, keep_unrated: bool = False) -> Dataset:
    """The Anime Recommendations Database: rating.csv and anime.csv, without times.

    The mean rating in anime.csv is omitted with a note: it is computed from all ratings, including held-out ones.

    Args:
        archive: an opened copy.
        name: the name of the data set.
        keep_unrated: keep the rows whose rating is -1 (watched, not rated) instead of dropping and counting them.
    """
    rows = archive.table("rating.csv").rename({"anime_id": "item_id"}, strict=False)
    table = archive.table("anime.csv", null_values={"episodes": "Unknown"})
    titles = [None if title is None else html.unescape(title) for title in table["name"]]
    items = table.select(
        pl.col("anime_id").alias("item_id"),
        pl.Series("title", titles, dtype=pl.String),
        pl.col("genre").str.split(", ").alias("genres"),
        "type",
        pl.col("episodes").cast(pl.Int32),
        "members",
    )
    dataset = from_frame(
        rows,
        name=name,
        explicit=True,
        sentinels=() if keep_unrated else (UNRATED,),
        item_features=items,
        titles="title",
        source=f"{archive.path}: rating.csv",
    )
    known = table["rating"].count()
    leak = Note("mean ratings in anime.csv, computed from rows that will be held out too, are omitted", known)
    return dataset.with_rows(dataset.interactions, [leak])


class NcfRows(NamedTuple):
    """The official evaluation files of He et al. 2017.

    train, test: user_id, item_id, rating, timestamp; test has one row per user.
    negatives: (len(test), n) int64 item ids, aligned with the rows of ``test``.
    """

    train: pl.DataFrame
    test: pl.DataFrame
    negatives: NDArray[np.int64]


@_format_checked
def read_ncf(archive: Archive, name: str = "ml-1m") -> NcfRows:
    """The files NAME.train.rating, NAME.test.rating and NAME.test.negative, plain or gzipped.

    Raises:
        DataError: a file is missing, damaged, or the negatives do not belong to the test rows.
    """
    columns = ["user_id", "item_id", "rating", "timestamp"]
    train, test = (
        archive.table(f"{name}.{part}.rating", separator="\t", has_header=False, new_columns=columns)
        for part in ("train", "test")
    )
    listed = archive.table(f"{name}.test.negative", separator="\t", has_header=False)
    pair = listed.to_series(0).str.extract_groups(r"^\((\d+),(\d+)\)$").struct.unnest().cast(pl.Int64)
    wanted = test.select("user_id", "item_id")
    if len(pair) != len(wanted):
        raise DataError(
            f"{archive.path}: {len(wanted):,} test rows but {len(pair):,} lines of negatives: get both again"
        )
    differs = (pair.to_numpy() != wanted.to_numpy()).any(axis=1)
    if differs.any():
        line = int(differs.argmax())
        raise DataError(
            f"{archive.path}: line {line + 1} of {name}.test.negative is for {listed[line, 0]}, "
            f"the test row is {wanted.row(line)}: get both files again"
        )
    return NcfRows(train, test, listed[:, 1:].cast(pl.Int64).to_numpy())


@_format_checked
def ncf_items(archive: Archive, movielens: Archive | None) -> pl.DataFrame | None:
    """Item features for the NCF ids: the MovieLens ids and, from a copy of MovieLens 1M, titles, years and genres.

    None if the folder has no item_id_map.csv (the official files have none).
    """
    if "item_id_map.csv" not in archive:
        return None
    ids = archive.table("item_id_map.csv").rename({"ncf_item_id": "item_id", "movielens_movie_id": "movielens_id"})
    if movielens is None:
        return ids
    movies = _with_genres(movielens.latin1_table("movies.dat", "::", ["item_id", "title", "genres"]))
    return ids.join(movies, left_on="movielens_id", right_on="item_id", how="left", maintain_order="left")


@_format_checked
def ml_100k_from_recbole(archive: Archive) -> dict[str, bytes]:
    """The files u.data, u.item and u.user made from the copy of MovieLens 100K inside a RecBole wheel.

    The copy has no release dates, and has separate columns for title, year and genres: "Title (year)" is
    restored.

    Raises:
        DataError: the wheel is damaged or holds no such copy.
    """
    rows, users = (archive.read(f"ml-100k.{part}").partition(b"\n")[2] for part in ("inter", "user"))
    plain = {"separator": "\t", "quote_char": None, "infer_schema": False}
    items = archive.table("ml-100k.item", **plain).rename(lambda column: column.partition(":")[0])
    # The copy misspells the one film without a title.
    unknown = pl.col("movie_title") == "unkonwn"
    title = pl.when(unknown).then(pl.lit("unknown")).otherwise(pl.format("{} ({})", "movie_title", "release_year"))
    genres = pl.col("class").str.split(" ")
    flags = [genres.list.contains(genre).cast(pl.Int8).alias(genre) for genre in ML_100K_GENRES]
    empty = [pl.lit("").alias(name) for name in ("release_date", "video_release_date", "url")]
    table = items.select("item_id", title, *empty, *flags)
    text = io.StringIO()
    table.write_csv(text, separator="|", include_header=False, quote_style="never")
    return {
        "u.data": rows,
        "u.item": text.getvalue().encode("latin-1", errors="replace"),
        "u.user": users.replace(b"\t", b"|"),
    }


def _year() -> pl.Expr:
    # The last brackets with a year: titles have others, such as translations, before it.
    found = pl.col("title").str.extract_all(r"\(\d{4}\b").list.last()
    return found.str.slice(1).cast(pl.Int32).alias("year")


def _with_genres(movies: pl.DataFrame) -> pl.DataFrame:
    genres = pl.col("genres").str.split("|").list.eval(pl.element().filter(pl.element() != "(no genres listed)"))
    return movies.select("item_id", pl.col("title").str.strip_chars(), _year(), genres)


def _movielens(
    archive: Archive, rows: pl.DataFrame, items: pl.DataFrame, name: str, users: pl.DataFrame | None = None
) -> Dataset:
    return from_frame(
        rows,
        name=name,
        explicit=True,
        user_features=users,
        item_features=items,
        titles="title",
        source=f"{archive.path}: ratings",
    )
