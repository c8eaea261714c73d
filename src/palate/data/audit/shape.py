"""Checks of distributions: rows per user, popularity, density, ratings, activity over time."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from palate.data.audit.finding import Outcome, graded, many
from palate.data.audit.subject import Subject
from palate.data.dataset import day

SHORT = 5
EARLIEST = 315_532_800.0  # 1980: no log is older; a time of 0 (1970) is a missing value


def short_history(subject: Subject) -> Outcome:
    """Users with too few rows for personalization; of a split, test users and their training rows."""
    if subject.split is None:
        counts, who, what = subject.per_user, "user", "rows"
    else:
        train = np.bincount(subject.split.train.interactions.user, minlength=subject.split.train.n_users)
        counts, who, what = train[subject.split.test_users], "test user", "training rows"
    few = int((counts < SHORT).sum())
    share = few / max(1, len(counts))
    if not few:
        return Outcome("ok", f"every {who} has {SHORT} or more {what} (fewest {counts.min():,})")
    said = f"{few:,} of {many(len(counts), who)} {'has' if few == 1 else 'have'} fewer than {SHORT} {what}"
    return Outcome(graded(share, warning=0.1), said, few, share)


def rows_per_user(subject: Subject) -> Outcome:
    """Rows per user, and whether a few users have most of the rows."""
    counts = np.sort(subject.per_user)[::-1]
    # Rounded up, so that fewer than 100 users still have a most active one.
    top = -(-len(counts) // 100)
    share = float(counts[:top].sum() / counts.sum())
    what = f"median {np.median(counts):g}, mean {counts.mean():.1f}, most {counts[0]:,}"
    what += f"; the {many(top, 'most active user')} ({top / len(counts):.1%}) made {share:.1%} of the rows"
    # With fewer users the top 1 % is a single user, whose share says little.
    heavy = len(counts) >= 100 and share >= 0.5
    return Outcome("warning" if heavy else "info", what, top, share)


def concentration(subject: Subject) -> Outcome:
    """Inequality of the number of rows per item."""
    counts = np.sort(subject.per_item)[::-1]
    top = -(-len(counts) // 10)
    unequal, single = gini(counts), int((counts == 1).sum())
    what = f"Gini {unequal:.2f}; the most popular {many(top, 'item')} ({top / len(counts):.0%}) have "
    what += f"{counts[:top].sum() / counts.sum():.0%} of the rows; {many(single, 'item', 'has', 'have')} one row"
    return Outcome("warning" if unequal >= 0.9 else "info", what, top, unequal)


def density(subject: Subject) -> Outcome:
    """The fraction of all pairs of user and item that have a row."""
    cells = len(subject.per_user) * len(subject.per_item)
    filled = subject.distinct
    share = filled / cells
    what = f"{share:.3%} of {len(subject.per_user):,} users x {len(subject.per_item):,} items"
    what += f"; {len(subject.frame) / len(subject.per_item):.1f} rows per item"
    return Outcome("warning" if share < 1e-4 or share > 0.5 else "info", what, filled, share)


def ratings(subject: Subject) -> Outcome | str:
    """The distribution of ratings, and whether one value dominates."""
    weight = subject.rows.interactions.weight.astype(np.float64)
    values, counts = np.unique(weight, return_counts=True)
    if len(values) < 2:
        return "the rows have no ratings or weights"
    most = int(np.argmax(counts))
    share = float(counts[most] / counts.sum())
    what = f"{subject.weight_name}: mean {weight.mean():.2f}, standard deviation {weight.std():.2f}"
    what += f", {len(values):,} values; most often {values[most]:g}, {share:.0%} of the rows"
    return Outcome("warning" if share >= 0.9 else "info", what, int(counts[most]), share)


def activity(subject: Subject) -> Outcome | str:
    """The times of the rows: impossible ones, and days with most of the rows."""
    if subject.undated:
        return subject.undated
    time = subject.frame["time"].to_numpy()
    # One day of tolerance: local times written as UTC may be up to 14 hours ahead.
    odd = (time < EARLIEST) | (time > datetime.now(UTC).timestamp() + 86_400)
    days, counts = np.unique(np.floor(time / 86_400), return_counts=True)
    most = int(np.argmax(counts))
    what = f"{day(time.min())} to {day(time.max())}, rows on {many(len(days), 'day')}"
    what += f"; most on {day(days[most] * 86_400)}: {counts[most] / len(time):.1%} of the rows"
    if odd.any():
        n = int(odd.sum())
        examples = [f"{seconds:.0f} is {day(seconds)}" for seconds in np.unique(time[odd])[:3]]
        what = f"{many(n, 'row')} before 1980 or in the future; {what}"
        return Outcome("problem", what, n, n / len(time), examples)
    share = float(counts[most] / len(time))
    return Outcome("warning" if share >= 0.5 else "info", what, int(counts[most]), share)


def gini(counts: NDArray[np.int64]) -> float:
    """The Gini coefficient of positive counts: 0 if all are equal, near 1 if one has almost all."""
    ascending = np.sort(counts).astype(np.float64)
    n = len(ascending)
    return float(2 * (np.arange(1, n + 1) * ascending).sum() / (n * ascending.sum()) - (n + 1) / n)
