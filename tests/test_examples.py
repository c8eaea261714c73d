"""The generated shop of examples/data: the committed files are what the script writes, and hold a taste."""

from __future__ import annotations

import runpy
from pathlib import Path

import polars as pl

import palate

EXAMPLES = Path(__file__).parent.parent / "examples"
SHOP = EXAMPLES / "data"


def test_the_script_writes_the_committed_bytes(tmp_path):
    runpy.run_path(str(EXAMPLES / "make_shop.py"))["main"](tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["clicks.csv", "items.csv", "users.csv"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (SHOP / name).read_bytes(), name


def test_the_tables_fit_each_other_and_the_page_that_describes_them():
    clicks, items, users = (pl.read_csv(SHOP / f"{name}.csv") for name in ("clicks", "items", "users"))
    assert set(clicks["item_id"]) <= set(items["item_id"])
    assert set(clicks["user_id"]) <= set(users["user_id"])
    assert items["title"].n_unique() == len(items)
    counts = clicks["event"].value_counts(sort=True)["event"].to_list()
    assert counts == ["view", "cart", "purchase"]
    assert f"{len(clicks):,} events of {len(users)} users, {len(items)} items" in (SHOP / "README.md").read_text()
    assert sum(path.stat().st_size for path in SHOP.iterdir()) < 400_000


def test_columns_are_found_and_a_personal_model_beats_popularity():
    split = palate.by_time(palate.read_interactions(SHOP / "clicks.csv"), test_size=0.2)
    found = {
        name: palate.evaluate(palate.make_recipe(name).fit(split.train), split, k=10, resamples=0).value("NDCG", 10)
        for name in ("popularity", "item-knn")
    }
    assert found["item-knn"] > found["popularity"]
