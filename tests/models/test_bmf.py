"""BMF: it learns, its conditionals are right, feedback and features help, fold-in is what training does."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

from palate.base import DataSpec, Query, TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.features import indicators
from palate.data.feedback import Feedback
from palate.data.frame import from_frame
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random
from palate.errors import RecipeError
from palate.evaluation.rating_prediction import evaluate_ratings
from palate.models.bmf import BMF, _Chain, _wishart
from palate.models.means import UserItemMeans
from palate.models.rating_prior import Ratings

SMALL = BMF(dim=3, sweeps=60, burn_in=20, draws=8)


def ratings(users: int = 60, items: int = 40, known: float = 0.4, seed: int = 0) -> tuple[Dataset, Interactions]:
    """Planted vectors; what the items are like is half in a feature column. Training data and held-out rows."""
    rng = np.random.default_rng(seed)
    kind = np.arange(items) % 4
    q = rng.normal(size=(4, 2))[kind] + 0.3 * rng.normal(size=(items, 2))
    full = (3 + rng.normal(size=(users, 2)) @ q.T + 0.5 * rng.normal(size=(users, 1))).clip(1, 5)
    mask = rng.random(full.shape)
    both = []
    for part in (mask < known, mask > 0.8):
        user, item = part.nonzero()
        both.append(Interactions(user.astype(np.int32), item.astype(np.int32), full[user, item].astype(np.float32)))
    features = pl.DataFrame({"kind": [f"kind {k}" for k in kind]})
    ids = IdMap.of(np.arange(users)), IdMap.of(np.arange(items))
    return Dataset("planted", *ids, both[0], Feedback("rating"), item_features=features), both[1]


def mse(model: object, rows: Interactions) -> float:
    with torch.inference_mode():
        everyone = Query.of(np.arange(rows.user.max() + 1))
        predicted = model.predict(everyone)[rows.user, rows.item].numpy()  # type: ignore[attr-defined]
    return float(np.square(predicted - rows.weight).mean())


def test_planted_vectors_are_found() -> None:
    train, held = ratings()
    assert mse(SMALL.fit(train), held) < 0.35 * float(np.var(held.weight))


def test_the_checkerboard_is_learned(checkerboard: Split) -> None:
    scores = SMALL.fit(checkerboard.train).score(Query.of(np.arange(40))).numpy()
    parity = (np.arange(40)[:, None] % 2) == (np.arange(40)[None, :] % 2)
    assert (np.diag(scores) > np.where(parity, -np.inf, scores).max(1)).mean() > 0.95


def test_features_help_where_ratings_are_few() -> None:
    train, held = ratings(known=0.08, seed=3)
    without = dataclasses.replace(SMALL, features=0.0, feedback=False)
    with_features = dataclasses.replace(SMALL, features=1.0, feedback=False)
    assert mse(with_features.fit(train), held) < 0.95 * mse(without.fit(train), held)


def test_what_was_touched_but_not_rated_improves_predictions() -> None:
    train, held = ratings(known=0.06, seed=5)
    rows = train.interactions
    rng = np.random.default_rng(0)
    liked = ratings(known=1.0, seed=5)[0].interactions
    picked = (liked.weight > 4) & (rng.random(len(liked)) < 0.5)
    unrated = liked.take(picked)
    assert len(rows) < len(unrated)
    recipe = dataclasses.replace(SMALL, features=0.0)
    assert mse(recipe.fit(train, unrated=unrated), held) < 0.95 * mse(recipe.fit(train), held)


def test_the_conditional_of_a_user_is_the_posterior_written_out() -> None:
    train, _ = ratings()
    rows = train.interactions
    targets = Ratings(rows.user.astype(np.int64), rows.item.astype(np.int64), rows.weight)
    chain = _Chain(targets, *SMALL._sides(train, None), 3, 1.0, 0.001, np.random.default_rng(0))
    for _ in range(3):
        chain.sweep()
    mean, factor = chain.users.given(chain.items, chain._weights(), chain.rest)
    side, y = chain.users, chain.items.vectors
    for user in (0, 11, 59):
        here = rows.user == user
        z = np.column_stack([y[rows.item[here], :3], np.ones(here.sum())])
        rest = rows.weight[here] - targets.mean - y[rows.item[here], 3]
        precision = side.precision + chain.noise[user] * z.T @ z
        right = side.precision @ (side.center + side.shift[user]) + chain.noise[user] * z.T @ rest
        np.testing.assert_allclose(mean[user], np.linalg.solve(precision, right), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(factor[user] @ factor[user].T, precision, rtol=1e-3)


def test_the_link_solver_solves_the_normal_equations() -> None:
    train, _ = ratings()
    rows = train.interactions
    targets = Ratings(rows.user.astype(np.int64), rows.item.astype(np.int64), rows.weight)
    side = _Chain(targets, *SMALL._sides(train, None), 3, 1.0, 0.001, np.random.default_rng(0)).items
    right = np.random.default_rng(1).normal(size=side.weights.shape)
    for _ in range(6):
        side.weights = side._solve(right)
    dense = side.active.toarray()
    np.testing.assert_allclose(
        side.weights, np.linalg.solve(dense.T @ dense + np.eye(dense.shape[1]), right), atol=1e-3
    )


def test_wishart_draws_have_the_right_mean() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    scale = root @ root.T + np.eye(3)
    mean = np.mean([_wishart(scale, 9, rng) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(mean, 9 * np.linalg.inv(scale), rtol=0.1, atol=0.03)


def test_a_new_user_with_the_ratings_of_a_trained_user_gets_nearly_the_same() -> None:
    train, held = ratings()
    model = SMALL.fit(train)
    folded = model.predict(Query.of(np.full(60, -1), train.history))
    trained = model.predict(Query.of(np.arange(60)))
    assert np.corrcoef(folded.numpy().ravel(), trained.numpy().ravel())[0, 1] > 0.98
    error = folded.numpy()[held.user, held.item] - held.weight
    assert float(np.square(error).mean()) < 1.15 * mse(model, held)
    alone = model.predict(Query.of([-1], train.history.select(np.array([7]))))
    torch.testing.assert_close(folded[7:8], alone, rtol=1e-4, atol=1e-4)


def test_one_seed_gives_one_model_and_the_weights_alone_rebuild_it() -> None:
    train, _ = ratings()
    model, again = SMALL.fit(train, TrainOptions(seed=2)), SMALL.fit(train, TrainOptions(seed=2))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    other = SMALL.build(DataSpec(train.n_users, train.n_items))
    other.load_state_dict(model.state_dict(), strict=True)
    query = Query.of([3, -1], train.history.select(np.array([3, 4])))
    assert torch.equal(other.eval().predict(query), model.predict(query))


def test_indicators_take_what_they_can_use_and_leave_the_rest() -> None:
    table = pl.DataFrame(
        {
            "genres": [["a", "b"], ["b"], [], None],
            "age": [1.0, 2.0, None, 90.0],
            "name": ["w", "x", "y", "z"],
            "same": ["s", "s", "s", "s"],
            "born": [None, None, None, None],
        },
        schema_overrides={"genres": pl.List(pl.String), "born": pl.Date},
    )
    genres, age, name = indicators(table)
    np.testing.assert_allclose(genres.toarray(), [[0.5**0.5, 0.5**0.5], [0, 1], [0, 0], [0, 0]], rtol=1e-6)
    assert age.sum(axis=1).tolist() == [1, 1, 0, 1]
    assert name.shape == (4, 4)


@pytest.mark.parametrize(("field", "value"), [("dim", 0), ("link", 0.0), ("draws", 100), ("features", -1.0)])
def test_nonsense_is_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=field):
        dataclasses.replace(SMALL, **{field: value})  # type: ignore[arg-type]


def test_few_ratings_per_user_are_predicted_as_well_as_by_user_and_item_means() -> None:
    rng = np.random.default_rng(0)
    user, item = rng.integers(2_000, size=5_000), rng.integers(800, size=5_000)
    bias_u, bias_i = rng.normal(0, 0.6, 2_000), rng.normal(0, 0.5, 800)
    stars = np.clip(np.round(3.5 + bias_u[user] + bias_i[item] + rng.normal(0, 0.7, 5_000)), 1, 5)
    rows = pl.DataFrame({"user_id": user, "item_id": item, "rating": stars})
    frame = rows.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    split = at_random(from_frame(frame, min_rating="any"), test_size=0.2)
    loss = [
        (evaluate_ratings(recipe.fit(split.train), split, resamples=0).predicted - split.test.interactions.weight) ** 2
        for recipe in (BMF.fast(), UserItemMeans())
    ]
    worse = loss[0] - loss[1]
    assert worse.mean() < 2 * worse.std() / len(worse) ** 0.5, "no more than noise"
