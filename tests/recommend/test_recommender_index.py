"""An index in the recommender: the same answers as scoring everything, under rules and for new users too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cli.terminal import palate
from palate.bundle import Bundle
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import ModelError
from palate.models.ease import EASE
from palate.models.ials import IALS
from palate.recommend import Recommender
from palate.rules import Rules

USERS, ITEMS = 200, 1500
ASKED = ["u0", "nobody", "u7", "new", "u9"]
HISTORIES = {"new": ["i1", "i2", "i3"]}
RECIPE = IALS(dim=16, epochs=2)


def shop() -> Dataset:
    rng = np.random.default_rng(0)
    pair = np.unique(rng.integers(0, USERS * ITEMS, 6000))
    user, item = np.divmod(pair, ITEMS)
    rows = Interactions(user.astype(np.int32), item.astype(np.int32), np.ones(len(pair), np.float32))
    features = pl.DataFrame({"kind": [f"k{i % 7}" for i in range(ITEMS)]})
    ids = [IdMap(pl.Series("id", [f"{letter}{i}" for i in range(n)])) for letter, n in (("u", USERS), ("i", ITEMS))]
    return Dataset("shop", *ids, rows, item_features=features)


TRAIN = shop()
PLAIN = Recommender.of(RECIPE.fit(TRAIN), TRAIN)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_an_index_gives_the_lists_that_scoring_everything_gives(kind: str) -> None:
    with_index = PLAIN.indexed(kind, recall=0.999)  # type: ignore[arg-type]
    expected = PLAIN.recommend(ASKED, 10, histories=HISTORIES)
    found = with_index.recommend(ASKED, 10, histories=HISTORIES)
    assert found["user_id"].to_list() == expected["user_id"].to_list()
    assert found["source"].to_list() == expected["source"].to_list()
    same = (found["item_id"] == expected["item_id"]).mean()
    assert same == 1 if kind == "exact" else same >= 0.9
    if kind == "exact":
        assert_frame_equal(found, expected, rel_tol=1e-4)


def test_rules_and_what_was_seen_hold_with_an_index() -> None:
    with_index = PLAIN.indexed("ivf")
    rules = Rules.of({"deny": {"kind": ["k0", "k1"]}, "caps": {"kind": 2}})
    lists = with_index.recommend(ASKED, 10, histories=HISTORIES, rules=rules)
    assert lists["user_id"].value_counts()["count"].to_list() == [10] * len(ASKED)
    kinds = lists.with_columns(kind=pl.col("item_id").str.slice(1).cast(pl.Int64) % 7)
    assert not set(kinds["kind"]) & {0, 1}
    assert kinds.group_by("user_id", "kind").len()["len"].max() == 2
    for user in ("u0", "u7"):
        seen = {f"i{i}" for i in PLAIN.seen.of(PLAIN.users.rows([user])[0])}
        assert not seen & set(lists.filter(user_id=user)["item_id"])


def test_the_command_puts_an_index_into_a_bundle_and_takes_it_away(tmp_path: Path) -> None:
    path = Bundle(RECIPE, PLAIN).save(tmp_path / "shop")
    told = palate("index", path, "--kind", "ivf", "--json").ok().json
    assert told["kind"] == "ivf"
    assert told["items"] == ITEMS
    assert told["recall"] > 0.9
    assert told["queries"] > 0
    loaded = Bundle.load(path).recommender
    assert loaded.index is not None
    assert_frame_equal(loaded.recommend(ASKED, 5), PLAIN.indexed("ivf").recommend(ASKED, 5), rel_tol=1e-4)
    assert "no index" in palate("index", path, "--kind", "none").ok().out
    assert Bundle.load(path).recommender.index is None


def test_a_model_without_item_vectors_says_what_to_use() -> None:
    recommender = Recommender.of(EASE().fit(TRAIN), TRAIN)
    with pytest.raises(ModelError, match="has no item vectors"):
        recommender.indexed("exact")
