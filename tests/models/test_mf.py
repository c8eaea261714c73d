"""MF: it learns, its descent is the published one, its fold-in agrees with training."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from palate.base import DataSpec, Query, TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.errors import RecipeError
from palate.models.mf import MF
from palate.models.rating_factors import RatingFactors, conditional

SMALL = MF(dim=4, epochs=40, batch_size=256, learning_rate=0.02, regularization=0.02)


def planted(users: int = 60, items: int = 40, seed: int = 0) -> Dataset:
    """Ratings from 1 to 9 that are exactly mean, biases and a product of two vectors, two thirds of them known."""
    rng = np.random.default_rng(seed)
    full = 5 + rng.normal(size=(users, 2)) @ rng.normal(size=(2, items)) + rng.normal(size=(users, 1))
    user, item = (rng.random(full.shape) < 0.67).nonzero()
    weight = full.clip(1, 9)[user, item].astype(np.float32)
    rows = Interactions(user.astype(np.int32), item.astype(np.int32), weight)
    return Dataset("planted", IdMap.of(np.arange(users)), IdMap.of(np.arange(items)), rows, Feedback("rating"))


def halves(data: Dataset) -> tuple[Dataset, Interactions]:
    held = np.random.default_rng(9).random(len(data)) < 0.2
    return data.with_rows(data.interactions.take(~held)), data.interactions.take(held)


@cache
def fitted() -> RatingFactors:
    return SMALL.fit(halves(planted())[0])


def mse(model: object, rows: Interactions) -> float:
    with torch.inference_mode():
        everyone = Query.of(np.arange(rows.user.max() + 1))
        predicted = model.predict(everyone)[rows.user, rows.item].numpy()  # type: ignore[attr-defined]
    return float(np.square(predicted - rows.weight).mean())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_planted_vectors_are_found(optimizer: str) -> None:
    train, held = halves(planted())
    model = fitted() if optimizer == "adam" else dataclasses.replace(SMALL, optimizer=optimizer).fit(train)
    assert mse(model, held) < 0.35 * float(np.var(held.weight))


def test_the_checkerboard_is_learned(checkerboard: Split) -> None:
    train = checkerboard.train
    scores = SMALL.fit(train).score(Query.of(np.arange(40))).numpy()
    parity = (np.arange(40)[:, None] % 2) == (np.arange(40)[None, :] % 2)
    assert (np.diag(scores) > np.where(parity, -np.inf, scores).max(1)).mean() > 0.95


def test_descent_equals_the_published_iteration_written_out() -> None:
    """v = 0.9 v + 0.1 g from the first gradient; 11 U(0, 1) / K; the mean of squared errors plus L2."""
    train, _ = halves(planted(12, 9))
    rows, k, l2 = train.interactions, 3, 0.01
    recipe = dataclasses.replace(MF.published(k, l2), epochs=7)
    model = recipe.fit(train, TrainOptions(seed=4))
    rng = np.random.default_rng(4)
    p, q = 11 * rng.random((12, k)) / k, 11 * rng.random((9, k)) / k
    v = None
    for _ in range(7):
        g = [2 * l2 * p, 2 * l2 * q]
        for u, i, r in zip(rows.user, rows.item, rows.weight, strict=True):
            e = r - p[u] @ q[i]
            g[0][u] -= 2 / len(rows) * e * q[i]
            g[1][i] -= 2 / len(rows) * e * p[u]
        v = g if v is None else [0.9 * old + 0.1 * new for old, new in zip(v, g, strict=True)]
        p, q = p - 0.01 * v[0], q - 0.01 * v[1]
    whole = model.score(Query.of(np.arange(12))).numpy()
    np.testing.assert_allclose(whole, p @ q.T, rtol=1e-4)


def test_descent_reports_every_50_iterations_and_keeps_the_best() -> None:
    train, held = halves(planted())
    seen: list[tuple[int, float]] = []
    watched: list[float] = []

    def validation_callback(model: object) -> float:
        watched.append(-mse(model, held))
        return watched[-1]

    recipe = dataclasses.replace(MF.published(3), epochs=120)
    model = recipe.fit(
        train,
        TrainOptions(
            progress=lambda event: seen.append((event.done, event.values["loss"])),
            validation_callback=validation_callback,
        ),
    )
    assert [n for n, _ in seen] == [0, 50, 100, 120]
    assert seen[-1][1] < seen[0][1]
    assert -mse(model, held) == pytest.approx(max(watched), abs=1e-5)


def test_predictions_stay_on_the_scale_and_scores_keep_their_order() -> None:
    train, _ = halves(planted())
    model = fitted()
    query = Query.of([0, 1, -1, 999])
    ratings, scores = model.predict(query), model.score(query)
    assert ratings.min() >= train.interactions.weight.min()
    assert ratings.max() <= train.interactions.weight.max()
    assert bool((ratings.gather(1, scores.argsort(1)).diff(dim=1) >= 0).all())


def test_folded_in_users_predict_almost_like_trained_ones() -> None:
    train, held = halves(planted())
    stay = train.interactions.user < 45
    model = SMALL.fit(train.with_rows(train.interactions.take(stay)))
    everyone = np.arange(60)
    new_users = Query.of(np.full(60, -1), train.history.select(everyone))
    new = held.take(held.user >= 45)
    folded = model.predict(new_users).numpy()[new.user, new.item]
    trained = mse(fitted(), new)
    assert float(np.square(folded - new.weight).mean()) < 1.3 * trained


def test_fold_in_is_the_ridge_solution_and_a_batch_equals_one_by_one() -> None:
    train, _ = halves(planted())
    recipe = SMALL.for_data(train)
    assert recipe.user_damping is not None
    model = fitted()
    histories = train.history.select(np.arange(8))
    batch = model.query_vectors(Query.of(np.full(8, -1), histories))
    items = model.item_vectors().double().numpy()
    for user in range(8):
        here = train.interactions.user == user
        item, rating = train.interactions.item[here], train.interactions.weight[here]
        z = items[item, :5]
        # The mean user has l per rating; the L2 grows with the root of the ratings, that of the bias does not.
        mean = len(train) / len(np.unique(train.interactions.user))
        ridge = np.diag([SMALL.regularization * np.sqrt(mean * len(item))] * 4 + [recipe.user_damping])
        right = z.T @ (rating - float(model.fold_in.mean) - items[item, 5]) + ridge @ model.typical.double().numpy()
        np.testing.assert_allclose(
            batch[user, :5].numpy(), np.linalg.solve(z.T @ z + ridge, right), rtol=1e-3, atol=1e-4
        )
        alone = model.query_vectors(Query.of([-1], train.history.select(np.array([user]))))
        torch.testing.assert_close(batch[user : user + 1], alone, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 6), st.integers(1, 7))
def test_conditional_means_are_those_of_the_normal_equations(seed: int, d: int, users: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    weight = sparse.random_array((users, items), density=0.5, rng=rng, format="csr")
    value = rng.normal(size=weight.nnz)
    target = sparse.csr_array((weight.data * value, weight.indices, weight.indptr), weight.shape)
    design, root = rng.normal(size=(items, d)), rng.normal(size=(d, d))
    prior, linear = root @ root.T + np.eye(d), rng.normal(size=(users, d))
    mean, factor = conditional(weight, target, design, prior[np.tril_indices(d)], linear)
    for user in range(users):
        w = weight.toarray()[user]
        precision = prior + (design.T * w) @ design
        right = design.T @ target.toarray()[user] + linear[user]
        np.testing.assert_allclose(mean[user], np.linalg.solve(precision, right), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(factor[user] @ factor[user].T, precision, rtol=1e-6, atol=1e-8)


def test_without_biases_there_are_none() -> None:
    train, _ = halves(planted())
    model = dataclasses.replace(SMALL, biases=False, epochs=3).fit(train)
    assert float(model.fold_in.mean) == 0
    assert bool((model.item_vectors()[:, 5] == 0).all())
    assert bool((model.query_vectors(Query.of([0, 1]))[:, 4] == 0).all())
    folded = model.query_vectors(Query.of([-1], train.history.select(np.array([3]))))
    assert abs(float(folded[0, 4])) < 1e-6


def test_the_weights_alone_rebuild_the_model() -> None:
    train, _ = halves(planted())
    model = dataclasses.replace(SMALL, epochs=2).fit(train)
    other = SMALL.build(DataSpec(train.n_users, train.n_items))
    other.load_state_dict(model.state_dict(), strict=True)
    query = Query.of([3, -1], train.history.select(np.array([3, 4])))
    assert torch.equal(other.eval().predict(query), model.predict(query))


@pytest.mark.parametrize(
    ("field", "value"), [("dim", 0), ("learning_rate", 0.0), ("regularization", -1.0), ("optimizer", "lbfgs")]
)
def test_nonsense_is_refused(field: str, value: object) -> None:
    with pytest.raises(RecipeError, match=field):
        dataclasses.replace(MF(), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="biases=False"):
        MF(optimizer="descent")
