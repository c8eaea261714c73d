"""Lists, explain and why-not are one answer; requests are checked; a forked child answers."""

from __future__ import annotations

import multiprocessing
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from palate.base import TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import DataError, ModelError
from palate.models.ease import EASE
from palate.models.ials import IALS
from palate.models.popularity import Popularity
from palate.recommend import Recommender
from palate.recommend.cold_start import ColdStart
from palate.recommend.top_n import RecommendOptions, recommend
from palate.rules import Rules

USERS, ITEMS, DAY = 14, 16, 86_400.0
MODELS = {"ease": EASE(), "ials": IALS(dim=4, epochs=3), "popularity": Popularity()}


@cache
def shop() -> Dataset:
    """The last two users have no rows, the last item neither."""
    rng = np.random.default_rng(0)
    pair = np.unique(rng.integers(0, (USERS - 2) * (ITEMS - 1), 90))
    user, item = np.divmod(pair, ITEMS - 1)
    return Dataset(
        "shop",
        IdMap.of([f"u{n:02}" for n in range(USERS)]),
        IdMap.of([f"i{n:02}" for n in range(ITEMS)]),
        Interactions(
            user.astype(np.int32),
            item.astype(np.int32),
            rng.integers(1, 6, len(pair)).astype(np.float32),
            1.7e9 + DAY * rng.integers(0, 100, len(pair)),
        ),
        user_features=pl.DataFrame({"side": ["left", "right"] * (USERS // 2)}),
        item_features=pl.DataFrame({"kind": ["tea", "jam", "milk", "bread"] * (ITEMS // 4)}),
    )


@cache
def recommender(model: str) -> Recommender:
    return Recommender.of(MODELS[model].fit(shop(), TrainOptions(threads=1, device="cpu")), shop())


RULES = st.sampled_from(
    [
        None,
        {"deny": {"kind": ["tea"]}},
        {"caps": {"kind": 1}},
        {"pins": [{"item": "i03", "at": 2}], "exclude": "none"},
        {"diversity": 0.6},
        {"recency": [{"column": "last_event", "days": 40}]},
    ]
)
POLICIES = st.builds(
    ColdStart,
    fallback=st.sampled_from(["popular", "recent"]),
    segment=st.sampled_from([None, "side"]),
    min_history=st.integers(1, 3),
    explore=st.sampled_from([0.0, 0.4]),
)
EVENTS = st.lists(
    st.one_of(
        st.sampled_from([f"i{n:02}" for n in range(ITEMS)] + ["gone"]),
        st.tuples(st.sampled_from(["i00", "i05"]), st.sampled_from([-1.0, 0.5, 5.0])),
        st.tuples(st.just("i07"), st.just(2.0), st.floats(1.7e9, 1.71e9)),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_explain_and_why_not_say_the_same_as_the_list(data: st.DataObject) -> None:
    own = recommender(data.draw(st.sampled_from(list(MODELS))))
    user = data.draw(st.sampled_from([*(f"u{n:02}" for n in range(USERS)), "new"]))
    subset = st.lists(st.sampled_from([f"i{n:02}" for n in range(ITEMS)]), min_size=1, max_size=9)
    plain, k = data.draw(RULES), data.draw(st.integers(1, ITEMS + 2))
    options = {
        "exclude_seen": data.draw(st.booleans()),
        "items": data.draw(st.one_of(st.none(), subset)),
        "histories": data.draw(st.one_of(st.none(), EVENTS.map(lambda events: {user: events}))),
        "features": data.draw(st.sampled_from([None, {user: {"side": "left"}}])),
        "rules": None if plain is None else Rules.of(plain),
        "at": data.draw(st.sampled_from([None, 1.7e9 + 120 * DAY])),
        "cold": data.draw(POLICIES),
    }
    listed = {row["item_id"]: row for row in own.recommend(user, k, **options).iter_rows(named=True)}
    for item in own.items.ids:
        why, why_not = own.explain(user, item, k, **options), own.why_not(user, item, k=k, **options)
        if item in listed:
            row = listed[item]
            assert (why.source, why.score) == (row["source"], row["score"])
            assert (why_not.stage, why_not.place) == ("listed", row["rank"])
            assert f"at place {row['rank']}" in why_not.reason
        else:
            assert why_not.stage not in ("listed", "retrieval")
            assert why_not.place is None
            assert why_not.reason


def test_explain_takes_the_policy_of_the_list() -> None:
    policy = ColdStart("recent", half_life=10)
    row = recommender("ease").recommend("nobody", 1, cold=policy).row(0, named=True)
    why = recommender("ease").explain("nobody", row["item_id"], cold=policy)
    assert (why.source, why.score) == ("recent", row["score"])
    assert recommender("ease").explain("nobody", row["item_id"]).source == "popular"


def test_the_integer_door_gives_the_lists_of_the_recommender() -> None:
    own = recommender("ials")
    answer = recommend(own, np.array([3, -1, 0]), RecommendOptions(5))
    frame = own.recommend(["u03", "nobody", "u00"], 5)
    assert own.items.external(answer.items).to_list() == frame["item_id"].to_list()
    assert answer.scores.tolist() == frame["score"].to_list()
    assert answer.ranks.tolist() == frame["rank"].to_list()
    assert len(recommend(own, np.zeros(0, np.int64), RecommendOptions(5)).items) == 0


def test_a_segment_does_not_depend_on_the_other_users_of_the_request() -> None:
    policy = ColdStart(segment="side")
    own = recommender("popularity")
    alone = own.recommend("u00", 5, cold=policy)
    assert set(alone["source"]) == {"segment"}
    together = own.recommend(["u00", "nobody"], 5, cold=policy)
    assert_frame_equal(together.filter(pl.col("user_id") == "u00"), alone)


def test_a_subset_of_items_is_ranked_in_the_order_of_the_whole(caplog: pytest.LogCaptureFixture) -> None:
    own = recommender("ials")
    whole = own.recommend("u02", ITEMS, exclude_seen=False)
    some = ["i09", "i01", "i04", "i01", "nothing"]
    result = own.recommend("u02", 10, exclude_seen=False, items=some)
    assert_frame_equal(result.drop("rank"), whole.filter(pl.col("item_id").is_in(some)).drop("rank"))
    assert result["rank"].to_list() == [1, 2, 3]
    assert "1 items are unknown and left out: 'nothing'" in caplog.text
    with pytest.raises(DataError, match="none of the 1 items is in the catalog"):
        own.recommend("u02", items=["nothing"])


def test_answers_come_in_the_library_of_the_users() -> None:
    own, polars = recommender("ease"), recommender("ease").recommend(["u01", "new"], 3)
    pandas = own.recommend(pd.Series(["u01", "new"]), 3)
    assert isinstance(pandas, pd.DataFrame)
    assert_frame_equal(pl.from_pandas(pandas), polars)
    assert isinstance(own.recommend(pl.Series(["u01"]), 3), pl.DataFrame)
    assert isinstance(own.recommend(("u01",), 3), pl.DataFrame)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.recommend(pd.DataFrame({"a": ["u01"], "b": [1]})), r"user_id is a table \(columns a, b\)"),
        (lambda r: r.recommend(pl.DataFrame({"a": ["u01"]})), "give its column of ids"),
        (lambda r: r.recommend([["u01", "u02"]]), "user_id holds lists: ids must be integers or strings"),
        (lambda r: r.recommend([2**63]), "user_id holds 9223372036854775808, which does not fit into 64 bits"),
        (lambda r: r.recommend(np.array([2**63 + 1], np.uint64)), "does not fit into 64 bits"),
        (lambda r: r.recommend([2**70]), "user_id"),
        (lambda r: r.recommend([None, "u01"]), "1 of 2 user ids are missing"),
        (lambda r: r.recommend([True]), "holds Boolean values"),
        (lambda r: r.recommend(None), "user_id is None: give an id or a list of ids"),
        (lambda r: r.recommend("u01", "3"), "k='3': must be an integer"),
        (lambda r: r.recommend("u01", 1.5), "k=1.5: must be an integer"),
        (lambda r: r.recommend("u01", True), "k=True"),
        (lambda r: r.recommend("u01", at="today"), "at='today': not a time"),
        (
            lambda r: r.recommend("x", histories={"x": [("i01", float("nan"))]}),
            "user 'x' gives item 'i01' the weight nan",
        ),
        (lambda r: r.recommend("x", histories={"x": [("i01", float("inf"))]}), "the weight inf: give a finite number"),
        (lambda r: r.recommend("x", histories={"x": [("i01", 1e39)]}), "the weight 1e[+]39"),
        (lambda r: r.recommend("x", histories={"x": [("i01", "many")]}), "the weight 'many'"),
        (lambda r: r.recommend("x", histories={"x": [("i01", 1, 2, 3)]}), "of user 'x': give an item id"),
        (lambda r: r.recommend("x", histories=["i01"]), "histories must be a dictionary"),
        (lambda r: r.explain("x", "i01", histories={"y": ["i01"]}), "'y', who is not asked for"),
        (lambda r: r.why_not("x", "i99"), "unknown item 'i99'"),
    ],
)
def test_mistakes_of_a_request_are_one_line(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call(recommender("ease"))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    own = recommender("ease")
    assert_frame_equal(own.recommend("u01", np.int64(3), at=np.float64(1.7e9)), own.recommend("u01", 3, at=1.7e9))
    assert_frame_equal(
        own.recommend("x", 3, histories={"x": [["i01", np.float32(2)], ("i02", 1, None)]}),
        own.recommend("x", 3, histories={"x": [("i01", 2.0), ("i02", 1.0)]}),
    )
    assert own.recommend("u01", 10**9).height <= ITEMS


def test_a_model_of_other_ids_is_refused() -> None:
    part = shop().compact()
    with pytest.raises(ModelError, match="the ids of the users and items or their order differ"):
        Recommender.of(recommender("ease").model, part)


def test_a_recommender_says_what_it_is() -> None:
    assert repr(recommender("ease")) == "<Recommender shop: EASEModel, 14 users, 16 items>"


def _in_child(queue: multiprocessing.Queue[list[str]]) -> None:
    queue.put(recommender("ials").recommend(["u01", "new"], 3, histories={"new": ["i01"]})["item_id"].to_list())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_answers() -> None:
    own = recommender("ials")
    expected = own.recommend(["u01", "new"], 3, histories={"new": ["i01"]})["item_id"].to_list()
    pl.DataFrame({"a": range(1000)}).lazy().group_by("a").len().collect()  # polars' threads run in the parent
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=120) == expected
    finally:
        child.kill()
        child.join()
