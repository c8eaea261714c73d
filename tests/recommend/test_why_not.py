"""Why an item is not in a list: each rule and stage, told as what really keeps it out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import DataError
from palate.models import make_recipe
from palate.models.popularity import Popularity
from palate.recommend import Recommender
from palate.rules import Rules

ITEMS = 12
DAY = 86_400
START = 1_700_000_000


@pytest.fixture(scope="module")
def shop() -> Recommender:
    """Item i has 30 - i events, so its rank by score is i + 1; u29 has had all of them."""
    user, item = np.nonzero(np.arange(30)[:, None] < 30 - np.arange(ITEMS)[None, :])
    user = 29 - user
    rows = Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        (1 + item % 5).astype(np.float32),
        START + DAY * (ITEMS - item).astype(np.float64),
    )
    features = pl.DataFrame(
        {
            "kind": [["tea"], ["tea", "green"], ["tea"], ["jam"], ["jam"], ["tea"], None, ["jam"], *[["milk"]] * 4],
            "in_stock": [number != 4 for number in range(ITEMS)],
        }
    )
    data = Dataset(
        "shop",
        IdMap.of([f"u{number:02}" for number in range(30)]),
        IdMap.of([f"i{number:02}" for number in range(ITEMS)]),
        rows,
        item_features=features,
        titles=pl.Series([f"Thing {number}" for number in range(ITEMS)]),
    )
    return Recommender.of(Popularity().fit(data), data)


def ask(shop: Recommender, item: str, rules: dict | None = None, k: int = 4, user: str = "nobody", **more):
    told = shop.why_not(user, item, None if rules is None else Rules.of(rules), k, **more)
    listed = shop.recommend(user, k, rules=None if rules is None else Rules.of(rules), **more)["item_id"].to_list()
    assert (told.place is not None) == (item in listed)
    assert told.place is None or listed[told.place - 1] == item
    return told


def test_an_item_that_is_listed_has_its_place(shop):
    told = ask(shop, "i02")
    assert (told.stage, told.place, told.rank, told.rank_left) == ("listed", 3, 3, 3)
    assert told.reason == "it is in the list, at place 3"
    pinned = ask(shop, "i09", {"pins": [{"item": "i09", "at": 2}]})
    assert (pinned.stage, pinned.place, pinned.rank) == ("listed", 2, 10)
    assert pinned.reason == "it is in the list, at place 2 (pinned at 2 (rank 10 by score))"


def test_the_score_says_how_far_it_is_away(shop):
    told = ask(shop, "i08")
    assert (told.stage, told.rank, told.items, told.rank_left, told.items_left) == ("score", 9, ITEMS, 9, ITEMS)
    assert (told.score, told.score_at_k) == (22, 27)
    assert told.reason == "rank 9 of 12 left by score: 22.0000, where place 4 has 27.0000"
    assert told.title == "Thing 8"
    # What rules keep out is not counted among those left.
    less = ask(shop, "i08", {"deny": {"kind": ["tea"]}})
    assert (less.rank, less.rank_left, less.items_left, less.score_at_k) == (9, 5, 8, 23)


def test_what_the_user_has_had_is_told_with_its_day(shop):
    told = ask(shop, "i01", user="u29")
    assert (told.stage, told.rank, told.rank_left) == ("seen", 2, None)
    assert told.reason == "u29 has had it once, last on 2023-11-25 (weight 2)"
    assert ask(shop, "i01", user="u29", exclude_seen=False).stage == "listed"
    assert ask(shop, "i01", {"exclude": "none"}, user="u29").stage == "listed"
    bought = ask(shop, "i04", {"exclude": "bought", "bought_from": 5}, user="u29")
    assert (bought.stage, bought.reason) == ("seen", "u29 has bought it once, last on 2023-11-22 (weight 5)")
    assert ask(shop, "i01", {"exclude": "bought", "bought_from": 5}, user="u29").stage == "listed"
    given = ask(shop, "i01", histories={"nobody": ["i01", "i01"]})
    assert given.reason.startswith("nobody has had it 2 times")


@pytest.mark.parametrize(
    ("rules", "item", "reason"),
    [
        ({"deny": {"item_id": ["i02"]}}, "i02", "deny item_id: i02"),
        ({"deny": {"kind": ["green"]}}, "i01", "deny kind: green (it has tea, green)"),
        ({"allow": {"kind": ["jam"]}}, "i06", "allow kind: jam (it has nothing)"),
        ({"flags": ["in_stock"]}, "i04", "flag in_stock (it has False)"),
        (
            {"flags": ["in_stock"], "deny": {"kind": ["jam"]}},
            "i04",
            "deny kind: jam (it has jam); flag in_stock (it has False)",
        ),
        ({"recency": [{"column": "last_event", "days": 5}]}, "i07", "recency last_event: the last 5 days"),
    ],
)
def test_the_rule_that_keeps_it_out_is_named(shop, rules, item, reason):
    told = ask(shop, item, rules, k=12)
    assert (told.stage, told.reason, told.rank_left) == ("rule", reason, None)
    assert told.rank == int(item[1:]) + 1


def test_a_full_cap_is_told_with_the_items_that_fill_it(shop):
    told = ask(shop, "i02", {"caps": {"kind": 2}})
    assert told.stage == "cap"
    assert told.reason == "rank 3 of 12 left by score, but the cap is full (kind = tea, at most 2: Thing 0, Thing 1)"
    # Behind the last of the list by score, a full cap is not what keeps it out.
    assert ask(shop, "i05", {"caps": {"kind": 2}}, k=3).stage == "score"


def test_pins_that_take_places_are_told(shop):
    told = ask(shop, "i03", {"pins": [{"item": "i09", "at": 1}, {"item": "i00", "at": 2}]})
    assert (told.stage, told.rank_left) == ("pins", 4)
    assert told.reason == "rank 4 of 12 left by score, but pins take places before it: Thing 9, Thing 0"
    beyond = ask(shop, "i09", {"pins": [{"item": "i09", "at": 7}]})
    assert beyond.reason.endswith("where place 4 has 27.0000; it is pinned at 7, beyond the list of 4")


def test_diversity_that_put_others_before_it_is_told(shop):
    rules = {"diversity": 0.7}
    listed = shop.recommend("nobody", 4, rules=Rules.of(rules))["item_id"].to_list()
    assert "i02" not in listed
    told = ask(shop, "i02", rules)
    assert told.stage == "diversity"
    lower = [f"Thing {int(item[1:])}" for item in listed if int(item[1:]) > 2]
    assert told.reason.endswith("items less like those above: " + ", ".join(lower))


def test_an_item_is_asked_for_by_title_and_an_unknown_one_is_told(shop):
    assert shop.why_not("nobody", "thing 3").item == "i03"
    with pytest.raises(DataError, match="unknown item 'Thing 99': did you mean"):
        shop.why_not("nobody", "Thing 99")


def test_an_item_that_no_retriever_of_a_two_stage_model_found_is_told(checkerboard):
    train = checkerboard.train
    fields = {"members": ["popularity", "ease"], "ranker": "cross", "n_candidates": 3, "users": 50}
    recommender = Recommender.of(make_recipe("two-stage", fields, fast=True).fit(train), train)
    stages = {recommender.why_not(0, item, k=3).stage for item in range(8)}
    assert stages == {"listed", "seen", "retrieval"}
    # Nobody has retrieved anything for somebody of whom nothing is known: popular items answer.
    assert {recommender.why_not("nobody", item, k=3).stage for item in range(8)} == {"listed", "score"}
