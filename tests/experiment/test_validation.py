"""Held-out rows are taken in the way the data, or the test rows, ask for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boards import make_tastes
from palate.data.frame import from_frame
from palate.data.splits.cold import hold_out_items, hold_out_users
from palate.data.splits.strategies import at_random, by_time, leave_one_out
from palate.experiment import hold_out, validation_split


def test_validation_rows_are_held_out_as_the_test_rows_were(ml_100k):
    ways = {
        "leave one out": leave_one_out(ml_100k),
        "global time": by_time(ml_100k, test_size=0.2),
        "random": at_random(ml_100k, test_size=0.2),
    }
    for words, split in ways.items():
        inner = validation_split(split)
        assert inner.how.startswith(words)
        assert inner.train.items is split.train.items, "models fit both"
        assert inner.train.fingerprint.overlap(split.test.fingerprint)[0] == 0
        assert inner.test.fingerprint.overlap(split.test.fingerprint)[0] == 0, "no test row decides anything"
        assert split.train.fingerprint.overlap(inner.test.fingerprint)[0] > 0


@pytest.mark.parametrize(("cut", "column"), [(hold_out_users, "user"), (hold_out_items, "item")])
def test_validation_rows_of_a_cold_split_are_cold_in_the_same_way(cut, column):
    split = cut(from_frame(make_tastes(users=40)), 0.2, seed=1)
    inner = validation_split(split)
    parts = [getattr(rows.interactions, column) for rows in (inner.train, inner.test, split.test)]
    assert all(len(part) for part in parts)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.isin(parts[one], parts[other]).any()
    assert len(inner.train) + len(inner.test) == len(split.train)


def test_validation_rows_are_of_known_users_and_items(ml_100k):
    inner = validation_split(ml_100k)
    known, held = inner.train.interactions, inner.test.interactions
    assert np.isin(held.user, known.user).all()
    assert np.isin(held.item, known.item).all()
    assert inner.how.endswith("of these only known ones")


def test_without_time_rows_are_held_out_at_random(ml_100k):
    timeless = ml_100k.with_rows(replace(ml_100k.interactions, time=None))
    assert hold_out(timeless).how.startswith("random")
    assert validation_split(at_random(timeless, test_size=0.2)).how.startswith("random")


def test_a_time_split_that_leaves_nobody_to_measure_gives_way_to_the_latest_row(ml_100k):
    rows = ml_100k.interactions
    eras = replace(rows, time=rows.user * 1e6 + np.arange(len(rows)))  # one user after the other
    how = hold_out(ml_100k.with_rows(eras)).how
    assert how.startswith("leave one out")
    assert "(a global time split leaves 1 of 943 users to measure)" in how
