"""Two towers: the equation, what each objective learns, cold items and users, fold-in, optimizers, bundles' needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from palate.base import DataSpec, Query, TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.features import FeatureSchema
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.errors import DataError, ModelError, RecipeError
from palate.evaluation.evaluate import evaluate
from palate.models.two_tower import TwoTower

RUN = TrainOptions(device="cpu")
QUICK = TwoTower(dim=8, epochs=12, batch_size=128, learning_rate=0.05)


def colors(size: int = 40, cold: int = 4) -> Dataset:
    """Even users like black items, odd ones white; the last items and the last users have no rows, only features."""
    user, item = np.divmod(np.arange(size * size), size)
    liked = ((user % 2) == (item % 2)) & (item < size - cold) & (user < size - cold)
    rows = Interactions(user[liked].astype(np.int32), item[liked].astype(np.int32), np.ones(liked.sum(), np.float32))
    ids, even = IdMap.of(np.arange(size)), np.arange(size) % 2 == 0
    shades = pl.DataFrame(
        {
            "color": np.where(even, "black", "white"),
            "tags": [["dark", f"t{n % 3}"] if even[n] else [f"t{n % 3}"] for n in range(size)],
            "brightness": np.where(even, 0.1, 0.9),
        }
    )
    people = pl.DataFrame({"side": np.where(even, "left", "right")})
    return Dataset("colors", ids, ids, rows, user_features=people, item_features=shades)


@pytest.mark.parametrize(
    "recipe",
    [
        QUICK,
        replace(QUICK, log_q=False, mask_hits=False, optimizer="adagrad", learning_rate=0.3),
        replace(QUICK, objective="bce"),
        replace(QUICK, objective="bpr", layers=(16, 8), learning_rate=0.02),
    ],
)
def test_the_checkerboard_is_learned_and_new_users_fold_in(checkerboard: Split, recipe: TwoTower) -> None:
    model = recipe.fit(checkerboard.train, RUN)
    users = np.arange(40)
    same = (users[:, None] + users) % 2 == 0
    history = checkerboard.train.history.select(users)
    new_users = Query.new_users([history.of(user).tolist() for user in users])
    with torch.inference_mode():
        for query in (Query.of(users), new_users):
            scores = model.score(query).numpy()
            assert (scores[users, users] > np.where(same, -np.inf, scores).max(1)).mean() > 0.95
            assert model.can_personalize(query).all()
            for row in (0, 7):
                one = (
                    Query.of(users[row : row + 1])
                    if query.user[0] >= 0
                    else Query.new_users([history.of(row).tolist()])
                )
                torch.testing.assert_close(model.score(one)[0], torch.from_numpy(scores[row]))


def test_vectors_equal_their_equation() -> None:
    data = colors()
    recipe = replace(QUICK, epochs=1, layers=(6, 5), item_features=("color", "tags", "brightness"))
    model = recipe.fit(data, RUN)
    tower, state = model.item_tower, {name: value.numpy() for name, value in model.item_tower.state_dict().items()}
    assert data.item_features is not None
    codes, weights, numbers = tower.table.encode(data.item_features)
    x_ID = state["ids.weight"][np.where(np.arange(40) < 36, np.arange(40), 40)]
    x_ID = x_ID + np.einsum("is,isd->id", weights, state["values.weight"][codes]) + numbers @ state["linear.weight"].T
    hidden = np.maximum(x_ID @ state["deep.0.weight"].T + state["deep.0.bias"], 0)
    expected = hidden @ state["deep.2.weight"].T + state["deep.2.bias"]
    with torch.inference_mode():
        np.testing.assert_allclose(model.item_vectors().numpy(), expected, rtol=1e-4, atol=1e-6)
        query = Query.of([3, 9])
        items = torch.tensor([[1, 2], [39, 0]])
        torch.testing.assert_close(model.score(query, items), model.score(query).gather(1, items))
        torch.testing.assert_close(model.score(query), model.query_vectors(query) @ model.item_vectors().T)


def test_cold_items_and_users_are_known_by_their_features() -> None:
    data = colors()
    model = replace(QUICK, user_features=("*",), item_features=("*",), id_dropout=0.3).fit(data, RUN)
    users = np.arange(40)
    new = pl.DataFrame({"color": ["white", "black"], "tags": [["t0"], ["t1", "dark"]], "brightness": [0.9, 0.1]})
    with torch.inference_mode():
        scores = model.score(Query.of(users)).numpy()
        cold_items = scores[:, 36:]
        right = (users[:, None] + np.arange(36, 40)) % 2 == 0
        assert cold_items[right].min() > cold_items[~right].max()
        cold_users = scores[36:, :36]
        right = (np.arange(36, 40)[:, None] + np.arange(36)) % 2 == 0
        assert (np.where(right, cold_users, np.inf).min(1) > np.where(right, -np.inf, cold_users).max(1)).all()
        assert model.can_personalize(Query.of([38])).all()
        vectors = model.item_vectors(new)
        assert vectors.shape == (2, 8)
        to_even, to_odd = (model.query_vectors(Query.of([user])) @ vectors.T for user in (2, 3))
        assert to_even[0, 1] > to_even[0, 0]
        assert to_odd[0, 0] > to_odd[0, 1]
        with pytest.raises(DataError, match="column 'tags' is missing"):
            model.item_vectors(new.drop("tags"))


def test_nobody_gets_the_mean_user() -> None:
    model = replace(QUICK, epochs=2).fit(colors(), RUN)
    nobody = Query.of([-1, 999, 38])  # user 38 has no rows, and no features are read
    with torch.inference_mode():
        assert not model.can_personalize(nobody).any()
        torch.testing.assert_close(model.query_vectors(nobody), model.user_mean.expand(3, -1))
        trained = model.query_vectors(Query.of(np.arange(36)))
        torch.testing.assert_close(trained.mean(0), model.user_mean)
        assert model.score(nobody).isfinite().all()
    with pytest.raises(ModelError, match="reads no item features"):
        model.item_vectors(pl.DataFrame({"color": ["white"]}))


@pytest.mark.slow
def test_folded_in_users_keep_nine_tenths_of_their_ndcg(ml_100k_loo: Split) -> None:
    recipe = TwoTower(dim=16, epochs=3, batch_size=256, learning_rate=0.01)
    train = ml_100k_loo.train
    held = np.random.default_rng(0).permutation(train.n_users)[:180]
    rows = train.interactions
    fewer = recipe.fit(train.with_rows(rows.take(~np.isin(rows.user, held))), RUN)
    reports = [evaluate(model, ml_100k_loo, k=10, resamples=0) for model in (recipe.fit(train, RUN), fewer)]
    picked = np.isin(reports[0].user_rows, held)
    trained, folded = (report.per_user["NDCG@10"][picked].mean() for report in reports)
    assert folded >= 0.9 * trained


@pytest.mark.parametrize("objective", ["softmax", "bce", "bpr"])
def test_a_dislike_and_a_like_push_a_new_user_apart(checkerboard: Split, objective: str) -> None:
    model = replace(QUICK, objective=objective).fit(checkerboard.train, RUN)  # type: ignore[arg-type]
    like, both = Query.new_users([[0, 2], [0, 2, 4]]), Query.new_users([[0, 2, 4]])
    assert both.weights is not None
    mixed = replace(both, weights=torch.tensor([1.0, 1.0, -1.0]))
    only = replace(both, weights=torch.full((3,), -1.0))
    with torch.inference_mode():
        less, more = model.score(mixed)[0, 4], model.score(like)[:, 4]
        assert less < more[0] < more[1]
        assert not model.can_personalize(only).any()
        torch.testing.assert_close(model.query_vectors(only)[0], model.user_mean)


def test_a_step_on_distinct_users_and_items_is_the_step_on_the_rows() -> None:
    """The loss of a batch with repeats equals the cross-entropy of the whole matrix, written out."""
    data = colors()
    recipe = replace(QUICK, item_features=("tags",), log_q=True)
    module = replace(recipe, epochs=0).fit(data, RUN)
    batch = next(iter(recipe.batches(data, 0, 0)))
    assert len(batch.item.unique()) < len(batch.item)
    logit = module.user_tower(batch.user) @ module.item_tower(batch.item).T - batch.target
    hit = (batch.item[:, None] == batch.item).fill_diagonal_(False)
    expected = torch.nn.functional.cross_entropy(logit.masked_fill(hit, -torch.inf), torch.arange(len(hit)))
    parameters = [p for p in module.parameters() if p.requires_grad]
    loss = recipe.loss(module, batch)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_scores_start_from_popularity_and_new_items_from_that_of_a_mean_item() -> None:
    data = colors()
    assert data.item_features is not None
    recipe = replace(QUICK, popularity=True, regularization=100.0, item_features=("tags",))
    model = recipe.fit(data, RUN)
    count_I = torch.from_numpy(np.bincount(data.interactions.item, minlength=data.n_items))
    known_I = count_I > 0
    nothing = data.item_features.clear(1)
    with torch.inference_mode():
        score_I = model.score(Query.of([0]))[0]
        more_I = model.with_items(nothing).score(Query.of([0]))
    expected_I = (count_I[known_I].double() + 0.5).log() - count_I[known_I].double().mean().log()
    # So strong a penalty leaves nothing but popularity.
    torch.testing.assert_close(score_I[known_I], expected_I.float(), atol=0.02, rtol=0)
    assert len(more_I[0]) == data.n_items + 1
    assert abs(float(more_I[0, -1])) < 0.02


def test_the_seed_decides(checkerboard: Split) -> None:
    recipe = replace(QUICK, epochs=2, objective="bce")
    one, same, other = (recipe.fit(checkerboard.train, replace(RUN, seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["user_tower.ids.weight"], other["user_tower.ids.weight"])


def test_weights_and_sizes_rebuild_the_model() -> None:
    data = colors()
    recipe = replace(QUICK, epochs=1, layers=(4,), user_features=("*",), item_features=("*",))
    model = recipe.fit(data, RUN)
    assert model.spec.features is not None
    sizes = DataSpec(40, 40, FeatureSchema.from_dict(model.spec.features.to_dict()))
    again = recipe.build(sizes)
    again.load_state_dict(model.state_dict(), strict=True)
    query = Query.of([1, 38, -1])
    with torch.inference_mode():
        assert torch.equal(again.eval().score(query), model.score(query))


@pytest.mark.parametrize("objective", ["softmax", "bpr"])
def test_sparse_adagrad_takes_the_same_steps_as_dense(objective: str) -> None:
    data = colors()
    recipe = replace(QUICK, epochs=2, objective=objective, item_features=("tags",), learning_rate=0.1)  # type: ignore[arg-type]
    dense, sparse = (
        replace(recipe, optimizer=name).fit(data, RUN).state_dict() for name in ("adagrad", "sparse_adagrad")
    )
    for name in dense:
        torch.testing.assert_close(sparse[name], dense[name], rtol=1e-3, atol=1e-4)


def test_sparse_adam_moves_only_what_it_met() -> None:
    data = colors()
    recipe = replace(QUICK, epochs=1, optimizer="sparse_adam", init_std=0.1)
    start = replace(recipe, epochs=0).fit(data, RUN).user_tower.ids.weight
    moved = (recipe.fit(data, RUN).user_tower.ids.weight != start).any(1)
    assert moved[:36].all()
    assert not moved[36:].any()
    with pytest.raises(RecipeError, match="sparse_adam' with numeric features"):
        replace(recipe, item_features=("brightness",)).fit(data, RUN)


def test_negatives_come_from_where_they_should() -> None:
    data = colors()
    recipe = replace(QUICK, objective="bce", negatives=5, batch_size=100)
    seen = np.zeros((40, 40), dtype=bool)
    seen[data.interactions.user, data.interactions.item] = True
    for source, share in (("unseen", 0.0), ("all", 18 / 40)):
        batches = list(replace(recipe, negatives_from=source).batches(data, 0, 0))  # type: ignore[arg-type]
        user, item = torch.cat([b.user for b in batches]).numpy(), torch.cat([b.item for b in batches]).numpy()
        assert len(user) == len(data)
        assert seen[user, item[:, 0]].all()
        assert abs(seen[user[:, None], item[:, 1:]].mean() - share) < 0.03
        assert all(len(b.user) == 100 for b in batches[:-1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 0}, "dim=0: must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: must be above 0"),
        ({"layers": (8, 0)}, r"layers\[1\]=0: must be at least 1"),
        ({"id_dropout": 1.0}, "id_dropout=1.0"),
        ({"optimizer": "sparse_adam", "layers": (8,)}, "use 'sparse_adagrad' or 'adam'"),
    ],
)
def test_hyperparameters_are_checked(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        TwoTower(**fields)  # type: ignore[arg-type]


def test_missing_features_are_named() -> None:
    with pytest.raises(DataError, match="no item feature 'genres': the item features are color, tags, brightness"):
        replace(QUICK, item_features=("genres",)).fit(colors(), RUN)
