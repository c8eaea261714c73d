"""How a split is made of a data set: leave one out, by time, at random."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.dataset import Dataset, Interactions, Note, NoteKind
from palate.data.order import group_by_user, latest, renumbered
from palate.data.splits.split import Split, counted
from palate.errors import DataError

Cold = Literal["drop", "keep"]


def leave_one_out(
    dataset: Dataset, *, tie: Literal["first", "last"] = "first", cold: Cold = "keep", min_history: int = 1
) -> Split:
    """Hold out each user's latest row; without time, the last row of the source.

    Args:
        dataset: rows in the order of their source.
        tie: which of several equally late rows is held out, the first or the last one of the source.
        cold: "keep" or "drop" test rows whose user or item is not in train.
        min_history: rows a user must keep in train; users with fewer stay wholly in train and are counted.

    Raises:
        DataError: no user has enough rows.
    """
    _check_dataset(dataset, "leave_one_out")
    rows = dataset.interactions
    counts = np.bincount(rows.user, minlength=dataset.n_users)
    enough = counts > min_history
    if not enough.any():
        most = counts.max(initial=0)
        raise DataError(
            f"min_history={min_history} left no user to test ({len(rows):,} rows, largest user has {most}): lower it"
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
    test_size: float | None = None,
    *,
    span: float | None = None,
    date: str | float | datetime | None = None,
    cold: Cold = "drop",
) -> Split:
    """Train on the past and test on the future, with one cut for all users.

    Args:
        dataset: rows with times.
        test_size: fraction of the time-sorted rows that are test rows; equal times keep the order of the source.
            Default: 0.2, where neither ``span`` nor ``date`` is given.
        span: fraction of the time between the first and the last row that is test time.
        date: test rows are those at or after it (ISO date, seconds since 1970, or datetime; UTC unless it says so).
        cold: "drop" or "keep" test rows whose user or item has no training rows.

    Raises:
        DataError: more than one of ``test_size``, ``span`` and ``date``, no times, times that are the order of the rows
            of one user, or no rows left on one side.
    """
    _check_dataset(dataset, "by_time")
    if not dataset.comparable_times:
        raise DataError(
            f"{dataset.name}: times are the order of the rows of each user, and those of different users cannot be "
            "compared: hold out the latest row of each user (leave_one_out, --split leave-one-out)"
        )
    if test_size is None and span is None and date is None:
        test_size = 0.2
    given = {"test_size": test_size, "span": span, "date": date}
    asked = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    if len(asked) != 1:
        raise DataError(f"by_time got {' and '.join(asked)}: give only one of test_size, span and date")
    time = _times(dataset)
    in_test = np.zeros(len(time), dtype=bool)
    if test_size is not None:
        in_test = latest(time, len(time) - _cut_index(len(time), test_size, "test_size"))
        rule = f"the last {test_size:.4g} of the time-sorted rows, equal times in the order of the source"
    elif span is not None:
        check_fraction(span, "span")
        cut = time.min() + (1 - span) * np.ptp(time) if len(time) else 0.0
        in_test = time >= cut
        rule = f"rows at or after {_iso(cut)}, the last {span:.4g} of the time span"
    else:
        in_test = time >= _seconds(date)
        rule = f"rows at or after {_iso(_seconds(date))}"
    if in_test.any():
        first = time[in_test].min()
        rule += f" (first test row {_iso(first)})"
        if (divided := time == first)[~in_test].any():
            grain = ", as all rows have" if not np.ptp(time) else ", a whole day" if not (time % 86_400).any() else ""
            rule += f"; {divided.sum():,} rows have this time{grain}, and the order of the source divides them"
    reach = f" from {_iso(time.min())} to {_iso(time.max())}" if len(time) else ""
    return _cut(dataset, in_test, f"global time: {rule}", cold, asked=f"{asked[0]} over {len(time):,} rows{reach}")


def at_random(
    dataset: Dataset, test_size: float = 0.2, *, per_user: bool = False, seed: int = 0, cold: Cold = "drop"
) -> Split:
    """Hold out random rows: a fraction of all rows, or of the rows of each user (rounded down).

    A model then sees the future of the rows it is tested on: prefer a split by time where there are times.

    Args:
        dataset: the rows.
        test_size: fraction of the rows that are test rows. Default: 0.2.
        per_user: take the fraction of each user's rows instead of all rows.
        seed: of the random generator.
        cold: "drop" or "keep" test rows whose user or item has no training rows.

    Raises:
        DataError: ``test_size`` is not inside (0, 1), or no rows are left on one side.
    """
    _check_dataset(dataset, "at_random")
    n = len(dataset)
    cut = _cut_index(n, test_size, "test_size")
    rng = np.random.default_rng(seed)
    in_test = np.zeros(n, dtype=bool)
    notes: tuple[Note, ...] = ()
    if per_user:
        user = dataset.interactions.user
        counts = np.bincount(user, minlength=dataset.n_users)
        starts = np.cumsum(counts) - counts
        order = group_by_user(user, rng.random(n))
        quota = np.floor(np.round(test_size * counts, 6)).astype(np.int64)
        in_test[order] = np.arange(n) - starts[user[order]] < quota[user[order]]
        few = f"rows of {int(((counts > 0) & (quota == 0)).sum()):,} users with too few rows, all in train"
        notes = counted((few, int(counts[quota == 0].sum())))
    else:
        in_test[rng.permutation(n)[cut:]] = True
    how = f"random: {test_size:.4g} of {'the rows of each user' if per_user else 'all rows'}, seed {seed}"
    return _cut(dataset, in_test, how, cold, notes=notes, asked=f"test_size={test_size:g} over {n:,} rows")


def k_folds(dataset: Dataset, folds: int = 5, *, seed: int = 0) -> list[Split]:
    """Cross-validation: the rows of each user are dealt out at random, and each fold is the test rows of one split.

    Every row is a test row once. A model then sees the future of the rows it is tested on: prefer ``rolling_windows``
    where there are times. Cold test rows are kept.

    Args:
        dataset: the rows.
        folds: number of splits, at least 2. Default: 5.
        seed: of the random generator.

    Raises:
        DataError: ``folds`` is below 2, or more than there are rows.
    """
    _check_dataset(dataset, "k_folds")
    _check_parts("folds", folds, len(dataset))
    rng = np.random.default_rng(seed)
    # In the order of the users, so that one deal gives each user's rows to as many folds as there are.
    order = group_by_user(dataset.interactions.user, rng.random(len(dataset)))
    fold = np.empty(len(dataset), np.int64)
    fold[order] = np.arange(len(dataset)) % folds
    return [
        _cut(dataset, fold == number, f"fold {number + 1} of {folds}: rows of each user at random, seed {seed}", "keep")
        for number in range(folds)
    ]


def rolling_windows(dataset: Dataset, windows: int = 3, *, test_size: float = 0.2) -> list[Split]:
    """The latest rows in windows of equal numbers of rows, each tested by a model of all rows before it.

    Args:
        dataset: rows with times.
        windows: number of splits, at least 2. Default: 3.
        test_size: fraction of the time-sorted rows that all windows hold together. Default: 0.2.

    Raises:
        DataError: no times, times of one user only, or ``windows`` below 2 or more than there are rows to test.
    """
    _check_dataset(dataset, "rolling_windows")
    if not dataset.comparable_times:
        raise DataError(f"{dataset.name}: times of different users cannot be compared: use k_folds (--folds)")
    order = np.argsort(_times(dataset), kind="stable")
    first = _cut_index(len(order), test_size, "test_size")
    _check_parts("windows", windows, len(order) - first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    ends = np.linspace(first, len(order), windows + 1).round().astype(np.int64)
    splits = []
    for number, (start, end) in enumerate(pairwise(ends.tolist()), 1):
        until = place < end
        known = dataset.with_rows(dataset.interactions.take(until))
        begin = _iso(_times(dataset)[order[start]])
        how = f"window {number} of {windows}: {end - start:,} rows from {begin} on, trained on all rows before"
        splits.append(_cut(known, place[until] >= start, how, "drop"))
    return splits


def _check_parts(name: str, parts: int, rows: int) -> None:
    if not (isinstance(parts, int) and 2 <= parts <= rows):
        raise DataError(f"{name}={parts!r}: give 2 to {rows:,}, as many as there are rows to test")


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
        other = "hold out the latest row of each user (leave_one_out, --split leave-one-out), which suits session logs"
        other = "" if how.startswith("leave one out") else f"{other}, or "
        raise DataError(f"cold='drop' left no test rows ({lost}): {other}use cold='keep' or cut elsewhere")
    return Split(train, train.with_rows(held), how, (*notes, *left_out))


def cold_notes(known: Interactions, held: Interactions, dataset: Dataset, fate: str) -> tuple[Note, ...]:
    """Cold test rows, each counted once: unknown user first, then unknown item of a known user."""
    user = ~(np.bincount(known.user, minlength=dataset.n_users) > 0)[held.user]
    item = ~(np.bincount(known.item, minlength=dataset.n_items) > 0)[held.item]
    dropped = fate == "dropped"
    kinds: tuple[NoteKind, ...] = ("unknown-user", "unknown-item") if dropped else ("", "")
    texts = (
        f"test rows of users unknown to train, {fate}",
        f"test rows of known users with items unknown to train, {fate}",
    )
    counts = int(user.sum()), int((item & ~user).sum())
    return tuple(Note(*note) for note in zip(texts, counts, kinds, strict=True) if note[1])


def _times(dataset: Dataset) -> NDArray[np.float64]:
    time = dataset.interactions.time
    if time is None:
        raise DataError(
            f"{dataset.name} has no time to split by: use palate.at_random (--split random), "
            "or name the time column with timestamp=... (--time)"
        )
    if bad := int((~np.isfinite(time)).sum()):
        raise DataError(f"{bad:,} of {len(time):,} timestamps are not finite: drop those rows first")
    return time


def check_fraction(value: float, name: str) -> None:
    """Raises DataError where ``value`` is not inside (0, 1)."""
    if not (isinstance(value, int | float) and 0 < value < 1):
        raise DataError(f"{name}={value!r}: must be a fraction between 0 and 1, such as 0.2")


def _check_dataset(dataset: object, function: str) -> None:
    if not isinstance(dataset, Dataset):
        kind = type(dataset).__name__
        raise DataError(
            f"{function} got a {kind}, not a Dataset: write palate.{function}(palate.from_frame(...)), "
            "with the data frame or the rows in from_frame"
        )


def _cut_index(n: int, test_size: float, name: str) -> int:
    check_fraction(test_size, name)
    return int(round((1 - test_size) * n, 6))  # rounded first: 0.1 of 10 rows must not become 0.09999


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
