"""Cold start of the recommender: who is answered by what, new items, segments, exploration; by effect, on colors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from palate.base import Query, TrainOptions
from palate.bundle import Bundle
from palate.data.dataset import Dataset, History, Interactions
from palate.data.ids import IdMap
from palate.errors import DataError, ModelError
from palate.models.ease import EASE
from palate.models.popularity import Popularity
from palate.models.two_tower import TwoTower
from palate.recommend import Recommender, top_n
from palate.recommend.cold_start import ColdStart, Fallback
from palate.recommend.exploration import Explorable, draw
from palate.recommend.top_n import SOURCES, RecommendOptions
from palate.retrieval import build_index
from palate.rules import Rules

SIZE, COLD = 40, 4
DAY = 86_400.0
RECIPE = TwoTower(
    dim=8, epochs=12, batch_size=128, learning_rate=0.05, user_features=("side",), item_features=("*",), id_dropout=0.3
)


@cache
def colors() -> Dataset:
    """Even people (left) touch even items (black); the last users and items have features but no rows."""
    user, item = np.divmod(np.arange(SIZE * SIZE), SIZE)
    liked = ((user % 2) == (item % 2)) & (item < SIZE - COLD) & (user < SIZE - COLD) & ((user + item) % 3 > 0)
    user, item = user[liked].astype(np.int32), item[liked].astype(np.int32)
    even = np.arange(SIZE) % 2 == 0
    return Dataset(
        "colors",
        IdMap.of([f"u{n:02}" for n in range(SIZE)]),
        IdMap.of([f"i{n:02}" for n in range(SIZE)]),
        Interactions(user, item, np.ones(len(user), np.float32), 1e9 + DAY * item.astype(np.float64)),
        user_features=pl.DataFrame({"side": np.where(even, "left", "right"), "age": np.arange(SIZE)}),
        item_features=pl.DataFrame({"color": np.where(even, "black", "white"), "tags": [["t"]] * SIZE}),
        titles=pl.Series("title", [f"Thing {n}" for n in range(SIZE)]),
    )


@cache
def towers() -> Recommender:
    return Recommender.of(RECIPE.fit(colors(), TrainOptions(device="cpu")), colors())


@cache
def ease() -> Recommender:
    return Recommender.of(EASE().fit(colors()), colors())


def parity(frame: pl.DataFrame) -> list[int]:
    """0 for even items, 1 for odd ones."""
    return (frame["item_id"].str.slice(1).cast(pl.Int64) % 2).to_list()


def sources(frame: pl.DataFrame) -> set[str]:
    return set(frame["source"])


def test_somebody_known_by_a_feature_gets_what_people_like_that_like() -> None:
    told = {"ann": {"side": "left"}, "bob": {"side": "right"}, "cem": {"side": "unheard of"}}
    result = towers().recommend(["ann", "bob", "cem", "u38", "u00"], 8, features=told)
    of = {user: result.filter(pl.col("user_id") == user) for user in ("ann", "bob", "cem", "u38", "u00")}
    assert set(parity(of["ann"])) == set(parity(of["u38"])) == {0}  # u38 is in the table, without a row
    assert set(parity(of["bob"])) == {1}
    assert sources(of["ann"]) | sources(of["bob"]) | sources(of["u38"]) <= {"features", "new-item"}
    assert sources(of["cem"]) == {"popular"}
    assert sources(of["u00"]) <= {"model", "new-item"}


def test_who_else_is_asked_changes_nothing() -> None:
    told = {"ann": {"side": "left"}, "bob": {"side": "right"}}
    policy = ColdStart("recent", segment="age", explore=0.5)
    together = towers().recommend(["nobody", "u00", "ann", "bob"], 6, features=told, cold=policy)
    apart = [
        towers().recommend(user, 6, features={user: told[user]} if user in told else None, cold=policy)
        for user in ("nobody", "u00", "ann", "bob")
    ]
    assert_frame_equal(pl.concat(apart), together, rel_tol=1e-4)


def test_a_policy_may_keep_features_from_the_model() -> None:
    told = {"ann": {"side": "left"}}
    policy = ColdStart(features=False, segment="side")
    result = towers().recommend(["ann", "u38", "nobody"], 4, features=told, cold=policy)
    source = dict(result.select("user_id", "source").unique().iter_rows())
    assert source == {"ann": "segment", "u38": "segment", "nobody": "popular"}


def test_a_history_counts_more_than_features_and_dislikes_alone_do_not() -> None:
    asked = {"history": {"ann": ["i01", "i03", "i05"]}, "dislike": {"ann": [("i00", -1.0)]}}
    odd, even = (towers().recommend("ann", 5, histories=h, features={"ann": {"side": "left"}}) for h in asked.values())
    assert (set(parity(odd)), set(parity(even))) == ({1}, {0})
    assert "fold-in" in sources(odd)
    assert "features" in sources(even)


def test_features_of_a_query_say_the_same_as_those_of_the_table() -> None:
    model, table = towers().model, colors().user_features
    assert table is not None
    in_table = model.score(Query.of([36, 37, 38]))
    told = replace(Query.of([-1, -1, -1]), features=table[36:39])
    assert model.can_personalize(told).tolist() == [True, True, True]
    assert (model.score(told) == in_table).all()
    with pytest.raises(ModelError, match="3 users but 1 rows of features"):
        model.score(replace(told, features=table[:1]))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"ann": {"sides": "left"}}, "no user feature 'sides': the user features are side, age"),
        ({"ann": {"age": "old"}}, "values of feature 'age' are no Int64"),
        ({"bob": {"side": "left"}}, "features name user 'bob', who is not asked for"),
    ],
)
def test_features_that_do_not_fit_are_refused(told: dict[str, dict[str, str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        towers().recommend("ann", features=told)


# New items.

NEW = pl.DataFrame({"item_id": ["z2", "z1"], "color": ["white", "black"], "tags": ["t|new", "t"], "title": ["B", "A"]})


def test_new_items_are_recommended_to_those_who_like_their_kind() -> None:
    grown = towers().with_items(NEW)
    result = grown.recommend(["u00", "u01"], SIZE)
    even, odd = (result.filter(pl.col("user_id") == user) for user in ("u00", "u01"))
    rank = {(name, row["item_id"]): row for name, frame in (("even", even), ("odd", odd)) for row in frame.to_dicts()}
    last_liked = max(
        row["rank"] for row in even.to_dicts() if row["item_id"] < "j" and int(row["item_id"][1:]) % 2 == 0
    )
    assert rank["even", "z1"]["rank"] <= last_liked + 1 < rank["even", "z2"]["rank"]
    assert rank["odd", "z2"]["rank"] < rank["odd", "z1"]["rank"]
    assert rank["even", "z1"]["source"] == "new-item"
    assert (rank["even", "z1"]["title"], rank["odd", "z2"]["title"]) == ("A", "B")
    # Nothing else changes, neither in the new recommender nor in the old one.
    old = towers().recommend(["u00", "u01"], SIZE)
    kept = result.filter(~pl.col("item_id").is_in(["z1", "z2"]))
    assert_frame_equal(kept.drop("rank"), old.drop("rank"), rel_tol=1e-5)
    assert len(towers().items) == SIZE
    # Twice is as good as at once.
    twice = towers().with_items(NEW[:1]).with_items(NEW[1:]).recommend(["u00", "u01"], SIZE)
    assert_frame_equal(twice, result, rel_tol=1e-5)


def test_new_items_and_policy_are_saved_with_the_bundle(tmp_path: Path) -> None:
    grown = towers().with_items(NEW)
    policy = ColdStart("recent", segment="side", explore=0.2, min_history=2)
    grown = replace(grown, cold=policy)
    Bundle(RECIPE, grown).save(tmp_path / "b")
    again = Bundle.load(tmp_path / "b").recommender
    assert again.cold == policy
    assert_frame_equal(again.recommend(["u00", "z"], 40), grown.recommend(["u00", "z"], 40))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (NEW.with_columns(item_id=pl.lit("z")), "new items 'z' are there more than once"),
        (NEW.with_columns(item_id=pl.Series(["i03", "z"])), "items 'i03' are in the catalog already"),
        (NEW.with_columns(item_id=pl.Series([None, "z"])), "1 of 2 new items have no usable id"),
        (NEW.drop("tags"), "feature column 'tags' is missing"),
    ],
)
def test_new_items_that_do_not_fit_are_refused(table: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        towers().with_items(table)


def test_a_model_without_an_item_tower_says_that_it_cannot_rank_new_items() -> None:
    with pytest.raises(ModelError, match=r"EASEModel has no item tower.*use the recipe feature-ials"):
        ease().with_items(NEW)
    plain = replace(RECIPE, item_features=(), epochs=1).fit(colors(), TrainOptions(device="cpu"))
    with pytest.raises(ModelError, match="reads no item features"):
        Recommender.of(plain, colors()).with_items(NEW)


# Nothing known.


def test_new_users_get_what_is_recent_or_what_their_like_touch() -> None:
    popular, recent = (ease().recommend("nobody", 40, cold=ColdStart(kind)) for kind in ("popular", "recent"))
    assert sources(popular) == {"popular"}
    assert sources(recent) == {"recent"}
    number = recent["item_id"].str.slice(1).cast(pl.Int64)
    assert set(number[:2]) == {34, 35}  # a day older is worth less than a difference in counts within a day
    short = ease().recommend("nobody", 10, cold=ColdStart("recent", half_life=0.3))
    assert short["item_id"].to_list() == sorted(short["item_id"].to_list(), reverse=True)
    told = {"ann": {"side": "left"}, "bob": {"side": "right"}}
    mixed = ease().recommend(["ann", "bob", "nobody"], 8, features=told, cold=ColdStart(segment="side", shrink=0))
    of = {user: mixed.filter(pl.col("user_id") == user) for user in ("ann", "bob", "nobody")}
    assert (set(parity(of["ann"])), set(parity(of["bob"]))) == ({0}, {1})
    assert sources(of["ann"]) == {"segment"}
    assert sources(of["nobody"]) == {"popular"}
    policy = ColdStart("recent", half_life=0.3, segment="side", shrink=1e6)
    shrunk = ease().recommend("ann", 10, features={"ann": told["ann"]}, cold=policy)
    assert shrunk["item_id"].to_list() == short["item_id"].to_list()


def test_the_scores_of_a_segment_are_counts_plus_shrunk_shares() -> None:
    seen = History(np.array([0, 2, 3, 4]), np.array([0, 1, 0, 2], np.int32), np.ones(4, np.float32))
    people = pl.DataFrame({"of": ["a", "b", None]})
    counts = np.array([2, 1, 1, 0], np.float32)
    found = Fallback.of(ColdStart(segment="of", shrink=8), seen, counts, people)
    scores = found.scores(3, pl.DataFrame({"of": ["b", "never", "a"]}))
    np.testing.assert_allclose(scores, [[1 + 4, 2, 2, 0], counts, [1 + 4, 1 + 2, 2, 0]])


def test_a_model_that_is_not_personal_answers_itself_unless_another_policy_is_asked_for() -> None:
    recommender = Recommender.of(Popularity().fit(colors()), colors())
    assert sources(recommender.recommend(["u00", "nobody"], 3)) == {"popular"}
    assert sources(recommender.recommend(["u00", "nobody"], 3, cold=ColdStart("recent"))) == {"recent"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fallback": "new"}, "fallback='new': choose 'popular' or 'recent'"),
        ({"half_life": 0}, "half_life=0: must be above 0"),
        ({"shrink": -1}, "shrink=-1"),
        ({"min_history": 0}, "min_history=0: must be at least 1"),
        ({"explore": 1.5}, "explore=1.5: must be at most 1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_policy_checks_itself(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ColdStart(**fields)  # type: ignore[arg-type]


def test_a_history_that_is_too_short_to_go_by_counts_as_none() -> None:
    histories = {"two": ["i00", "i02"], "three": ["i00", "i02", "i04"], "dislike": [("i00", 1.0), ("i02", -1.0)]}
    result = ease().recommend(list(histories), 4, histories=histories, cold=ColdStart("recent", min_history=3))
    source = dict(result.select("user_id", "source").unique().iter_rows())
    assert source == {"two": "recent", "three": "fold-in", "dislike": "recent"}
    assert not {"i00", "i02"} & set(result["item_id"])
    known = ease().recommend("u00", 4, cold=ColdStart(min_history=1000))
    assert sources(known) == {"model"}


def test_a_policy_that_does_not_fit_the_data_says_so() -> None:
    with pytest.raises(DataError, match="segment='sex' is no user feature: there are side, age"):
        ease().recommend("nobody", cold=ColdStart(segment="sex"))
    timeless = replace(colors(), interactions=replace(colors().interactions, time=None))
    with pytest.raises(DataError, match="'recent' needs the times"):
        Recommender.of(EASE().fit(timeless), timeless).recommend("nobody", cold=ColdStart("recent"))


# Exploration.


def explored(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("source") == "explore")


def test_exploration_gives_the_asked_share_to_less_known_items_and_keeps_the_rest_in_order() -> None:
    everybody = [f"u{n:02}" for n in range(36)] + [f"s{n}" for n in range(164)]
    policy = ColdStart(explore=0.15)
    plain, mixed = ease().recommend(everybody, 10), ease().recommend(everybody, 10, cold=policy)
    assert mixed.group_by("user_id").len()["len"].unique().to_list() == [10]
    assert mixed.select("user_id", "item_id").is_unique().all()
    extra = explored(mixed)
    assert abs(len(extra) / len(mixed) - 0.15) < 0.02
    assert extra.group_by("user_id").len()["len"].max() == 2
    counts = ease().popularity
    assert (counts[ease().items.rows(extra["item_id"])] <= np.median(counts)).all()
    assert set(extra["rank"]) == set(range(1, 11))
    for user in everybody[::20]:
        own = mixed.filter((pl.col("user_id") == user) & (pl.col("source") != "explore"))["item_id"].to_list()
        before = plain.filter(pl.col("user_id") == user)["item_id"].to_list()
        assert own == [item for item in before if item in own]
        assert len(set(before) - set(own)) <= 2
    seen = set(zip(colors().interactions.user.tolist(), colors().interactions.item.tolist(), strict=True))
    pairs = zip(ease().users.rows(extra["user_id"]), ease().items.rows(extra["item_id"]), strict=True)
    assert not seen & {(int(user), int(item)) for user, item in pairs}


def test_exploration_is_a_function_of_seed_and_user() -> None:
    everybody = [f"s{n}" for n in range(30)]
    one, same, other = (
        ease().recommend(users, 10, cold=ColdStart(explore=0.3, seed=seed))
        for users, seed in ((everybody, 1), (everybody[::-1], 1), (everybody, 2))
    )
    assert_frame_equal(one.sort("user_id", "rank"), same.sort("user_id", "rank"))
    assert not one.equals(other)
    assert explored(one)["item_id"].n_unique() > 3


def test_scores_never_rise_down_a_list_with_explored_items() -> None:
    result = ease().recommend([f"s{n}" for n in range(30)], 10, cold=ColdStart(explore=0.5))
    assert (result.select(pl.col("score").diff().over("user_id")).to_series().drop_nulls() <= 0).all()


def test_explore_everything_is_a_list_of_less_known_items_and_short_lists_stay_short() -> None:
    all_of_it = ease().recommend("nobody", 5, cold=ColdStart(explore=1.0))
    assert sources(all_of_it) == {"explore"}
    assert len(all_of_it) == 5
    history = {"nobody": [f"i{n:02}" for n in range(38)]}
    rest = ease().recommend("nobody", 5, histories=history, cold=ColdStart(explore=0.5))
    assert sorted(rest["item_id"]) == ["i38", "i39"]


def test_a_new_rising_item_is_drawn_more_often_than_one_left_alone() -> None:
    # Items 0 and 1 have 3 events each, one within the last day, one since a year; items 2 and 3 are well known.
    item = np.array([1, 1, 1, *[2] * 50, *[3] * 50, 0, 0, 0], np.int32)
    times = np.concatenate([[0, 0, 0], np.linspace(0, 364, 100), [364.2, 364.5, 365]]) * DAY
    seen = History(np.array([0, len(item)]), item, np.ones(len(item), np.float32), times)
    less = Explorable.less_known(seen, 5)
    assert less.items.tolist() == [0, 1, 4]
    chance = dict(zip(less.items.tolist(), less.chance.tolist(), strict=True))
    assert sum(chance.values()) == pytest.approx(1)
    assert chance[0] > 0.7
    assert chance[0] > chance[4] > chance[1]  # nobody has touched item 4, so it may be anything
    # Thompson sampling with draws of the same posteriors: the highest wins, apart from the even part.
    rate = 6 / (0.8 + 365.0)
    scale = 1 / (1 / rate + np.array([0.8, 365.0, 0.0]))
    highest = np.random.default_rng(0).gamma([4, 4, 1], scale, (100_000, 3)).argmax(1)
    assert less.chance == pytest.approx(0.9 * np.bincount(highest, minlength=3) / 100_000 + 0.1 / 3, abs=0.02)
    alone = less.inclusion(1, np.array([1, 0, 0, 0, 1], dtype=bool))
    assert alone.tolist() == [0, 1, 0]


@pytest.mark.parametrize("places", [1, 2, 5])
def test_a_sample_holds_each_item_with_its_probability(places: int) -> None:
    chance = np.array([0.5, 0.01, 0.09, 0.2, 0.1, 0.1])
    blocked = np.array([0, 0, 0, 1, 0, 0], dtype=bool)
    wanted = Explorable(np.arange(6), chance).inclusion(places, blocked)
    assert wanted.sum() == pytest.approx(places)
    assert wanted.max() <= 1
    assert wanted[3] == 0
    rng = np.random.default_rng(0)
    samples = [draw(rng, wanted) for _ in range(4_000)]
    assert {len(np.unique(one)) for one in samples} == {places}
    assert np.bincount(np.concatenate(samples), minlength=6) / 4_000 == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize(("explore", "among"), [(0.1, "less-known"), (0.24, "all"), (1.0, "all")])
def test_propensities_are_the_frequencies_of_items_in_lists(explore: float, among: Any) -> None:
    state, worlds, k = ease(), 1_500, 5
    users, options = np.full(worlds, -1), RecommendOptions(k, cold=ColdStart(explore=explore, explore_among=among))
    keys = np.arange(worlds).astype(np.uint64)  # one person under as many names, each with a draw of its own
    hide = History(np.arange(worlds + 1), np.full(worlds, 30, np.int32), np.ones(worlds, np.float32))
    found = top_n.recommend(state, users, options, keys=keys, hide=hide)
    assert found.propensities is not None
    assert found.explored is not None
    count, items = np.bincount(found.items, minlength=40), np.unique(found.items)
    assert 30 not in items
    assert np.bincount(found.offsets[1:] - found.offsets[:-1]).tolist() == [0] * k + [worlds]
    for item in items:
        stated = np.unique(found.propensities[found.items == item])
        assert stated.min() == pytest.approx(stated.max())
        assert abs(count[item] / worlds - stated[0]) < 5 * (max(stated[0] * (1 - stated[0]), 0.001) / worlds) ** 0.5
    assert found.explored == pytest.approx(np.full(worlds, explore))
    assert (found.sources == SOURCES.index("explore")).mean() == pytest.approx(explore, abs=0.02)


def test_each_event_of_a_user_draws_again_and_reloading_does_not() -> None:
    def drawn(*history: str) -> list[str]:
        listed = ease().recommend("nobody", 10, histories={"nobody": list(history)}, cold=ColdStart(explore=0.3))
        return explored(listed)["item_id"].to_list()

    assert drawn("i01") == drawn("i01") == drawn("i01", "i01")
    lists = [sorted(drawn(*[f"i{n:02}" for n in range(size)])) for size in range(1, 8)]
    assert len({tuple(one) for one in lists}) > 3


def test_rules_that_reorder_leave_propensities_unknown() -> None:
    state, policy = ease(), ColdStart(explore=0.3)
    for rules, known in (({"deny": {"item_id": ["i01"]}}, True), ({"caps": {"color": 3}}, False)):
        options = RecommendOptions(5, cold=policy, rules=state.bind(Rules.of(rules)))
        for users in (np.array([-1, 0]), np.zeros(0, np.int64)):
            found = top_n.recommend(state, users, options, keys=np.arange(len(users)).astype(np.uint64))
            assert (found.propensities is not None) == known


def test_exploration_obeys_the_rules() -> None:
    denied = [f"i{n:02}" for n in range(30, 40)]
    rules = Rules.of({"deny": {"item_id": denied}, "caps": {"color": 6}, "pins": [{"item": "i08", "at": 1}]})
    everybody = [f"s{n}" for n in range(40)]
    result = ease().recommend(everybody, 10, rules=rules, cold=ColdStart(explore=0.3))
    assert not set(denied) & set(result["item_id"])
    assert set(result.filter(pl.col("rank") == 1)["item_id"]) == {"i08"}
    for user in everybody:
        of = result.filter(pl.col("user_id") == user)
        assert len(of) == 10
        assert max(parity(of).count(0), parity(of).count(1)) <= 6
    assert len(explored(result)) > 0.1 * len(result)


def test_an_index_finds_new_items_and_explored_ones_too() -> None:
    index = build_index(cast(Any, towers().model).item_vectors().detach())
    indexed = replace(towers(), index=index)
    policy = ColdStart(explore=0.3)
    asked = ["u00", "u01", "nobody"]
    assert_frame_equal(
        indexed.with_items(NEW).recommend(asked, 20, cold=policy),
        towers().with_items(NEW).recommend(asked, 20, cold=policy),
        rel_tol=1e-4,
    )
