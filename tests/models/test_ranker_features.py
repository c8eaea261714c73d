"""Features of the ranker, column by column, against plain loops over the rows of a small world."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
import torch

from palate.base import DataSpec, Query
from palate.data.dataset import Dataset
from palate.data.features import FeatureSchema
from palate.data.frame import from_frame
from palate.models.ease import EASE
from palate.models.ials import IALS
from palate.models.popularity import Popularity
from palate.models.two_stage.candidate_generation import Retrieval
from palate.models.two_stage.ranker_features import RankerFeatures

DAY = 86_400.0
ASKED = 40.5 * DAY
USERS, ITEMS = 12, 15


@pytest.fixture(scope="module")
def world() -> Dataset:
    """Ratings of 1 to 5 over forty days; items have a kind and a length, users a town."""
    rng = np.random.default_rng(3)
    rows = [
        (user, item, float(rng.integers(3, 6)), DAY * float(rng.integers(0, 40)))
        for user in range(USERS)
        for item in rng.choice(ITEMS, rng.integers(3, 9), replace=False)
    ]
    items = pl.DataFrame(
        {
            "item_id": range(ITEMS),
            "kind": [["a", "b", "c"][n % 3] for n in range(ITEMS)],
            "size": [1.0 * n for n in range(ITEMS)],
        }
    )
    users = pl.DataFrame({"user_id": range(USERS), "town": [["x", "y"][n % 2] for n in range(USERS)]})
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    return from_frame(frame, item_features=items, user_features=users, min_rating="any")


@pytest.fixture(scope="module")
def measured(world: Dataset) -> tuple[torch.Tensor, Query, list[object], torch.Tensor, torch.Tensor]:
    """The features of every item for every user, by two retrievers with item vectors and one without."""
    models = [
        Popularity().fit(world),
        IALS(dim=4, unobserved_weight=0.1, regularization=0.01).fit(world),
        EASE().fit(world),
    ]
    schema = FeatureSchema.fit(world, users=("*",), items=("*",))
    features = RankerFeatures(DataSpec(world.n_users, world.n_items, schema))
    features.learn(world)
    users = np.arange(world.n_users)
    query = Query.of(users, world.history, torch.full((len(users),), ASKED, dtype=torch.float64))
    row, item = (
        part.flatten() for part in torch.meshgrid(torch.arange(len(users)), torch.arange(world.n_items), indexing="ij")
    )
    with torch.inference_mode():
        found = Retrieval(models, 5, False).forward(query)
        return features(query, found, row, item, models), query, models, row, item


def log_share(counts: list[float]) -> list[float]:
    smooth = [count + 0.1 for count in counts]
    return [math.log(one / (sum(smooth) / len(smooth))) for one in smooth]


def days(seconds: float) -> float:
    return math.log1p(max(seconds, 0) / DAY)


def behavior(world: Dataset) -> Iterator[list[float]]:
    """The fifteen columns of user, item and both, for each user and item, by loops."""
    rows = world.interactions
    events = [*zip(rows.user.tolist(), rows.item.tolist(), rows.weight.tolist(), rows.time.tolist(), strict=True)]
    now, mean = max(time for *_, time in events), sum(weight for *_, weight, _ in events) / len(events)
    of_item = [[(weight, time) for _, i, weight, time in events if i == item] for item in range(world.n_items)]
    share = log_share([len(one) for one in of_item])
    late = [
        log_share([sum(2 ** ((time - now) / (half * DAY)) for _, time in one) for one in of_item])
        for half in (3, 14, 60)
    ]
    weight_of = [(sum(weight for weight, _ in one) + 5 * mean) / (len(one) + 5) for one in of_item]
    edges = np.quantile([time for *_, time in events], np.linspace(0, 1, 48))
    for user in range(world.n_users):
        mine = [(item, weight, time) for u, item, weight, time in events if u == user]
        last, first = max(time for *_, time in mine), min(time for *_, time in mine)
        typical = sum(share[item] for item, *_ in mine) / len(mine)
        bin_of_last = np.searchsorted(edges, last, side="right")
        for item in range(world.n_items):
            after = sum(np.searchsorted(edges, time, side="right") > bin_of_last for _, time in of_item[item])
            yield [
                math.log1p(len(mine)), days(ASKED - last), days(last - first),
                sum(weight for _, weight, _ in mine) / len(mine), typical,
                share[item], *(one[item] for one in late), late[1][item] - share[item], weight_of[item],
                days(ASKED - min(time for _, time in of_item[item])),
                days(ASKED - max(time for _, time in of_item[item])),
                math.log((after + 1) / (len(of_item[item]) + 2)), share[item] - typical,
            ]  # fmt: skip


def test_the_columns_of_behavior_are_those_of_plain_loops(world: Dataset, measured: tuple) -> None:
    inputs, _, models, *_ = measured
    first = 2 * len(models) + 3
    expected = np.array(list(behavior(world)))
    np.testing.assert_allclose(inputs[:, first : first + expected.shape[1]].numpy(), expected, rtol=2e-4, atol=2e-4)


def test_the_columns_of_retrieval_are_scores_and_ranks(measured: tuple) -> None:
    inputs, query, models, row, item = measured
    found = Retrieval(models, 5, False).forward(query)
    z, rank = found.z[:, row, item].T, found.rank[:, row, item].float().log2().T
    torch.testing.assert_close(inputs[:, :3], z)
    torch.testing.assert_close(inputs[:, 3:6], rank)
    torch.testing.assert_close(inputs[:, 6:9], torch.stack([z.mean(1), rank.mean(1), rank.amin(1)], 1))
    assert (rank.amin(1) == 0).any()


def test_no_column_is_constant_and_their_number_is_the_width(world: Dataset, measured: tuple) -> None:
    inputs, _, models, *_ = measured
    schema = FeatureSchema.fit(world, users=("*",), items=("*",))
    assert inputs.shape[1] == RankerFeatures(DataSpec(world.n_users, world.n_items, schema)).width(models)
    assert (inputs.std(0) > 0).all(), inputs.std(0)


def test_the_features_of_items_meet_the_history(world: Dataset, measured: tuple) -> None:
    """The last columns: share of the item's kind in the history, that against the catalog, distance of its size."""
    inputs, *_ = measured
    rows = world.interactions
    kind = world.item_features["kind"].to_list()
    size = np.array(world.item_features["size"].to_list())
    size = (size - size.mean()) / size.std()
    usual = np.bincount([["a", "b", "c"].index(kind[item]) for item in rows.item]) / len(rows)
    expected = []
    for user in range(world.n_users):
        mine = rows.item[rows.user == user]
        for item in range(world.n_items):
            own = np.mean([kind[one] == kind[item] for one in mine])
            against = usual[["a", "b", "c"].index(kind[item])]
            expected.append([own, math.log((own + 0.01) / (against + 0.01)), abs(size[item] - size[mine].mean())])
    np.testing.assert_allclose(inputs[:, -3:].numpy(), expected, rtol=1e-3, atol=1e-3)
