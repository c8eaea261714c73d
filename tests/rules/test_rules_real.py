"""Rules on real data: everybody's list from MovieLens 100K obeys them, and costs little."""

from __future__ import annotations

from time import process_time

import polars as pl
import torch

from palate.models import make_recipe
from palate.recommend import Recommender
from palate.rules import Catalog, Rules
from palate.top_k import top_k

RULES = Rules.of(
    {
        "deny": {"genres": ["Horror"], "title": ["Star Wars (1977)"]},
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
    assert "Star Wars (1977)" not in rows["title"].to_list()
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


def test_caps_and_diversity_cost_little(ml_100k):
    """Seconds of this process alone, since the machine may be busy; the bound is far above what it takes."""
    generator = torch.Generator().manual_seed(0)
    vectors_ID = torch.nn.functional.normalize(torch.randn(ml_100k.n_items, 64, generator=generator), dim=1)
    scores_BI = torch.randn(ml_100k.n_users, ml_100k.n_items, generator=generator)
    catalog = Catalog(ml_100k.items, ml_100k.item_features, ml_100k.titles, ml_100k.history, vectors_ID)
    bound = RULES.bind(catalog)
    values, items = top_k(scores_BI, bound.pool(10))
    begun = process_time()
    bound.pick(values, items, 10, excluded=ml_100k.history)
    assert process_time() - begun < 2.0
