"""Comparisons over folds and windows: what is trained and tested, and how users are paired."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.data.frame import from_frame
from palate.data.splits.strategies import k_folds, rolling_windows
from palate.errors import DataError, EvaluationError
from palate.evaluation.significance import paired
from palate.experiment import CompareOptions, compare_folds
from palate.models.ease import EASE
from palate.models.popularity import Popularity

OPTIONS = CompareOptions(k=5, lengths=(5,), resamples=500)


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """40 users with 8 to 17 rows: even users like even items; times in random order."""
    rng = np.random.default_rng(2)
    pairs = [(user, item) for user in range(40) for item in rng.permutation(20)[: 8 + user % 10] * 2 + user % 2]
    user, item = np.array(pairs).T
    time = 1_600_000_000 + rng.permutation(len(pairs)) * 3_600
    return from_frame(pl.DataFrame({"user_id": user, "item_id": item, "timestamp": time}))


def keys(data: Dataset) -> set[tuple[int, int]]:
    user, item = data.users.external(data.interactions.user), data.items.external(data.interactions.item)
    return set(zip(user.to_list(), item.to_list(), strict=True))


def test_each_row_is_in_one_fold_and_each_user_in_all(rows):
    splits = k_folds(rows, 4, seed=3)
    tests = [keys(split.test) for split in splits]
    assert sum(map(len, tests)) == len(rows)
    assert set.union(*tests) == keys(rows)
    for split, test in zip(splits, tests, strict=True):
        assert keys(split.train) == keys(rows) - test
        assert len(split.test_users) == 40
        counts = np.bincount(split.test.interactions.user)
        assert counts.max() - np.floor(np.bincount(rows.interactions.user) / 4).max() <= 1
    assert tests != [keys(split.test) for split in k_folds(rows, 4, seed=4)]
    assert tests == [keys(split.test) for split in k_folds(rows, 4, seed=3)]


def test_windows_roll_and_never_see_the_future(rows):
    splits = rolling_windows(rows, 3, test_size=0.3)
    time = np.sort(rows.interactions.time)
    end = len(rows) - round(0.3 * len(rows))
    seen: set[tuple[int, int]] = set()
    for split in splits:
        assert split.train.interactions.time.max() < split.test.interactions.time.min()
        assert len(split.train) == end
        test = keys(split.test)
        assert not test & seen
        seen |= test
        end += len(split.test)  # nothing is cold here, so that the next window begins behind this one
    assert end == len(rows)
    assert max(split.test.interactions.time.max() for split in splits) == time[-1]


@pytest.mark.parametrize("parts", [1, 10_000, 2.5])
def test_impossible_numbers_are_refused(rows, parts):
    with pytest.raises(DataError, match="give 2 to"):
        k_folds(rows, parts)
    with pytest.raises(DataError, match="give 2 to"):
        rolling_windows(rows, parts)


def test_windows_need_times(rows):
    untimed = from_frame(pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2]}))
    with pytest.raises(DataError, match="time"):
        rolling_windows(untimed, 2)


@pytest.fixture(scope="module")
def folded(rows, tmp_path_factory):
    return compare_folds(k_folds(rows, 3), [EASE(regularization=5.0), Popularity()], options=OPTIONS)


def test_users_are_paired_by_fold_and_are_the_unit(folded):
    by_user: dict[str, dict[int, list[float]]] = {}
    for part in folded.parts:
        for outcome in part.outcomes:
            frame = outcome.users[0, "full"]
            for user, value in zip(frame["user_id"], frame["NDCG@5"], strict=True):
                by_user.setdefault(outcome.name, {}).setdefault(user, []).append(value)
    mean = {name: np.array([np.mean(one[user]) for user in sorted(one)]) for name, one in by_user.items()}
    test = paired(mean["ease"], mean["popularity"], resamples=500)
    document = folded.document
    ease = next(one for one in document["models"] if one["name"] == "ease")["full"]
    assert ease["value"] == pytest.approx(mean["ease"].mean())
    (row,) = document["winner"]["tests"]
    assert row["difference"] == pytest.approx(test.difference)
    assert (row["low"], row["high"], row["p"]) == pytest.approx((test.low, test.high, test.p))
    assert document["users"] == 40
    assert document["winner"]["name"] == "ease"
    json.dumps(document, allow_nan=False)


def test_the_table_has_a_column_per_fold(folded):
    table = folded.to_polars()
    assert table["model"].to_list() == ["ease", "popularity"]
    assert {"fold 1", "fold 2", "fold 3"} <= set(table.columns)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_an_entry_that_fails_on_a_split_is_left_out_and_said(rows):
    narrow = EASE(max_items=5)
    found = compare_folds(rolling_windows(rows, 2), [narrow, Popularity()], options=OPTIONS)
    assert found.names == ["popularity"]
    assert [one["fold"] for one in found.document["failed"]] == [1, 2]
    with pytest.raises(EvaluationError, match="nothing could be measured"):
        compare_folds(rolling_windows(rows, 2), [narrow], options=OPTIONS)
    with pytest.raises(EvaluationError, match="at least two"):
        compare_folds(rolling_windows(rows, 2)[:1], [Popularity()], options=OPTIONS)
