"""Recent popularity: decayed counts, what it needs, and the figure of system E that it must reproduce."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.strategies import by_time
from palate.errors import RecipeError
from palate.evaluation.evaluate import evaluate
from palate.models.popularity import Popularity, RecentPopularity

DAY = 86_400.0


def dataset(items: list[int], days: list[float], weights: list[float] | None = None) -> Dataset:
    n = len(items)
    rows = Interactions(
        np.arange(n, dtype=np.int32),
        np.array(items, np.int32),
        np.array(weights or [1.0] * n, np.float32),
        np.array(days) * DAY + 1e9,
    )
    return Dataset("rows", IdMap.of(np.arange(n)), IdMap.of(np.arange(5)), rows)


def test_a_row_one_half_life_old_counts_half() -> None:
    model = RecentPopularity(half_life=10).fit(dataset([0, 1, 2, 2], [100, 90, 80, 70]))
    np.testing.assert_allclose(model.counts.numpy(), [1, 0.5, 0.25 + 0.125, 0, 0])
    assert not model.can_personalize(Query.of([0, -1])).any()
    scores = model.score(Query.of([0, -1]), torch.tensor([[2, 0], [1, 1]]))
    np.testing.assert_allclose(scores.numpy(), [[0.375, 1], [0.5, 0.5]])


def test_weighted_by_rating() -> None:
    model = RecentPopularity(half_life=1, by_rating=True).fit(dataset([0, 1], [1, 0], [2, 5]))
    np.testing.assert_allclose(model.counts[:2].numpy(), [2, 2.5])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1000)), min_size=1, max_size=30), st.floats(0.5, 500))
def test_equals_the_sum_over_rows_wherever_the_clock_starts(rows: list[tuple[int, float]], half_life: float) -> None:
    items, days = [item for item, _ in rows], [day for _, day in rows]
    expected = np.zeros(5)
    for item, day in rows:
        expected[item] += 0.5 ** ((max(days) - day) / half_life)
    for shift in (0, 5_000):
        model = RecentPopularity(half_life).fit(dataset(items, [day + shift for day in days]))
        np.testing.assert_allclose(model.counts.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_an_endless_half_life_is_popularity(ml_100k: Dataset) -> None:
    recent = RecentPopularity(half_life=1e9).fit(ml_100k).counts
    torch.testing.assert_close(recent, Popularity().fit(ml_100k).counts)


def test_without_time_it_says_what_to_do() -> None:
    data = dataset([0, 1], [1, 2])
    timeless = data.with_rows(replace(data.interactions, time=None))
    with pytest.raises(RecipeError, match=r"rows has no time.*use popularity"):
        RecentPopularity().fit(timeless)


@pytest.mark.parametrize("half_life", [0.0, -1.0, float("inf"), float("nan")])
def test_a_senseless_half_life_is_refused(half_life: float) -> None:
    with pytest.raises(RecipeError, match="half_life="):
        RecentPopularity(half_life)


def test_the_reference_figure_of_system_e(ml_100k: Dataset) -> None:
    split = by_time(ml_100k, test_size=0.2).relevant(4)
    report = evaluate(RecentPopularity(half_life=10).fit(split.train), split, k=10, resamples=0)
    assert report.users == 95
    assert report.value("NDCG", 10) == pytest.approx(0.2306, abs=5e-4)
    assert report.value("HitRate", 10) == pytest.approx(0.6421, abs=5e-4)
    assert report.value("Coverage", 10) == pytest.approx(0.039, abs=2e-3)
