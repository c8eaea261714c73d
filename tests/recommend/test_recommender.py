"""Recommender: what is listed, in which order, from which source, and what it does to the things around it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from torch import Tensor, nn

from palate.base import DataSpec, Query
from palate.data.dataset import Dataset, Fingerprint, Interactions
from palate.data.ids import IdMap
from palate.errors import DataError, ModelError
from palate.models import RECIPES
from palate.recommend import Recommender
from palate.recommend import top_n as answering


class Dots(nn.Module):
    """Dot products of two tables; a new user is the mean of the items in the history."""

    trained_on: Fingerprint | None = None

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = nn.Parameter(users), nn.Parameter(items)

    def query_vectors(self, query: Query) -> Tensor:
        vectors = self.users[query.user.clamp(min=0)]
        if query.offsets is not None and query.items is not None:
            for row in torch.nonzero((query.user < 0) & (query.counts() > 0)).flatten().tolist():
                vectors = vectors.clone()
                vectors[row] = self.items[query.items[query.offsets[row] : query.offsets[row + 1]]].mean(0)
        return vectors

    def item_vectors(self) -> Tensor:
        return self.items

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        all_items = self.query_vectors(query) @ self.items.T
        return all_items if items is None else all_items.gather(1, items)

    def can_personalize(self, query: Query) -> Tensor:
        return (query.user >= 0) | (query.counts() > 0)


def dataset(
    pairs: list[tuple[int, int]], n_users: int, n_items: int, *, titles: list[str] | None = None, timed: bool = True
) -> Dataset:
    """User u is called 10 * u and item i is called "i<i>"."""
    user, item = (np.array(side, dtype=np.int32) for side in zip(*pairs, strict=True))
    time = np.arange(len(pairs), dtype=np.float64) if timed else None
    return Dataset(
        "small",
        IdMap(pl.Series("id", [10 * u for u in range(n_users)], dtype=pl.Int64)),
        IdMap(pl.Series("id", [f"i{i}" for i in range(n_items)])),
        Interactions(user, item, np.ones(len(pairs), np.float32), time),
        titles=None if titles is None else pl.Series("title", titles),
    )


def dots(train: Dataset, seed: int = 0, width: int = 4) -> Recommender:
    generator = torch.Generator().manual_seed(seed)
    tables = (torch.randn(n, width, generator=generator) for n in (train.n_users, train.n_items))
    return Recommender.of(Dots(*tables), train)


def random_pairs(n_users: int, n_items: int, rows: int, seed: int = 0) -> list[tuple[int, int]]:
    drawn = np.random.default_rng(seed).integers((n_users, n_items), size=(rows, 2))
    return [(int(u), int(i)) for u, i in drawn]


MIXED = dataset(random_pairs(20, 30, 200), 20, 30)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_lists_are_the_best_unseen_items_in_order(data: st.DataObject) -> None:
    n_users, n_items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    cell = st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1))
    pairs = data.draw(st.lists(cell, min_size=1, max_size=30))
    k = data.draw(st.integers(1, 10))
    train = dataset(pairs, n_users, n_items, timed=data.draw(st.booleans()))
    recommender = dots(train)
    result = recommender.recommend(train.users.ids, k)
    model = recommender.model
    scores = model.score(Query.of(range(n_users))).detach().numpy()
    for user in range(n_users):
        seen = {i for u, i in pairs if u == user}
        value = scores[user] if seen else recommender.popularity
        expected = sorted(set(range(n_items)) - seen, key=lambda i: (-value[i], i))[:k]
        mine = result.filter(pl.col("user_id") == 10 * user)
        assert mine["item_id"].to_list() == [f"i{i}" for i in expected]
        assert mine["rank"].to_list() == list(range(1, len(expected) + 1))
        np.testing.assert_allclose(mine["score"].to_numpy(), value[expected], rtol=1e-5, atol=1e-6)
        assert set(mine["source"]) <= {"model" if seen else "popular"}


def test_one_id_many_ids_and_every_kind_of_container_give_the_same_rows() -> None:
    recommender = dots(MIXED)
    together = recommender.recommend([10, 0, 30], 4)
    assert together["user_id"].unique(maintain_order=True).to_list() == [10, 0, 30]
    assert together.columns == ["user_id", "item_id", "rank", "score", "source"]
    assert_frame_equal(recommender.recommend(pl.Series([10, 0, 30, 10], dtype=pl.UInt8), 4), together)
    assert_frame_equal(recommender.recommend(np.array([10, 0, 30]), 4), together)
    apart = pl.concat([recommender.recommend(user, 4) for user in (10, 0, 30)])
    assert_frame_equal(apart, together, rel_tol=1e-5)
    as_text = recommender.recommend(["10", "0", "30"], 4)
    assert as_text["user_id"].dtype == pl.String
    assert_frame_equal(as_text.drop("user_id"), together.drop("user_id"))
    assert recommender.recommend([], 4).is_empty()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = dots(MIXED)
    histories = {"new": ["i3", "i4"], 0: ["i5"]}
    asked = ["0", "10", "new", "190", "nobody"]
    whole = recommender.recommend(asked, 5, histories=histories)
    monkeypatch.setattr(answering, "CHUNK_BYTES", 1)
    assert len(answering.chunks(5, recommender)) == 5
    assert_frame_equal(recommender.recommend(asked, 5, histories=histories), whole, rel_tol=1e-5)


def test_a_user_with_three_items_left_gets_three_rows_and_with_none_left_none() -> None:
    pairs = [(0, i) for i in range(7)] + [(1, i) for i in range(10)] + [(2, 0)]
    recommender = dots(dataset(pairs, 3, 10))
    result = recommender.recommend([0, 10, 20], 5)
    assert set(result.filter(pl.col("user_id") == 0)["item_id"]) == {"i7", "i8", "i9"}
    assert result.filter(pl.col("user_id") == 0)["rank"].to_list() == [1, 2, 3]
    assert result.filter(pl.col("user_id") == 10).is_empty()
    assert recommender.recommend([0, 10], 99, exclude_seen=False).height == 20


def test_sources_say_where_a_row_came_from() -> None:
    recommender = dots(dataset([(0, 0), (0, 1), (1, 1), (1, 2)], 3, 6))
    result = recommender.recommend([0, 20, 77, 78, 79], 2, histories={78: ["i0"], 79: ["gone"], 77: []})
    source = dict(result.select("user_id", "source").unique().iter_rows())
    # 20 is in the map but has no training row, so nothing was learned about it.
    assert source == {0: "model", 20: "popular", 77: "popular", 78: "fold-in", 79: "popular"}
    assert result.filter(pl.col("user_id") == 77)["item_id"].to_list() == ["i1", "i0"]
    assert result.filter(pl.col("user_id") == 77)["score"].to_list() == [2.0, 1.0]
    cold = recommender.recommend(20, 2, histories={20: ["i5"]})
    assert set(cold["source"]) == {"fold-in"}


def test_a_given_history_decides_the_answer_and_does_not_come_back() -> None:
    items = torch.tensor([[1.0, 0], [0.9, 0.1], [0.8, 0.1], [0, 1], [0.1, 0.9]])
    train = dataset([(0, 0), (0, 3)], 1, 5)
    recommender = Recommender.of(Dots(torch.zeros(1, 2), items), train)
    result = recommender.recommend(["a", "b"], 1, histories={"a": ["i0"], "b": ["i3"]})
    assert result["item_id"].to_list() == ["i1", "i4"]
    kept = recommender.recommend("a", 1, histories={"a": ["i0"]}, exclude_seen=False)
    assert kept["item_id"].to_list() == ["i0"]
    known = recommender.recommend(0, 9, histories={"0": ["i1"]})
    assert set(known["item_id"]) == {"i2", "i4"}
    assert set(known["source"]) == {"model"}


def test_numbers_of_every_library_and_generators_are_taken() -> None:
    recommender = dots(MIXED)
    plain = recommender.recommend([0], 3, histories={0: [("i1", 1), ("i2", 2.0, 5)]}, reasons=1, at=7)
    events = (event for event in [("i1", Fraction(1)), ("i2", np.float32(2), np.int64(5))])
    other = recommender.recommend([0], np.int64(3), histories={0: events}, reasons=np.int8(1), at=Decimal(7))
    assert_frame_equal(plain, other)
    assert recommender.recommend([0], 2**70).height == recommender.recommend([0], 30).height


def test_unknown_history_items_are_counted() -> None:
    recommender = dots(MIXED)
    note = recommender.unknown_items({"a": ["i1", "x"], "b": ["y", "x"]})
    assert note is not None
    assert note.rows == 3
    assert "(x, y)" in str(note)
    assert recommender.unknown_items({"a": ["i1"]}) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.recommend([0], 0), "k=0: ask for at least 1"),
        (lambda r: r.similar("i1", 0), "k=0"),
        (lambda r: r.recommend([1.5]), "cast them first"),
        (lambda r: r.recommend([1, "a"]), "all integers or all strings"),
        (lambda r: r.recommend([0], histories={"0": ["i1"], "b": ["i2"]}), "'b', who is not asked for"),
        (lambda r: r.recommend([0], histories={0: "i1"}), "put the item ids into a list"),
        (lambda r: r.recommend([0], at=float("nan")), "at=nan: not a time"),
        (lambda r: r.recommend_all("lists.parquet", at=float("inf")), "at=inf: not a time"),
        (
            lambda r: r.recommend([0], histories={"0": [("i1", 1.0, float("inf"))]}),
            "the time inf: give a finite number",
        ),
        (lambda r: r.recommend_all("/nowhere/at/all.parquet"), "existing, writable folder"),
        (lambda r: r.recommend([0], k="3"), "k='3': must be an integer"),
        (lambda r: r.recommend([0], k=True), "k=True"),
        *((lambda r, n=n: r.recommend([0], reasons=n), f"reasons={n!r}: must be an integer") for n in (-1, "2", 2.5)),
        (lambda r: r.recommend([0], at="x"), "at='x': not a time"),
        (lambda r: r.recommend([0], at=10**400), "not a time"),
        (lambda r: r.recommend([0], at=True), "at=True: not a time"),
        *(
            (lambda r, w=w: r.recommend([0], histories={0: [("i1", w)]}), "give a finite number, or leave it out")
            for w in (np.nan, np.inf, 1e39, 10**400, "1.5", [1], None)
        ),
        (lambda r: r.recommend([0], histories={0: [("i1", 1, "5")]}), "the time '5': give a finite number"),
        (lambda r: r.recommend([0], histories={0: 3}), "put the item ids into a list"),
        (lambda r: r.recommend([0], histories={0: {"i1": 0.5}}), "put the item ids into a list"),
        (lambda r: r.recommend([0, 2**63]), "does not fit into 64 bits"),
        (lambda r: r.recommend(np.array([2**63], np.uint64)), "does not fit into 64 bits"),
        (lambda r: r.similar(np.uint64(2**63)), "does not fit into 64 bits"),
        (lambda r: r.recommend([0], features=[1]), "dictionary of dictionaries"),
        (lambda r: r.recommend([0], features={0: 3}), "dictionary of dictionaries"),
        (lambda r: r.recommend([0], cold="x"), "give a policy"),
    ],
)
def test_mistakes_are_explained(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(dots(MIXED))  # type: ignore[operator]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_answers_everybody_and_is_left_untouched(name: str) -> None:
    torch.manual_seed(0)
    model = RECIPES[name].fast().for_data(MIXED).build(DataSpec(20, 30))
    recommender = Recommender.of(model, MIXED)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = recommender.recommend(["0", "new", "?"], 5, histories={"new": ["i1", "i2"]})
    again = recommender.recommend(["0", "new", "?"], 5, histories={"new": ["i1", "i2"]})
    assert result["user_id"].value_counts()["count"].to_list() == [5, 5, 5]
    assert set(result.filter(pl.col("user_id") == "?")["source"]) == {"popular"}
    assert not set(result.filter(pl.col("user_id") == "new")["item_id"]) & {"i1", "i2"}
    assert_frame_equal(result, again)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not model.training
    if name == "popularity":
        assert set(result["source"]) == {"popular"}


def test_a_model_that_is_not_personal_answers_with_its_own_scores() -> None:
    class Trend(nn.Module):
        trained_on = None

        def score(self, query: Query, items: Tensor | None = None) -> Tensor:
            return torch.arange(30.0).expand(len(query), -1)

        def can_personalize(self, query: Query) -> Tensor:
            return torch.zeros(len(query), dtype=torch.bool)

    result = Recommender.of(Trend(), MIXED).recommend(["0", "?"], 1, exclude_seen=False)
    assert result["item_id"].to_list() == ["i29", "i29"]
    assert result["source"].to_list() == ["popular", "popular"]


def test_scores_that_are_no_numbers_or_of_another_catalog_are_refused() -> None:
    with pytest.raises(ModelError, match="NaN"):
        Recommender.of(Dots(torch.full((20, 2), torch.nan), torch.ones(30, 2)), MIXED).recommend(0)
    with pytest.raises(ModelError, match="scored 7 items but the catalog has 30"):
        Recommender.of(Dots(torch.ones(20, 2), torch.ones(7, 2)), MIXED).recommend(0)


def test_threads_share_one_recommender() -> None:
    recommender = dots(MIXED)
    users = MIXED.users.ids.to_list() * 4
    expected = {user: dots(MIXED).recommend(user, 5) for user in set(users)}
    with ThreadPoolExecutor(8) as pool:
        for user, result in zip(users, pool.map(lambda u: recommender.recommend(u, 5), users), strict=True):
            assert_frame_equal(result, expected[user])


def test_all_users_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = dots(dataset(random_pairs(20, 30, 200), 20, 30, titles=[f"Titre né {i}" for i in range(30)]))
    expected = recommender.recommend(recommender.users.ids, 7)
    monkeypatch.setattr(answering, "CHUNK_BYTES", 3 * answering.CELL_BYTES * 30)
    path = tmp_path / "all.parquet"
    assert recommender.recommend_all(path, 7) == len(expected)
    assert_frame_equal(pl.read_parquet(path), expected, rel_tol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["all.parquet"]


def test_a_failure_on_the_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = torch.ones(20, 2)
    users[15] = torch.nan
    recommender = Recommender.of(Dots(users, torch.rand(30, 2)), dataset([(u, 0) for u in range(20)], 20, 30))
    monkeypatch.setattr(answering, "CHUNK_BYTES", 3 * answering.CELL_BYTES * 30)
    path = tmp_path / "all.parquet"
    path.write_bytes(b"old")
    with pytest.raises(ModelError):
        recommender.recommend_all(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["all.parquet"]
    with pytest.raises(DataError, match="it is a folder"):
        recommender.recommend_all(tmp_path)


MEMORY = """
import resource, sys
import numpy as np, polars as pl, torch
from test_recommender import Dots
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.recommend import Recommender
users, items = 20_000, 2_000
rows = Interactions(np.arange(users, dtype=np.int32), np.zeros(users, np.int32), np.ones(users, np.float32))
ids = [IdMap(pl.Series("id", np.arange(n))) for n in (users, items)]
recommender = Recommender.of(Dots(torch.rand(users, 2), torch.rand(items, 2)), Dataset("x", *ids, rows))
recommender.recommend(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert recommender.recommend_all(sys.argv[1], 5) == 5 * users
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux only")
@pytest.mark.slow
def test_all_users_take_bounded_memory(tmp_path: Path) -> None:
    """40 million scores are 153 MiB at once and several times that with sort keys; in chunks they stay below."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "all.parquet")],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400  # MiB


TITLES = ["Amélie", "Alien", "Aliens", "Heat", "HEAT", "Brazil"]


def test_similar_by_item_vectors() -> None:
    items = torch.tensor([[2.0, 0], [5, 5], [0, 1], [-1, 0], [9, 1], [0, 0]])
    train = dataset([(0, 0)], 1, 6, titles=TITLES)
    result = Recommender.of(Dots(torch.ones(1, 2), items), train).similar("amélie", 3)
    assert result.columns == ["item_id", "rank", "score", "source", "title"]
    assert result["item_id"].to_list() == ["i4", "i1", "i2"]
    np.testing.assert_allclose(result["score"].to_numpy(), [9 / 82**0.5, 0.5**0.5, 0], rtol=1e-6)
    assert set(result["source"]) == {"model"}


def test_similar_by_shared_users() -> None:
    pairs = [(0, 0), (0, 1), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (3, 2), (3, 3)]
    train = dataset(pairs, 4, 6, titles=TITLES)
    recommender = Recommender.of(RECIPES["popularity"]().build(DataSpec(4, 6)), train)
    result = recommender.similar("i0")
    # i0 has users 0, 1, 2; i1 has 0, 1 (the repeated row counts once); i2 has 1, 3; nobody shares i3 with it.
    assert result["item_id"].to_list() == ["i1", "i2"]
    np.testing.assert_allclose(result["score"].to_numpy(), [2 / 6**0.5, 1 / 6**0.5], rtol=1e-6)
    assert set(result["source"]) == {"co-occurrence"}
    assert recommender.similar("i5").is_empty()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("Aliens!", "unknown item 'Aliens!': did you mean 'Aliens' or 'Alien'"),
        ("braz", "did you mean 'Brazil'"),
        ("heat", r"2 items are called 'heat' \(item ids i3, i4\)"),
        ("zzzz", "give an item id or a title"),
    ],
)
def test_an_unknown_item_says_what_was_perhaps_meant(item: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        dots(dataset([(0, 0)], 1, 6, titles=TITLES)).similar(item)


def test_movielens_100k(tmp_path: Path) -> None:
    folder = os.environ.get("PALATE_DATA")
    if not folder or not (Path(folder) / "ml-100k.zip").exists():
        pytest.skip("PALATE_DATA does not hold ml-100k.zip")
    with zipfile.ZipFile(Path(folder) / "ml-100k.zip") as archive:
        rows = pl.read_csv(io.BytesIO(archive.read("ml-100k/u.data")), separator="\t", has_header=False).to_numpy()
    users, items = IdMap.of(rows[:, 0]), IdMap.of(rows[:, 1])
    interactions = Interactions(
        users.rows(rows[:, 0]), items.rows(rows[:, 1]), rows[:, 2].astype(np.float32), rows[:, 3].astype(np.float64)
    )
    train = Dataset("ml-100k", users, items, interactions)
    recipe = RECIPES["popularity"]()
    recommender = Recommender.of(recipe.fit(train), train)
    new_user = recommender.recommend("nobody", 3)
    assert new_user["item_id"].to_list() == [50, 258, 100]  # Star Wars, Contact, Fargo
    assert new_user["score"].to_list() == [583, 509, 508]
    assert recommender.recommend_all(tmp_path / "all.parquet") == 9430
    written = pl.read_parquet(tmp_path / "all.parquet")
    seen = pl.DataFrame({"user_id": rows[:, 0], "item_id": rows[:, 1]})
    assert written.join(seen, on=["user_id", "item_id"]).is_empty()
    assert recommender.similar(172, 1)["item_id"].to_list() == [174]  # The Empire Strikes Back: Raiders of the Lost Ark
