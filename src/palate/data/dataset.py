"""Interactions, History, Fingerprint and Dataset: the data that every later stage reads, all frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.feedback import NO_WEIGHTS, Feedback, MinRating
from palate.data.ids import STEP, WORD, IdMap, mix
from palate.data.order import grouped, renumbered
from palate.errors import DataError, ModelError

SKETCH_ROWS = 65_536
PART = 1 << 16  # rows hashed at a time


@dataclass(frozen=True, eq=False)
class Interactions:
    """N rows of a user and an item as integers, in the order of the source.

    Args:
        user: (N,) int32 row numbers of users.
        item: (N,) int32 row numbers of items.
        weight: (N,) float32 ratings or strengths; ones where the source has none.
        time: (N,) float64 seconds since 1970 (UTC), or None where the source has no time.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    weight: NDArray[np.float32]
    time: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.user), len(self.item), len(self.weight)}
        lengths |= set() if self.time is None else {len(self.time)}
        if len(lengths) != 1:
            raise DataError(f"columns of interactions differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: NDArray[Any]) -> Interactions:
        """The rows of an index array or boolean mask, in its order."""
        time = None if self.time is None else self.time[index]
        return Interactions(self.user[index], self.item[index], self.weight[index], time)

    def history(self, n_users: int) -> History:
        """The rows grouped by user, oldest first; equal times keep the order of the source."""
        # Item and weight travel together as one integer, so that the rows are moved once.
        item, weight = self.item.astype(np.int32, copy=False), self.weight.astype(np.float32, copy=False)
        events = np.column_stack([item, weight.view(np.int32)]).view(np.int64).ravel()
        offsets, events, times = grouped(self.user, self.time, events, n_users)
        items, weights = events.view(np.int32).reshape(-1, 2).T
        return History(offsets, items.copy(), weights.copy().view(np.float32), times)


@dataclass(frozen=True, eq=False)
class History:
    """Interactions per user in compressed rows: user u has events offsets[u] to offsets[u + 1], oldest first.

    ``feedback`` says which events are positive.
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    weights: NDArray[np.float32]
    times: NDArray[np.float64] | None = None
    feedback: Feedback = NO_WEIGHTS

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Events per user, shape (users,)."""
        return self.offsets[1:] - self.offsets[:-1]  # np.diff takes five times as long for one user

    def of(self, user: int) -> NDArray[np.int32]:
        """The items of one user, oldest first; empty for -1 or a user beyond the last."""
        if not 0 <= user < len(self):
            return self.items[:0]
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def select(self, users: NDArray[np.integer[Any]]) -> History:
        """The history of each listed user, in that order; a negative or unknown row number has none."""
        if len(users) == 1:  # one answer: the index below costs more than the events of one user
            user = int(users[0])
            first, last = self.offsets[user : user + 2] if 0 <= user < len(self) else (0, 0)
            items, weights = self.items[first:last].copy(), self.weights[first:last].copy()
            times = None if self.times is None else self.times[first:last].copy()
            return History(np.array([0, last - first], np.int64), items, weights, times, self.feedback)
        known = (users >= 0) & (users < len(self))
        safe = np.where(known, users, 0)
        # Not ``self.counts[safe]``, which would take the difference of all offsets to answer for one user.
        counts = np.where(known, self.offsets[safe + 1] - self.offsets[safe] if len(self) else 0, 0)
        offsets = np.zeros(len(counts) + 1, np.int64)
        counts.cumsum(out=offsets[1:])
        starts = np.repeat(self.offsets[safe] - offsets[:-1], counts)
        index = starts + np.arange(offsets[-1])
        times = None if self.times is None else self.times[index]
        return History(offsets, self.items[index], self.weights[index], times, self.feedback)

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(H,) bool: which events are positive."""
        positive: NDArray[np.bool_] = self.feedback.positive(self.weights)
        return positive

    def positives(self, *, dislikes: bool = False) -> History:
        """The positive events of each user only, where asked for with the dislikes."""
        kept = self.positive
        if dislikes:
            kept = kept | self.feedback.disliked(self.weights)
        weights = self.feedback.as_learned(self.weights)
        if kept.all():
            return self if weights is self.weights else replace(self, weights=weights)
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets]
        times = None if self.times is None else self.times[kept]
        return History(offsets, self.items[kept], weights[kept], times, self.feedback)


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a set of rows by external ids, independent of their order, and of the id maps they are numbered by.

    Args:
        rows: number of rows.
        digest: 32 hex digits over (user, item, weight, time) of every row.
        sketch: the smallest hashes of (user, item, time), at most 65,536, ascending: enough to tell whether two
            sets of rows overlap (bottom-k sketch, Cohen & Kaplan 2007).
        users, items: number of ids in each map.
        ids: ``IdMap.digest`` of the users followed by that of the items, 32 hex digits; "" where unknown. Equal rows
            under other maps have equal fingerprints, so it plays no part in comparisons.
        pairs: the sketch of the distinct pairs (user, item), which finds the same rows with other times or none; None
            in bundles of earlier versions.
    """

    rows: int
    digest: str
    sketch: NDArray[np.uint64] = field(compare=False, repr=False)
    users: int = field(default=0, compare=False)
    items: int = field(default=0, compare=False)
    ids: str = field(default="", compare=False, repr=False)
    pairs: NDArray[np.uint64] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.digest[:12]} ({self.rows:,} rows)"

    def overlap(self, other: Fingerprint) -> tuple[int, int]:
        """How many of the rows of ``other`` that can be checked are in this set too: (found, checked)."""
        return _overlap(self.sketch, other.sketch)

    def pair_overlap(self, other: Fingerprint) -> tuple[int, int]:
        """The same for distinct pairs of user and item, whatever their times; (0, 0) where they are not known."""
        return (0, 0) if self.pairs is None or other.pairs is None else _overlap(self.pairs, other.pairs)

    def record(self) -> dict[str, Any]:
        """All of it but the sketch, ready for JSON."""
        return {name: getattr(self, name) for name in ("rows", "digest", "users", "items", "ids")}

    def check_same_ids(self, users: IdMap, items: IdMap) -> None:
        """Refuse id maps other than those that a model with this fingerprint was trained on.

        A model knows row numbers only. Under other maps, row 7 is another user: every score would be computed without
        an error and be wrong.

        Raises:
            ModelError: the number of users or items, an id, or the order of the ids differs.
        """
        if not self.ids or self.ids == users.digest + items.digest:
            return
        half = len(users.digest)
        same_users, same_items = self.ids[:half] == users.digest, self.ids[half:] == items.digest
        differ = "items" if same_users else "users" if same_items else "users and items"
        raise ModelError(
            f"the model was trained on {self.users:,} users and {self.items:,} items, this data has {len(users):,} "
            f"users and {len(items):,} items, and the ids of the {differ} or their order differ: "
            "use the data set that the model was trained on, or fit the model on this one"
        )


def _overlap(known: NDArray[np.uint64], other: NDArray[np.uint64]) -> tuple[int, int]:
    """How many of the hashes of ``other`` that both sketches reach are in ``known``: (found, reached)."""
    reach = min((sketch[-1] for sketch in (known, other) if len(sketch) >= SKETCH_ROWS), default=np.uint64(WORD))
    checkable = other[other <= reach]
    return int(np.isin(checkable, known).sum()), len(checkable)


def _lowest(known: NDArray[np.uint64], more: NDArray[np.uint64], size: int = SKETCH_ROWS) -> NDArray[np.uint64]:
    """The smallest hashes of a sketch and of further rows, ascending, at most ``size``."""
    new = more if len(known) < SKETCH_ROWS else more[more < known[-1]]
    return np.sort(np.concatenate([known, new]))[:size]


def fingerprint(rows: Interactions, users: IdMap, items: IdMap) -> Fingerprint:
    """Fingerprint of rows under their external ids: sums of row hashes, so order does not matter."""
    step = np.uint64(STEP)
    hash_U, hash_I = mix(users.hashes + step), items.hashes
    events = pairs = np.empty(0, np.uint64)
    lanes = [0, 0]
    # In parts that stay in the cache: eight passes over all rows are memory-bound.
    for first in range(0, len(rows), PART):
        part = slice(first, first + PART)
        time = np.full(len(rows.user[part]), -1.0) if rows.time is None else rows.time[part].astype(np.float64)
        pair = mix(hash_U[rows.user[part]] ^ hash_I[rows.item[part]])
        event = mix(pair ^ mix(time.view(np.uint64) + step))
        whole = mix(event ^ mix(rows.weight[part].astype(np.float64).view(np.uint64) + step))
        events = _lowest(events, event)
        # Repeats of one pair are merged before the sketch is cut, or they would fill it.
        lowest = _lowest(pairs, pair, 2 * SKETCH_ROWS)
        pairs = lowest[np.diff(lowest, prepend=lowest[:1] + np.uint64(1)) != 0][:SKETCH_ROWS]
        lanes = [lanes[0] + int(whole.sum(dtype=np.uint64)), lanes[1] + int(mix(whole + step).sum(dtype=np.uint64))]
    digest = "".join(f"{lane % 2**64:016x}" for lane in lanes)
    ids = users.digest + items.digest
    return Fingerprint(len(rows), digest, events, len(users), len(items), ids, pairs)


# refused: a value is missing or cannot be read. dropped: left out by choice, or merged with another row. unknown-user,
# unknown-item: test rows dropped because their user or item has no training rows. relative-times: times without a date.
# mixed-times: times in several units. order-times: times that are the order of the rows of one user.
# trained-pairs: test rows of users and items that were trained, and not later.
NoteKind = Literal[
    "",
    "refused",
    "dropped",
    "unknown-user",
    "unknown-item",
    "relative-times",
    "mixed-times",
    "order-times",
    "trained-pairs",
]


@dataclass(frozen=True)
class Note:
    """A change made to the rows, shown to the user: nothing is dropped silently.

    Args:
        text: the change, for people.
        rows: number of rows concerned.
        kind: the change, for programs; "" for a remark.
    """

    text: str
    rows: int
    kind: NoteKind = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.rows:,} {'row' if self.rows == 1 else 'rows'}"


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Interactions with the maps that give their integers a meaning.

    Args:
        name: shown in tables.
        users, items: the id maps; every row number of ``interactions`` is inside them.
        interactions: the rows.
        feedback: the meaning of the weights, and which rows are positive.
        user_features, item_features: one row per id in map order (nulls where unknown), without the id column.
        titles: one readable name per item in map order, or None.
        notes: rows that were dropped or changed on the way, with counts.
        pandas: whether the rows came as pandas, and go out as such.
        columns: one line on the columns of the source, used and unused; "" where they are not known.
    """

    name: str
    users: IdMap
    items: IdMap
    interactions: Interactions
    feedback: Feedback = NO_WEIGHTS
    user_features: pl.DataFrame | None = None
    item_features: pl.DataFrame | None = None
    titles: pl.Series | None = None
    notes: tuple[Note, ...] = ()
    pandas: bool = False
    columns: str = ""

    def __len__(self) -> int:
        return len(self.interactions)

    @property
    def comparable_times(self) -> bool:
        """Whether times of different users can be compared; the order in a line per user cannot."""
        return not any(note.kind == "order-times" for note in self.notes)

    @property
    def explicit(self) -> bool:
        """Whether the weights are ratings on a scale, and not clicks, plays or ones."""
        return self.feedback.kind == "rating"

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """(N,) bool: which rows are positive; the others are only known to have been seen."""
        positive: NDArray[np.bool_] = self.feedback.positive(self.interactions.weight)
        return positive

    def positives(self, *, dislikes: bool = False) -> Dataset:
        """The positive rows only, with the same maps; the same data set where all rows are positive.

        Args:
            dislikes: keep the dislikes too: weights below 0, for recipes that learn from these.
        """
        kept = self.positive
        if dislikes:
            kept = kept | self.feedback.disliked(self.interactions.weight)
        rows = self.interactions
        weight = self.feedback.as_learned(rows.weight)
        rows = rows if weight is rows.weight else replace(rows, weight=weight)
        rows = rows if kept.all() else rows.take(kept)
        return self if rows is self.interactions else replace(self, interactions=rows)

    def feedback_record(self) -> dict[str, Any]:
        """The rule for positive rows and their number, ready for JSON."""
        return {**self.feedback.record(), "rule": self.feedback.rule, "positive_rows": int(self.positive.sum())}

    @property
    def positive_rows(self) -> str:
        """The rule and its counts in words: "rating at least 4 (55,375 of 100,000 rows)"."""
        return f"{self.feedback.rule} ({int(self.positive.sum()):,} of {len(self):,} rows)"

    def with_min_rating(self, min_rating: MinRating) -> Dataset:
        """The same rows under another rule for what is positive: "auto", "any" or a threshold.

        Raises:
            DataError: no row is as high.
        """
        about = self.feedback
        found = Feedback.of(about.kind, self.interactions.weight, min_rating, about.column)
        return replace(self, feedback=found)

    @property
    def n_users(self) -> int:
        """Users in the map, with or without rows."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Items in the map, with or without rows."""
        return len(self.items)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Identity of the rows under their external ids."""
        return fingerprint(self.interactions, self.users, self.items)

    @cached_property
    def history(self) -> History:
        """The rows per user, oldest first."""
        return replace(self.interactions.history(self.n_users), feedback=self.feedback)

    def with_rows(self, interactions: Interactions, notes: Iterable[Note] = ()) -> Dataset:
        """The same maps and features over other rows."""
        return replace(self, interactions=interactions, notes=(*self.notes, *notes))

    def compact(self) -> Dataset:
        """The same rows with maps, features and titles cut down to the ids that occur in them."""
        rows = self.interactions
        kept_users, new_user = renumbered(rows.user, self.n_users)
        kept_items, new_item = renumbered(rows.item, self.n_items)
        return replace(
            self,
            users=IdMap(self.users.ids.gather(kept_users)),
            items=IdMap(self.items.ids.gather(kept_items)),
            interactions=replace(rows, user=new_user[rows.user], item=new_item[rows.item]),
            user_features=None if self.user_features is None else self.user_features[kept_users],
            item_features=None if self.item_features is None else self.item_features[kept_items],
            titles=None if self.titles is None else self.titles.gather(kept_items),
        )

    def to_polars(self) -> pl.DataFrame:
        """The rows with their external ids: user_id, item_id, rating (explicit) or weight, and timestamp if known.

        The timestamp is in seconds since 1970 (UTC), as ``from_frame`` reads it.
        """
        rows = self.interactions
        columns = {
            "user_id": self.users.external(rows.user),
            "item_id": self.items.external(rows.item),
            "rating" if self.explicit else "weight": pl.Series(rows.weight),
        }
        return pl.DataFrame(columns if rows.time is None else {**columns, "timestamp": pl.Series(rows.time)})

    def to_pandas(self) -> Any:
        """The rows of ``to_polars`` as a pandas data frame."""
        return self.to_polars().to_pandas()

    def to_frame(self) -> Any:
        """The rows of ``to_polars``, as pandas where the data came as pandas, else as polars."""
        return self.to_pandas() if self.pandas else self.to_polars()

    def facts(self) -> dict[str, str]:
        """The data set in a few short texts by their names, for ``repr`` and notebooks."""
        time, weight = self.interactions.time, self.interactions.weight
        facts = {"rows": f"{len(self):,}", "users": f"{self.n_users:,}", "items": f"{self.n_items:,}"}
        if len(self):
            low, high = weight.min(), weight.max()
            kind = "ratings" if self.explicit else "weights"
            facts[kind] = f"{low:g} to {high:g}" if low < high else f"all {low:g}"
            if not self.positive.all():
                facts["positive"] = self.positive_rows
        if len(self) and time is not None:
            facts["time"] = f"{day(time.min())} to {day(time.max())}"
        features = {"user": self.user_features, "item": self.item_features}
        facts |= {f"{side} features": ", ".join(t.columns) for side, t in features.items() if t is not None}
        return facts

    def __str__(self) -> str:
        return f"{self.name}: {len(self):,} rows, {self.n_users:,} users, {self.n_items:,} items"

    def __repr__(self) -> str:
        return lines(f"Dataset {self}", self.facts(), skip=3)

    def _repr_html_(self) -> str:
        return html_table(f"Dataset {self.name}", {"": self.facts()})


def day(seconds: float) -> str:
    """The date of seconds since 1970 (UTC), within the years that dates can have."""
    if not np.isfinite(seconds):
        return "unknown"
    return str(np.datetime64(int(np.clip(seconds, -6e10, 2.5e11)), "s").astype("datetime64[D]"))


def lines(title: str, facts: Mapping[str, str], skip: int = 0) -> str:
    """A title and at most four short lines of facts."""
    shown = [f"  {name}: {text}" for name, text in list(facts.items())[skip:]]
    return "\n".join([title, *(line if len(line) <= 100 else f"{line[:97]}..." for line in shown[:4])])


def html_table(title: str, columns: Mapping[str, Mapping[str, str]]) -> str:
    """A small HTML table: one row per fact, one column per mapping."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    head = "".join(f"<th>{escape(name)}</th>" for name in ["", *columns]) if any(columns) else ""
    rows = [[name, *(column.get(name, "") for column in columns.values())] for name in names]
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption><tr>{head}</tr>{body}</table>"
