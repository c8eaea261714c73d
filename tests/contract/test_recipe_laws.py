"""The laws that every recipe passes. A new recipe is covered by being listed in RECIPES."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, get_args, get_type_hints

import numpy as np
import polars as pl
import pytest
import torch

from boards import hates, likes, make_checkerboard, make_tastes
from palate.base import DataSpec, Explains, Model, Query, Recipe, TrainOptions, Vectors
from palate.bundle import Bundle
from palate.data.frame import from_frame, to_frame
from palate.data.splits.split import Split
from palate.errors import DataError, RecipeError
from palate.models import RECIPES, make_recipe
from palate.models.neumf import GMF, NeuMF
from palate.recommend import Recommender

NAMES = list(RECIPES)


def small(name: str) -> Recipe[Any]:
    """The recipe with enough optimizer steps for 760 rows."""
    recipe = make_recipe(name, fast=True)
    # A third of the epochs is enough for some, with a wide margin on three seeds; the suite trains each recipe often.
    epochs = 20 if name in {"mf", "mlp", "svdpp"} else 60
    steps = {"epochs": epochs, "batch_size": 128, "learning_rate": 0.02, "dim": 8}
    has = {field.name for field in dataclasses.fields(recipe)}  # type: ignore[arg-type]
    return dataclasses.replace(recipe, **{key: value for key, value in steps.items() if key in has})  # type: ignore[type-var]


NEEDS_RATINGS = {"wals"}  # equal ratings teach it nothing, and it says so


@cache
def board(name: str) -> Split:
    return make_checkerboard(rated=name in NEEDS_RATINGS)


def new_users(name: str, histories: list[list[int]]) -> Query:
    return Query.new_users(histories, weight=5.0 if name in NEEDS_RATINGS else 1.0)


@cache
def fitted(name: str) -> Model:
    return small(name).fit(board(name).train, TrainOptions(seed=3))


def query(name: str, users: list[int]) -> Query:
    return Query.of(users, board(name).train.history.select(np.array(users)))


def personal(name: str) -> bool:
    return bool(fitted(name).can_personalize(query(name, [0])).all())


def score(model: Model, asked: Query, items: torch.Tensor | None = None) -> torch.Tensor:
    with torch.inference_mode():
        return model.score(asked, items)


@pytest.mark.parametrize("name", NAMES)
def test_candidate_scores_equal_the_gathered_catalog_scores(name: str) -> None:
    model, asked = fitted(name), query(name, [0, 7, 12])
    items = torch.tensor([[0, 5, 39], [5, 5, 1], [38, 2, 0]])
    whole = score(model, asked)
    assert whole.shape == (3, board(name).train.n_items)
    torch.testing.assert_close(score(model, asked, items), whole.gather(1, items), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_one_by_one(name: str) -> None:
    model = fitted(name)
    users = [0, 3, 12, 39]
    alone = torch.cat([score(model, query(name, [user])) for user in users])
    torch.testing.assert_close(score(model, query(name, users)), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_new_users_in_a_batch_equal_new_users_one_by_one(name: str) -> None:
    model = fitted(name)
    histories = [[0, 2, 4, 8], [1], [], [5, 7]]
    alone = torch.cat([score(model, new_users(name, [history])) for history in histories])
    torch.testing.assert_close(score(model, new_users(name, histories)), alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    few = dataclasses.replace(small(name), **({"epochs": 3} if hasattr(small(name), "epochs") else {}))  # type: ignore[type-var]
    models = [few.fit(board(name).train, TrainOptions(seed=3)) for _ in range(2)]
    first, second = (model.state_dict() for model in models)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_training_leaves_the_global_random_state_alone(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataclasses.replace(small(name), **({"epochs": 1} if hasattr(small(name), "epochs") else {})).fit(  # type: ignore[type-var]
        board(name).train, TrainOptions(seed=1)
    )
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_checkerboard_is_learned(name: str) -> None:
    if not personal(name):
        pytest.skip(f"{name} is not personal: it gives all users the same list")
    users = list(range(40))
    scores = score(fitted(name), query(name, users)).numpy()
    parity = (np.arange(40)[:, None] % 2) == (np.arange(40)[None, :] % 2)
    held_out = scores[np.arange(40), np.arange(40)]
    worst_of_others = np.where(parity, -np.inf, scores).max(axis=1)
    assert (held_out > worst_of_others).mean() >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_new_users_never_crash_and_a_history_makes_them_known(name: str) -> None:
    model = fitted(name)
    asked = new_users(name, [[], [0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]])
    scores = score(model, asked)
    assert torch.isfinite(scores).all()
    assert torch.isfinite(score(model, Query.of([-1, 10**6]))).all()
    if not personal(name):
        return
    assert model.can_personalize(asked).tolist() == [False, True, True]
    even, odd = torch.arange(12, 40, 2), torch.arange(13, 40, 2)
    assert scores[1, even].mean() > scores[1, odd].mean()
    assert scores[2, odd].mean() > scores[2, even].mean()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_promises_vectors_scores_by_their_dot_product(name: str) -> None:
    model, asked = fitted(name), query(name, [0, 7, 12])
    if not isinstance(model, Vectors):
        pytest.skip(f"{name} promises no dot product")
    with torch.inference_mode():
        dot_BI = model.query_vectors(asked) @ model.item_vectors().T
    torch.testing.assert_close(score(model, asked), dot_BI, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_score_add_up_to_it(name: str) -> None:
    model = fitted(name)
    if not isinstance(model, Explains):
        pytest.skip(f"{name} does not explain by event")
    asked, items = new_users(name, [[0, 2, 4], [], [5, 7]]), torch.tensor([[1, 8], [0, 3], [9, 12]])
    with torch.inference_mode():
        parts = model.contributions(asked, items)
    total_BC = parts.rest.index_add(0, asked.owners(), parts.event)
    torch.testing.assert_close(total_BC, score(model, asked, items), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_dict_holds_the_whole_model(name: str) -> None:
    model = fitted(name)
    spec = getattr(model, "spec", DataSpec(board(name).train.n_users, board(name).train.n_items))
    rebuilt = small(name).for_data(board(name).train).build(spec)
    rebuilt.load_state_dict(model.state_dict(), strict=True)  # type: ignore[attr-defined]
    assert torch.equal(score(rebuilt.eval(), query(name, [0, 9])), score(model, query(name, [0, 9])))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_round_trip_is_bit_equal_and_holds_no_pickle(name: str, tmp_path: Any) -> None:
    model, asked = fitted(name), query(name, list(range(40)))
    Bundle.of(small(name), model, board(name).train).save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.recipe == small(name).for_data(board(name).train)
    assert torch.equal(score(loaded.recommender.model, asked), score(model, asked))
    assert loaded.trained_on == board(name).train.fingerprint
    files = [path for path in (tmp_path / "bundle").iterdir() if path.name != ".lock"]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".parquet"}


@pytest.mark.parametrize("name", NAMES)
def test_history_never_comes_back_unless_asked_for(name: str) -> None:
    train = board(name).train
    recommender = Recommender.of(fitted(name), train)
    everyone = train.users.ids.to_list()
    seen = set(zip(train.interactions.user.tolist(), train.interactions.item.tolist(), strict=True))
    filtered = recommender.recommend(everyone, 40)
    assert not seen & set(zip(filtered["user_id"].to_list(), filtered["item_id"].to_list(), strict=True))
    whole = recommender.recommend(everyone, 40, exclude_seen=False)
    assert len(whole) == 40 * 40
    new_user = recommender.recommend([999], 40, histories={999: [0, 2, 4]})
    assert not {0, 2, 4} & set(new_user["item_id"].to_list())


@pytest.mark.parametrize("name", NAMES)
def test_the_model_remembers_what_it_was_trained_on(name: str) -> None:
    assert fitted(name).trained_on == board(name).train.fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_published_defaults_and_fast_preset_exist_and_are_frozen(name: str) -> None:
    for recipe in (RECIPES[name](), RECIPES[name].fast()):
        assert recipe.name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.epochs = 3


# Fields that may be 0: passes over the rows (0 leaves the initial weights), and the blocks of a network.
MAY_BE_ZERO = {"epochs", "sweeps", "burn_in", "n_layers"}
MAY_BE_NEGATIVE = {"rating_floor", "min_rating"}  # thresholds on weights, which are below 0 for dislikes


def numbers(name: str) -> list[tuple[str, type]]:
    """Numeric fields of a recipe and their types."""
    hints = get_type_hints(RECIPES[name])
    found = []
    for field in dataclasses.fields(RECIPES[name]):
        kinds = {hints[field.name], *get_args(hints[field.name])}
        found += [(field.name, kind) for kind in (int, float) if kind in kinds]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_values_out_of_bounds_are_refused_before_any_data_are_read(name: str) -> None:
    for field, kind in numbers(name):
        wrong: list[Any] = [-1, 10**12] if kind is int else [float("nan"), float("inf"), -float("inf")]
        if kind is int and field not in MAY_BE_ZERO:
            wrong.append(0)
        if kind is float and field not in MAY_BE_NEGATIVE:
            wrong.append(-1.0)
        if field in ("dropout", "floor", "keep"):
            wrong.append(5)
        for value in wrong:
            with pytest.raises(RecipeError, match=rf"^recipe {name}, field {field}={value!r}: must be [^\n]+$"):
                RECIPES[name](**{field: value})


@pytest.mark.parametrize("name", NAMES)
def test_a_dataframe_with_the_usual_columns_is_fitted_like_its_dataset(name: str) -> None:
    train = board(name).train
    frame = to_frame(train)
    recipe = dataclasses.replace(small(name), **({"epochs": 1} if hasattr(small(name), "epochs") else {}))
    model = recipe.fit(frame, TrainOptions(seed=3))
    assert model.trained_on == train.fingerprint
    with pytest.raises(DataError, match=r"pass split\.train"):
        recipe.fit(board(name))


@cache
def taster(name: str, low: float, high: float) -> Recommender:
    """A recommender for users who hate a category as clearly as they like another; the rule for positives is found."""
    recipe = small(name)
    if isinstance(recipe, GMF | NeuMF):
        # 60 epochs learn the 1,440 positives by heart: the lists of neumf are then 7 % from the hated category.
        recipe = dataclasses.replace(recipe, epochs=20)
    rows = make_tastes(low, high)
    if low > 0:  # ten items that nobody likes: a batch of positive rows never holds them
        nobody = (
            rows.filter(pl.col("rating") == low).sample(100, seed=5).with_columns(item_id=120 + pl.int_range(100) % 10)
        )
        rows = pl.concat([rows, nobody.cast(dict(rows.schema))])
    data = from_frame(rows if low > 0 else rows.rename({"rating": "weight"}))
    return Recommender.of(recipe.fit(data, TrainOptions(seed=1)), data)


WORLDS = {"rated": (1.0, 5.0), "shown": (0.0, 1.0), "returned": (-1.0, 1.0)}


# Recipes that learn from positive rows alone see the same rows in all worlds.
@pytest.mark.parametrize(
    ("name", "world"),
    [
        (name, world)
        for name in NAMES
        for world in WORLDS
        if world == "rated" or RECIPES[name].training_rows is not Recipe.training_rows
    ],
)
def test_dislikes_are_not_likes(name: str, world: str) -> None:
    low, high = WORLDS[world]
    if not personal(name):
        pytest.skip(f"{name} is not personal: it gives all users the same list")
    if low <= 0 and name in NEEDS_RATINGS:
        pytest.skip(f"{name} needs ratings")
    recommender, known = taster(name, low, high), list(range(120))
    new = make_tastes(low, high, users=24, seed=7).with_columns(pl.col("user_id") + 10_000)
    posted = {
        user: list(zip(part["item_id"].to_list(), part["rating"].to_list(), strict=True))
        for (user,), part in new.sort("timestamp").group_by("user_id", maintain_order=True)
    }
    for users, histories in ((known, None), (list(posted), posted)):
        lists = recommender.recommend(users, k=10, histories=histories)
        assert set(lists["source"]) == ({"model"} if histories is None else {"fold-in"})
        user, category = lists["user_id"].to_numpy() % 10_000, lists["item_id"].to_numpy() // 30
        hated = np.array([hates(int(one)) for one in user]) == category
        liked = np.array([likes(int(one)) for one in user]) == category
        # Of four categories, 0.25 by chance. Models of ratings know less without ratings, or of unrated categories.
        loose = (name == "mf" and low <= 0) or name == "bmf"
        assert hated.mean() < (0.1 if loose else 0.05), f"{hated.mean():.3f} of the lists are from the hated category"
        assert liked.mean() > (0.6 if loose else 0.8), f"{liked.mean():.3f} of the lists are from the liked category"
    for user, events in posted.items():
        listed = lists.filter(pl.col("user_id") == user)["item_id"]
        assert not set(listed) & {item for item, _ in events}, "what was rated low is seen, too"
