"""Item kNN: cosine against a slow version, truncation, fold-in, fallbacks and quality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import Query
from palate.data.dataset import Dataset, History, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.evaluation.evaluate import evaluate
from palate.models import item_knn as knn
from palate.models.item_knn import ItemKNN
from palate.models.popularity import Popularity
from palate.training.negative_sampling import draw_candidates

ITEMS = 6


def dataset(pairs: list[tuple[int, int]], weights: list[float] | None = None) -> Dataset:
    user, item = np.array(pairs, dtype=np.int32).T
    rows = Interactions(user, item, np.array(weights or [1.0] * len(pairs), np.float32))
    return Dataset("pairs", IdMap.of(np.arange(user.max() + 1)), IdMap.of(np.arange(ITEMS)), rows)


def counts(pairs: list[tuple[int, int]], users: int) -> np.ndarray:
    x_UI = np.zeros((users, ITEMS))
    for user, item in pairs:
        x_UI[user, item] += 1
    return x_UI


def cosine(x_UI: np.ndarray, shrinkage: float) -> np.ndarray:
    similarity = np.zeros((ITEMS, ITEMS))
    for i in range(ITEMS):
        for j in range(ITEMS):
            norms = np.linalg.norm(x_UI[:, i]) * np.linalg.norm(x_UI[:, j])
            if i != j and norms > 0:
                similarity[i, j] = x_UI[:, i] @ x_UI[:, j] / (norms + shrinkage)
    return similarity


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, ITEMS - 1)), min_size=1, max_size=30),
    st.integers(1, 8),
    st.floats(0, 20),
)
def test_scores_equal_the_sum_over_the_nearest_items(
    pairs: list[tuple[int, int]], neighbors: int, shrinkage: float
) -> None:
    train = dataset(pairs)
    x_UI = counts(pairs, train.n_users)
    similarity = cosine(x_UI, shrinkage)
    model = ItemKNN(neighbors, shrinkage).fit(train)
    users = np.arange(train.n_users)
    query = Query.of(users, train.history)
    scores, knows = model.score(query).numpy(), model.can_personalize(query).numpy()
    nearest = -np.sort(-similarity, axis=1)[:, : model.neighbors.shape[1]]
    np.testing.assert_allclose(model.similarities.numpy(), nearest, atol=1e-6)
    kept = np.zeros_like(similarity)
    np.add.at(kept, (np.arange(ITEMS)[:, None], model.neighbors.numpy()), model.similarities.numpy())
    np.testing.assert_allclose(kept[kept > 0], similarity[kept > 0], atol=1e-6)
    np.testing.assert_allclose(scores[knows], (x_UI @ kept.T)[knows], atol=1e-5)
    np.testing.assert_allclose(scores[~knows], np.tile((x_UI > 0).mean(0), ((~knows).sum(), 1)), atol=1e-6)
    items = np.tile(np.arange(ITEMS)[::-1], (len(users), 1))
    candidates = model.score(query, torch.from_numpy(items.copy())).numpy()
    np.testing.assert_allclose(candidates, scores[:, ::-1], atol=1e-6)


def test_blocks_change_nothing(ml_100k: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    users = np.arange(20)
    query = Query.of(users, ml_100k.history.select(users))
    whole = ItemKNN().fit(ml_100k)
    expected = whole.score(query)
    monkeypatch.setattr(knn, "BLOCK_CELLS", 1_000_000)
    monkeypatch.setattr(knn, "SCORE_CELLS", 5_000)
    blocks = ItemKNN().fit(ml_100k)
    assert torch.equal(blocks.neighbors, whole.neighbors)
    assert torch.equal(blocks.similarities, whole.similarities)
    torch.testing.assert_close(blocks.score(query), expected)


def test_the_checkerboard_is_learned_and_new_users_are_answered_as_trained_users_are(checkerboard: Split) -> None:
    model = ItemKNN(10).fit(checkerboard.train)
    users = np.arange(40)
    history = checkerboard.train.history.select(users)
    scores = model.score(Query.of(users, history))
    same = (users[:, None] + users) % 2 == 0
    assert (scores.numpy()[users, users] > np.where(same, -np.inf, scores.numpy()).max(1)).all()
    new_users = Query.new_users([history.of(user).tolist() for user in users])
    assert torch.equal(model.score(new_users), scores)


def test_without_a_telling_history_popularity_answers() -> None:
    train = dataset([(0, 0), (0, 1), (1, 1), (2, 1), (2, 3), (3, 5)])  # item 5 has no company, 2 and 4 nobody
    model = ItemKNN().fit(train)
    popular = torch.tensor([1, 3, 0, 1, 0, 1]) / 4
    mixed = Query.new_users([[], [5, 2], [0]])
    assert model.can_personalize(mixed).tolist() == [False, False, True]
    torch.testing.assert_close(model.score(mixed)[:2], popular.expand(2, -1))
    torch.testing.assert_close(model.score(Query.of([0, 10**6])), popular.expand(2, -1))
    assert int(model.score(mixed)[2].argmax()) == 1


def test_a_dislike_lowers_what_is_alike() -> None:
    model = ItemKNN().fit(dataset([(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3)]))
    scores = model.score(Query.of([-1], dataset([(0, 0), (0, 2)], [-1.0, 5.0]).history))[0]
    assert scores[1] < 0 < scores[3]


def test_it_beats_popularity_by_far(ml_100k_loo: Split) -> None:
    candidates = draw_candidates(ml_100k_loo, 100, seed=1)
    popular, near = (
        evaluate(recipe.fit(ml_100k_loo.train), ml_100k_loo, candidates=candidates, resamples=0).value("HitRate", 10)
        for recipe in (Popularity(), ItemKNN())
    )
    assert near > popular + 0.15


def test_a_batch_over_a_wide_catalog_scores_as_its_users_do_one_by_one():
    rng = np.random.default_rng(1)
    user, item = rng.integers(0, 90, 1_500), rng.integers(0, 2_000, 1_500) ** 2 // 2_000
    weight = rng.choice(np.array([1.0, -1.0], np.float32), 1_500, p=[0.9, 0.1])
    rows = Interactions(user.astype(np.int32), item.astype(np.int32), weight)
    data = Dataset("wide", IdMap.of(np.arange(90)), IdMap.of(np.arange(2_000)), rows)
    model = ItemKNN(neighbors=20).fit(data)
    users = np.arange(data.n_users)
    query = Query.of(users, data.history.select(users))
    listed = torch.from_numpy(rng.integers(0, data.n_items, (len(users), 30)))
    assert torch.equal(model.score(query, listed), model.score(query).gather(1, listed))
    alone = torch.cat([model.score(Query.of([user], data.history.select(np.array([user])))) for user in users])
    assert torch.equal(model.score(query), alone)


def test_quantities_weigh_and_other_rows_do_not() -> None:
    """Item 0 was bought with 1 by as many users as with 2, but in far larger amounts with 2."""
    amounts = {(user, 0): 100.0 for user in range(8)}
    amounts |= {(user, 1): 1.0 for user in range(4)} | {(user, 2): 100.0 for user in range(4, 8)}
    pairs, weight = list(amounts), np.array(list(amounts.values()), np.float32)
    rows = Interactions(*np.array(pairs, np.int32).T, weight)
    for kind, weighting, alike in (("quantity", "auto", False), ("rating", "auto", True), ("quantity", "none", True)):
        data = Dataset("amounts", IdMap.of(np.arange(8)), IdMap.of(np.arange(3)), rows, Feedback(kind))
        model = ItemKNN(shrinkage=1, weighting=weighting).fit(data)
        query = Query.of(np.array([-1]), History(np.array([0, 1]), np.array([0]), np.array([1.0], np.float32)))
        score = model.score(query)[0]
        assert (float(score[1]) == pytest.approx(float(score[2]))) == alike
        assert alike or score[2] > score[1]
        assert torch.equal(model.score(query, torch.tensor([[2, 1]])), score[None, [2, 1]])
