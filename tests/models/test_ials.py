"""iALS and WALS against slow and obvious NumPy, and their effect on data whose right answer is known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import DataSpec, Query, TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import RecipeError
from palate.models.ials import IALS, WALS, Alternation
from palate.models.least_squares import leading_vectors
from palate.models.scale import taste
from worlds import World


def dataset(user, item, weight=None, n_users=None, n_items=None) -> Dataset:
    user, item = np.asarray(user, np.int32), np.asarray(item, np.int32)
    weight = np.ones(len(user), np.float32) if weight is None else np.asarray(weight, np.float32)
    users, items = n_users or int(user.max()) + 1, n_items or int(item.max()) + 1
    maps = IdMap.of(np.arange(users)), IdMap.of(np.arange(items))
    return Dataset("toy", *maps, Interactions(user, item, weight))


def checkerboard(n: int = 20) -> Dataset:
    user, item = np.nonzero((np.add.outer(np.arange(n), np.arange(n)) % 2 == 0) & ~np.eye(n, dtype=bool))
    return dataset(user, item, n_users=n, n_items=n)


@st.composite
def toys(draw, ratings: bool = False):
    users, items = draw(st.integers(2, 7)), draw(st.integers(2, 9))
    pairs = draw(st.lists(st.integers(0, users * items - 1), min_size=2, max_size=40))
    user, item = np.divmod(np.array(pairs), items)
    weight = draw(st.lists(st.integers(1, 5), min_size=len(pairs), max_size=len(pairs)))
    if ratings:
        weight[:2] = [1, 5]
    return dataset(user, item, weight, users, items)


def obvious_loss(recipe, data: Dataset, user, item) -> float:
    rows = data.interactions
    user, item = user.astype(np.float64), item.astype(np.float64)
    weighted = isinstance(recipe, IALS) and recipe.weighting == "linear"
    mean = rows.weight.mean(dtype=np.float64)
    total = 0.0
    amount_u, amount_i = np.zeros(data.n_users), np.zeros(data.n_items)
    for u, i, r in zip(rows.user, rows.item, rows.weight, strict=True):
        w, t = (r / mean if weighted else 1.0), (1.0 if isinstance(recipe, IALS) else r - mean)
        total += w * (t - user[u] @ item[i]) ** 2
        amount_u[u] += w
        amount_i[i] += w
    total += recipe.unobserved_weight * ((user @ item.T) ** 2).sum()
    for vectors, amount, others in ((user, amount_u, data.n_items), (item, amount_i, data.n_users)):
        scaled = recipe.regularization * (amount + recipe.unobserved_weight * others) ** recipe.exponent
        total += (scaled * (vectors**2).sum(1)).sum()
    return float(total)


RECIPES = st.one_of(
    st.builds(
        IALS,
        dim=st.integers(1, 6),
        unobserved_weight=st.floats(0.01, 2),
        regularization=st.floats(0.01, 1),
        exponent=st.sampled_from([0.0, 0.5, 1.0]),
        weighting=st.sampled_from(["none", "linear"]),
        block=st.sampled_from([None, 1, 2]),
        init_std=st.just(1.0),
    ),
    st.builds(
        WALS,
        dim=st.integers(1, 6),
        regularization=st.floats(0.01, 1),
        block=st.sampled_from([None, 2]),
        init_std=st.just(1.0),
    ),
)


@given(toys(ratings=True), RECIPES)
@settings(deadline=None, max_examples=60)
def test_no_half_step_raises_the_objective_and_the_objective_is_the_equation(data, recipe):
    state = Alternation(recipe, data, seed=1)
    state.solve_users()
    before = state.loss()
    for step in (state.solve_items, state.solve_users) * 3:
        step()
        assert state.loss() == pytest.approx(
            obvious_loss(recipe, data, state.user_UD, state.item_ID), rel=1e-3, abs=1e-3
        )
        assert state.loss() <= before * (1 + 1e-4) + 1e-4
        before = state.loss()


@given(toys(), st.integers(1, 12), st.sampled_from(["none", "linear"]))
@settings(deadline=None, max_examples=40)
def test_a_half_step_is_the_exact_minimum(data, dim, weighting):
    """Both forms: dim below and above the number of entries of a row."""
    recipe = IALS(dim=dim, unobserved_weight=0.2, regularization=0.3, weighting=weighting, init_std=1.0)
    state = Alternation(recipe, data, seed=0)
    state.solve_users()
    item, rows = state.item_ID.astype(np.float64), data.interactions
    for user in range(data.n_users):
        mine = item[rows.item[rows.user == user]]
        w = rows.weight[rows.user == user] / rows.weight.mean() if weighting == "linear" else np.ones(len(mine))
        ridge = 0.3 * (w.sum() + 0.2 * data.n_items)
        system = 0.2 * item.T @ item + (mine.T * w) @ mine + ridge * np.eye(dim)
        np.testing.assert_allclose(state.user_UD[user], np.linalg.solve(system, mine.T @ w), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weighting", ["none", "linear"])
@pytest.mark.parametrize("dim", [8, 24])
def test_short_and_long_rows_are_solved_alike(dim, weighting):
    """Users have 0 to 40 items: short rows are solved in batches, others one by one, as n x n or D x D."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(41), np.arange(41))
    data = dataset(user, np.concatenate([rng.permutation(50)[:n] for n in range(41)]), rng.integers(1, 6, len(user)))
    recipe = IALS(dim=dim, unobserved_weight=0.2, regularization=0.3, weighting=weighting, init_std=1.0)
    state = Alternation(recipe, data, seed=0)
    state.solve_users()
    item, rows = state.item_ID.astype(np.float64), data.interactions
    assert not state.user_UD[0].any()
    for one in range(1, 41):
        mine = item[rows.item[rows.user == one]]
        w = rows.weight[rows.user == one] / rows.weight.mean() if weighting == "linear" else np.ones(len(mine))
        system = 0.2 * item.T @ item + (mine.T * w) @ mine + 0.3 * (w.sum() + 0.2 * 50) * np.eye(dim)
        np.testing.assert_allclose(state.user_UD[one], np.linalg.solve(system, mine.T @ w), rtol=1e-3, atol=1e-4)


def test_where_only_popularity_can_be_learned_more_is_shrunk():
    """Worlds of equal size with tastes and without; rows in another order hardly matter."""
    strengths = {}
    for amount in (0.0, 0.6):
        data = World(1_000, 600, 12, 0.5, 5, amount).dataset()
        found = taste(data, 0.05)
        assert (found < 1.05) if amount == 0 else (found > 1.3)
        order = np.random.default_rng(1).permutation(len(data))
        assert taste(data.with_rows(data.interactions.take(order)), 0.05) == pytest.approx(found, rel=0.03)
        strengths[amount] = IALS().for_data(data).regularization
    assert strengths[0.0] > 2 * strengths[0.6]


def test_learns_the_checkerboard_and_so_do_blocks():
    data = checkerboard()
    for recipe in (IALS(dim=8), IALS.fast(), IALS(dim=8, block=3)):
        score = recipe.fit(data).score(Query.of(np.arange(20)))
        even = (torch.arange(20)[:, None] + torch.arange(20)) % 2 == 0
        assert score[even].min() > score[~even].max()


def test_blocks_reach_the_objective_of_exact_solves():
    rng = np.random.default_rng(0)
    data = dataset(rng.integers(0, 60, 2_000), rng.integers(0, 50, 2_000))
    losses = {}
    for block in (None, 8):
        state = Alternation(IALS(dim=24, block=block), data, seed=0)
        for _ in range(15):
            state.solve_users()
            state.solve_items()
        losses[block] = state.loss()
    assert losses[8] == pytest.approx(losses[None], rel=0.01)


@pytest.mark.parametrize("weighting", ["none", "linear"])
def test_the_start_is_made_of_the_leading_singular_vectors(weighting):
    rng = np.random.default_rng(1)
    liking = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 40)) + 0.1 * rng.standard_normal((50, 40))
    user, item = np.nonzero(liking > 0)
    data = dataset(user, item, 1 + liking[user, item], 50, 41)  # nobody touched the last item
    state = Alternation(IALS(dim=3, weighting=weighting), data, seed=0)
    dense = np.zeros((50, 41))
    weight = data.interactions.weight
    dense[user, item] = weight / weight.mean() if weighting == "linear" else 1
    values = np.linalg.svd(dense, compute_uv=False)[:3]
    found = leading_vectors(state.by_user, state.by_item, rng.standard_normal((41, 3)).astype(np.float32))
    square = found.T @ found
    np.testing.assert_allclose(square - np.diag(np.diag(square)), 0, atol=1e-4 * values[0])
    assert 0.95 * values.sum() < np.diag(square).sum() <= 1.0001 * values.sum()
    direction = found / np.linalg.norm(found, axis=0)
    np.testing.assert_allclose(np.linalg.norm(dense @ direction, axis=0), np.diag(square), rtol=1e-3)


def test_the_start_fits_small_matrices_and_saves_epochs():
    data = dataset([0, 1, 1], [0, 0, 1], n_users=2, n_items=9)
    state = Alternation(IALS(dim=5), data, seed=0)
    found = leading_vectors(state.by_user, state.by_item, state.item_ID)
    assert np.isfinite(found).all()
    assert not found[:, 2:].any()
    rng = np.random.default_rng(0)
    popular = rng.zipf(1.3, 20_000) % 300
    losses = {}
    for std in (0.1, 1e3):  # noise of this size drowns the start
        state = Alternation(
            IALS(dim=16, init_std=std), dataset(rng.integers(0, 400, 20_000), popular, None, 400, 300), 0
        )
        state.solve_users()
        state.epoch()
        losses[std] = state.loss()
    assert losses[0.1] < losses[1e3]


@pytest.mark.parametrize("recipe", [IALS(dim=6), IALS(dim=40), IALS(dim=6, weighting="linear"), WALS(dim=6)])
def test_fold_in_of_a_trained_users_history_is_their_trained_vector(recipe):
    rng = np.random.default_rng(3)
    data = dataset(rng.integers(0, 40, 900), rng.integers(0, 30, 900), rng.integers(1, 6, 900), n_users=41)
    model = recipe.fit(data)
    users = np.arange(40)
    known, folded = Query.of(users), Query.of(np.full(40, -1), data.history.select(users))
    torch.testing.assert_close(model.score(folded), model.score(known), rtol=1e-3, atol=1e-3)
    alone = torch.cat([model.score(Query.of([-1], data.history.select(users[u : u + 1]))) for u in users])
    torch.testing.assert_close(model.score(folded), alone, rtol=1e-6, atol=1e-6)
    untrained = Query.of([40], data.history.select(np.array([0])))  # in the map, without rows: their clicks count
    torch.testing.assert_close(model.score(untrained), model.score(folded)[:1], rtol=1e-6, atol=1e-6)


def test_a_dislike_lowers_what_is_like_it():
    model = IALS(dim=8).fit(checkerboard())
    history = dataset([0, 0, 1, 1], [0, 3, 0, 3], [1, 1, 1, -1]).history
    liked, disliked = model.score(Query.of([-1, -1], history))
    assert disliked[5] < liked[5]
    assert disliked[0] > disliked[5]


def test_wals_predicts_ratings():
    """A rank-one table of ratings with a third of it missing is filled in."""
    rng = np.random.default_rng(0)
    full = 3 + np.outer(rng.choice([-1, 1], 30), rng.choice([-1, 1], 20)) * 1.5
    user, item = np.nonzero(rng.random(full.shape) < 0.67)
    model = WALS(dim=2, regularization=0.01, epochs=20).fit(dataset(user, item, full[user, item], 30, 20))
    np.testing.assert_allclose(model.score(Query.of(np.arange(30))).numpy(), full, atol=0.2)


def test_same_seed_same_weights_and_the_state_rebuilds_the_model():
    data = checkerboard()
    recipe = IALS(dim=4, epochs=2).for_data(data)
    one, two, other = (recipe.fit(data, TrainOptions(seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["item_table.weight"], other["item_table.weight"])
    rebuilt = recipe.build(DataSpec(20, 20))
    rebuilt.load_state_dict(one, strict=True)
    query = Query.of([-1, 3], data.history.select(np.array([2, 3])))
    assert torch.equal(rebuilt.score(query), recipe.fit(data, TrainOptions(seed=1)).score(query))


def test_the_best_watched_epoch_comes_back():
    seen, losses = [], []

    def validation_callback(model):
        seen.append(model.item_table.weight.detach().clone())
        return [0.1, 0.3, 0.2, 0.1, 0.1][len(seen) - 1]

    run = TrainOptions(
        validation_callback=validation_callback, patience=2, progress=lambda event: losses.append(event.values["loss"])
    )
    model = IALS(dim=4, epochs=9).fit(checkerboard(), run)
    assert len(seen) == 4
    assert torch.equal(model.item_table.weight, seen[1])
    assert losses == pytest.approx(sorted(losses, reverse=True), rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"unobserved_weight": 0.0}, "unobserved_weight=0.0"),
        ({"weighting": "stars"}, "weighting='stars'"),
    ],
)
def test_senseless_fields_are_refused(fields, words):
    with pytest.raises(RecipeError, match=words):
        IALS(**fields)


def test_rows_without_ratings_are_refused_by_wals():
    with pytest.raises(RecipeError, match="use ials"):
        WALS().fit(checkerboard())
