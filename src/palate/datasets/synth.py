"""Generated logs of any size that resemble a published one in the statistics that costs and difficulty depend on.

Fitted: rows per user, rows per item, ratings, times (when users start, pauses, rows of one second) and how far the
popularity of items drifts. Not fitted: tastes, a random preference of each user for some groups of items, so that a
personalized model has something to learn; and there is no order in what a user takes next.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import ndtri

from palate.errors import DataError
from palate.progress import Progress, ProgressEvent, silent
from palate.storage import replacing

ROWS = 250_000  # generated at a time
ROW_GROUP = 1_000_000
GROUPS, TASTE = 18, 1.0  # groups of items, and the spread of the logarithm of a user's preference among them
MOST = 0.6  # of the catalog, rows of one user at most; and of the users, rows of one item
PERIODS = 8  # of equally many new users, each with popularity of its own
ROUNDS = 60  # of draws, until each user has as many different items as planned


@dataclass(frozen=True)
class Statistics:
    """A published log in a few numbers.

    Args:
        source: the log, and how the numbers were measured.
        users, items: their numbers.
        levels: levels of the quantiles below.
        activity, popularity, start: quantiles of rows per user, of rows per item, and of the time of a user's first
            row as a share of the span of the log.
        first, last: seconds since 1970 of the first and the last row.
        ratings: shares of the ratings 1, 2, ...
        quality, mood: standard deviation that items and users have in the latent rating, whose own is 1.
        acclaim: correlation of an item's quality with the logarithm of its popularity.
        alone, more: of the groups of rows of one user and second, the share of single rows, and the probability that
            a group of several goes on after its second row.
        pause, long_pause: mean and standard deviation of the logarithm of the seconds between two such groups, within
            a session and between sessions.
        sessions: share of the pauses that are between sessions.
        drift: standard deviation of the logarithm of the change of an item's popularity from the first to the last
            user.
    """

    source: str
    users: int
    items: int
    levels: tuple[float, ...]
    activity: tuple[float, ...]
    popularity: tuple[float, ...]
    start: tuple[float, ...]
    first: float
    last: float
    ratings: tuple[float, ...]
    quality: float
    mood: float
    acclaim: float
    alone: float
    more: float
    pause: tuple[float, float]
    long_pause: tuple[float, float]
    sessions: float
    drift: float


KNOWN = {
    "ml-1m": Statistics(
        source="MovieLens 1M (Harper and Konstan 2015), all 1,000,209 ratings; drift by matching `measure` of both",
        users=6_040,
        items=3_706,
        levels=(0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1),
        activity=(20, 20, 23, 27, 44, 96, 208, 400, 556, 907, 1_343, 2_314),
        popularity=(1, 1, 2, 7, 33, 123.5, 350, 729.5, 1_051.5, 1_785, 2_734, 3_428),
        start=(0, 0.0026, 0.0191, 0.0371, 0.0895, 0.1537, 0.2010, 0.2137, 0.2208, 0.2366, 0.2406, 0.9029),
        first=956_704_519,
        last=1_046_454_590,
        ratings=(0.0562, 0.1075, 0.2611, 0.3489, 0.2263),
        quality=0.49,
        mood=0.39,
        acclaim=0.34,
        alone=0.777,
        more=0.585,
        pause=(2.93, 1.04),
        long_pause=(13.1, 1.76),
        sessions=0.038,
        drift=0.6,
    ),
}


class Measured(NamedTuple):
    """The statistics of a log by which a generated one is compared with its model."""

    activity: NDArray[np.float64]
    popularity: NDArray[np.float64]
    ties: float
    drift: float


def measure(user: NDArray[np.int32], item: NDArray[np.int32], time: NDArray[np.float64]) -> Measured:
    """Quantiles (10, 50, 90 and 99 %) of rows per user and of items' popularity, share of ties, and drift.

    Popularity is relative to the mean, so that logs of other sizes are compared. Ties are rows whose user has another
    row in the same second. Drift is the chi-square distance (0 to 1) between the items of the users who start first
    and last, a third each, beyond that of random thirds: these differ by chance and by the tastes of their users.
    """
    levels = (0.1, 0.5, 0.9, 0.99)
    counts = np.bincount(item)
    counts = counts[counts > 0]
    moments = pl.DataFrame({"user": user, "time": time}).group_by("user", "time").len()["len"].to_numpy()
    start = np.full(int(user.max()) + 1, np.inf)
    np.minimum.at(start, user, time)

    def distance(key: NDArray[np.float64]) -> float:
        low, high = np.quantile(key, (1 / 3, 2 / 3))
        early, late = (
            np.bincount(item[part], minlength=item.max() + 1) for part in (key[user] < low, key[user] > high)
        )
        early, late = early / early.sum(), late / late.sum()
        both = early + late
        return float(((early - late)[both > 0] ** 2 / both[both > 0]).sum() / 2)

    rng = np.random.default_rng(0)
    by_chance = np.mean([distance(rng.random(len(start))) for _ in range(8)])
    rows_of = np.bincount(user)
    return Measured(
        np.quantile(rows_of[rows_of > 0], levels),
        np.quantile(counts / counts.mean(), levels),
        float(moments[moments > 1].sum() / len(user)),
        float(distance(start) - by_chance),
    )


def synthesize(path: Path, like: str = "ml-1m", scale: float = 1.0, seed: int = 0, progress: Progress = silent) -> int:
    """Write a generated log as Parquet (user_id, item_id, rating, timestamp) in row groups; memory does not grow.

    Args:
        path: the file; it appears when it is whole.
        like: the log that it resembles.
        scale: times as many users. Rows per user stay, and items grow by the square root, as among the MovieLens sets.
        seed: equal seeds give equal rows.
        progress: called after each part.

    Returns:
        The number of rows, about ``scale`` times those of the log.

    Raises:
        DataError: ``like`` is unknown, or the scale leaves too few users or items.
    """
    if like not in KNOWN:
        raise DataError(f"--like {like}: no statistics are known of it: choose {', '.join(KNOWN)}")
    about = KNOWN[like]
    n_users, n_items = round(about.users * scale), round(about.items * scale**0.5)
    if not (n_users >= 50 and n_items >= 50):
        raise DataError(f"--scale {scale:g} of {like} has {n_users} users and {n_items} items: at least 50 are needed")
    rng = np.random.default_rng(seed)
    activity = _quantiles(about, about.activity, rng.permutation((np.arange(n_users) + 0.5) / n_users))
    activity = np.minimum(np.rint(activity), MOST * n_items).astype(np.int64)
    catalog = _Catalog.of(about, n_items, activity, rng)
    ends = np.cumsum(activity)
    cuts = np.unique(np.searchsorted(ends, np.arange(ROWS, ends[-1] + ROWS, ROWS)).clip(max=n_users - 1) + 1)
    with replacing(path) as temporary:
        held: list[pl.DataFrame] = []
        writer = None
        for number, (first, last) in enumerate(zip([0, *cuts[:-1]], cuts, strict=True)):
            part = np.random.default_rng([seed, number])
            held.append(_rows_of_users(about, catalog, activity[first:last], int(first), part))
            if sum(map(len, held)) >= ROW_GROUP or last == n_users:
                table = pl.concat(held).to_arrow()
                writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
                writer.write_table(table)
                held = []
            progress(ProgressEvent(f"write {path.name}", int(ends[last - 1]), int(ends[-1]), "row"))
        if writer is not None:
            writer.close()
    return int(pq.read_metadata(path).num_rows)


class _Catalog(NamedTuple):
    """Items in order of their group.

    Args:
        edges: (GROUPS + 1,) first item of each group.
        cumulative: (PERIODS * items,) sums of popularity; in period p from p to p + 1.
        quality: (items,) the part of the latent rating that the item makes.
        ids: (items,) external ids, which say nothing about popularity.
    """

    edges: NDArray[np.int64]
    cumulative: NDArray[np.float64]
    quality: NDArray[np.float64]
    ids: NDArray[np.int64]

    @classmethod
    def of(cls, about: Statistics, n_items: int, activity: NDArray[np.int64], rng: np.random.Generator) -> _Catalog:
        counts = _quantiles(about, about.popularity, (np.arange(n_items) + 0.5) / n_items)
        # Rows per item grow slower than users; in a small log the head would need more users than there are.
        counts = np.minimum(counts * activity.sum() / counts.sum(), MOST * len(activity))
        target = rng.permutation(counts / counts.sum())
        # Nobody takes an item twice, which flattens the head: the weights are steepened until the expected counts of
        # draws without replacement (a Poisson approximation, by quantiles of activity) have the target's shape.
        sizes = np.quantile(activity, (np.arange(40) + 0.5) / 40)
        weight, draws = target.copy(), sizes.copy()
        for _ in range(20):
            for _ in range(5):
                found = -np.expm1(-draws[:, None] * weight)
                draws *= sizes / found.sum(axis=1)
            weight *= target / (found.sum(axis=0) / found.sum())
            weight /= weight.sum()
        # Popularity changes at a steady rate, another for each item.
        times = np.linspace(-0.5, 0.5, PERIODS)[:, None]
        shares = weight * np.exp(about.drift * rng.standard_normal(n_items) * times)
        cumulative = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
        cumulative /= cumulative[:, -1:]
        quality = rng.standard_normal(n_items) * (1 - about.acclaim**2) ** 0.5
        fame = np.log(target)
        quality += about.acclaim * (fame - fame.mean()) / fame.std()
        quality -= target @ quality
        quality *= about.quality / (target @ quality**2) ** 0.5
        edges = np.linspace(0, n_items, GROUPS + 1).astype(np.int64)
        flat = np.asarray(cumulative + np.arange(PERIODS)[:, None], np.float64).ravel()
        return cls(edges, flat, quality, rng.permutation(np.arange(1, n_items + 1)))


def _rows_of_users(
    about: Statistics, catalog: _Catalog, activity: NDArray[np.int64], first: int, rng: np.random.Generator
) -> pl.DataFrame:
    """The rows of some users, each user's by time."""
    n_users, n_items = len(activity), len(catalog.ids)
    user = np.repeat(np.arange(n_users), activity)
    begin = np.cumsum(activity) - activity
    time = _times(about, user, begin, n_users, rng)
    # Periods in which equally many users start: most of them start within a small part of the span.
    passed = np.interp((time - about.first) / (about.last - about.first), about.start, about.levels)
    period = np.minimum(passed * PERIODS, PERIODS - 1).astype(np.int64)
    taste = np.exp(TASTE * rng.standard_normal((n_users, GROUPS)))
    # Each user's groups by popularity in the middle of the log times taste, as cumulative shares.
    middle = np.concatenate([[0.0], catalog.cumulative[n_items * (PERIODS // 2) :][:n_items] - PERIODS // 2])
    taste = np.cumsum(taste * np.diff(middle[catalog.edges]), axis=1)
    taste /= taste[:, -1:]
    bounds = np.insert(catalog.cumulative.reshape(PERIODS, n_items), 0, np.arange(PERIODS), axis=1)
    done: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    pairs, slots, missing = np.empty(0, np.int64), np.empty(0, np.int64), activity
    for left in reversed(range(ROUNDS)):
        drawn = np.repeat(np.arange(n_users), np.where(missing > 0, missing + missing // 2 + 2, 0))
        slot = begin[drawn] + (rng.random(len(drawn)) * activity[drawn]).astype(np.int64)
        group = (rng.random(len(drawn))[:, None] > taste[drawn]).sum(axis=1)
        low, high = (bounds[period[slot], catalog.edges[group + side]] for side in (0, 1))
        item = catalog.cumulative.searchsorted(low + rng.random(len(drawn)) * (high - low), side="right")
        item = np.clip(item - period[slot] * n_items, catalog.edges[group], catalog.edges[group + 1] - 1)
        pairs, slots = np.concatenate([pairs, drawn * n_items + item]), np.concatenate([slots, slot])
        # The first draws of a user that are different items are the user's.
        kept = np.sort(np.unique(pairs, return_index=True)[1])
        kept = kept[np.argsort(pairs[kept] // n_items, kind="stable")]
        owner = pairs[kept] // n_items
        found = np.bincount(owner, minlength=n_users)
        kept = kept[np.arange(len(kept)) - np.repeat(np.cumsum(found) - found, found) < activity[owner]]
        missing = np.where(found > 0, np.maximum(activity - found, 0), 0)
        ready = (missing[pairs[kept] // n_items] == 0) | (left == 0)
        done.append((pairs[kept[ready]], slots[kept[ready]]))
        pairs, slots = pairs[kept[~ready]], slots[kept[~ready]]
        if not len(pairs):
            break
    pairs, slots = (np.concatenate(parts) for parts in zip(*done, strict=True))
    # An item was drawn by its popularity at the time of its slot; in the order of slots it gets about that time.
    order = np.lexsort((slots, pairs // n_items))
    user, item = pairs[order] // n_items, pairs[order] % n_items
    found = np.bincount(user, minlength=n_users)
    time = time[np.arange(len(user)) - np.repeat(np.cumsum(found) - found - begin, found)]
    noise = (1 - about.quality**2 - about.mood**2) ** 0.5 * rng.standard_normal(len(user))
    latent = catalog.quality[item] + (about.mood * rng.standard_normal(n_users))[user] + noise
    rating = ndtri(np.cumsum(about.ratings)[:-1] / sum(about.ratings)).searchsorted(latent) + 1
    return pl.DataFrame(
        {
            "user_id": (user + first + 1).astype(np.int32),
            "item_id": catalog.ids[item].astype(np.int32),
            "rating": rating.astype(np.float32),
            "timestamp": time.astype(np.int64),
        }
    )


def _times(
    about: Statistics, user: NDArray[np.int64], begin: NDArray[np.int64], n_users: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Seconds of each row: sessions with pauses between them, and several rows within one second."""
    n_rows = len(user)
    size = np.where(rng.random(n_rows) < about.alone, 1, 1 + rng.geometric(1 - about.more, n_rows))
    new = np.zeros(n_rows, np.bool_)
    starts = np.cumsum(size) - size
    new[starts[starts < n_rows]] = True
    between = rng.random(n_rows) < about.sessions
    normal = rng.standard_normal(n_rows)
    mean, spread = (np.where(between, about.long_pause[of], about.pause[of]) for of in (0, 1))
    pause = np.where(new, np.maximum(np.exp(mean + spread * normal), 1), 0)
    pause[begin] = 0
    total = np.cumsum(pause)
    offset = total - total[begin][user]
    start = _quantiles(about, about.start, rng.random(n_users), linear=True) * (about.last - about.first)
    room = about.last - about.first - start
    # Users who would go on beyond the end of the log have shorter pauses.
    longest = np.maximum.reduceat(offset, begin)
    offset *= np.minimum(1, room / np.maximum(longest, 1))[user]
    times: NDArray[np.float64] = np.floor(about.first + start[user] + offset)
    return times


def _quantiles(
    about: Statistics, quantiles: tuple[float, ...], levels: NDArray[np.float64], *, linear: bool = False
) -> NDArray[np.float64]:
    """Values between the quantiles, by default on a logarithmic scale, since these spread over orders of magnitude."""
    known = np.array(quantiles, np.float64)
    known = known if linear else np.log(known)
    found = np.interp(levels, about.levels, known)
    values: NDArray[np.float64] = found if linear else np.exp(found)
    return values
