"""Exported vectors and graphs answer as the models do, for other users, lengths and batches than those exported."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch

import palate
from palate.base import Query
from palate.errors import ModelError
from palate.export import export_onnx, export_vectors

N_USERS, N_ITEMS = 40, 30


@pytest.fixture(scope="module")
def train():
    """Users of two tastes, with times, features of both sides and a user and an item without rows."""
    rng = np.random.default_rng(0)
    user, item = np.divmod(rng.choice(N_USERS * N_ITEMS, 500, replace=False), N_ITEMS)
    log = pl.DataFrame({"user_id": user, "item_id": item, "timestamp": rng.integers(0, 10**7, len(user))})
    users = pl.DataFrame({"user_id": range(N_USERS + 1)}).with_columns(
        town=pl.Series([("Oslo", "Rome", None)[u % 3] for u in range(N_USERS + 1)]),
        age=pl.Series([20.0 + u for u in range(N_USERS + 1)]),
    )
    items = pl.DataFrame({"item_id": range(N_ITEMS + 1)}).with_columns(
        tags=pl.Series([["a", "b"][: 1 + i % 2] for i in range(N_ITEMS + 1)])
    )
    return palate.from_frame(log, user_features=users, item_features=items)


def session(folder, name="query.onnx"):
    return onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])


def run(folder, inputs, name="query.onnx"):
    return session(folder, name).run(None, {key: np.asarray(value) for key, value in inputs.items()})[0]


def close(found, expected):
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", [palate.IALS(dim=8), palate.BPR(dim=8, epochs=2), palate.MF(dim=4, epochs=2)])
def test_users_of_a_dot_product_model_get_their_vectors_and_lists(recipe, train, tmp_path):
    model = recipe.fit(train)
    recommender = palate.Recommender.of(model, train)
    export_onnx(recommender, tmp_path)
    users = np.array([39, 0, 7, -1, 10**6])
    vectors = run(tmp_path, {"user": users})
    close(vectors, model.query_vectors(Query.of(users)))
    items = pl.read_parquet(tmp_path / "items.parquet")
    scores = vectors[1] @ items["vector"].to_numpy().T
    best = recommender.recommend([train.users.ids[0]], k=5, exclude_seen=False)
    assert items["item_id"].to_numpy()[np.argsort(-scores)[:5]].tolist() == best["item_id"].to_list()


@pytest.mark.parametrize("recipe", [palate.GMF, palate.MLP, palate.NeuMF])
def test_pairs_get_the_scores_of_the_network(recipe, train, tmp_path):
    model = recipe(epochs=2).fit(train)
    export_onnx(palate.Recommender.of(model, train), tmp_path)
    users, items = np.array([3, -1]), np.arange(2 * 11).reshape(2, 11)
    found = run(tmp_path, {"user": users, "item": items}, "score.onnx")
    close(found, model.score(Query.of(users), torch.from_numpy(items)))
    assert found.std() > 0
    assert pl.read_parquet(tmp_path / "users.parquet").columns == ["user_id"]  # no dot product: no vectors of users


def test_a_query_tower_reads_the_features_of_new_users(train, tmp_path):
    recipe = replace(palate.TwoTower.fast(), dim=8, layers=(8,), epochs=2, popularity=True)
    model = recipe.fit(train)
    export_onnx(palate.Recommender.of(model, train), tmp_path)
    features = pl.DataFrame({"town": ["Rome", "Oslo", "elsewhere", None], "age": [30.0, None, 64.0, None]})
    facts = model.user_tower.encode(features)
    users = np.array([-1, -1, 5, -1])  # the third is trained: its own features count, not those of the request
    given = {"codes": facts.codes.long(), "weights": facts.weights, "numbers": facts.numbers}
    found = run(tmp_path, {"user": users, **{name: part.numpy() for name, part in given.items()}})
    expected = model.query_vectors(Query(torch.from_numpy(users), features=features))
    # Of a trained user the library never reads features of the request either.
    close(found, expected)
    assert not np.allclose(found[0], found[3])  # features count
    close(found[3], torch.cat([model.user_mean, torch.ones(1)]))  # the 1 meets log popularity
    about = json.loads((tmp_path / "model.json").read_text())
    assert [column["name"] for column in about["features"]] == ["town", "age"]
    assert about["inputs"]["codes"]["shape"] == ["users", facts.codes.shape[1]]


@pytest.mark.parametrize("times", [True, False])
def test_histories_of_any_length_get_their_state(times, train, tmp_path):
    extra = {"time_gaps": True, "request_time": True, "item_features": ("*",)} if times else {}
    recipe = replace(palate.SASRec(epochs=2, dim=8, hidden=8, n_layers=1, max_seq_len=6), **extra)
    model = recipe.fit(train)
    recommender = palate.Recommender.of(model, train)
    export_onnx(recommender, tmp_path)
    histories = [[4, 9, 1], [2], [], [1, 2, 3, 4, 5, 6]]
    width = max(len(history) for history in histories)
    item = np.array([history + [0] * (width - len(history)) for history in histories])
    inputs = {"item": item, "length": [len(history) for history in histories]}
    if times:
        inputs["gap"] = np.tile(np.array([0, 60, 3600, 10, 5, 9e6], np.float32), (4, 1))
        inputs["wait"] = np.roll(inputs["gap"], -1, axis=1)
        for row, history in enumerate(histories):
            inputs["wait"][row, len(history) - 1 :] = -1
    found = run(tmp_path, inputs)
    flat = [0.0, 60, 3660, 3670, 3675, 3675 + 9e6]
    query = Query.new_users(histories)
    clock = torch.tensor([second for history in histories for second in flat[: len(history)]], dtype=torch.float64)
    close(found, model.query_vectors(replace(query, times=clock)))
    # The file of users holds what the graph gives for their training rows.
    users = pl.read_parquet(tmp_path / "users.parquet")["vector"].to_numpy()
    history = train.history.select(np.arange(3))
    close(users[:3], model.query_vectors(Query.of(np.arange(3), history)))


def test_vectors_as_arrays_are_those_of_the_tables(train, tmp_path):
    recommender = palate.Recommender.of(palate.IALS(dim=8).fit(train), train)
    assert {path.name for path in export_vectors(recommender, tmp_path / "a", "numpy")} == {
        "items.npy",
        "items.parquet",
        "users.npy",
        "users.parquet",
    }
    export_vectors(recommender, tmp_path / "t")
    for side, ids in (("items", train.items.ids), ("users", train.users.ids)):
        array, table = np.load(tmp_path / "a" / f"{side}.npy"), pl.read_parquet(tmp_path / "t" / f"{side}.parquet")
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, table["vector"].to_numpy())
        assert table[f"{side[:-1]}_id"].to_list() == ids.to_list()


def test_a_model_without_a_graph_is_refused_with_a_remedy(train, tmp_path):
    knn = palate.Recommender.of(palate.ItemKNN().fit(train), train)
    with pytest.raises(ModelError, match=r"ItemKNNModel cannot be exported to ONNX: .*sasrec"):
        export_onnx(knn, tmp_path / "none")
    popular = palate.Recommender.of(palate.Popularity().fit(train), train)
    with pytest.raises(ModelError, match="no item vectors"):
        export_vectors(popular, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_graph_that_differs_from_its_model_is_not_written(train, tmp_path, monkeypatch):
    recommender = palate.Recommender.of(palate.IALS(dim=8).fit(train), train)
    query_vectors = type(recommender.model).query_vectors
    monkeypatch.setattr(type(recommender.model), "query_vectors", lambda self, query: 1.01 * query_vectors(self, query))
    with pytest.raises(ModelError, match="differs from the model"):
        export_onnx(recommender, tmp_path)
    assert not list(tmp_path.iterdir())
