"""Several rows with the same user and item: kept, refused, or made one."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from palate.data.dataset import Note
from palate.data.feedback import Kind
from palate.data.ids import IdMap
from palate.data.parsing import Source, counted
from palate.errors import DataError

Duplicates = Literal["auto", "last", "sum", "strongest", "error", "keep"]

# A rating replaces an earlier one, amounts add up, and of events the strongest tells most: a view after a purchase does
# not undo it. A label is an event of two types.
AUTO: dict[Kind, Duplicates] = {
    "rating": "last",
    "quantity": "sum",
    "event": "strongest",
    "label": "strongest",
    "none": "last",
}
PART = 1 << 18  # rows that are compared at a time
TEXTS = {
    "last": "dropped: an earlier row of the same user and item",
    "sum": "merged: weights of the same user and item summed",
    "strongest": "dropped: another event of the same user and item (kept: the strongest since the last dislike)",
}


def deduplicate(
    rows: pl.DataFrame, policy: Duplicates, users: IdMap, items: IdMap, source: Source
) -> tuple[pl.DataFrame, list[Note]]:
    """At most one row for each user and item, in the order of the rows, unless they are kept.

    Args:
        rows: user and item as row numbers, weight, and time where known; emptied where rows are dropped.
        policy: "last", "sum", "strongest", "error" or "keep", as ``from_frame`` describes them.
        users, items: the id maps, for messages.
        source: the origin of the rows, for messages.

    Raises:
        DataError: a pair occurs twice and the policy is "error".
    """
    if policy == "keep":
        return rows, []
    keep, extra = np.ones(len(rows), np.bool_), 0
    weight = rows["weight"].to_numpy() if policy == "sum" else None
    # The rows of one user are in one part, and a part is small: the temporary columns would take twice the memory of
    # the rows themselves.
    n_parts = min(-(-len(rows) // PART), 64)
    part_of = np.empty(len(rows), np.uint8)
    np.remainder(rows["user"].to_numpy(), n_parts, out=part_of, casting="unsafe")
    for number in range(n_parts):
        part = np.flatnonzero(part_of == number)
        table = rows[part].with_columns(
            pair=pl.col("user").cast(pl.Int64) * len(items) + pl.col("item"), row=pl.Series(part)
        )
        several = table.filter(table["pair"].is_duplicated())
        if several.is_empty():
            continue
        if policy == "error":
            raise DataError(_repeated(several, users, items, source))
        one = _one_each(several, policy)
        keep[several["row"].to_numpy()] = False
        keep[one["row"].to_numpy()] = True
        extra += len(several) - len(one)
        if weight is not None:
            endless = one.filter(pl.col("weight").is_infinite())
            if len(endless):
                user, item = users.ids[endless["user"][0]], items.ids[endless["item"][0]]
                raise DataError(
                    f"{source.name}: weights of user {user!r} with item {item!r} sum to infinity: "
                    "scale them, or pass duplicates='last' (--duplicates last)"
                )
            weight = weight if weight.flags.writeable else weight.copy()
            weight[one["row"].to_numpy()] = one["weight"].to_numpy()
    if not extra:
        return rows, []
    if weight is not None:
        rows = rows.with_columns(weight=pl.Series(weight))
    del weight
    kept, names, spill = pl.Series(keep), rows.columns, source.spill

    def left(column: pl.Series) -> pl.Series:
        if spill is None:
            return column.filter(kept)
        starts = range(0, len(column), PART)
        return spill.keep(column.slice(first, PART).filter(kept.slice(first, PART)) for first in starts)

    # The columns are replaced one by one, in place, so that there is never a second copy of all.
    return pl.DataFrame({name: left(rows.drop_in_place(name)) for name in names}), [
        Note(TEXTS[policy], extra, "dropped")
    ]


def _one_each(several: pl.DataFrame, policy: Duplicates) -> pl.DataFrame:
    """The row to keep of each pair."""
    several = several.sort(["time", "row"] if "time" in several.columns else ["row"])
    if policy == "strongest":
        several = _strongest_last(several)
    one = several.unique("pair", keep="last", maintain_order=True)
    if policy == "sum":
        sums = several.group_by("pair").agg(pl.col("weight").cast(pl.Float64).sum().cast(pl.Float32))
        one = one.drop("weight").join(sums, on="pair", how="left")
    return one


def _repeated(several: pl.DataFrame, users: IdMap, items: IdMap, source: Source) -> str:
    again = several.filter(~pl.col("pair").is_first_distinct())
    shown = ", ".join(
        f"user {users.ids[user]!r} with item {items.ids[item]!r}" for user, item in again["user", "item"].head(3).rows()
    )
    return (
        f"{source.name}: the same user and item again in {counted(len(again))} ({shown}): "
        "pass duplicates='last', 'sum', 'strongest' or 'keep'"
    )


def _strongest_last(several: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by time without those before the latest dislike of their pair, the one to keep last.

    The one to keep is the strongest positive row after that dislike (the latest among equal ones), else the dislike
    itself, else the latest row of weight 0.
    """
    since = pl.col("place").filter(pl.col("weight") < 0).max().over("pair").fill_null(-1)
    ranked = several.with_row_index("place").filter(pl.col("place") >= since)
    strength = (
        pl.when(pl.col("weight") < 0).then(0.0).when(pl.col("weight") == 0).then(-1.0).otherwise(pl.col("weight"))
    )
    return ranked.sort(strength, "place").drop("place")
