"""Metrics of the listed items: fractions worked out by hand, slow obvious versions, and real data."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import log, log2

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import Dataset, History, Interactions
from palate.data.ids import IdMap
from palate.evaluation.beyond_accuracy import (
    EVENTS,
    ItemFacts,
    calibration,
    coverage,
    diversity,
    exposure,
    gini,
    lorenz,
    novelty,
    popularity,
    popularity_bins,
)

GENRES = [["a", "b"], ["a", "c"], ["d"], ["b", "c"], [], None]


def by_hand() -> Dataset:
    """Item i has 4, 2, 1, 1, 0, 0 of four training users; user 0 has item 0 twice."""
    user = [0, 1, 2, 3, 0, 1, 2, 3, 0]
    item = [0, 0, 0, 0, 1, 1, 2, 3, 0]
    rows = Interactions(np.array(user, np.int32), np.array(item, np.int32), np.ones(9, np.float32))
    features = pl.DataFrame({"genres": GENRES, "year": [1, 2, 3, 4, 5, 6], "title": list("uvwxyz")})
    return Dataset("hand", IdMap.of(np.arange(4)), IdMap.of(np.arange(6)), rows, item_features=features)


ITEMS = ItemFacts.of(by_hand())


def close(found: np.ndarray, expected: list[object]) -> None:
    assert found.tolist() == pytest.approx([float(x) for x in expected], nan_ok=True)  # type: ignore[arg-type]


def test_what_is_known_of_the_items() -> None:
    assert ITEMS.rows.tolist() == [5, 2, 1, 1, 0, 0]
    assert ITEMS.users.tolist() == [4, 2, 1, 1, 0, 0]
    assert ITEMS.information.tolist() == [0, 1, 2, 2, 2, 2]
    assert ITEMS.features == ("genres",)  # titles are names, years are numbers
    assert ITEMS.mix is not None
    close(ITEMS.mix.sum(axis=1), [1, 1, 1, 1, 0, 0])


def test_novelty_and_popularity_by_hand() -> None:
    lists = np.array([[0, 1, 2], [2, -1, -1], [-1, -1, -1]])
    close(novelty(lists, ITEMS.information), [Fraction(0 + 1 + 2, 3), 2, np.nan])
    close(popularity(lists, ITEMS.users), [Fraction(4 + 2 + 1, 3), 1, np.nan])


def test_diversity_by_hand() -> None:
    # cos(ab, ac) = 1/2, cos(ab, d) = 0, cos(ac, d) = 0, cos(ab, bc) = cos(ac, bc) = 1/2; items 4 and 5 are unknown.
    lists = np.array([[0, 1, 2], [0, 1, 3], [0, 4, 1], [0, 4, 5], [2, -1, -1], [-1, -1, -1]])
    assert ITEMS.vectors is not None
    close(
        diversity(lists, ITEMS.vectors),
        [(Fraction(1, 2) + 1 + 1) / 3, Fraction(1, 2), Fraction(1, 2), np.nan, np.nan, np.nan],
    )


def test_calibration_by_hand() -> None:
    assert ITEMS.mix is not None
    # Histories: items 0 and 2, so a 1/4, b 1/4, d 1/2; the same; nothing known.
    history = History(np.array([0, 2, 4, 5]), np.array([0, 2, 0, 2, 4], np.int32), np.ones(5, np.float32))
    lists = np.array([[0, 2], [2, -1], [0, 2]])
    alpha, p = Fraction(1, 100), {"a": Fraction(1, 4), "b": Fraction(1, 4), "d": Fraction(1, 2)}
    second = sum(
        share * Fraction(log(share / ((1 - alpha) * (genre == "d") + alpha * share))).limit_denominator(10**12)
        for genre, share in p.items()
    )
    close(calibration(lists, ITEMS.mix, history), [0, second, np.nan])
    nothing_alike = History(np.array([0, 1]), np.array([2], np.int32), np.ones(1, np.float32))
    close(calibration(np.array([[0, 1]]), ITEMS.mix, nothing_alike), [log(100)])


def test_coverage_gini_and_lorenz_by_hand() -> None:
    shown = exposure(np.array([[0, 1], [0, 1], [0, 2], [0, -1]]), 5)
    assert shown.tolist() == [4, 2, 1, 0, 0]
    assert coverage(shown) == float(Fraction(3, 5))
    # Ascending 0, 0, 1, 2, 4: (2i - 6) x_i = 0 * 1 + 2 * 2 + 4 * 4 over 5 * 7.
    assert gini(shown) == pytest.approx(float(Fraction(0 * 1 + 2 * 2 + 4 * 4, 5 * 7)))
    assert gini(np.array([3, 3, 3])) == 0
    assert np.isnan(gini(np.zeros(4, np.int64)))
    items, lists = zip(*lorenz(shown), strict=True)
    assert items == pytest.approx([0, 1 / 5, 2 / 5, 3 / 5, 4 / 5, 1])
    assert lists == pytest.approx([0, 0, 0, 1 / 7, 3 / 7, 1])
    many = lorenz(np.arange(100_000))
    assert len(many) <= 50
    assert (many[0], many[-1]) == ((0, 0), (1, 1))


def test_popularity_bins_share_out_everything() -> None:
    users, shown = np.arange(1000)[::-1].copy(), np.ones(1000, np.int64)
    bins = popularity_bins(users, shown)
    assert [one[0] for one in bins][:2] == ["0% to 1% most popular", "1% to 5% most popular"]
    np.testing.assert_allclose(np.array([one[1:] for one in bins]).sum(axis=0), 1)
    assert bins[0][1:] == pytest.approx((0.01, sum(range(990, 1000)) / sum(range(1000)), 0.01))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=2, max_size=6),
    st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4, unique=True), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
)
def test_diversity_and_calibration_equal_the_slow_versions(
    genres: list[set[int]], lists: list[list[int]], past: list[int]
) -> None:
    column = pl.Series("genres", [[f"g{g}" for g in sorted(one)] for one in genres], dtype=pl.List(pl.String))
    rows = Interactions(np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.float32))
    ids = IdMap.of(np.arange(len(genres)))
    items = ItemFacts.of(Dataset("random", ids, ids, rows, item_features=column.to_frame()))
    if items.vectors is None or items.mix is None:
        assert len(set().union(*genres)) < 2  # one genre says nothing
        return
    list_BK = np.array([[i if i < len(genres) else -1 for i in one] for one in lists])
    past = [i for i in past if i < len(genres)]
    history = History(
        np.array([0] + [len(past)] * len(lists)), np.array(past, np.int32), np.ones(len(past), np.float32)
    )
    found = diversity(list_BK, items.vectors), calibration(list_BK, items.mix, history)
    for row, one in enumerate(list_BK):
        known = [genres[i] for i in one if i >= 0 and genres[i]]
        far = [1 - len(a & b) / np.sqrt(len(a) * len(b)) for a, b in combinations(known, 2)]
        p, q = (mix([genres[i] for i in some if i >= 0 and genres[i]]) for some in (past if row == 0 else [], one))
        kl = (
            sum(x * log2(x / (0.99 * q.get(g, 0) + 0.01 * x)) / log2(np.e) for g, x in p.items()) if p and q else np.nan
        )
        expected = (np.mean(far) if far else np.nan, kl)
        np.testing.assert_allclose((found[0][row], found[1][row]), expected, rtol=1e-7, atol=1e-9)


def mix(sets: list[set[int]]) -> dict[int, float]:
    every = set().union(*sets)
    return {g: sum((g in one) / len(one) for one in sets) / len(sets) for g in every}


def test_counting_in_parts_equals_counting_at_once(ml_100k: Dataset) -> None:
    # 300,000 rows are more than one part.
    thrice = ml_100k.with_rows(ml_100k.interactions.take(np.tile(np.arange(len(ml_100k)), 3)))
    assert len(thrice) > EVENTS
    items = ItemFacts.of(thrice)
    once = np.bincount(ml_100k.interactions.item, minlength=ml_100k.n_items)
    assert (items.users == once).all()
    assert (items.rows == 3 * once).all()
    assert items.features == ("genres",)
