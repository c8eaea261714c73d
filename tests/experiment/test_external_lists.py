"""Finished lists of another system: what is read, what is left out, and what it counts."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.errors import DataError
from palate.evaluation.evaluate import evaluate, evaluate_lists
from palate.experiment.external_lists import lists_of, read_lists
from palate.models import make_recipe
from palate.recommend import Recommender


def frame(*rows):
    return pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row")


def test_lists_of_our_own_model_give_its_own_numbers(ml_100k_loo, tmp_path):
    split = ml_100k_loo
    model = make_recipe("item-knn").fit(split.train)
    recommender = Recommender.of(model, split.train)
    lists = recommender.recommend(split.train.users.external(split.test_users), 20)
    lists.sample(fraction=1.0, shuffle=True, seed=0).write_csv(tmp_path / "lists.csv")  # the order is in the ranks
    given, notes = read_lists(tmp_path / "lists.csv", split, 20)
    assert notes == []
    theirs = evaluate_lists(given, split, k=[5, 20], resamples=0)
    ours = evaluate(model, split, k=[5, 20], resamples=0)
    # A user without personal scores gets popular items from the recommender: all others must agree.
    known = model_can_personalize(model, split, ours.user_rows)
    assert known.mean() > 0.99
    for key in ("NDCG@5", "Recall@20", "MRR@20"):
        assert theirs.per_user[key][known] == pytest.approx(ours.per_user[key][known])


def model_can_personalize(model, split, users):
    from palate.base import Query

    return model.can_personalize(Query.of(users, split.train.history.select(users))).numpy()


def test_what_does_not_belong_is_left_out_and_counted(checkerboard):
    split = checkerboard  # users and items 0 to 39; user 0 had the even items but 0
    table = frame((0, 2, 1), (0, 77, 2), (0, 0, 3), (0, 0, 4), (1, 4, 2), (1, 6, 1), (99, 1, 1))
    given, notes = read_lists(table, split, 4)
    assert given.users.tolist() == [0, 1]
    assert given.items.tolist() == [[-1, 0], [6, 4]]  # the unknown item keeps its place
    assert notes == [
        "1 users in the file are not test users and were left out",
        "1 places hold an item that the user has in training and were taken out, as for every model",
        "1 places repeat an item of the same list and were taken out",
        "1 places hold an item the split does not know: each counts as a miss",
    ]
    report = evaluate_lists(given, split, k=4, resamples=0)
    assert report.exclude_seen
    assert report.per_user["MRR@4"][0] == 0.5
    assert report.value("HitRate", 4) == 1 / 40


def test_without_ranks_the_order_of_the_rows_counts_and_lists_are_cut(checkerboard):
    table = frame((3, 8, 1), (3, 2, 1), (3, 6, 1)).select("user_id", "item_id")
    given, _ = read_lists(table, checkerboard, 2)
    assert given.items.tolist() == [[8, 2]]
    assert lists_of(np.array([2, 3, 39], np.int32), given, 1).tolist() == [[-1], [8], [-1]]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (frame((99, 1, 1)), "none of its 1 users is one of the 40 test users"),
        (pl.DataFrame({"who": [1], "item_id": [2]}), "no column looks like the user"),
        (pl.DataFrame({"user_id": [1], "item_id": [2], "rank": ["a"]}), "'rank' holds more than numbers"),
    ],
)
def test_what_cannot_be_read_is_told(table, said, checkerboard):
    with pytest.raises(DataError, match=said):
        read_lists(table, checkerboard, 5)
