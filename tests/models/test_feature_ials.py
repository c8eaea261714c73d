"""iALS with item features: the prior of the solver, the map, items without events, and texts as features."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse

import palate
from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.data.text_vectors import text_vectors
from palate.errors import DataError, ModelError
from palate.models.feature_ials import FeatureIALS, ridge_map
from palate.models.ials import IALS
from palate.models.least_squares import Rows, solve_rows
from palate.recommend import Recommender

OPTIONS = TrainOptions(threads=1, device="cpu")
GROUPS, PER_GROUP, USERS = 6, 20, 240


@pytest.fixture(scope="module")
def shelf() -> pl.DataFrame:
    names = ["tea", "jam", "soap", "rope", "ink", "salt"]
    return pl.DataFrame(
        {
            "item_id": range(GROUPS * PER_GROUP),
            "kind": [names[n % GROUPS] for n in range(GROUPS * PER_GROUP)],
            "about": [f"a good {names[n % GROUPS]} of number {n}" for n in range(GROUPS * PER_GROUP)],
        }
    )


@pytest.fixture(scope="module")
def shop(shelf):
    """Users who take items of one kind, mostly; the last item of each kind has no events, the one before two."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        own = user % GROUPS + GROUPS * rng.choice(PER_GROUP - 2, 8, replace=False)
        rows += [(user, int(item)) for item in (*own, *rng.integers(0, GROUPS * (PER_GROUP - 2), 2))]
    rare = GROUPS * (PER_GROUP - 2)
    rows += [(kind + GROUPS * copy, rare + kind) for kind in range(GROUPS) for copy in range(2)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").unique(maintain_order=True)
    return palate.from_frame(frame, item_features=shelf, keep_cold_items=True)


@pytest.fixture(scope="module")
def model(shop):
    return FeatureIALS(dim=8, epochs=4, item_features=("kind",)).fit(shop, OPTIONS)


@pytest.mark.parametrize("block", [None, 2])
def test_a_prior_is_what_the_ridge_pulls_to(block):
    rng = np.random.default_rng(3)
    other, penalty = rng.normal(size=(9, 4)), rng.random(4) + 0.1
    offsets = np.array([0, 6, 8, 8])
    columns = rng.integers(0, 9, 8).astype(np.int32)
    weights, ridge, prior = rng.random(8) + 0.5, rng.random(3) + 0.2, rng.normal(size=(3, 4))
    rows = Rows(offsets, columns, rng.normal(size=8), weights, ridge)
    solved = solve_rows(other, penalty, rows, rng.normal(size=(3, 4)), block, prior)
    for row in range(3):
        part = slice(offsets[row], offsets[row + 1])
        x, w, t = other[columns[part]], weights[part], rows.targets[part]
        system = x.T @ (w[:, None] * x) + np.diag(penalty + ridge[row])
        exact = np.linalg.solve(system, x.T @ (w * t) + ridge[row] * prior[row])
        if block is None or len(x) <= 2:
            assert_allclose(solved[row], exact, rtol=1e-9)
    if block:
        for _ in range(300):  # sweeps lead to the same solution
            solved = solve_rows(other, penalty, rows, solved, block, prior)
        assert_allclose(solved, solve_rows(other, penalty, rows, prior_RD=prior), atol=1e-6)


def test_the_map_is_the_ridge_solution():
    rng = np.random.default_rng(4)
    design = np.column_stack([np.ones(50), rng.normal(size=(50, 7))])
    vectors, weight = rng.normal(size=(50, 3)), rng.random(50)
    penalty = np.full(8, 10.0)
    penalty[0] = 0.01
    exact = np.linalg.solve(
        design.T @ (weight[:, None] * design) + np.diag(penalty), design.T @ (weight[:, None] * vectors)
    )
    assert_allclose(ridge_map(sparse.csr_array(design), vectors, weight, 10.0), exact, atol=1e-4)


def test_items_without_events_are_listed_to_those_who_take_their_kind(shop, model):
    last = GROUPS * (PER_GROUP - 1)
    rows = shop.users.rows(np.arange(GROUPS))
    score = model.score(palate.Query.of(rows)).numpy()[:, shop.items.rows(np.arange(last, last + GROUPS))]
    assert (score.argmax(1) == np.arange(GROUPS)).all()


def test_items_of_few_events_lean_on_their_features(shop, model):
    plain = IALS(dim=8, epochs=4).fit(shop, OPTIONS)
    rare = GROUPS * (PER_GROUP - 2)
    rows, items = shop.users.rows(np.arange(60)), shop.items.rows(np.arange(rare, rare + GROUPS))
    kinds = np.arange(60) % GROUPS

    def gap(one) -> float:
        """Score of the rare item of the own kind less the mean of the rare ones, over the spread of scores."""
        score = one.score(palate.Query.of(rows)).numpy()
        own = score[np.arange(60), items[kinds]]
        return float((own - score[:, items].mean(1)).mean() / score.std())

    assert gap(model) > 2 * gap(plain)


def test_without_features_it_is_ials(shop):
    rows = palate.from_frame(_pairs(shop))
    plain, same = (recipe.fit(rows, OPTIONS) for recipe in (IALS(dim=8, epochs=3), FeatureIALS(dim=8, epochs=3)))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    with pytest.raises(ModelError, match="reads no item features"):
        same.with_items(pl.DataFrame({"kind": ["tea"]}))


def _pairs(dataset) -> pl.DataFrame:
    rows = dataset.interactions
    return pl.DataFrame({"user_id": dataset.users.external(rows.user), "item_id": dataset.items.external(rows.item)})


def test_a_new_item_is_ranked_by_its_features_and_after_a_save_too(shop, model, tmp_path):
    recipe = FeatureIALS(dim=8, epochs=4, item_features=("kind",))
    bundle = Bundle.of(recipe, model, shop)
    new = pl.DataFrame({"item_id": [9_001, 9_002], "kind": ["jam", "rope"]})
    lists = []
    for recommender in (bundle.recommender, Bundle.load(bundle.save(tmp_path / "b")).recommender):
        grown = recommender.with_items(new)
        frame = grown.recommend([1, 3], 2, items=[9_001, 9_002])
        lists.append(frame)
        assert frame["item_id"].to_list() == [9_001, 9_002, 9_002, 9_001]
    assert lists[0].equals(lists[1])
    assert isinstance(grown, Recommender)


def test_texts_become_vectors_that_rank_items_without_events(shop, shelf):
    words = sorted({word for text in shelf["about"] for word in text.split() if word.isalpha()})

    class Counts:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([[text.split().count(word) for word in words] for text in texts])

    table = text_vectors(shelf, ["about", "kind"], Counts())
    assert table["text_vector"].dtype == pl.List(pl.Float32)
    again = palate.from_frame(_pairs(shop), item_features=table, keep_cold_items=True)
    found = FeatureIALS(dim=8, epochs=4, item_features=("text_vector",)).fit(again, OPTIONS)
    last = GROUPS * (PER_GROUP - 1)
    rows = again.users.rows(np.arange(GROUPS))
    score = found.score(palate.Query.of(rows)).numpy()[:, again.items.rows(np.arange(last, last + GROUPS))]
    assert (score.argmax(1) == np.arange(GROUPS)).all()


def test_texts_that_are_none_are_refused_or_null():
    table = pl.DataFrame({"id": [1, 2], "title": ["tea", None], "tags": [["hot", "green"], None], "price": [1.0, 2.0]})
    told: list[str] = []

    def lengths(texts: list[str]) -> list[list[float]]:
        told.extend(texts)
        return [[float(len(text))] for text in texts]

    assert text_vectors(table, ["title", "tags"], lengths, name="v")["v"].to_list() == [[15.0], None]
    assert told == ["tea. hot, green"]
    assert text_vectors(table[1:], "title", lengths)["text_vector"].to_list() == [None]
    for columns, encoder, match in (
        ("name", lengths, "no column 'name': there are id, title, tags, price"),
        ("price", lengths, "column 'price' of type Float64 holds no texts"),
        ("title", lambda texts: [1.0], r"the encoder gave \(1,\) for 1 texts"),
        ("title", "all-MiniLM-L6-v2", "pip install sentence-transformers"),
    ):
        with pytest.raises(DataError, match=match):
            text_vectors(table, columns, encoder)
