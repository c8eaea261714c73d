"""Rules in the recommender: the lists of `recommend` and of `recommend_all` obey them, for everybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.models.ials import IALS
from palate.models.popularity import Popularity
from palate.recommend import Recommender
from palate.rules import Rules

USERS, ITEMS = 30, 40
KINDS = ["a", "b", "c", "d"]


def make(recipe: object) -> Recommender:
    rng = np.random.default_rng(0)
    pair = np.unique(rng.integers(0, USERS * ITEMS, 400))
    user, item = np.divmod(pair, ITEMS)
    rows = Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        rng.integers(1, 6, len(pair)).astype(np.float32),
        np.arange(len(pair), dtype=np.float64),
    )
    features = pl.DataFrame(
        {"kind": [KINDS[i % 4] for i in range(ITEMS)], "in_stock": [i % 5 != 0 for i in range(ITEMS)]}
    )
    ids = [IdMap(pl.Series("id", [f"{letter}{i}" for i in range(n)])) for letter, n in (("u", USERS), ("i", ITEMS))]
    train = Dataset("shop", *ids, rows, item_features=features, titles=pl.Series([f"Item {i}" for i in range(ITEMS)]))
    return Recommender.of(recipe.fit(train), train)  # type: ignore[attr-defined]


IALS_SHOP, POPULAR_SHOP = make(IALS(dim=8, epochs=3)), make(Popularity())
ASKED = ["u0", "u7", "new", "nobody"]
HISTORIES = {"new": ["i1", ("i2", 5.0)]}


@settings(max_examples=40, deadline=None)
@given(
    deny=st.sets(st.integers(0, ITEMS - 1), max_size=30),
    cap=st.integers(1, 4),
    diversity=st.sampled_from([0.0, 0.4, 1.0]),
    k=st.integers(1, 12),
    flag=st.booleans(),
    personal=st.booleans(),
)
def test_no_denied_item_caps_hold_and_k_come_back(
    deny: set[int], cap: int, diversity: float, k: int, flag: bool, personal: bool
) -> None:
    shop = IALS_SHOP if personal else POPULAR_SHOP
    rules = Rules.of(
        {
            "deny": {"item_id": [f"i{i}" for i in sorted(deny)]},
            "caps": {"kind": cap},
            "diversity": diversity,
            "flags": ["in_stock"] if flag else [],
        }
    )
    lists = shop.recommend(ASKED, k, histories=HISTORIES, rules=rules)
    assert not set(lists["item_id"]) & {f"i{i}" for i in deny}
    for user in ASKED:
        items = [int(i[1:]) for i in lists.filter(user_id=user)["item_id"]]
        seen = set(shop.seen.of(shop.users.rows([user])[0]).tolist()) | ({1, 2} if user == "new" else set())
        may = [i for i in range(ITEMS) if i not in seen | deny and (i % 5 or not flag)]
        per_kind = [min(cap, sum(i % 4 == kind for i in may)) for kind in range(4)]
        assert set(items) <= set(may)
        assert len(items) == len(set(items)) == min(k, sum(per_kind))
        assert all(sum(i % 4 == kind for i in items) <= cap for kind in range(4))


def test_rules_of_nothing_change_nothing() -> None:
    plain = IALS_SHOP.recommend(ASKED, 7, histories=HISTORIES)
    ruled = IALS_SHOP.recommend(ASKED, 7, histories=HISTORIES, rules=Rules())
    assert_frame_equal(ruled.drop("rule"), plain)
    assert set(ruled["rule"]) == {""}


def test_a_pin_stands_where_it_was_pinned_and_says_so() -> None:
    worst = IALS_SHOP.recommend("u0", ITEMS)["item_id"][-1]
    lists = IALS_SHOP.recommend("u0", 5, rules=Rules.of({"pins": [{"item": worst, "at": 2}]}))
    assert lists["item_id"][1] == worst
    assert lists["rule"][1].startswith("pinned at 2")
    whole = IALS_SHOP.recommend("u0", ITEMS)
    assert lists["score"][1] == pytest.approx(whole.filter(item_id=worst)["score"][0])


def test_what_was_bought_stays_out_and_what_was_only_seen_may_come_back() -> None:
    rules = Rules.of({"exclude": "bought", "bought_from": 4})
    lists = IALS_SHOP.recommend("u0", ITEMS, rules=rules)
    history = IALS_SHOP.seen.select(np.array([0]))
    bought = {f"i{i}" for i in history.items[history.weights >= 4]}
    only_seen = {f"i{i}" for i in history.items[history.weights < 4]}
    assert bought
    assert not set(lists["item_id"]) & bought
    assert only_seen <= set(lists["item_id"])


def test_everybody_in_one_file_under_rules(tmp_path: Path) -> None:
    rules = Rules.of({"caps": {"kind": 1}, "flags": ["in_stock"]})
    path = tmp_path / "all.parquet"
    written = IALS_SHOP.recommend_all(path, 4, rules=rules)
    expected = IALS_SHOP.recommend(IALS_SHOP.users.ids, 4, rules=rules)
    assert written == len(expected) == 4 * USERS
    assert_frame_equal(pl.read_parquet(path), expected, rel_tol=1e-5)


def test_dislikes_and_times_may_come_with_a_history() -> None:
    liked = IALS_SHOP.recommend("new", ITEMS, histories={"new": [("i1", 1.0, 400.0)]})
    disliked = IALS_SHOP.recommend("new", ITEMS, histories={"new": [("i1", -1.0, 400.0)]})
    assert liked["source"][0] == "fold-in"
    assert disliked["source"][0] == "popular"
    assert "i1" not in set(disliked["item_id"])


def test_reasons_come_with_the_rows() -> None:
    lists = IALS_SHOP.recommend(ASKED, 3, histories=HISTORIES, reasons=2)
    assert lists.drop("because", "why").equals(IALS_SHOP.recommend(ASKED, 3, histories=HISTORIES))
    for user in ("u0", "new"):
        rows = lists.filter(user_id=user)
        had = {f"i{i}" for i in IALS_SHOP.seen.of(IALS_SHOP.users.rows([user])[0])} | (
            {"i1", "i2"} if user == "new" else set()
        )
        named = {one["item_id"] for row in rows["because"] for one in row}
        assert named
        assert named <= had
        assert rows["why"].str.contains("because you").all()
    assert "popular" in lists.filter(user_id="nobody")["why"][0] or "users" in lists.filter(user_id="nobody")["why"][0]
    assert IALS_SHOP.recommend([], 3, reasons=2).columns == lists.columns
