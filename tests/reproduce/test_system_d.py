"""System D on the real data: titles as items, ranks per test row, trivial row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from palate.base import Query
from palate.data.dataset import Dataset
from palate.data.splits.strategies import at_random
from palate.models.popularity import Popularity
from palate.recommend import Recommender
from palate.reproduce import system_d
from palate.reproduce.rows import Options


@pytest.fixture(scope="module")
def films(ml_100k: Dataset) -> Dataset:
    return system_d.by_title(ml_100k)


def test_titles_are_the_items(films: Dataset, ml_100k: Dataset) -> None:
    assert films.n_items == 1664
    assert len(films) == 100_000
    assert ml_100k.titles is not None
    names = films.items.external(films.interactions.item)
    assert (names == ml_100k.titles.gather(ml_100k.interactions.item)).all()
    assert films.item_features is not None
    assert (films.item_features["title"] == films.items.ids).all()


def test_ranks_per_row_equal_a_count(films: Dataset) -> None:
    parts = at_random(films, test_size=0.2, seed=0, cold="keep")
    test = parts.test.interactions.take(np.arange(300))
    few = replace(parts, test=parts.test.with_rows(test))
    model = Popularity().fit(parts.train)
    counts = model.counts.numpy()
    expected = [(counts >= counts[item]).sum() for item in test.item]
    # Two test titles of one user may tie: only then does the worst place go to one of them.
    assert np.abs(system_d.row_ranks(model, few, exclude_seen=False) - expected).max() <= 2
    seen = parts.train.history
    removed = system_d.row_ranks(model, few, exclude_seen=True)
    for row in range(0, 300, 7):
        own = np.setdiff1d(np.arange(films.n_items), seen.of(test.user[row]))
        if test.item[row] in own:
            assert abs(removed[row] - (counts[own] >= counts[test.item[row]]).sum()) <= 2
        else:
            assert np.isinf(removed[row])


def test_the_trivial_row_is_that_of_independent_code(films: Dataset) -> None:
    """It calibrates the evaluator; the rows of recipes are recorded, never asserted on these test rows."""
    rows = list(system_d.run(Options(roles=frozenset({"trivial"}), fast=True)))
    values = {(r.protocol.endswith("removed"), r.model, r.k): r.value for r in rows if r.value is not None}
    for k, expected in ((10, 0.054), (50, 0.177), (100, 0.297)):
        assert abs(values[False, "popularity", k] - expected) < 0.01
    assert all(r.low < r.value < r.high for r in rows if r.value and r.low is not None and r.high is not None)


def test_raw_user_ids_are_answered_with_titles(films: Dataset) -> None:
    parts = at_random(films, test_size=0.2, seed=0, cold="keep")
    model = replace(system_d.FAITHFUL, epochs=1).fit(parts.train)
    answer = Recommender.of(model, parts.train).recommend([42], k=5)
    assert answer["item_id"].is_in(films.items.ids.implode()).all()
    row = int(films.users.rows([42])[0])
    with torch.inference_mode():
        score = model.score(Query.of([row]))[0]
        score[torch.from_numpy(parts.train.history.of(row).astype(np.int64))] = -torch.inf
    assert answer["item_id"].to_list() == films.items.external(score.topk(5).indices.numpy()).to_list()
