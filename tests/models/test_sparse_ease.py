"""Sparse EASE: equal to its equations, and to EASE where the neighbors are the whole catalog."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.strategies import leave_one_out
from palate.errors import RecipeError
from palate.evaluation.evaluate import evaluate
from palate.models.ease import EASE
from palate.models.item_knn import ItemKNN
from palate.models.popularity import Popularity
from palate.models.sparse_ease import SparseEASE
from worlds import World

ITEMS = 9


def dataset(pairs: list[tuple[int, int]], users: int) -> Dataset:
    user, item = np.array(pairs, np.int32).reshape(-1, 2).T
    ids = IdMap.of(np.arange(users)), IdMap.of(np.arange(ITEMS))
    return Dataset("pairs", *ids, Interactions(user, item, np.ones(len(user), np.float32)))


@settings(deadline=None, max_examples=30)
@given(
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, ITEMS - 1)), min_size=1, max_size=40),
    st.integers(1, ITEMS + 2),
    st.floats(0.5, 50),
)
def test_weights_solve_the_regression_of_each_item_on_its_neighbors(
    pairs: set[tuple[int, int]], neighbors: int, regularization: float
) -> None:
    train = dataset(sorted(pairs), 8)
    x_UI = np.zeros((8, ITEMS))
    x_UI[tuple(np.array(sorted(pairs)).T)] = 1
    model = SparseEASE(neighbors, regularization).fit(train)
    nearest = ItemKNN(neighbors, 50.0).fit(train)
    weight_II = np.zeros((ITEMS, ITEMS))  # of item j in the score of item i, in row i
    for i in range(ITEMS):
        near = nearest.neighbors[i][nearest.similarities[i] > 0].numpy()
        gram = x_UI[:, near].T @ x_UI[:, near] + regularization * np.eye(len(near))
        weight_II[i, near] = np.linalg.solve(gram, x_UI[:, near].T @ x_UI[:, i])
    users = np.arange(8)
    query = Query.of(users, train.history)
    scores, known = model.score(query).numpy(), model.can_personalize(query).numpy()
    np.testing.assert_allclose(scores[known], (x_UI @ weight_II.T)[known], atol=1e-5)
    listed = np.tile(np.arange(ITEMS)[::-1], (8, 1))
    assert torch.equal(model.score(query, torch.from_numpy(listed.copy())), model.score(query).flip(1))


def test_with_a_fifth_of_the_items_as_neighbors_it_is_close_to_ease() -> None:
    split = leave_one_out(World(600, 250, events=20, tail=0.5).dataset())
    whole, sparse, popular = (
        evaluate(recipe.fit(split.train), split, k=10, resamples=0).value("NDCG", 10)
        for recipe in (EASE(50), SparseEASE(50, 50), Popularity())
    )
    assert sparse > 0.9 * whole > 1.2 * popular


def test_memory_beyond_the_bound_is_refused(ml_100k: Dataset) -> None:
    with pytest.raises(RecipeError, match=r"take max_gb=0.001 GB: raise max_gb"):
        SparseEASE(max_gb=0.001).fit(ml_100k)
