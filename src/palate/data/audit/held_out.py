"""Checks of held-out rows: ties, leaks of later rows, repeated rows, unknown ids, relevant items among negatives."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.audit.finding import Outcome, graded, many, percent
from palate.data.audit.subject import Subject, among, pairs
from palate.data.dataset import Dataset
from palate.data.splits.split import Split

DAY = 86_400
FEW_USERS = 100
NO_SPLIT = "there is no split (--split makes one)"


def ties(subject: Subject) -> Outcome | str:
    """Users whose held-out row is one of several equally late ones, which makes its choice arbitrary."""
    if subject.untimed:
        return subject.untimed
    if subject.split is not None and _leaked(subject.split).mean() > 0.5:
        return "the split does not hold out the latest rows"
    if subject.split is None:
        tied, users = _latest_tied(subject.frame)
        of, which = subject.rows.users, "their latest row"
    else:
        last, first = _ends(subject.split)
        both = np.isfinite(last) & np.isfinite(first)
        tied, users = np.flatnonzero(both & (last == first)).astype(np.int32), int(both.sum())
        of, which = subject.split.train.users, "the held-out row"
    if not users:
        return "no user has two rows"
    whole = bool((subject.frame["time"] % DAY == 0).all())
    grain = "; times are whole days" if whole else ""
    if not len(tied):
        return Outcome("ok", f"none of {many(users, 'user')} has another row at the time of {which}{grain}")
    share = len(tied) / users
    what = f"{len(tied):,} of {many(users, 'user')} ({percent(share)}) have another row at the time of {which}, "
    what += f"so the choice of the held-out row is arbitrary{grain}"
    examples = [f"user {one}" for one in of.external(tied[:3])]
    return Outcome(graded(share, problem=0.05), what, len(tied), share, examples)


def leak(subject: Subject) -> Outcome | str:
    """Test rows that are older than a training row of the same user."""
    if (split := subject.split) is None or subject.untimed:
        return NO_SPLIT if split is None else str(subject.untimed)
    late = _leaked(split)
    users = np.unique(split.test.interactions.user[late])
    count, share = int(late.sum()), float(late.mean())
    if not count:
        return Outcome("ok", "no test row is older than a training row of its user")
    what = f"{count:,} of {many(len(late), 'test row')} ({percent(share)}), of {len(users):,} of "
    what += f"{many(len(split.test_users), 'test user')}, are older than a training row of the same user"
    examples = [f"user {one}" for one in split.train.users.external(users[:3])]
    return Outcome(graded(share, problem=0.05), what, count, share, examples)


def global_leak(subject: Subject) -> Outcome | str:
    """Test rows that are older than training rows of any user."""
    if (split := subject.split) is None or subject.untimed:
        return NO_SPLIT if split is None else str(subject.untimed)
    if not split.train.comparable_times:
        return "times of different users cannot be compared"
    # One sort and a binary search instead of comparing every test row with every training row.
    known = np.sort(_time(split.train))
    later = len(known) - np.searchsorted(known, _time(split.test), side="right")
    count, share = int((later > 0).sum()), float((later > 0).mean())
    if not count:
        return Outcome("ok", "no training row is later than a test row")
    middle = float(np.median(later[later > 0])) / len(known)
    what = f"{count:,} of {many(len(later), 'test row')} ({percent(share)}) are older than a training row of any user"
    what += f"; the median one is older than {percent(middle)} of the training rows"
    return Outcome(graded(share), what, count, share)


def trained_rows(subject: Subject) -> Outcome | str:
    """Test rows whose pair of user and item also occurs in training."""
    if (split := subject.split) is None:
        return NO_SPLIT
    again = among(pairs(split.test.interactions, split.train.n_items), subject.known)
    count, share = int(again.sum()), float(again.mean())
    if not count:
        return Outcome("ok", "no test row has a pair of user and item that also occurs in training")
    what = f"{count:,} of {many(len(again), 'test row')} ({percent(share)}) have a pair of user and item "
    what += "that also occurs in training"
    rows = split.test.interactions.take(np.flatnonzero(again)[:3])
    users, items = split.train.users.external(rows.user), split.train.items.external(rows.item)
    examples = [f"user {user} with item {item}" for user, item in zip(users, items, strict=True)]
    return Outcome(graded(share, problem=0.01), what, count, share, examples)


def unknown_users(subject: Subject) -> Outcome | str:
    """Test rows of users without training rows, kept or dropped."""
    return NO_SPLIT if subject.split is None else _unknown(subject.split, "user")


def unknown_items(subject: Subject) -> Outcome | str:
    """Test rows of items without training rows, kept or dropped."""
    return NO_SPLIT if subject.split is None else _unknown(subject.split, "item")


def listed_positives(subject: Subject) -> Outcome | str:
    """Listed negatives that are held-out items of their user, or that the user has in training."""
    if (split := subject.split) is None:
        return NO_SPLIT
    if (candidates := split.candidates) is None:
        return "the split has no listed negatives"
    n_items = split.train.n_items
    listed = candidates.users[:, None].astype(np.int64) * n_items + candidates.negatives
    held = np.sort(pairs(split.test.interactions, n_items))
    own, known = (among(listed, wrong).max(axis=1) for wrong in (held, subject.known))
    count = int((own | known).sum())
    if not count:
        return Outcome("ok", f"no listed negative of {many(len(own), 'test user')} is an item of that user")
    what = f"{own.sum():,} of {many(len(own), 'test user')} have one of their test items among the listed negatives"
    what += f", {known.sum():,} one of their training items"
    users = split.train.users.external(candidates.users[own | known][:3])
    return Outcome("problem", what, count, count / len(own), [f"user {one}" for one in users])


def few_test_users(subject: Subject) -> Outcome | str:
    """Whether there are enough test users to distinguish models."""
    if subject.split is None:
        return NO_SPLIT
    n, rows = len(subject.split.test_users), len(subject.split.test)
    what = f"{many(n, 'test user')} with {many(rows, 'test row')}"
    return Outcome("warning" if n < FEW_USERS else "ok", what, n)


def _unknown(split: Split, side: str) -> Outcome:
    train, test = split.train.interactions, split.test.interactions
    ids = split.train.users if side == "user" else split.train.items
    known = np.bincount(getattr(train, side), minlength=len(ids)) > 0
    unknown = ~known[getattr(test, side)]
    kept = int(unknown.sum())
    # Rows that were dropped are in neither part of the split, so they are counted from its notes.
    dropped = sum(note.rows for note in split.notes if note.kind == f"unknown-{side}")
    count = kept + dropped
    whole = len(test) + sum(note.rows for note in split.notes if note.kind in ("unknown-user", "unknown-item"))
    if not count:
        return Outcome("ok", f"every {side} of the test rows has training rows")
    share = count / whole
    what = f"{count:,} of {many(whole, 'test row')} ({percent(share)}) are of {side}s without training rows"
    what += f": {kept:,} kept, {dropped:,} dropped" if dropped else " and are kept"
    examples = [f"{side} {one}" for one in ids.external(np.unique(getattr(test, side)[unknown])[:3])]
    return Outcome(graded(share, warning=0.05), what, count, share, examples)


def _latest_tied(frame: pl.DataFrame) -> tuple[NDArray[np.int32], int]:
    """Users with several items at their latest time, ascending, and the number of users with two items or more."""
    several = int((frame.group_by("user").agg(pl.col("item").n_unique())["item"] > 1).sum())
    # Repeats of one item at the latest time are no tie: either row holds out the same item.
    late = frame.filter(pl.col("time") == pl.col("time").max().over("user")).unique(["user", "item"])
    tied = late.group_by("user").len().filter(pl.col("len") > 1)["user"].sort()
    return tied.to_numpy(), several


def _leaked(split: Split) -> NDArray[np.bool_]:
    """Mask of the test rows that are older than a training row of their user."""
    last, _ = _ends(split)
    return np.asarray(_time(split.test) < last[split.test.interactions.user])


def _ends(split: Split) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per user the time of the last training row (-inf: none) and of the first test row (inf: none)."""
    last, first = np.full(split.train.n_users, -np.inf), np.full(split.train.n_users, np.inf)
    np.maximum.at(last, split.train.interactions.user, _time(split.train))
    np.minimum.at(first, split.test.interactions.user, _time(split.test))
    return last, first


def _time(rows: Dataset) -> NDArray[np.float64]:
    time = rows.interactions.time
    return np.empty(0) if time is None else time
