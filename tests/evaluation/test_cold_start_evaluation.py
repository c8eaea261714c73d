"""Measuring cold start: on a board where features decide everything, and that nothing leaks from what is held out."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest

from palate.base import TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.cold import hold_out_items, hold_out_users
from palate.errors import EvaluationError
from palate.evaluation.cold_start import ColdStartReport, evaluate_cold_start, usual_policies
from palate.models.ease import EASE
from palate.models.popularity import Popularity
from palate.models.two_tower import TwoTower
from palate.recommend.cold_start import ColdStart

SIZE = 60
RECIPE = TwoTower(
    dim=8, epochs=10, batch_size=128, learning_rate=0.05, user_features=("side",), item_features=("*",), id_dropout=0.3
)


@cache
def board() -> Dataset:
    """Even people touch even items, odd ones odd items, and features say who and what is which."""
    rng = np.random.default_rng(0)
    user, item = np.divmod(np.arange(SIZE * SIZE), SIZE)
    kept = (user % 2) == (item % 2)
    user, item = user[kept].astype(np.int32), item[kept].astype(np.int32)
    ids, even = IdMap.of(np.arange(SIZE)), np.arange(SIZE) % 2 == 0
    times = 1e9 + 86_400 * rng.random(len(user)) * 90
    return Dataset(
        "board",
        ids,
        ids,
        Interactions(user, item, np.ones(len(user), np.float32), times),
        user_features=pl.DataFrame({"side": np.where(even, "left", "right"), "name": [f"n{n}" for n in range(SIZE)]}),
        item_features=pl.DataFrame({"color": np.where(even, "black", "white")}),
    )


@cache
def towers() -> ColdStartReport:
    return evaluate_cold_start(RECIPE, board(), users=0.2, items=0.2, options=TrainOptions(device="cpu"), resamples=100)


def test_features_and_histories_tell_cold_users_apart_and_popularity_does_not() -> None:
    found = towers()
    for provided, source in (("first 1 row", "fold-in"), ("first 5 rows", "fold-in"), ("all features", "features")):
        popular = found.value("cold users", provided if source == "fold-in" else "nothing", "popular")
        assert found.value("cold users", provided, source) > popular + 0.2, provided
    assert found.value("cold users", "side", "popular by side") > found.value("cold users", "nothing", "popular") + 0.2
    assert found.value("warm users", "all rows but the latest", "model", "Recall") > 0.8
    lift = next(row.lift for row in found.measured if row.source == "features")
    assert lift is not None
    assert lift.p < 0.05


def test_cold_items_are_found_by_their_features() -> None:
    found = towers()
    among, luck = (found.value("cold items", "among cold items", by) for by in ("model", "random"))
    assert among > 0.95
    assert luck < 0.8
    everything = found.value("cold items", "among all items", "model")
    assert everything > found.value("cold items", "among all items", "random")


def test_a_model_without_features_says_what_it_cannot_do() -> None:
    found = evaluate_cold_start(EASE(), board(), users=0.2, items=0.2, histories=(3,), policies=(), resamples=0)
    assert "ease scores no users by their features: no row for features" in found.notes
    assert "ease has no item tower: its scores of cold items carry no information" in found.notes
    assert found.value("cold users", "first 3 rows", "fold-in") > 0.9
    # All alike, and ties count against it.
    model, luck = (found.value("cold items", "among cold items", by) for by in ("model", "random"))
    assert model < luck
    with pytest.raises(EvaluationError, match="all features, features was not measured: there are warm users"):
        found.value("cold users", "all features", "features")


def test_what_is_held_out_is_not_learned_and_each_group_is_whole() -> None:
    data = board()
    away = hold_out_users(data, 0.2)
    unmet = hold_out_items(away.train, 0.2)
    users, items = (len(np.unique(rows)) for rows in (away.test.interactions.user, unmet.test.interactions.item))
    found = towers()
    sizes = {(row.group, row.provided): row.report.users for row in found.measured}
    assert sizes["cold users", "all features"] == users == 12
    assert sizes["warm users", "all rows but the latest"] == SIZE - users
    assert f"all {items} held-out items" in {row.report.candidates for row in found.measured}
    dropped = np.isin(away.test.interactions.item, unmet.test.interactions.item).sum()
    assert f"rows of cold users on cold items, left out: {dropped} rows" in found.notes


def test_the_policies_follow_from_the_data() -> None:
    assert usual_policies(board()) == (ColdStart("recent"), ColdStart(segment="side"), ColdStart(segment="name"))
    bare = Dataset("bare", board().users, board().items, Interactions(*(np.zeros(1, np.int32),) * 2, np.ones(1)))
    assert usual_policies(bare) == ()


def test_the_report_is_a_table_and_plain_data() -> None:
    found = evaluate_cold_start(Popularity(), board(), histories=(1,), policies=(), resamples=50)
    columns, rows = found.cells()
    assert all(len(row) == len(columns) for row in rows)
    assert "NDCG@10" in str(found)
    assert found.to_frame()["NDCG@10"].to_list() == [row.report.value("NDCG@10") for row in found.measured]
    assert len(repr(found).splitlines()) <= 5
    plain = found.to_dict()
    assert [row["source"] for row in plain["rows"]][:2] == ["model", "popular"]
    assert plain["rows"][0]["lift"]["difference"] == 0  # popularity against popularity
