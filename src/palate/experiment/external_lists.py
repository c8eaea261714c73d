"""Finished lists of another system: from a table of user_id, item_id and rank to lists over a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.columns import find_columns, plain
from palate.data.readers import read_table
from palate.data.splits.split import Split
from palate.errors import DataError
from palate.evaluation.rankings import Lists
from palate.evaluation.run_files import read_run

RANKS = ("rank", "position", "place")


def read_lists(table: str | Path | pl.DataFrame, split: Split, length: int) -> tuple[Lists, list[str]]:
    """The lists of the test users of a split, cut to ``length`` places, and notes that count the omitted rows.

    Items that the user had in training are taken out, as they are for every model. An item that the split does not know
    keeps its place in the list, as a miss (-1).

    Args:
        table: a CSV, TSV or Parquet file or a dataframe with user, item and, unless the rows are in order, rank; or a
            run file of TREC or ranx.
        split: whose ids the lists use.
        length: places kept.

    Raises:
        DataError: the file cannot be read, a column is missing, ranks are no numbers, or no test user has a list.
    """
    source = "lists" if isinstance(table, pl.DataFrame) else Path(table).name
    frame = table if isinstance(table, pl.DataFrame) else _read(Path(table))
    columns = find_columns(frame.columns, rating="", timestamp="", source=source)
    user = split.train.users.rows(frame[columns.user_id])
    item = split.train.items.rows(frame[columns.item_id])
    rank = _ranks(frame, source)
    rows = pl.DataFrame({"user": user, "item": item, "rank": rank}).sort("user", "rank", maintain_order=True)
    tested = rows.filter(pl.col("user").is_in(split.test_users))
    if tested.is_empty():
        raise DataError(
            f"{source}: none of its {frame[columns.user_id].n_unique():,} users is one of the "
            f"{len(split.test_users):,} test users of {split.train.name}: give lists with the ids of that data"
        )
    seen = _seen(tested, split)
    single = tested.filter(~seen).filter((pl.col("item") < 0) | pl.struct("user", "item").is_first_distinct())
    placed = single.with_columns(pl.int_range(pl.len()).over("user").alias("place")).filter(pl.col("place") < length)
    users, owner = np.unique(placed["user"].to_numpy(), return_inverse=True)
    place = placed["place"].to_numpy()
    items = np.full((len(users), place.max(initial=0) + 1), -1, dtype=np.int32)
    items[owner, place] = placed["item"].to_numpy()
    others = frame[columns.user_id].filter(~pl.Series(user).is_in(split.test_users)).n_unique()
    notes = (
        (others, "users in the file are not test users and were left out"),
        (int(seen.sum()), "places hold an item that the user has in training and were taken out, as for every model"),
        (len(tested) - int(seen.sum()) - len(single), "places repeat an item of the same list and were taken out"),
        (int((placed["item"] < 0).sum()), "places hold an item the split does not know: each counts as a miss"),
    )
    return Lists(users.astype(np.int32), items), [f"{count:,} {text}" for count, text in notes if count]


def _read(path: Path) -> pl.DataFrame:
    run = read_run(path)
    return read_table(path) if run is None else run


def lists_of(users: NDArray[np.int32], lists: Lists, length: int) -> NDArray[np.int32]:
    """The lists of these users cut to ``length``, (E, K); -1 where there are none."""
    there = np.isin(users, lists.users)
    found = np.full((len(users), min(length, lists.items.shape[1])), -1, dtype=np.int32)
    found[there] = lists.items[np.searchsorted(lists.users, users[there]), :length]
    return found


def _seen(rows: pl.DataFrame, split: Split) -> pl.Series:
    """Bool per row: its item is in the training rows of its user."""
    train = split.train.interactions
    known = pl.DataFrame({"user": train.user, "item": train.item}).unique().with_columns(seen=True)
    return rows.join(known, on=["user", "item"], how="left", maintain_order="left")["seen"].fill_null(False)


def _ranks(frame: pl.DataFrame, source: str) -> pl.Series:
    """The rank of each row; the order of the rows if there is no such column."""
    name = next((name for name in frame.columns if plain(name) in RANKS), None)
    if name is None:
        return pl.Series("rank", np.arange(len(frame)))
    if not frame[name].dtype.is_numeric() or frame[name].has_nulls():
        raise DataError(f"{source}: column {name!r} holds more than numbers: give ranks 1, 2, 3 and so on")
    return frame[name]
