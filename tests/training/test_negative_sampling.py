"""Negatives: never a seen item, uniform over the unseen, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.strategies import by_time, leave_one_out
from palate.errors import DataError, RecipeError
from palate.training.negative_sampling import NegativeSampler, draw_candidates, epoch_rng

FAST = settings(deadline=None, max_examples=60)
WAYS = {"table": 1 << 28, "search": 0}
SURE = 1e-6


def rows(seen: list[set[int]]) -> Interactions:
    """Interactions in which user u touched each of ``seen[u]`` twice, in a jumbled order."""
    pairs = [(user, item) for user, items in enumerate(seen) for item in items] * 2
    np.random.default_rng(0).shuffle(pairs)
    user, item = (
        (np.array(column, np.int32) for column in zip(*pairs, strict=True)) if pairs else 2 * [np.zeros(0, int)]
    )
    return Interactions(user.astype(np.int32), item.astype(np.int32), np.ones(len(user), np.float32))


def unseen_of(seen: list[set[int]], n_items: int, way: str) -> NegativeSampler:
    return NegativeSampler(rows(seen).history(len(seen)), n_items, table_bytes=WAYS[way])


@st.composite
def catalogs(draw):
    """(seen items per user, size of the catalog): nobody has seen everything, some nearly."""
    n_items = draw(st.integers(1, 30))
    users = st.sets(st.integers(0, n_items - 1), max_size=n_items - 1)
    return draw(st.lists(users, min_size=1, max_size=8)), n_items


@pytest.mark.parametrize("way", WAYS)
@FAST
@given(case=catalogs(), n=st.integers(0, 7), seed=st.integers(0, 99))
def test_no_draw_is_ever_a_seen_item(way, case, n, seed):
    seen, n_items = case
    unseen = unseen_of(seen, n_items, way)
    users = np.random.default_rng(seed).integers(0, len(seen), 50)
    drawn = unseen.draw(users, n, epoch_rng(seed, 0))
    assert drawn.shape == (50, n)
    assert drawn.dtype == np.int32
    assert ((drawn >= 0) & (drawn < n_items)).all()
    for user, items in zip(users, drawn, strict=True):
        assert not seen[user] & set(items.tolist())
    assert np.array_equal(drawn, unseen.draw(users, n, epoch_rng(seed, 0)))
    assert unseen.counts(users).tolist() == [n_items - len(seen[user]) for user in users]


@pytest.mark.parametrize("way", WAYS)
@FAST
@given(case=catalogs(), seed=st.integers(0, 99))
def test_distinct_draws_are_distinct_unseen_and_can_exhaust_the_rest(way, case, seed):
    seen, n_items = case
    unseen = unseen_of(seen, n_items, way)
    users = np.arange(len(seen))
    n = int(unseen.counts(users).min())
    drawn = unseen.draw_distinct(users, n, epoch_rng(seed, 0))
    for user, items in zip(users, drawn.tolist(), strict=True):
        assert len(set(items)) == n
        assert not seen[user] & set(items)
    with pytest.raises(DataError, match=r"ask for fewer or draw with replacement|have seen all"):
        unseen.draw_distinct(users, n + 1, epoch_rng(seed, 0))


SEEN = {
    "nothing": set(),
    "every other": set(range(0, 40, 2)),
    "the first half": set(range(20)),
    "all but three": set(range(40)) - {0, 17, 39},
    "all but one": set(range(40)) - {23},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("distinct", [False, True])
def test_draws_are_uniform_over_the_unseen(way, distinct):
    unseen = unseen_of(list(SEEN.values()), 40, way)
    users = np.tile(np.arange(len(SEEN), dtype=np.int32), 20_000)
    drawn = unseen.draw_distinct(users, 1, epoch_rng(3, 1)) if distinct else unseen.draw(users, 4, epoch_rng(3, 1))
    for user, (name, seen) in enumerate(SEEN.items()):
        counts = np.bincount(drawn[users == user].ravel(), minlength=40)
        assert not counts[list(seen)].any()
        free = np.delete(counts, list(seen))
        assert len(free) == 1 or chisquare(free).pvalue > SURE, name


@pytest.mark.parametrize("way", WAYS)
def test_draws_of_one_row_and_of_neighboring_rows_are_independent(way):
    unseen = unseen_of([{0, 1}, {2}], 5, way)
    drawn = unseen.draw(np.tile([0, 1], 40_000), 2, epoch_rng(0, 0))
    same_row = np.histogram2d(drawn[::2, 0], drawn[::2, 1], bins=5, range=[[0, 5], [0, 5]])[0][2:, 2:]
    assert chisquare(same_row.ravel()).pvalue > SURE
    next_row = np.histogram2d(drawn[::2, 0], drawn[1::2, 0], bins=5, range=[[0, 5], [0, 5]])[0][2:, [0, 1, 3, 4]]
    assert chisquare(next_row.ravel()).pvalue > SURE


def test_every_subset_and_every_order_of_distinct_draws_is_equally_likely():
    unseen = unseen_of([{1, 4}], 7, "search")
    drawn = unseen.draw_distinct(np.zeros(60_000, np.int64), 3, epoch_rng(1, 0))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 5 * 4 * 3
    assert chisquare(counts).pvalue > SURE


@pytest.mark.parametrize("way", WAYS)
def test_who_has_seen_everything_is_named(way):
    unseen = unseen_of([{0}, {0, 1, 2}, {1}, {0, 1, 2}], 3, way)
    with pytest.raises(
        DataError, match=r"2 users have seen all 3 items \(user row 1 has 0 left\): leave these users out"
    ):
        unseen.draw(np.array([0, 1, 3, 3]), 4, epoch_rng(0, 0))
    assert unseen.draw(np.array([2, 0]), 4, epoch_rng(0, 0)).shape == (2, 4)
    with pytest.raises(DataError, match=r"3 users have fewer than 3 unseen items of 3 \(user row 0 has 2 left\)"):
        unseen.draw_distinct(np.array([0, 1, 2]), 3, epoch_rng(0, 0))
    for users in ([-1, 0], [0, 4]):
        with pytest.raises(DataError, match=r"user rows .* in a history of 4 users"):
            unseen.draw(np.array(users), 1, epoch_rng(0, 0))
    with pytest.raises(DataError, match="history holds item row 2, n_items=2"):
        unseen_of([{2}], 2, way)


@pytest.mark.parametrize("way", WAYS)
def test_small_and_empty_cases(way):
    nothing = unseen_of([set(), set()], 3, way)
    assert nothing.draw(np.array([1, 0, 1]), 2, epoch_rng(0, 0)).shape == (3, 2)
    assert nothing.draw(np.zeros(0, np.int32), 2, epoch_rng(0, 0)).shape == (0, 2)
    alone = unseen_of([set()], 1, way)
    assert alone.draw(np.array([0]), 3, epoch_rng(0, 0)).tolist() == [[0, 0, 0]]


def test_chunks_leave_no_seam():
    """More draws than one chunk holds: still exact for each row's own user."""
    rng = np.random.default_rng(0)
    seen = [set(rng.choice(50, size, replace=False).tolist()) for size in rng.integers(0, 50, 300)]
    users = rng.permutation(np.repeat(np.arange(300), 1_000))
    unseen = unseen_of(seen, 50, "table")
    free = np.ones((300, 50), bool)
    for user, items in enumerate(seen):
        free[user, list(items)] = False
    assert np.take_along_axis(free[users], unseen.draw(users, 3, epoch_rng(0, 0)).astype(int), axis=1).all()


def test_generators_differ_by_seed_epoch_and_stream_and_repeat():
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2**32, 0, 0), (0, 2**32, 0), (1, 1, 0), (1, 0, 1)]
    first = [tuple(epoch_rng(*key).integers(0, 2**62, 4)) for key in keys]
    assert len(set(first)) == len(keys)
    assert first == [tuple(epoch_rng(*key).integers(0, 2**62, 4)) for key in keys]
    with pytest.raises(RecipeError, match="seed=-1, epoch=0, stream=0: none may be below zero"):
        epoch_rng(-1, 0)


def log(n_users=40, n_items=60, n=800) -> Dataset:
    rng = np.random.default_rng(5)
    user, item = rng.integers(0, n_users, n, np.int32), rng.integers(0, n_items, n, np.int32)
    table = Interactions(user, item, np.ones(n, np.float32), np.arange(n, dtype=np.float64))
    return Dataset("toy", IdMap.of(range(n_users)), IdMap.of(range(n_items)), table)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(
    "split", [leave_one_out(log()), by_time(log(), test_size=0.1)], ids=["leave_one_out", "by_time"]
)
def test_candidates_are_unseen_in_train_and_test_and_repeat_by_seed(split, replace):
    candidates = draw_candidates(split, 20, seed=4, replace=replace)
    split = split.with_candidates(candidates)
    assert candidates.negatives.shape == (len(np.unique(split.test.interactions.user)), 20)
    touched = split.train.history.of, split.test.history.of
    for user, items in zip(candidates.users, candidates.negatives.tolist(), strict=True):
        assert not set(items) & {item for of in touched for item in of(user).tolist()}
        assert replace or len(set(items)) == 20
    marks = [
        draw_candidates(split, 20, seed=seed, replace=replace).fingerprint(split.train.users, split.train.items)
        for seed in (4, 4, 5)
    ]
    assert marks[0] == marks[1] != marks[2]
    assert candidates.how == (
        f"20 uniform negatives {'with' if replace else 'without'} replacement, unseen in train and test, seed 4"
    )


def test_too_many_candidates_are_an_error_that_says_what_to_do():
    split = leave_one_out(log())
    with pytest.raises(
        DataError, match=r"users have fewer than 59 unseen items of 60 .*: ask for fewer or draw with repl"
    ):
        draw_candidates(split, 59)
    assert draw_candidates(split, 59, replace=True).negatives.shape[1] == 59
    with pytest.raises(DataError, match="n=0: list at least 1"):
        draw_candidates(split, 0)
