"""Finished lists of another system: the same numbers as the model that made them, and nothing dropped silently."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from palate.base import Query
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random
from palate.errors import EvaluationError
from palate.evaluation.evaluate import evaluate, evaluate_lists
from palate.evaluation.rankings import Lists
from palate.models.popularity import Popularity
from palate.top_k import top_k


def lists_of(model: Popularity, split: Split, k: int) -> Lists:
    """The lists of popularity without ties, seen items removed."""
    users = split.test_users
    scores = model.score(Query.of(users)).clone() + torch.linspace(0.5, 0, split.train.n_items)
    for row, user in enumerate(users):
        scores[row, split.train.history.of(user).astype(np.int64)] = -torch.inf
    return Lists(users, top_k(scores, k)[1].numpy())


def hand(train: list[tuple[int, int]], test: list[tuple[int, int]], users: int, items: int) -> Split:
    def rows(pairs: list[tuple[int, int]]) -> Interactions:
        user, item = np.array(pairs, dtype=np.int32).T
        return Interactions(user, item, np.ones(len(pairs), np.float32))

    data = Dataset("hand", IdMap.of(np.arange(users)), IdMap.of(np.arange(items)), rows(train))
    return Split(data, data.with_rows(rows(test)), "by hand")


def test_the_lists_of_a_model_give_the_model_s_own_report(ml_100k: Dataset) -> None:
    split = at_random(ml_100k, test_size=0.2, seed=0)
    model = Popularity().fit(split.train)

    class Untied(torch.nn.Module):
        trained_on = None

        def score(self, query: Query, items: torch.Tensor | None = None) -> torch.Tensor:
            return model.score(query) + torch.linspace(0.5, 0, split.train.n_items)

    expected = evaluate(Untied(), split, k=(1, 5, 10, 20), name="popularity", resamples=50)
    lists = lists_of(model, split, 20)
    shuffled = np.random.default_rng(0).permutation(len(lists.users))
    given = Lists(lists.users[shuffled], lists.items[shuffled])
    report = evaluate_lists(given, split, k=(1, 5, 10, 20), name="popularity", resamples=50)
    ours, theirs = report.to_dict(), expected.to_dict()
    assert {key: value for key, value in ours.items() if key not in ("seconds", "candidates", "notes")} == {
        key: value for key, value in theirs.items() if key not in ("seconds", "candidates", "notes")
    }
    assert ours["candidates"] == f"given lists of up to 20 of {split.train.n_items:,} items, seen items not in them"
    json.dumps(ours, allow_nan=False)


def test_what_lists_lack_or_hold_too_much_is_counted() -> None:
    split = hand([(0, 0), (1, 1), (2, 2)], [(0, 1), (1, 2), (2, 3), (3, 4)], users=5, items=6)
    # User 0: hit at 2, item 0 seen. User 1: item 3 repeated, hit at 3. User 2: no list. User 3: empty places, hit at 3.
    lists = Lists(np.array([3, 1, 0, 4]), np.array([[-1, -1, 4], [3, 3, 2], [0, 1, 5], [1, 2, 3]]))
    report = evaluate_lists(lists, split, k=(3, 5), name="other", resamples=0)
    assert report.per_user["MRR@3"].tolist() == pytest.approx([1 / 2, 1 / 3, 0, 1 / 3])
    assert report.value("Recall", 5) == pytest.approx(3 / 4)
    assert report.value("Coverage", 3) == pytest.approx(6 / 6)
    assert np.isnan(report.per_user["Novelty@3"][2])
    assert not report.exclude_seen
    notes = "\n".join(report.notes)
    for said in ("1 of 4 test users have no list and count as 0", "1 places hold an item that the user has in training",
                 "1 places repeat an item", "1 lists are of users who are not tested", "lists end at 3",
                 "Novelty@5 is undefined for 1 of 4 users"):  # fmt: skip
        assert said in notes


def test_lists_that_cannot_be_of_this_split_are_refused() -> None:
    split = hand([(0, 0)], [(0, 1)], users=2, items=3)

    def refused(users: list[int], items: NDArray[np.int64], words: str) -> None:
        with pytest.raises(EvaluationError, match=words):
            evaluate_lists(Lists(np.array(users), items), split)

    refused([0, 0], np.array([[1], [2]]), "2 lists of 1 users: give one list per user")
    refused([0], np.array([[3]]), "items 3 to 3 of 3: give row numbers")
    refused([2], np.array([[1]]), "users 2 to 2 of 2: give row numbers")
    refused([0], np.array([1, 2]), "give \\(L, K\\) for \\(L,\\)")
