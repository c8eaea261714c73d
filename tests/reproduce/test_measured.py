"""Tables of leave-one-out protocols: gaps by hand, request times, and recipes that do not follow new defaults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from palate.base import Query
from palate.data.frame import from_frame
from palate.data.splits.split import Split
from palate.data.splits.strategies import leave_one_out
from palate.models.popularity import Popularity
from palate.models.sasrec import SASRec
from palate.reproduce.measured import (
    HELD_OUT,
    LAST_KNOWN,
    AtLastEvent,
    Planned,
    gaps,
    halves,
    measured_table,
    sequences,
)
from palate.reproduce.rows import Options
from palate.reproduce.system_e import SETTINGS, CodeCell

TINY = SASRec(
    dim=8, n_layers=1, heads=2, hidden=16, epochs=2, batch_size=64, average=0.0, time_gaps=True, request_time=True
)
WAITS = {"a": 0, "b": 59, "c": 60, "d": 3_600}  # seconds from the last known event to the held-out one


@pytest.fixture(scope="module")
def split() -> Split:
    """Four users, whose last event is held out after a wait of their own; twelve more fill the catalog."""
    rows = [(user, item, 1_000.0 + item) for user in WAITS for item in range(6)]
    rows += [(user, 6 + number, 1_005.0 + wait) for number, (user, wait) in enumerate(WAITS.items())]
    rows += [(f"other {n}", (n + step) % 10, 2_000.0 + step) for n in range(12) for step in range(7)]
    users, items, times = zip(*rows, strict=True)
    data = from_frame(pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}))
    return leave_one_out(data, tie="last")


def test_users_are_grouped_by_the_time_since_their_last_known_event(split: Split) -> None:
    groups = gaps(split)
    place = {user: int(split.train.users.rows([user])[0]) for user in WAITS}
    for user, mask in zip(WAITS, groups.values(), strict=True):
        assert mask[place[user]], user
        assert sum(group[place[user]] for group in groups.values()) == 1
    assert sum(mask.sum() for mask in groups.values()) == split.train.n_users


def test_users_of_movielens_1m_are_parted_by_their_id_whatever_their_row() -> None:
    ids = [3_000, 17, 2_999, 6_040]
    data = from_frame(pl.DataFrame({"user_id": ids, "item_id": ids}))
    early, late = halves(data).values()
    assert [bool(early[int(data.users.rows([one])[0])]) for one in ids] == [False, True, True, False]
    assert (early ^ late).all()
    assert halves(data, first=0)["users 1 to 2,999"].sum() == 1  # ids from 0: 2,999 is the 3,000th user


def test_a_model_is_asked_at_the_last_known_event(split: Split) -> None:
    model = TINY.fit(split.train)
    known = AtLastEvent(model, split.train)
    users = np.arange(split.train.n_users)
    rows = split.train.interactions
    last = torch.tensor([float(rows.time[rows.user == user].max()) for user in users], dtype=torch.float64)
    query = Query.of(users, split.train.history, last + 1)  # a second: the wait that training knows
    expected = model.score(replace(query, at=last))
    assert torch.equal(known.score(query), expected)
    assert not torch.equal(known.score(query), model.score(query))


def test_a_table_has_both_request_times_groups_and_several_fits(split: Split) -> None:
    plain, told = sequences(TINY, seeds=2)
    plan = [
        Planned("trivial", Popularity(), "popularity"),
        plain,
        told,
    ]
    rows = list(
        measured_table(
            plan, split, Options(), (("NDCG", 10),), system="X", protocols={"full": "all"}, groups=gaps(split)
        )
    )
    whole = [row for row in rows if row.protocol == "all"]
    assert [row.request for row in whole] == [None, None, HELD_OUT, LAST_KNOWN]
    assert [row.seeds for row in whole] == [1, 2, 2, 2]
    assert all(row.least <= row.value <= row.most for row in whole[1:])
    groups = [row for row in rows if row.protocol != "all" and row.request == HELD_OUT]
    assert len(groups) == 4
    assert sum(row.users * row.value for row in groups) == pytest.approx(split.train.n_users * whole[2].value)


def test_the_code_cell_draws_negatives_among_the_first_items_alone(split: Split) -> None:
    """As many as its rows have, by number; others are positives only, and nothing is without a vector."""
    recipe = CodeCell(**SETTINGS | {"epochs": 1, "batch_size": 8})
    few = split.train.with_rows(split.train.interactions.take(split.train.interactions.item >= 7))
    distinct = len(np.unique(few.interactions.item))
    negatives = torch.cat([batch.item[:, 1:].flatten() for batch in recipe.batches(few, seed=0, epoch=0)])
    assert negatives.max() < distinct <= 3
    model = recipe.fit(few)
    spread = model.item_vectors().std(1)
    assert (spread > 0.1).all()
