"""Data whose right answer is known without a golden file."""

from __future__ import annotations

import numpy as np

from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.split import Split, leave_one_out

__all__ = ["make_checkerboard"]


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
    return leave_one_out(Dataset("checkerboard", ids, ids, rows, explicit=rated), cold="keep")
