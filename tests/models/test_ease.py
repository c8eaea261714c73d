"""EASE: the closed form against slow algebra, fold-in, recency, bounds, and reference figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import DataSpec, Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.data.splits.strategies import by_time, leave_one_out
from palate.errors import RecipeError
from palate.evaluation.evaluate import evaluate
from palate.models import ease
from palate.models.ease import EASE
from palate.models.popularity import Popularity
from palate.training.negative_sampling import draw_candidates


def dataset(pairs: list[tuple[int, int]], weights: list[float] | None = None, items: int = 6) -> Dataset:
    user, item = np.array(pairs, dtype=np.int32).T
    rows = Interactions(user, item, np.array(weights or [1.0] * len(pairs), np.float32), np.arange(len(pairs)) * 1.0)
    return Dataset("pairs", IdMap.of(np.arange(user.max() + 1)), IdMap.of(np.arange(items)), rows)


def slow(x_UI: np.ndarray, regularization: float) -> np.ndarray:
    """Each column by its own ridge regression on all other items, which is what the closed form solves."""
    items = x_UI.shape[1]
    weights = np.zeros((items, items))
    for i in range(items):
        others = np.delete(np.arange(items), i)
        a = x_UI[:, others]
        weights[others, i] = np.linalg.solve(a.T @ a + regularization * np.eye(items - 1), a.T @ x_UI[:, i])
    return weights


PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=30)


@settings(deadline=None, max_examples=30)
@given(PAIRS, st.floats(0.5, 50), st.data())
def test_weights_equal_one_ridge_regression_per_item(
    pairs: list[tuple[int, int]], regularization: float, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.sampled_from([5.0, 1.0, -1.0]), min_size=len(pairs), max_size=len(pairs)))
    train = dataset(pairs, weights)
    x_UI = np.zeros((train.n_users, train.n_items))
    for (user, item), weight in zip(pairs, weights, strict=True):  # in time: the latest event of a pair counts
        x_UI[user, item] = -1 if weight < 0 else 1
    model = EASE(regularization).fit(train)
    np.testing.assert_allclose(model.weights.numpy(), slow(x_UI, regularization), atol=1e-5)
    users = np.arange(train.n_users)
    scores = model.score(Query.of(users, train.history.select(users)))
    # A user is known by an item that somebody likes; the others get popularity.
    touched = np.abs(x_UI)[:, (x_UI > 0).any(axis=0)].any(axis=1)
    np.testing.assert_allclose(scores[touched].numpy(), (x_UI @ slow(x_UI, regularization))[touched], atol=1e-5)


def test_blocks_change_nothing(ml_100k: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    users = np.arange(20)
    query = Query.of(users, ml_100k.history.select(users))
    items = torch.arange(50).expand(20, -1)
    whole = EASE().fit(ml_100k)
    expected = whole.score(query, items)
    monkeypatch.setattr(ease, "BLOCK_CELLS", 1_000_000)
    monkeypatch.setattr(ease, "SCORE_CELLS", 5_000)
    blocks = EASE().fit(ml_100k)
    torch.testing.assert_close(blocks.weights, whole.weights)
    torch.testing.assert_close(blocks.score(query, items), expected)


def test_the_checkerboard_is_learned_and_new_users_are_answered_as_trained_users_are(checkerboard: Split) -> None:
    model = EASE(10).fit(checkerboard.train)
    users = np.arange(40)
    history = checkerboard.train.history.select(users)
    scores = model.score(Query.of(users, history))
    same = (users[:, None] + users) % 2 == 0
    held_out = scores.numpy()[users, users]
    assert (held_out > np.where(same, -np.inf, scores.numpy()).max(1)).all()
    new_users = Query.new_users([history.of(user).tolist() for user in users])
    assert torch.equal(model.score(new_users), scores)
    assert model.can_personalize(new_users).all()


def test_without_a_telling_history_popularity_answers() -> None:
    train = dataset([(0, 0), (0, 1), (1, 1), (2, 1), (2, 3)])  # nobody touched items 2, 4 and 5
    model = EASE(1).fit(train)
    popular = torch.tensor([1, 3, 0, 1, 0, 0]) / 3
    mixed = Query.new_users([[], [5], [0]])
    scores = model.score(mixed)
    assert model.can_personalize(mixed).tolist() == [False, False, True]
    torch.testing.assert_close(scores[:2], popular.expand(2, -1))
    assert int(scores[2].argmax()) == 1
    for rows in ([0, 1], [-1, 10**6]):
        assert not model.can_personalize(Query.of(rows)).any()
        torch.testing.assert_close(model.score(Query.of(rows)), popular.expand(2, -1))
        assert model.score(Query.of(rows), torch.tensor([[1, 2], [1, 2]])).shape == (2, 2)


def test_a_dislike_lowers_what_is_alike() -> None:
    train = dataset([(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3), (3, 2), (3, 3)])
    model = EASE(1).fit(train)
    history = dataset([(0, 0), (0, 2)], [-1.0, 5.0]).history
    scores = model.score(Query.of([-1], history))[0]
    assert scores[1] < 0 < scores[3]


def test_recency_weighs_by_events_ago_and_never_below_the_floor() -> None:
    train = dataset([(0, 0), (0, 1), (1, 2), (1, 3), (2, 0), (2, 2), (2, 4)])
    plain, recent = EASE(1).fit(train), EASE(1, half_life_events=2, floor=0.25).fit(train)
    assert torch.equal(plain.weights, recent.weights)
    history = [4, 0, 0, 2]  # item 0 counts once, for its latest event
    expected = sum((0.25 + 0.75 * 0.5 ** (ago / 2)) * plain.weights[item] for item, ago in ((4, 3), (0, 1), (2, 0)))
    torch.testing.assert_close(recent.score(Query.new_users([history]))[0], expected)


@settings(deadline=None, max_examples=20)
@given(PAIRS, st.floats(0.5, 50), st.floats(0.5, 20))
def test_touched_together_weighs_pairs_by_the_time_between_them(
    pairs: list[tuple[int, int]], regularization: float, together: float
) -> None:
    train = dataset(pairs)
    x_UI, gram_II = np.zeros((train.n_users, 6)), np.zeros((6, 6))
    latest = {pair: time for time, pair in enumerate(pairs)}
    for (user, item), time in latest.items():
        x_UI[user, item] = 1
        for (other, second), then in latest.items():
            gram_II[item, second] += (user == other) * np.exp(-abs(time - then) / together)
    inverse_II = np.linalg.inv(gram_II + regularization * np.eye(6))
    weights = -inverse_II / np.diag(inverse_II)
    np.fill_diagonal(weights, 0)
    model = EASE(regularization, cooccurrence_window=together).fit(train)
    np.testing.assert_allclose(model.weights.numpy(), weights, atol=1e-5)


def test_touched_together_needs_times() -> None:
    train = dataset([(0, 0), (0, 1)])
    timeless = train.with_rows(Interactions(*(getattr(train.interactions, c) for c in ("user", "item", "weight"))))
    with pytest.raises(RecipeError, match="no timestamps"):
        EASE(cooccurrence_window=60).fit(timeless)


def test_a_catalog_beyond_the_bound_is_refused_with_what_it_would_take() -> None:
    with pytest.raises(RecipeError, match=r"100,000 items exceed max_items=20,000: training would take 120\.0 GB"):
        EASE().build(DataSpec(10, 100_000))


def test_reference_figures_of_system_e(ml_100k: Dataset) -> None:
    split = by_time(ml_100k, test_size=0.2).relevant(4)
    report = evaluate(EASE(300).fit(split.train), split, k=10, resamples=0)
    assert report.value("NDCG", 10) == pytest.approx(0.1519, abs=5e-4)
    assert report.value("HitRate", 10) == pytest.approx(0.4526, abs=5e-4)


def test_what_was_touched_last_says_most_about_what_comes_next(ml_100k_loo: Split) -> None:
    valid = leave_one_out(ml_100k_loo.train)
    candidates = draw_candidates(valid, 100, seed=1)
    hit = {
        recipe: evaluate(recipe.fit(valid.train), valid, candidates=candidates, resamples=0).value("HitRate", 10)
        for recipe in (Popularity(), EASE(), EASE(half_life_events=5, floor=0.05))
    }
    popular, plain, recent = hit.values()
    assert popular + 0.15 < plain
    assert plain + 0.04 < recent
