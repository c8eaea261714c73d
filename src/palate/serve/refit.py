"""Refit: train the recipe of a bundle on its rows and the stored events, and compare before the switch.

    rows of the bundle, or of a file -> without deleted users -> with stored events, weighted as they are served -> fit

The events are taken as the live state takes them (``palate.serve.live``): the latest word on an item counts, a lifetime
ends, a type of weight 0 is not learned from. A type that does not count as positive is learned from only as a dislike.
Items whose types do not mark them as seen are trained on, but left out of the seen rows of the bundle: the server goes
on reading these events as live ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from palate.base import Recipe, TrainOptions
from palate.bundle import Bundle
from palate.data.dataset import Dataset, History, Interactions, Note
from palate.data.duplicates import AUTO, deduplicate
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.parsing import Source
from palate.errors import DataError
from palate.recommend.cold_start import DAY
from palate.recommend.request import typed
from palate.serve import tables
from palate.serve.answers import SESSION
from palate.serve.items import Item, load_items
from palate.serve.settings import EventType
from palate.serve.store import store_name

EVENT = {
    "seq": pl.Int64,
    "user": pl.String,
    "item": pl.String,
    "type": pl.String,
    "value": pl.Float64,
    "time": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class Log:
    """Everything in a store that a training run needs.

    Args:
        store: its name; ``seq``: the newest place in the log.
        events: rows that were not taken back: seq, user, item, type, value, time.
        deleted: users whose rows must not come back.
        items: changes of items; ``users``: features of users, by id.
        notes: rows that are left out.
    """

    store: str
    seq: int
    events: pl.DataFrame
    deleted: frozenset[str]
    items: list[Item]
    users: Mapping[str, Mapping[str, Any]]
    notes: tuple[Note, ...] = ()

    @classmethod
    def read(cls, connection: Connection) -> Log:
        """All of it, in one transaction."""
        import orjson

        table = tables.events
        names = ("seq", "user_id", "item_id", "type", "value", "time")
        query = select(*(table.c[name] for name in names)).where(table.c.undone.is_(False)).order_by(table.c.seq)
        events = pl.DataFrame([tuple(row) for row in connection.execute(query)], schema=EVENT, orient="row")
        users = connection.execute(select(tables.users)).all()
        deleted = frozenset(row.user_id for row in users if row.deleted)
        features = {row.user_id: orjson.loads(row.features) for row in users if row.features}
        seq = int(events["seq"].max() or 0)  # type: ignore[arg-type]
        events = events.filter(~pl.col("type").str.starts_with("$"))
        session = events["user"].str.starts_with(SESSION)
        gone = events["user"].is_in(list(deleted))
        notes = (
            Note("events of sessions without an account, left out", int(session.sum())),
            Note("later events of deleted users, left out", int(gone.sum())),
        )
        kept = tuple(note for note in notes if note.rows)
        return cls(store_name(connection), seq, events.filter(~(session | gone)), deleted, load_items(connection),
                   features, kept)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """What events weigh, as the server that answers from a bundle has it.

    Args:
        types: the table of event types.
        like: weight of a like.
        feedback: the rule for positive rows of the bundle.
    """

    types: Mapping[str, EventType]
    like: float
    feedback: Feedback

    @classmethod
    def of(cls, bundle: Bundle, types: Mapping[str, EventType]) -> Weights:
        """Those of a bundle."""
        data = bundle.recommender
        return cls(types, data.like_weight, data.seen.feedback)

    def rows(self, events: pl.DataFrame, now: float) -> pl.DataFrame:
        """Rows to train on, in the order of the log: user, item, weight, time, seen."""
        kinds = pl.DataFrame(
            [(n, k.weight, k.positive, k.seen, k.rated, k.lifetime_days) for n, k in self.types.items()],
            schema={"type": pl.String, "kind_weight": pl.Float64, "positive": pl.Boolean, "seen": pl.Boolean,
                    "rated": pl.Boolean, "days": pl.Float64},
            orient="row",
        )  # fmt: skip
        weight = pl.col("kind_weight") * self.like
        least = self.feedback.min_rating
        if least is not None:
            weight = pl.when(weight > 0).then(pl.max_horizontal(weight, pl.lit(least))).otherwise(weight)
        pair = ["user", "item"]
        kept = (
            events.join(kinds, on="type", how="inner", maintain_order="left")
            .filter(pl.col("days").is_null() | (pl.col("time") + pl.col("days") * DAY > now))
            .with_columns(
                weight=pl.when(pl.col("rated") & pl.col("value").is_not_null()).then(pl.col("value")).otherwise(weight),
                seen=pl.col("seen").any().over(pair),
            )
            # The lowest rating of a scale that begins at 0 tells something; any other 0 is stored only.
            .filter((pl.col("weight") != 0) | (pl.col("rated") & (self.feedback.kind == "rating")))
        )
        liked = self.feedback.positive(pl.col("weight"))
        same = liked == liked.last().over(pair)
        learned = pl.col("positive") | pl.col("rated") | (pl.col("weight") < 0)
        return kept.filter(same).filter(learned).select(*pair, "weight", "time", "seen")


def rows_of_bundle(bundle: Bundle) -> Dataset:
    """The training rows of a bundle.

    Raises:
        DataError: it was refitted, so they hold stored events already.
    """
    data, seen = bundle.recommender, bundle.recommender.seen
    if bundle.refit is not None:
        raise DataError(
            "the bundle was refitted, so its rows hold stored events already: give the original rows by --data, "
            "a file or the bundle that was refitted first"
        )
    owner = np.repeat(np.arange(len(seen), dtype=np.int32), seen.counts)
    rows = Interactions(owner, seen.items, seen.weights, seen.times)
    return Dataset(
        data.name, data.users, data.items, rows, seen.feedback, data.user_features, data.item_features, data.titles
    )


@dataclass(frozen=True, eq=False)
class Merged:
    """Rows of both sources.

    Args:
        data: the rows to train on.
        seen: (N,) whether a row marks its item as seen.
    """

    data: Dataset
    seen: NDArray[np.bool_]

    def bundle(self, recipe: Recipe[Any], like: Bundle, training: TrainOptions) -> Bundle:
        """A fitted bundle with the policies of another one."""
        made = Bundle.of(recipe, recipe.fit(self.data, training), self.data)
        rows = self.data.interactions.take(self.seen)
        history: History = replace(rows.history(self.data.n_users), feedback=self.data.feedback)
        positive = rows.item[np.asarray(self.data.feedback.positive(rows.weight))]
        popularity = np.bincount(positive, minlength=self.data.n_items).astype(np.float32)
        return replace(
            made,
            recommender=replace(made.recommender, seen=history, popularity=popularity, cold=like.recommender.cold),
        )


def merge(base: Dataset, log: Log, rows: pl.DataFrame) -> Merged:
    """The rows of a data set, without those of deleted users, and rows of the log.

    The maps hold the ids of all events of the log, so that data merged up to different moments have the same numbers.
    """
    texts = base.users.ids.cast(pl.String)
    stay = ~texts.is_in(list(log.deleted)).to_numpy()
    number = np.cumsum(stay) - 1
    old = base.interactions.take(stay[base.interactions.user])
    users = _extended(IdMap(base.users.ids.filter(pl.Series(stay))), log.events["user"])
    items = _extended(base.items, log.events["item"])
    new = (users.rows(rows["user"]), items.rows(rows["item"]))
    frame = pl.DataFrame(
        {
            "user": np.concatenate([number[old.user].astype(np.int32), new[0]]),
            "item": np.concatenate([old.item, new[1]]),
            "weight": np.concatenate([old.weight, rows["weight"].to_numpy().astype(np.float32)]),
            "seen": np.concatenate([np.ones(len(old), bool), rows["seen"].to_numpy()]),
        }
    )
    if old.time is not None:
        frame = frame.with_columns(time=pl.Series(np.concatenate([old.time, rows["time"].to_numpy()])))
    feedback = base.feedback
    if feedback.kind == "none" and (rows["weight"] != 1).any():
        feedback = replace(feedback, kind="event")  # from now on weights tell events apart
    pairs = base.interactions.user.astype(np.int64) * base.n_items + base.interactions.item
    repeats = len(np.unique(pairs)) < len(pairs)
    policy = "keep" if repeats else "strongest" if feedback.kind == "event" else AUTO[feedback.kind]
    frame = frame.with_columns(pl.col("seen").any().over("user", "item"))
    frame, notes = deduplicate(frame, policy, users, items, Source(base.name))
    told = {items.row(one.item_id): one for one in log.items}
    told.pop(-1, None)
    titles = None
    if base.titles is not None or any(one.title is not None for one in told.values()):
        known = pl.DataFrame({"title": base.titles}) if base.titles is not None else pl.DataFrame({"title": [""] * 0})
        named = {row: {"title": one.title} for row, one in told.items() if one.title is not None}
        titles = _changed(known.cast(pl.String), len(items), named)["title"]
    features = {row: one.features for row, one in told.items() if one.features}
    about = {users.row(user): values for user, values in log.users.items() if users.row(user) >= 0}
    people = None if base.user_features is None else base.user_features.filter(pl.Series(stay))
    made = Dataset(
        base.name,
        users,
        items,
        Interactions(
            frame["user"].to_numpy(),
            frame["item"].to_numpy(),
            frame["weight"].to_numpy(),
            frame["time"].to_numpy() if "time" in frame.columns else None,
        ),
        feedback,
        None if people is None else _changed(people, len(users), about),
        None if base.item_features is None else _changed(base.item_features, len(items), features),
        titles,
        (*base.notes, *notes),
    )
    return Merged(made, frame["seen"].to_numpy())


def _extended(ids: IdMap, more: pl.Series) -> IdMap:
    try:
        return ids.extend(more)
    except DataError:  # a first id that is no integer: all become texts, which is how the server writes them anyway
        return IdMap(ids.ids.cast(pl.String)).extend(more)


def _changed(table: pl.DataFrame, count: int, values: Mapping[int, Mapping[str, Any]]) -> pl.DataFrame:
    """A feature table with ``count`` rows and these values by row and column; other new rows are null."""
    columns = []
    for column in table:
        longer = column.extend_constant(None, count - len(column)) if count > len(column) else column
        given = {row: one[column.name] for row, one in values.items() if column.name in one}
        if given:
            # New values behind the old ones, then one gather: it works for every type of column.
            index = np.arange(count)
            index[list(given)] = count + np.arange(len(given))
            longer = pl.concat([longer, typed(column.name, list(given.values()), column.dtype)])[index]
        columns.append(longer)
    return pl.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class Refit:
    """What to refit from what.

    Args:
        old: the bundle that answers; ``path``: its folder.
        base: the original rows.
        log: the store.
        types: event types of the server.
        training: options of both fits.
    """

    old: Bundle
    path: Path
    base: Dataset
    log: Log
    types: Mapping[str, EventType]
    training: TrainOptions

    def final(self) -> Bundle:
        """The bundle of all rows."""
        rows = self.rows(self.log.events)
        made = merge(self.base, self.log, rows).bundle(self.old.recipe, self.old, self.training)
        return replace(made, refit={"store": self.log.store, "seq": self.log.seq, "events": len(rows)})

    def rows(self, events: pl.DataFrame) -> pl.DataFrame:
        """Rows to train on of some events."""
        return Weights.of(self.old, self.types).rows(events, time.time())
