"""Held-out ridge and recent blend: the closed form against its definition, recency, new users, bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import DataSpec, Query
from palate.data.dataset import Dataset, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.errors import RecipeError
from palate.models import edlae as held_out
from palate.models.edlae import EDLAE, RecentEDLAE

DAY = 86_400.0


def dataset(events: list[tuple[int, int, float]], items: int = 5, weights: list[float] | None = None) -> Dataset:
    user, item, day = (np.array(column) for column in zip(*events, strict=True))
    weight = np.array(weights or [1.0] * len(events), np.float32)
    rows = Interactions(user.astype(np.int32), item.astype(np.int32), weight, day * DAY)
    explicit = weights is not None
    return Dataset(
        "events",
        IdMap.of(np.arange(user.max() + 1)),
        IdMap.of(np.arange(items)),
        rows,
        Feedback("rating" if explicit else "none"),
    )


def slow(x_UI: np.ndarray, keep: float, regularization: float) -> np.ndarray:
    """Normal equations summed over every way to hide events, one column at a time, no penalty on its own weight."""
    items = x_UI.shape[1]
    gram, target = np.zeros((items, items)), np.zeros((items, items))
    for kept in itertools.product([0, 1], repeat=items):
        mask = np.array(kept)
        chance = keep ** mask.sum() * (1 - keep) ** (items - mask.sum())
        gram += chance * (x_UI * mask).T @ (x_UI * mask)
        target += chance * (x_UI * mask).T @ (x_UI * (1 - mask))
    weights = np.zeros((items, items))
    for item in range(items):
        penalty = np.full(items, regularization * keep)
        penalty[item] *= 1 - held_out.NEAR_ONE
        weights[:, item] = np.linalg.solve(gram + np.diag(penalty), target[:, item])
    return weights


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=20),
    st.sampled_from([0.3, 0.5, 0.8]),
    st.floats(0.5, 50),
)
def test_the_closed_form_is_the_regression_over_all_ways_to_hide(
    pairs: list[tuple[int, int]], keep: float, regularization: float
) -> None:
    train = dataset([(user, item, 0.0) for user, item in pairs])
    x_UI = np.zeros((train.n_users, train.n_items))
    x_UI[tuple(np.array(pairs).T)] = 1
    model = EDLAE(keep, regularization).fit(train)
    expected = slow(x_UI, keep, regularization)
    np.testing.assert_allclose(model.weights.numpy(), expected, rtol=1e-3, atol=1e-4)
    users = np.arange(train.n_users)
    scores = model.score(Query.of(users, train.history.select(users)))
    touched = x_UI.any(axis=1)
    np.testing.assert_allclose(scores[touched].numpy(), (x_UI @ expected)[touched], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("recipe", [EDLAE(regularization=5), RecentEDLAE(regularization=5, since=0, mix=3)])
def test_the_checkerboard_is_learned_and_seen_items_sink_by_themselves(checkerboard: Split, recipe: EDLAE) -> None:
    model = recipe.fit(checkerboard.train)
    users = np.arange(40)
    history = checkerboard.train.history.select(users)
    scores = model.score(Query.of(users, history)).numpy()
    same = (users[:, None] + users) % 2 == 0
    held = scores[users, users]
    assert (held > np.where(same, -np.inf, scores).max(1)).all()
    others = same & ~np.eye(40, dtype=bool)
    assert (held > np.where(others, scores, -np.inf).max(1)).all()  # what was seen does not come back
    new_users = Query.new_users([history.of(user).tolist() for user in users])
    if type(recipe) is EDLAE:
        torch.testing.assert_close(model.score(new_users), torch.from_numpy(scores))
    assert model.can_personalize(new_users).all()


def test_recent_blend_equals_its_equation() -> None:
    events = [(0, 0, 0.0), (0, 1, 1.0), (1, 1, 2.0), (1, 2, 3.0), (2, 2, 9.0), (2, 3, 10.0), (3, 0, 10.0)]
    ratings = [5.0, 4.0, 1.0, 3.0, 5.0, 5.0, 4.0]
    train = dataset(events, weights=ratings)
    recipe = RecentEDLAE(rating_floor=2, half_life=5, since=0.7, mix=0.4, regularization=3, damping=0.6, bins=500)
    model = recipe.fit(train)
    x_UI = np.zeros((4, 5))
    strength, count = np.zeros(5), np.zeros(5)
    for (user, item, day), rating in zip(events, ratings, strict=True):
        x_UI[user, item] = 1
        strength[item] += max(rating - 2, 0) * 0.5 ** ((10 - day) / 5)
        count[item] += 1
    weights = slow(x_UI, 0.5, 3) / (count + 5) ** 0.6
    users = np.arange(4)
    scores = model.score(Query.of(users, train.history.select(users)))
    for user in users:
        last = max(day for who, _, day in events if who == user)
        after = np.zeros(5)
        for _, item, day in events:
            after[item] += day > last
        personal = x_UI[user] @ weights
        personal = (personal - personal.mean()) / personal.std()
        expected = np.log(strength + 0.01) + 0.7 * np.log((after + 1) / (count + 2)) + 0.4 * personal
        np.testing.assert_allclose(scores[user].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_new_users_dislikes_and_candidates(ml_100k: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RecentEDLAE(rating_floor=2).fit(ml_100k)
    nobody = Query.new_users([[], []])
    assert not model.can_personalize(nobody).any()
    assert torch.equal(model.score(nobody), model.prior.expand(2, -1))
    assert torch.equal(model.score(Query.of([-1, 10**6])), model.prior.expand(2, -1))
    users = np.array([3, 700, 5, 3])
    query = Query.of(users, ml_100k.history.select(users))
    whole = model.score(query)
    for row, user in enumerate(users):
        one = np.array([user])
        alone = model.score(Query.of(one, ml_100k.history.select(one)))
        torch.testing.assert_close(alone[0], whole[row])
    items = torch.randint(0, ml_100k.n_items, (4, 9), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(held_out, "SCORE_CELLS", 1)
    torch.testing.assert_close(model.score(query, items), whole.gather(1, items))
    ridge = EDLAE().fit(ml_100k)
    history = ml_100k.history.select(np.array([3]))
    disliked = Query(torch.tensor([-1]), torch.tensor([0, 2]), torch.tensor([4, 9]), torch.tensor([-1.0, -1.0]))
    assert not ridge.can_personalize(disliked).any()
    assert torch.equal(ridge.score(disliked)[0], ridge.prior)
    assert len(history) == 1


def test_a_rebuilt_model_scores_alike(checkerboard: Split) -> None:
    for recipe in (EDLAE(), RecentEDLAE()):
        model = recipe.fit(checkerboard.train)
        again = recipe.build(DataSpec(40, 40))
        again.load_state_dict(model.state_dict(), strict=True)
        query = Query.of(np.arange(40), checkerboard.train.history)
        assert torch.equal(again.score(query), model.score(query))


def test_what_cannot_be_fitted_is_named(checkerboard: Split) -> None:
    rows = checkerboard.train.interactions
    timeless = checkerboard.train.with_rows(Interactions(rows.user, rows.item, rows.weight))
    with pytest.raises(RecipeError, match="has no times"):
        RecentEDLAE().fit(timeless)
    with pytest.raises(RecipeError, match="rating_floor=9, the highest rating is 5"):
        RecentEDLAE(rating_floor=9).fit(dataset([(0, 0, 0.0)], weights=[5.0]))
    with pytest.raises(RecipeError, match="40 items exceed max_items=39"):
        EDLAE(max_items=39).fit(checkerboard.train)
