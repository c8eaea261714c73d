"""Data whose right answer is known without a golden file."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from palate.base import Query
from palate.data.dataset import Dataset, Fingerprint, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.data.splits.strategies import leave_one_out

__all__ = ["Fixed", "hates", "likes", "make_checkerboard", "make_split", "make_tastes"]


def make_checkerboard(size: int = 40, *, rated: bool = False) -> Split:
    """Even users like even items, odd users odd ones; each user's own item (the diagonal) is held out.

    With ``rated`` the liked items are rated 5, and a third of the others, which each user has seen too, 1.
    """
    user, item = np.divmod(np.arange(size * size), size)
    liked = (user % 2) == (item % 2)
    kept = liked | (rated & ((user + 2 * item) % 3 == 0))
    user, item, liked = user[kept].astype(np.int32), item[kept].astype(np.int32), liked[kept]
    time = np.where(user == item, 2e9, 1e9 + (item * 7 + user * 3) % 100).astype(np.float64)
    weight = np.where(liked, 5 if rated else 1, 1).astype(np.float32)
    rows = Interactions(user, item, weight, time)
    ids = IdMap.of(np.arange(size))
    return leave_one_out(
        Dataset("checkerboard", ids, ids, rows, Feedback("rating" if rated else "quantity")), cold="keep"
    )


class Fixed(nn.Module):
    """Scores given by a table (U, I), whatever the history."""

    trained_on: Fingerprint | None = None

    def __init__(self, table: object) -> None:
        super().__init__()
        self.register_buffer("table", torch.as_tensor(table, dtype=torch.float32))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        whole = self.table[query.user]
        return whole if items is None else whole.gather(1, items)

    def can_personalize(self, query: Query) -> Tensor:
        return query.user >= 0


def make_split(train: list[tuple[int, int]], test: list[tuple[int, int]], users: int, items: int) -> Split:
    """Training and test rows (user, item), each a second later than the one before."""

    def rows(pairs: list[tuple[int, int]], start: float) -> Interactions:
        array = np.array(pairs, dtype=np.int32).reshape(-1, 2)
        return Interactions(
            array[:, 0], array[:, 1], np.ones(len(array), np.float32), start + np.arange(len(array), dtype=np.float64)
        )

    data = Dataset("tiny", IdMap.of(np.arange(users)), IdMap.of(np.arange(items)), rows(train, 0))
    return Split(data, data.with_rows(rows(test, 1000)), "by hand")


def make_tastes(low: float = 1, high: float = 5, users: int = 120, seed: int = 0) -> pl.DataFrame:
    """Ratings of users who each like one of four categories of 30 items and hate another: 12 items of both are rated.

    Item ``30 * c`` to ``30 * c + 29`` are of category c. ``likes`` and ``hates`` give the categories of a user.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for category, weight in ((likes(user), high), (hates(user), low)):
            items = 30 * category + rng.choice(30, 12, replace=False)
            rows += [(user, int(item), float(weight)) for item in items]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "rating"], orient="row")
    return table.with_columns(timestamp=pl.Series(1e9 + rng.permutation(len(table))))


def likes(user: int) -> int:
    """The category that a user of ``make_tastes`` likes."""
    return user % 4


def hates(user: int) -> int:
    """The category that a user of ``make_tastes`` hates."""
    return (user + 1 + user // 4 % 3) % 4
