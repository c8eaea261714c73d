"""Segments: who is hot, warm and cold, their bounds, and that they add up to the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random, by_time
from palate.evaluation.accumulator import COLD, WARM, segmentation
from palate.evaluation.evaluate import evaluate
from palate.models.popularity import Popularity
from palate.training.negative_sampling import draw_candidates


def test_hot_warm_and_cold_by_hand() -> None:
    features = pl.DataFrame({"genre": [None, None, None, None, None, None, "a", None], "year": [None] * 8})
    parts = segmentation(np.array([1, 2, 3, 10, 20, 30, 0, 0]), features, np.arange(8))
    names = [parts.labels[place] for place in parts.places]
    low, middle = "hot: 1 to 2 training rows", "hot: 3 to 19 training rows"
    assert names == [low] * 2 + [middle] * 2 + ["hot: 20 training rows or more"] * 2 + [WARM, COLD]


def test_each_third_of_the_measured_users_is_one_segment() -> None:
    parts = segmentation(np.arange(1, 31), None, np.arange(30))
    assert parts.labels[:3] == (
        "hot: 1 to 10 training rows", "hot: 11 to 20 training rows", "hot: 21 training rows or more"
    )  # fmt: skip
    assert np.bincount(parts.places).tolist() == [10, 10, 10]


def test_equal_counts_make_one_segment_and_repeats_count() -> None:
    assert segmentation(np.array([7, 7, 7]), None, np.arange(3)).labels == ("hot: 1 training rows or more", WARM, COLD)
    rows = np.array([100, 1, 2, 3])
    often = segmentation(rows, None, np.array([0, 0, 0, 0, 0, 0, 1, 2, 3]))  # measured mostly on the popular item
    assert often.labels[:2] == ("hot: 1 to 99 training rows", "hot: 100 training rows or more")
    assert segmentation(np.zeros(2, np.int64), None, np.arange(2)).places.tolist() == [2, 2]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_labels_say_the_truth(counts: list[int]) -> None:
    rows = np.array(counts)
    parts = segmentation(rows, None, np.arange(len(rows)))
    for count, place in zip(counts, parts.places, strict=True):
        label = parts.labels[place]
        if count == 0:
            assert label == COLD
        else:
            numbers = [int(word) for word in label.split() if word.isdecimal()]
            assert numbers[0] <= count <= (numbers[1] if len(numbers) > 1 else count)


@pytest.mark.parametrize("sampled", [False, True])
def test_segments_add_up_to_the_whole_on_real_data(ml_100k: Dataset, sampled: bool) -> None:
    split = by_time(ml_100k, test_size=0.2, cold="keep")
    candidates = draw_candidates(split, 50) if sampled else None
    report = evaluate(Popularity().fit(split.train), split, k=(5, 10), candidates=candidates, resamples=100)
    by = {kind: [s for s in report.segments if s.by == kind] for kind in ("user activity", "item popularity")}
    for parts in by.values():
        assert sum(part.rows for part in parts) == len(split.test)
        assert all(m.low <= m.value <= m.high for part in parts for m in part.measures)
    users = by["user activity"]
    assert sum(part.users for part in users) == report.users
    labels = [part.segment for part in users]
    assert labels[-1] == WARM  # they have an age and an occupation, but no training rows
    total = sum(part.users * measure(part, "NDCG", 10) for part in users) / report.users
    assert total == pytest.approx(report.value("NDCG", 10))
    # Of all relevant rows, as many are found in the segments of items as by the whole.
    items = by["item popularity"]
    assert {m.metric for m in items[0].measures} == {"HitRate", "NDCG", "Recall"}
    assert measure(items[0], "Recall", 10) < 0.05 < measure(items[2], "Recall", 10)  # popularity lists what is popular


def measure(part: object, metric: str, k: int) -> float:
    return next(m.value for m in part.measures if (m.metric, m.k) == (metric, k))  # type: ignore[attr-defined]


def test_item_segments_measure_their_own_relevant_items(ml_100k: Dataset) -> None:
    split: Split = at_random(ml_100k, test_size=0.2, seed=3)
    report = evaluate(Popularity().fit(split.train), split, k=10, resamples=0)
    counts = np.bincount(split.train.interactions.item, minlength=split.train.n_items)
    test = split.test.interactions
    parts = segmentation(counts, split.train.item_features, test.item)
    top = parts.labels[2]
    found = next(s for s in report.segments if s.segment == top and s.by == "item popularity")
    inside = parts.places[test.item] == 2
    only = Split(split.train, split.test.with_rows(test.take(inside)), "the popular ones")
    assert found.rows == inside.sum()
    # Alone they compete with the other relevant items as with any item; ties aside the numbers are the same.
    alone = evaluate(Popularity().fit(split.train), only, k=10, resamples=0)
    assert found.users == alone.users
    assert measure(found, "Recall", 10) == pytest.approx(alone.value("Recall", 10), abs=2e-3)


def test_exposure_shows_the_bias_of_popularity(ml_100k: Dataset) -> None:
    split = at_random(ml_100k, test_size=0.2, seed=0)
    plain = evaluate(Popularity().fit(split.train), split, k=(5, 10, 20), resamples=0).to_dict()
    assert plain["exposure_k"] == 10
    curve, bins = plain["exposure"], plain["popularity"]
    assert 2 <= len(curve) <= 50
    assert (curve[0], curve[-1]) == ({"items": 0, "lists": 0}, {"items": 1, "lists": 1})
    assert all(a["lists"] <= b["lists"] <= b["items"] + 1e-9 for a, b in pairwise(curve))
    for side in ("catalog", "history", "lists"):
        assert sum(one[side] for one in bins) == pytest.approx(1)
    assert bins[0]["lists"] > bins[0]["history"] > bins[0]["catalog"]
    gini = next(m["value"] for m in plain["measures"] if (m["metric"], m["k"]) == ("Gini", 10))
    area = sum((b["items"] - a["items"]) * (a["lists"] + b["lists"]) / 2 for a, b in pairwise(curve))
    assert gini == pytest.approx(1 - 2 * area, abs=0.02)
    assert gini > 0.9
