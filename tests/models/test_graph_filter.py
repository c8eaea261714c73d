"""GF-CF: equal to its equations, and to the published filter where nothing is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.strategies import at_random
from palate.evaluation.evaluate import evaluate
from palate.models.graph_filter import GFCF
from palate.models.popularity import Popularity
from palate.models.scale import Scale
from palate.models.sparse_ease import SparseEASE
from worlds import World

USERS, ITEMS = 24, 25


def dataset(pairs: list[tuple[int, int]]) -> Dataset:
    user, item = np.array(pairs, np.int32).reshape(-1, 2).T
    ids = IdMap.of(np.arange(USERS)), IdMap.of(np.arange(ITEMS))
    rows = Interactions(user, item, np.ones(len(user), np.float32), np.arange(len(user), dtype=np.float64))
    return Dataset("pairs", *ids, rows)


def normalize(x_UI: np.ndarray, asymmetry: float) -> np.ndarray:
    user, item = np.maximum(x_UI.sum(1), 1.0), np.maximum(x_UI.sum(0), 1.0)
    return user[:, None] ** -asymmetry * x_UI * item ** (asymmetry - 1)


@settings(deadline=None, max_examples=30)
@given(
    st.sets(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), min_size=1, max_size=150),
    st.floats(0.2, 0.8),
    st.floats(0.5, 1.5),
    st.floats(0.0, 2.0),
)
def test_scores_equal_the_equations(
    pairs: set[tuple[int, int]], asymmetry: float, power: float, low_pass: float
) -> None:
    train = dataset(sorted(pairs))
    x_UI = np.zeros((USERS, ITEMS))
    x_UI[tuple(np.array(sorted(pairs)).T)] = 1
    item = np.maximum(x_UI.sum(0), 1.0)
    p_II = normalize(x_UI, asymmetry).T @ normalize(x_UI, asymmetry)
    np.fill_diagonal(p_II, 0)
    _, values, v_DI = np.linalg.svd(normalize(x_UI, 0.5))
    edge = Scale.of(train).noise
    count = max(1, int((values[:3] > edge).sum()))
    model = GFCF(ITEMS, asymmetry, power, low_pass, dim=3).fit(train)
    query = Query.of(np.arange(USERS), train.history)
    known, scores = model.can_personalize(query).numpy(), model.score(query).numpy()
    assert np.array_equal(known, ((x_UI @ p_II) > 0).any(1))
    # Vectors of equal singular values, or at the edge, are not unique.
    if values[count - 1] > values[count] + 1e-6 and np.abs(values - edge).min() > 1e-9:
        low_II = v_DI[:count].T @ v_DI[:count]
        expected = x_UI @ p_II**power + low_pass * (x_UI / np.sqrt(item)) @ low_II * np.sqrt(item)
        np.testing.assert_allclose(scores[known], expected[known], atol=1e-4)


def test_the_low_pass_filter_adds_to_the_linear_one_on_a_wide_catalog() -> None:
    split = at_random(World(1_000, 3_000, events=27, group=20).dataset(), test_size=0.3)
    both, linear, popular = (
        evaluate(recipe.fit(split.train), split, k=10, resamples=0).value("NDCG", 10)
        for recipe in (GFCF(), GFCF(low_pass=0), Popularity())
    )
    assert both > 1.03 * linear > 2 * popular


@pytest.mark.parametrize("recipe", [GFCF(), SparseEASE()], ids=lambda recipe: recipe.name)
def test_the_latest_events_weigh_most_with_a_half_life(recipe: GFCF | SparseEASE) -> None:
    train = World(300, 200, events=20, tail=0.5).dataset()
    recent = replace(recipe, half_life_events=1.0)
    even, late = recipe.fit(train), recent.fit(train)
    history = train.history.items[: train.history.offsets[1]].tolist()[:2]
    one, other = (even.score(Query.new_users([[item]])) for item in history)
    torch.testing.assert_close(even.score(Query.new_users([history])), one + other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(late.score(Query.new_users([history])), 0.5 * one + other, rtol=1e-4, atol=1e-5)
