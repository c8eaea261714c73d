"""Bundles whose digests are right but whose content is hostile or mistaken: refused in one line at the load."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import bundle_fuzz
from palate import storage
from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.errors import BundleError
from palate.models import make_recipe
from test_bundle import bundle, dataset, file_of, forge


def column(name: str, row: int, value: Any) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """A change of one value."""
    return lambda table: table.with_columns(
        pl.Series(name, [*table[name][:row], value, *table[name][row + 1 :]], dtype=table[name].dtype)
    )


def tensor(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A change of one tensor."""
    return lambda state: {**state, TABLE: change(state[TABLE])}


TABLE = "item_table.weight"
HOSTILE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "counts that wrap around": ("users", column("seen", 0, 2**62), "users.seen holds counts"),
    "counts below 0": ("users", column("seen", 0, -1), "users.seen holds counts"),
    "counts of fewer events": ("users", column("seen", 0, 0), "users.seen counts"),
    "an id twice": ("users", column("id", 0, "u/1"), "users.id holds an id twice"),
    "one id for all": ("items", lambda t: t.with_columns(id=pl.lit("i")), "items.id holds an id twice"),
    "no id": ("items", column("id", 0, None), "items.id holds nulls"),
    "ids that are no ids": ("items", lambda t: t.with_columns(id=pl.Series([0.5] * len(t))), "items.id holds Float64"),
    "one item less": ("items", lambda t: t[1:], "14 items instead of 15"),
    "NaN popularity": ("items", column("popularity", 0, np.nan), "not finite"),
    "popularity below 0": ("items", column("popularity", 0, -1), "not finite or below 0"),
    "a row below 0": ("seen", column("item", 5, -1), "row numbers outside of the 15 items"),
    "a row too large": ("seen", column("item", 5, 15), "row numbers outside of the 15 items"),
    "wide rows": ("seen", lambda t: t.with_columns(pl.col("item").cast(pl.Int64)), "seen.item holds Int64"),
    "a weight without end": ("seen", column("weight", 5, np.inf), "seen.weight holds values"),
    "an hour of no time": ("seen", column("time", 5, np.nan), "seen.time holds values"),
    "times in another order": ("seen", lambda t: t.with_columns(t["time"].reverse()), "not in order within"),
    "a further column": ("seen", lambda t: t.with_columns(x=1), "a column 'x', which no save writes"),
    "a NaN weight": ("weights", tensor(lambda one: one * torch.nan), "not finite"),
    "one tensor of doubles": ("weights", tensor(lambda one: one.double()), "float64 instead"),
    "whole numbers": ("weights", tensor(lambda one: one.int()), "int32 instead"),
    "a tensor less": ("weights", lambda s: {k: v for k, v in s.items() if k != "item_table.weight"}, "is missing"),
    "a tensor more": ("weights", lambda s: {**s, "more": torch.zeros(1)}, "more is not one of its tensors"),
    "another sketch": ("weights", lambda s: {**s, "palate.sketch": torch.zeros(2, 2)}, "palate.sketch of shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_content_that_is_wrong_under_right_digests_is_refused(tmp_path: Path, name: str) -> None:
    part, change, message = HOSTILE[name]
    train = replace(dataset(), user_features=None)
    folder = bundle(train=train).save(tmp_path / "bundle")
    path = file_of(folder, part)
    if part == "weights":
        save_file(change(load_file(path)), path)
    else:
        change(pl.read_parquet(path)).write_parquet(path)
    forge(folder, lambda manifest: manifest["files"].update({part: storage.file_record(path)}))
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


def test_nothing_is_allocated_beyond_the_size_of_the_files(tmp_path: Path) -> None:
    saved = bundle().save(tmp_path / "bundle")
    for change in (
        lambda m: m["sizes"].update(users=10**12),
        lambda m: m["sizes"].update(items=10**12),
        lambda m: m["recipe"]["fields"].update(dim=65_536, layers=[65_536] * 4),
    ):
        before = (saved / "manifest.json").read_text()
        forge(saved, change)
        with pytest.raises(BundleError, match=r"instead of"):
            Bundle.load(saved)
        (saved / "manifest.json").write_text(before)
    path = file_of(saved, "seen")
    rows = pl.select(item=pl.zeros(3 * 10**7, pl.Int32), weight=pl.zeros(3 * 10**7, pl.Float32))  # 2 MB of equal values
    rows.write_parquet(path, compression_level=22)
    forge(saved, lambda manifest: manifest["files"].update(seen=storage.file_record(path)))
    with pytest.raises(BundleError, match=r"claims 30,000,000 rows"):
        Bundle.load(saved)


def test_trees_are_checked_before_lightgbm_reads_them(tmp_path: Path) -> None:
    train = replace(dataset(), user_features=None)
    fields = {"members": ("popularity",), "n_candidates": 9, "rounds": 3, "slice_size": 0.3, "min_rating": 0.1}
    recipe = make_recipe("two-stage", fields)
    saved = Bundle.of(recipe, recipe.fit(train, TrainOptions(threads=1)), train).save(tmp_path / "bundle")
    path = file_of(saved, "weights")
    state = load_file(path)
    text = bytes(state["ranker._extra_state"].numpy()).decode()
    assert "left_child=1" in text
    changes = {
        "circle|no tree": ("left_child=1", "left_child=0"),  # LightGBM would walk it without end
        "no tree": ("left_child=1", "left_child=99999"),
        "split_feature is outside": ("split_feature=", "split_feature=99"),
        "tree_sizes|cut or longer|not those of a tree": ("tree_sizes=", "tree_sizes=9"),
        "kind than those": ("num_cat=0", "num_cat=9"),
        "num_leaves=": ("num_leaves=", "num_leaves=999999"),
        "threshold has": ("threshold=", "threshold=inf "),
        "does not describe": ("max_feature_idx=", "max_feature_idx=9"),
        "begins in another way": ("num_class=1", "num_class=1000000000"),
    }
    for message, (old, new) in changes.items():
        assert old in text
        changed = text.replace(old, new, 1)
        grown = len(changed) - len(text)
        if old != "tree_sizes=":  # so that the size of the first tree is right
            changed = re.sub(r"(?<=tree_sizes=)\d+", lambda found: str(int(found[0]) + grown), changed)  # noqa: B023
        save_file({**state, "ranker._extra_state": torch.tensor(list(changed.encode()), dtype=torch.uint8)}, path)
        forge(saved, lambda manifest: manifest["files"].update(weights=storage.file_record(path)))
        with pytest.raises(BundleError, match=message):
            Bundle.load(saved)


@pytest.mark.parametrize("numbers", [range(400), pytest.param(range(400, 2_000), marks=pytest.mark.slow)])
def test_random_changes_end_in_a_bundle_error_or_a_bundle_that_a_save_would_write(numbers: range) -> None:
    counts = bundle_fuzz.run(numbers)
    assert counts["refused"] > 150
    assert counts["as before"] > 30
    assert counts["another bundle"] > 5
