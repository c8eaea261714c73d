"""The fast orders give what the plain NumPy functions give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import Interactions
from palate.data.order import group_by_user, grouped, latest, renumbered

SECONDS = st.integers(0, 5) | st.integers(10**9, 10**9 + 3) | st.integers(-(2**52), 2**52)
TIMES = st.lists(SECONDS, max_size=60) | st.lists(SECONDS | st.floats(allow_nan=True), max_size=60)


@settings(deadline=None)
@given(TIMES, st.randoms(use_true_random=False))
def test_rows_are_grouped_as_by_lexsort(times, random):
    time = np.array(times, np.float64)
    user = np.array([random.randrange(5) for _ in times], np.int32)
    assert np.array_equal(group_by_user(user, time), np.lexsort((time, user)))
    offsets, position, times = grouped(user, time, np.arange(len(user)), 6)
    assert offsets.tolist() == [0, *np.cumsum(np.bincount(user, minlength=6))]
    assert np.array_equal(position, np.lexsort((time, user)))
    assert np.array_equal(times, time[position], equal_nan=True)
    assert np.array_equal(group_by_user(user, np.sort(time)), np.lexsort((np.sort(time), user)))
    assert np.array_equal(group_by_user(user, None), np.argsort(user, kind="stable"))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5) | st.floats(allow_nan=False), max_size=40), st.integers(0, 45))
def test_the_latest_rows_are_the_end_of_the_stable_order(times, count):
    time = np.array(times, np.float64)
    expected = np.zeros(len(time), bool)
    expected[np.argsort(time, kind="stable")[max(0, len(time) - count) :]] = True
    assert np.array_equal(latest(time, count), expected)


@given(st.lists(st.integers(0, 9), max_size=20))
def test_new_numbers_are_those_of_unique(rows):
    kept, new = renumbered(np.array(rows, np.int32), 10)
    unique, inverse = np.unique(np.array(rows, np.int32), return_inverse=True)
    assert np.array_equal(kept, unique)
    assert np.array_equal(new[np.array(rows, np.int32)], inverse)
    assert (np.delete(new, kept) == -1).all()


@pytest.mark.parametrize(("item", "weight"), [(np.int32, np.float32), (np.int64, np.float64), (np.int16, np.float32)])
def test_a_history_keeps_items_and_weights_of_any_width(item: type, weight: type) -> None:
    rows = Interactions(
        np.array([1, 0, 1], np.int32), np.array([7, 8, 9], item), np.array([0.5, 2, 3], weight), np.array([2.0, 1, 1])
    )
    history = rows.history(2)
    assert history.offsets.tolist() == [0, 1, 3]
    assert history.items.tolist() == [8, 9, 7]
    assert history.weights.tolist() == [2, 3, 0.5]
