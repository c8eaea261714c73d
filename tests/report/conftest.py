"""A small comparison with everything in it: real evaluations, titles, ratings, one system of others."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import polars as pl
import pytest
from comparison_maker import make_comparison

from palate.data.dataset import Dataset, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.splits.strategies import leave_one_out


def rated_board(size: int = 24) -> Dataset:
    """Even users rate even items 4 to 5 and some odd ones 1 to 2, the other way round for odd users."""
    user, item = np.divmod(np.arange(size * size, dtype=np.int32), size)
    liked = (user % 2) == (item % 2)
    kept = liked | ((user + 2 * item) % 3 == 0)
    weight = np.where(liked, 4 + (user + item) % 2, 1 + item % 2).astype(np.float32)
    rows = Interactions(user, item, weight, (1e9 + 1e5 * ((item * 7 + user * 3) % 100)).astype(np.float64)).take(kept)
    titles = pl.Series([f"Title of {number}" for number in range(size)])
    ids = IdMap.of(np.arange(size))
    return Dataset("board", ids, ids, rows, Feedback("rating"), titles=titles)


@pytest.fixture(scope="session")
def made() -> dict[str, Any]:
    """To be read, not changed."""
    whole = make_comparison(leave_one_out(rated_board(), cold="keep"), ["popularity", "item-knn", "mf"], negatives=5)
    theirs = copy.deepcopy(whole["models"][0])
    theirs |= {"name": "theirs", "role": "external", "recipe": None, "tuned": None, "train_seconds": None, "curve": []}
    theirs |= {"peak_memory_mb": None, "score_seconds": None, "sampled": None, "ratings": None, "seeds": []}
    whole["models"].append(theirs)
    return whole


@pytest.fixture(scope="session")
def text(made: dict[str, Any]) -> str:
    """The page of the whole comparison, drawn once."""
    return pytest.importorskip("palate.report.page", reason="the page needs the report extra").page(made)


@pytest.fixture
def comparison(made: dict[str, Any]) -> dict[str, Any]:
    """A copy to change at will."""
    return copy.deepcopy(made)
