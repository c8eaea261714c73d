import os
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.frame import from_frame, to_frame
from palate.data.preprocessing import binarize, drop_ratings, keep_rated, min_interactions, sample_users
from palate.errors import DataError


@pytest.fixture
def small():
    return from_frame(
        pl.DataFrame(
            {"user": ["c", "a", "a", "b", "c", "c"], "item": [1, 1, 2, 3, 2, 4], "rating": [5, 4, 3, -1, 2, 5]}
        ),
        item_features=pl.DataFrame({"item": [4, 3, 2, 1], "title": ["four", "three", "two", "one"]}),
    )


def pairs(dataset):
    return to_frame(dataset)["user_id", "item_id"].rows()


def test_binarise_drops_what_is_rated_low_and_counts_it(small):
    every = binarize(small)
    assert not every.explicit
    assert every.interactions.weight.tolist() == [1] * 6
    assert len(every.notes) == len(small.notes)
    good = binarize(small, min_rating=4)
    assert pairs(good) == [("c", 1), ("a", 1), ("c", 4)]
    assert good.notes[-1].rows == 3
    assert good.titles.to_list() == ["one", "four"], "maps, features and titles shrink together"
    assert small.explicit, "the given one stays as it was"


def test_keep_rated_and_drop_ratings(small):
    assert keep_rated(small, 3).interactions.weight.tolist() == [5, 4, 3, 5]
    assert keep_rated(small, 3).explicit
    dropped = drop_ratings(small, [-1])
    assert dropped.users.ids.to_list() == ["a", "c"]
    assert (dropped.notes[-1].text, dropped.notes[-1].rows) == ("dropped: rated -1", 1)
    assert drop_ratings(small, [9]) is small


def test_an_empty_result_is_an_error(small):
    with pytest.raises(DataError, match=r"min_rating=6 left no interactions \(6 rows, highest rating 5\): lower"):
        binarize(small, min_rating=6)
    with pytest.raises(DataError, match=r"user=5, item=0\) left no inter.*\(6 rows, largest user has 3, .*: lower"):
        min_interactions(small, user=5)
    with pytest.raises(DataError, match=r"drop_ratings\(-1, 2, 3, 4, 5\) left no interactions"):
        drop_ratings(small, [-1, 2, 3, 4, 5])
    with pytest.raises(DataError, match=r"fraction=0.2 left no interactions \(of 3 users\): raise fraction"):
        sample_users(small, 0.2, seed=1)
    with pytest.raises(DataError, match=r"fraction=1.5: must be"):
        sample_users(small, 1.5, seed=1)


def test_once_counts_in_the_rows_as_given(small):
    once = min_interactions(small, user=2, item=2)
    assert pairs(once) == [("c", 1), ("a", 1), ("a", 2), ("c", 2)]
    assert once.notes[-1].rows == 2


def naive_core(rows, user, item):
    """One row at a time, until no row can go."""
    rows = list(rows)
    while True:
        for row in rows:
            if sum(r[0] == row[0] for r in rows) < user or sum(r[1] == row[1] for r in rows) < item:
                rows.remove(row)
                break
        else:
            return rows


@settings(deadline=None, max_examples=80)
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=2, max_size=30, unique=True),
    user=st.integers(0, 4),
    item=st.integers(0, 4),
)
def test_k_core_equals_the_naive_one(rows, user, item):
    rows = [(7, 6), (8, 7), *rows]
    dataset = from_frame(pl.DataFrame(rows, schema=["user", "item"], orient="row"))
    expected = naive_core(rows, user, item)
    if not expected:
        with pytest.raises(DataError, match="repeat=True"):
            min_interactions(dataset, user=user, item=item, repeat=True)
        return
    core = min_interactions(dataset, user=user, item=item, repeat=True)
    assert pairs(core) == expected
    assert sum(note.rows for note in core.notes) == len(rows) - len(expected)
    assert set(core.users.ids) == {u for u, _ in expected}
    assert set(core.items.ids) == {i for _, i in expected}


def test_sampled_users_are_those_of_the_legacy_generator():
    folder = os.environ.get("PALATE_DATA")
    if not folder or not (Path(folder) / "ml-latest-small.zip").exists():
        pytest.skip("PALATE_DATA has no ml-latest-small.zip")
    with zipfile.ZipFile(Path(folder) / "ml-latest-small.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith("ratings.csv"))
        ratings = pl.read_csv(archive.read(name))
    ratings = ratings.sample(fraction=1.0, shuffle=True, seed=3)  # so that first appearance is not sorted order
    dataset = from_frame(ratings)
    sample = sample_users(dataset, 0.3, seed=123)
    distinct = ratings["userId"].unique(maintain_order=True).to_numpy()
    published = np.random.RandomState(123).choice(distinct, size=int(len(distinct) * 0.3), replace=False)
    assert sample.users.ids.to_list() == sorted(published.tolist())
    assert len(sample) == ratings.filter(pl.col("userId").is_in(published.tolist())).height
    assert sample.notes[-1].rows == len(dataset) - len(sample)
