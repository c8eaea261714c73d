"""SVD++: the equation written out, what unrated rows add, fold-in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from boards import make_checkerboard
from palate.base import DataSpec, Query, TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.errors import ModelError, RecipeError
from palate.models.svdpp import SVDpp, _BagSums

SMALL = SVDpp(dim=4, epochs=50, batch_size=256, learning_rate=0.02, regularization=0.02)


def taste_by_touching(users: int = 80, items: int = 30, seed: int = 1) -> tuple[Dataset, Interactions, Interactions]:
    """Two groups that rate in opposite ways: two ratings each to learn from, and 12 touched items that tell the group.

    Returns the ratings, rows without a rating, and held-out ratings.
    """
    rng = np.random.default_rng(seed)
    group, kind = np.arange(users) % 2, np.arange(items) % 2
    rating = np.where(group[:, None] == kind[None, :], 5.0, 1.0)
    order = rng.permuted(np.tile(np.arange(items), (users, 1)), axis=1)
    everyone = np.arange(users)[:, None]
    like = (kind[order] == group[:, None]).argsort(axis=1, kind="stable")[:, -12:]
    touched = np.take_along_axis(order, like, axis=1)

    def rows(item: np.ndarray) -> Interactions:
        user = np.broadcast_to(everyone, item.shape).reshape(-1)
        return Interactions(
            user.astype(np.int32), item.reshape(-1).astype(np.int32), rating[user, item.reshape(-1)].astype(np.float32)
        )

    ids = IdMap.of(np.arange(users)), IdMap.of(np.arange(items))
    data = Dataset("groups", *ids, rows(order[:, :2]), Feedback("rating"))
    return data, rows(touched), rows(order[:, 20:])


def mse(model: object, rows: Interactions) -> float:
    with torch.inference_mode():
        predicted = model.predict(Query.of(np.arange(80)))[rows.user, rows.item].numpy()  # type: ignore[attr-defined]
    return float(np.square(predicted - rows.weight).mean())


def test_what_was_touched_but_not_rated_improves_predictions() -> None:
    train, unrated, held = taste_by_touching()
    with_feedback = mse(SMALL.fit(train, unrated=unrated), held)
    without = mse(SMALL.fit(train), held)
    assert with_feedback < 0.6 * without


def test_ratings_are_those_of_the_equation() -> None:
    train, unrated, _ = taste_by_touching()
    model = dataclasses.replace(SMALL, epochs=5).fit(train, unrated=unrated)
    own, y = model.own.detach().double().numpy(), model.touched.detach().double().numpy()
    item = model.item_vectors().double().numpy()
    for user in (0, 7, 33):
        rows = [part.item[part.user == user] for part in (train.interactions, unrated)]
        touched = np.unique(np.concatenate(rows))
        p = own[user, :4] + y[touched].sum(0) / np.sqrt(len(touched))
        expected = own[user, 4] + item[:, 5] + item[:, :4] @ p
        np.testing.assert_allclose(model.score(Query.of([user]))[0].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_sums_over_bags_is_the_numerical_one() -> None:
    items, offsets = torch.tensor([3, 0, 3, 4, 1]), torch.tensor([0, 2, 2, 5])  # an empty bag; row 2 in none
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(_BagSums.apply(table, items, offsets)[1], torch.zeros(3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda t: _BagSums.apply(t, items, offsets), table)


def test_the_strengths_are_in_the_unit_of_the_ratings() -> None:
    """Four zeros for each one deviate by 0.4: l is in proportion to it, and dampings have no unit."""
    board = make_checkerboard().train
    chosen = SVDpp().for_data(board)
    rated, _, _ = taste_by_touching()
    narrow, wide = (
        SVDpp().for_data(
            rated.with_rows(dataclasses.replace(rated.interactions, weight=scale * rated.interactions.weight))
        )
        for scale in (1, 10)
    )
    assert narrow.regularization is not None
    assert wide.regularization == pytest.approx(10 * narrow.regularization)
    assert (wide.user_damping, wide.item_damping) == pytest.approx((narrow.user_damping, narrow.item_damping), rel=1e-4)
    assert chosen.regularization is not None
    ratings = 5 * len(board)
    noise = ((40 / ratings) ** 0.5) * 2
    assert chosen.regularization == pytest.approx(0.7 * 0.4 * noise, rel=1e-3)


def test_the_checkerboard_is_learned(checkerboard: Split) -> None:
    scores = SMALL.fit(checkerboard.train).score(Query.of(np.arange(40))).numpy()
    parity = (np.arange(40)[:, None] % 2) == (np.arange(40)[None, :] % 2)
    assert (np.diag(scores) > np.where(parity, -np.inf, scores).max(1)).mean() > 0.95


def test_new_users_are_folded_in_around_what_they_touched() -> None:
    train, unrated, held = taste_by_touching()
    rated = Interactions(
        *(
            np.concatenate(pair)
            for pair in zip(*((p.user, p.item, p.weight) for p in (train.interactions, unrated)), strict=True)
        )
    )
    data = train.with_rows(rated)
    model = SMALL.fit(data)
    new_users = Query.of(np.full(80, -1), data.history)
    folded = model.predict(new_users).detach().numpy()[held.user, held.item]
    assert float(np.square(folded - held.weight).mean()) < 1.3 * mse(model, held) + 0.05
    alone = model.predict(Query.of([-1], data.history.select(np.array([5]))))
    torch.testing.assert_close(model.predict(new_users)[5:6], alone, rtol=1e-4, atol=1e-4)


def test_without_ratings_who_was_trained_scores_as_a_new_user_with_the_same_history(checkerboard: Split) -> None:
    train = checkerboard.train
    model = dataclasses.replace(SMALL, epochs=2).fit(train)
    users = np.arange(40)
    known, new_users = Query.of(users, train.history), Query.of(np.full(40, -1), train.history)
    torch.testing.assert_close(model.score(known), model.score(new_users), rtol=1e-4, atol=1e-5)
    rated, _, _ = taste_by_touching()
    model = dataclasses.replace(SMALL, epochs=2).fit(rated)
    away = model.score(Query.of(np.arange(80))) - model.score(Query.of(np.full(80, -1), rated.history))
    assert float(away.abs().max()) > 0.01


def test_scores_while_training_are_personal_and_the_weights_rebuild_the_model() -> None:
    train, unrated, held = taste_by_touching()
    values: list[float] = []

    def validation_callback(model: object) -> float:
        values.append(-mse(model, held))
        return values[-1]

    model = SMALL.fit(train, TrainOptions(validation_callback=validation_callback, patience=50), unrated=unrated)
    assert values[-1] > values[0]
    other = SMALL.build(DataSpec(train.n_users, train.n_items))
    other.load_state_dict(model.state_dict(), strict=True)
    query = Query.of([3, -1], train.history.select(np.array([3, 4])))
    assert torch.equal(other.eval().predict(query), model.predict(query))


def test_nonsense_is_refused() -> None:
    with pytest.raises(RecipeError, match="dim=0"):
        SVDpp(dim=0)
    with pytest.raises(RecipeError, match="learning_rate"):
        SVDpp(learning_rate=-1.0)
    with pytest.raises(ModelError, match=r"SVDpp\.fit"):
        SMALL.build(DataSpec(3, 3)).compose(torch.tensor([0]))
