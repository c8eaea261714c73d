"""What every test file shares: one torch thread, the real data sets or a counted skip, and small data sets."""

from __future__ import annotations

import os

# Before torch is imported: two OpenMP threads on two busy cores can be many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "PALATE_DATA" in os.environ:
    os.environ["PALATE_DATA"] = os.path.abspath(os.environ["PALATE_DATA"])

import numpy as np
import pytest

from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.split import Split, leave_one_out
from palate.errors import SourceError


@pytest.fixture(scope="session")
def ml_100k() -> Dataset:
    """The real MovieLens 100K, from whichever source answers; skipped and counted where none does."""
    from palate.data.registry import load

    try:
        return load("ml-100k", progress=False)
    except SourceError as error:
        pytest.skip(f"ml-100k cannot be had here: {error}")


@pytest.fixture(scope="session")
def ml_100k_loo(ml_100k: Dataset) -> Split:
    return leave_one_out(ml_100k, cold="keep")


@pytest.fixture(scope="session")
def ncf_ml_1m() -> Split:
    from palate.data.registry import load_split

    try:
        return load_split("ncf-ml-1m", progress=False)
    except SourceError as error:
        pytest.skip(f"ncf-ml-1m cannot be had here: {error}")


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


@pytest.fixture(scope="session")
def checkerboard() -> Split:
    return make_checkerboard()
