"""Splits: which rows train, which rows test, and which candidates the test items are ranked among.

A split is a value. It says in words how it was made, counts every row that was left out, has a fingerprint,
and can be saved and loaded, so that every model is measured on exactly the same rows.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Interactions, Note
from palate.data.ids import IdMap
from palate.data.order import group_by_user, latest, renumbered
from palate.errors import DataError

__all__ = [
    "Candidates",
    "Cold",
    "Split",
    "at_random",
    "by_time",
    "cold_notes",
    "counted",
    "distinct",
    "leave_one_out",
]

Cold = Literal["drop", "keep"]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The listed negatives that each test user's relevant items are ranked among.

    Args:
        users: (T,) int32 row numbers of the test users, ascending and distinct.
        negatives: (T, n) int32 row numbers of items.
        how: where the negatives come from, in words.
    """

    users: NDArray[np.int32]
    negatives: NDArray[np.int32]
    how: str

    def __post_init__(self) -> None:
        if self.negatives.ndim != 2 or len(self.negatives) != len(self.users) or not self.negatives.shape[1]:
            raise DataError(
                f"{len(self.users)} users but negatives of shape {self.negatives.shape}: give (users, n), n at least 1"
            )
        if (np.diff(self.users) <= 0).any():
            raise DataError("users of candidates must be ascending and distinct: sort them with their negatives")

    def fingerprint(self, users: IdMap, items: IdMap) -> str:
        """Identity by external ids, 16 hex digits; neither the order of users nor that of negatives matters."""
        names = users.hashes[self.users]
        listed = np.column_stack([names, np.sort(items.hashes[self.negatives], axis=1)])
        return hashlib.blake2b(listed[np.argsort(names)].tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test rows over the same id maps, and how they came about.

    Args:
        train, test: the two sets of rows; maps, features and titles are the same objects in both.
        how: the protocol in words, with its tie rule and what happened to cold rows.
        notes: counts of rows that were dropped, kept aside or are cold.
        candidates: listed negatives for every test user, or None where the whole catalog is ranked.
    """

    train: Dataset
    test: Dataset
    how: str
    notes: tuple[Note, ...] = ()
    candidates: Candidates | None = None

    def __post_init__(self) -> None:
        for kind in ("users", "items"):
            ours, theirs = getattr(self.train, kind), getattr(self.test, kind)
            if ours is not theirs and ours != theirs:
                raise DataError(f"train and test number their {kind} differently: give both the same IdMap")
        if self.candidates is None:
            return
        if not np.array_equal(self.candidates.users, self.test_users):
            raise DataError("candidates are not those of the test users of this split: draw them from this split")
        if self.candidates.negatives.min() < 0 or self.candidates.negatives.max() >= self.train.n_items:
            raise DataError(f"candidates name items beyond the {self.train.n_items} of this split: draw them from it")

    @cached_property
    def test_users(self) -> NDArray[np.int32]:
        """Row numbers of the users with test rows, ascending, shape (T,)."""
        return distinct(self.test.interactions.user)

    @property
    def fingerprint(self) -> str:
        """Identity of the training and test rows by external ids, 16 hex digits; ``how`` plays no part."""
        parts = "|".join(f"{d.rows}:{d.digest}" for d in (self.train.fingerprint, self.test.fingerprint))
        return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()

    def with_candidates(self, candidates: Candidates) -> Split:
        """The same rows with these candidates; raises DataError if they belong to other test users."""
        return replace(self, candidates=candidates)

    def relevant(self, at_least: float) -> Split:
        """Only test rows of this weight or more; raises DataError where none is left."""
        weight = self.test.interactions.weight
        kept = weight >= at_least
        if not kept.any():
            highest = f"highest weight {weight.max():g}" if len(weight) else "none to choose from"
            raise DataError(
                f"at_least={at_least:g} left no test rows ({len(weight):,} rows, {highest}): lower at_least"
            )
        test = self.test.with_rows(self.test.interactions.take(kept))
        candidates = self.candidates
        if candidates is not None:
            stay = np.isin(candidates.users, distinct(test.interactions.user))
            candidates = replace(candidates, users=candidates.users[stay], negatives=candidates.negatives[stay])
        notes = counted((f"test rows below {at_least:g}, not relevant, dropped", int((~kept).sum())))
        how = f"{self.how}; relevant: weight at least {at_least:g}"
        return Split(self.train, test, how, (*self.notes, *notes), candidates)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write Parquet files and a JSON manifest with their checksums; replaces an older split, nothing else.

        All is written to a sibling folder first and renamed into place, so that a process that is killed leaves
        the split that was there before or the new one. Raises BundleError where it cannot write.
        """
        from palate.data.splits.files import save_split

        save_split(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Split:
        """Read a saved split; raises BundleError where a file is missing, changed, cut short or too new."""
        from palate.data.splits.files import load_split

        return load_split(folder)


def leave_one_out(
    dataset: Dataset, *, tie: Literal["first", "last"] = "first", cold: Cold = "keep", min_history: int = 1
) -> Split:
    """Hold out each user's latest row; without time, the last row of the source.

    Args:
        dataset: rows in the order of their source.
        tie: which of several equally late rows is held out, the first or the last one of the source.
        cold: what happens to test rows whose user or item is not in train.
        min_history: rows a user must keep in train; users with fewer stay wholly in train and are counted.

    Raises:
        DataError: no user has enough rows.
    """
    rows = dataset.interactions
    counts = np.bincount(rows.user, minlength=dataset.n_users)
    enough = counts > min_history
    if not enough.any():
        most = counts.max(initial=0)
        raise DataError(
            f"min_history={min_history} left nobody to test ({len(rows):,} rows, largest user has {most}): lower it"
        )
    if tie not in ("first", "last"):
        raise DataError(f"tie={tie!r}: choose 'first' or 'last'")
    late, first = np.flatnonzero(enough[rows.user]), False
    order = "the last row of each user in the order of the source, which has no time"
    if rows.time is not None:
        time = _times(dataset)
        latest = np.full(dataset.n_users, -np.inf)
        np.maximum.at(latest, rows.user, time)
        late = late[time[late] == latest[rows.user[late]]]
        first = tie == "first"
        order = f"the latest row of each user, among equal times the {tie} of the source"
    held = np.full(dataset.n_users, len(rows) if first else -1)
    (np.minimum if first else np.maximum).at(held, rows.user[late], late)
    in_test = np.zeros(len(rows), dtype=bool)
    in_test[held[enough]] = True
    few = f"rows of {int(((counts > 0) & ~enough).sum()):,} users with fewer than {min_history + 1} rows, all in train"
    notes = counted((few, int(counts[~enough].sum())))
    return _cut(dataset, in_test, f"leave one out: {order}", cold, notes=notes)


def by_time(
    dataset: Dataset,
    *,
    rows: float | None = None,
    span: float | None = None,
    date: str | float | datetime | None = None,
    cold: Cold = "drop",
) -> Split:
    """Train on the past, test on the future, with one cut for everybody.

    Args:
        dataset: rows with times.
        rows: test share of the time-sorted rows; equal times keep the order of the source.
        span: test share of the time between the first and the last row.
        date: test rows are those at or after it (ISO date, seconds since 1970, or datetime; UTC unless it says so).
        cold: what happens to test rows whose user or item is not in train.

    Raises:
        DataError: not exactly one of ``rows``, ``span`` and ``date``, no times, or nothing left on one side.
    """
    given = {"rows": rows, "span": span, "date": date}
    asked = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    if len(asked) != 1:
        raise DataError(f"by_time got {' and '.join(asked) or 'no cut'}: give exactly one of rows, span and date")
    time = _times(dataset)
    in_test = np.zeros(len(time), dtype=bool)
    if rows is not None:
        in_test = latest(time, len(time) - _cut_index(len(time), rows, "rows"))
        what = f"the last {rows:.4g} of the time-sorted rows, equal times in the order of the source"
    elif span is not None:
        _check_share(span, "span")
        cut = time.min() + (1 - span) * np.ptp(time) if len(time) else 0.0
        in_test = time >= cut
        what = f"rows at or after {_iso(cut)}, the last {span:.4g} of the time span"
    else:
        in_test = time >= _seconds(date)
        what = f"rows at or after {_iso(_seconds(date))}"
    if in_test.any():
        what += f" (first test row {_iso(time[in_test].min())})"
    reach = f" from {_iso(time.min())} to {_iso(time.max())}" if len(time) else ""
    return _cut(dataset, in_test, f"global time: {what}", cold, asked=f"{asked[0]} over {len(time):,} rows{reach}")


def at_random(
    dataset: Dataset, *, share: float = 0.2, per_user: bool = False, seed: int = 0, cold: Cold = "drop"
) -> Split:
    """Hold out random rows: of all rows, or the same share of every user's rows (rounded down).

    It lets a model look into the future of the rows it is tested on; prefer a split by time where there is time.

    Raises:
        DataError: ``share`` is not inside (0, 1), or nothing is left on one side.
    """
    n = len(dataset)
    cut = _cut_index(n, share, "share")
    rng = np.random.default_rng(seed)
    in_test = np.zeros(n, dtype=bool)
    notes: tuple[Note, ...] = ()
    if per_user:
        user = dataset.interactions.user
        counts = np.bincount(user, minlength=dataset.n_users)
        starts = np.cumsum(counts) - counts
        order = group_by_user(user, rng.random(n))
        quota = np.floor(np.round(share * counts, 6)).astype(np.int64)
        in_test[order] = np.arange(n) - starts[user[order]] < quota[user[order]]
        few = f"rows of {int(((counts > 0) & (quota == 0)).sum()):,} users with too few rows, all in train"
        notes = counted((few, int(counts[quota == 0].sum())))
    else:
        in_test[rng.permutation(n)[cut:]] = True
    how = f"random: {share:.4g} of {'the rows of each user' if per_user else 'all rows'}, seed {seed}"
    return _cut(dataset, in_test, how, cold, notes=notes, asked=f"share={share:g} over {n:,} rows")


def _cut(
    dataset: Dataset, in_test: NDArray[np.bool_], how: str, cold: Cold, *, notes: tuple[Note, ...] = (), asked: str = ""
) -> Split:
    """Part the rows and deal with the cold ones."""
    if cold not in ("drop", "keep"):
        raise DataError(f"cold={cold!r}: choose 'drop' or 'keep'")
    known, held = dataset.interactions.take(~in_test), dataset.interactions.take(in_test)
    for side, rows in (("training", known), ("test", held)):
        if not len(rows):
            raise DataError(f"{asked or how} left no {side} rows of {len(dataset):,}: cut elsewhere or bring more rows")
    left_out = cold_notes(known, held, dataset, "dropped" if cold == "drop" else "kept")
    how = f"{how}; test rows of users or items unknown to train {'dropped' if cold == 'drop' else 'kept'}"
    if cold == "keep":
        return Split(dataset.with_rows(known), dataset.with_rows(held), how, (*notes, *left_out))
    train = dataset.with_rows(known).compact()
    new_user, new_item = renumbered(known.user, dataset.n_users)[1], renumbered(known.item, dataset.n_items)[1]
    held = replace(held, user=new_user[held.user], item=new_item[held.item])
    held = held.take((held.user >= 0) & (held.item >= 0))
    if not len(held):
        lost = "; ".join(map(str, left_out))
        raise DataError(f"cold='drop' left no test rows ({lost}): use cold='keep' or cut elsewhere")
    return Split(train, train.with_rows(held), how, (*notes, *left_out))


def cold_notes(known: Interactions, held: Interactions, dataset: Dataset, fate: str) -> tuple[Note, ...]:
    """Cold test rows, each counted once: unknown user first, then unknown item of a known user."""
    user = ~(np.bincount(known.user, minlength=dataset.n_users) > 0)[held.user]
    item = ~(np.bincount(known.item, minlength=dataset.n_items) > 0)[held.item]
    return counted(
        (f"test rows of users unknown to train, {fate}", int(user.sum())),
        (f"test rows of known users with items unknown to train, {fate}", int((item & ~user).sum())),
    )


def distinct(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The row numbers that occur, ascending."""
    return np.flatnonzero(np.bincount(rows)).astype(np.int32)


def counted(*counts: tuple[str, int]) -> tuple[Note, ...]:
    """A note for each count above 0."""
    return tuple(Note(what, rows) for what, rows in counts if rows)


def _times(dataset: Dataset) -> NDArray[np.float64]:
    time = dataset.interactions.time
    if time is None:
        raise DataError(f"{dataset.name} has no time to split by: use at_random, or name the time column")
    if bad := int((~np.isfinite(time)).sum()):
        raise DataError(f"{bad:,} of {len(time):,} timestamps are not finite: drop those rows first")
    return time


def _check_share(share: float, name: str) -> None:
    if not 0 < share < 1:
        raise DataError(f"{name}={share!r}: must be a share between 0 and 1, such as 0.2")


def _cut_index(n: int, share: float, name: str) -> int:
    _check_share(share, name)
    return int(round((1 - share) * n, 6))  # rounded first: 0.1 of 10 rows must not become 0.09999


def _seconds(date: str | float | datetime | None) -> float:
    try:
        moment = datetime.fromisoformat(date) if isinstance(date, str) else date
    except ValueError:
        moment = None
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if moment is None or not np.isfinite(moment):
        raise DataError(f"date={date!r} is not a date: write it like 2020-01-31 or 2020-01-31T12:00:00")
    return float(moment)


def _iso(seconds: float) -> str:
    return str(np.datetime64(int(np.clip(seconds, -1e14, 1e14)), "s")).replace("T", " ")
