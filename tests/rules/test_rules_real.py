"""Rules on real data: the list of every MovieLens 100K user obeys them."""

from __future__ import annotations

import polars as pl
import torch

from palate.models import make_recipe
from palate.recommend import Recommender
from palate.rules import Rules

RULES = Rules.of(
    {
        "deny": {"genres": ["Horror"], "item_id": [50]},
        "recency": [{"column": "year", "since": "1970-01-01"}],
        "caps": {"genres": 3, "year": 4},
        "pins": [{"item": 242, "at": 3}],
        "diversity": 0.2,
    }
)


def test_the_list_of_everybody_obeys_the_rules(ml_100k):
    recommender = Recommender.of(make_recipe("ease", fast=True).fit(ml_100k), ml_100k)
    lists = recommender.recommend(ml_100k.users.ids, 10, rules=RULES)
    assert lists["user_id"].value_counts()["count"].to_list() == [10] * ml_100k.n_users
    facts = ml_100k.item_features.with_columns(item_id=ml_100k.items.ids)
    rows = lists.join(facts.drop("title"), on="item_id", how="left", maintain_order="left")
    assert not rows["genres"].list.contains("Horror").any()
    assert 50 not in rows["item_id"].to_list()
    assert rows["year"].min() >= 1970
    for column, most in RULES.caps.items():
        values = rows.explode(column) if column == "genres" else rows
        assert values.drop_nulls(column).group_by("user_id", column).len()["len"].max() <= most
    owner = torch.repeat_interleave(torch.arange(ml_100k.n_users), torch.from_numpy(ml_100k.history.counts))
    had = set(ml_100k.users.external(owner[torch.from_numpy(ml_100k.history.items == ml_100k.items.rows([242])[0])]))
    pinned = rows.filter(pl.col("item_id") == 242)
    assert pinned["rank"].unique().to_list() == [3]
    assert set(pinned["user_id"]) == set(ml_100k.users.ids) - had
    assert rows["rule"].str.contains("raised by|lowered by|pinned at|^$").all()
