"""Onboarding: questions cover the tastes there are, few answers find the right one, and beat popularity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.base import TrainOptions
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.errors import DataError
from palate.evaluation.onboarding import evaluate_onboarding
from palate.models import EASE, IALS, Popularity
from palate.recommend import Recommender
from palate.recommend.onboarding import Interview, Tastes, onboarding_items

GROUPS, SIZE = 4, 12


def make_tastes(users: int = 240, seed: int = 0) -> Dataset:
    """Users know two thirds of the items of their own group (item // SIZE) and a twentieth of the others.

    The first item is known to nearly all users, so it does not tell them apart.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(users) % GROUPS
    known = rng.random((users, GROUPS * SIZE)) < np.where(
        group[:, None] == np.arange(GROUPS * SIZE) // SIZE, 0.67, 0.05
    )
    known[:, 0] = rng.random(users) < 0.98
    user, item = (rows.astype(np.int32) for rows in np.nonzero(known))
    rows = Interactions(user, item, np.ones(len(user), np.float32), np.arange(len(user), dtype=np.float64))
    return Dataset("tastes", IdMap.of(np.arange(users)), IdMap.of(np.arange(GROUPS * SIZE)), rows)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    data = make_tastes()
    return Recommender.of(EASE(regularization=20).fit(data), data)


def test_the_first_questions_cover_all_tastes_and_leave_out_items_that_all_users_know(recommender):
    items = onboarding_items(recommender, GROUPS)["item_id"].to_numpy()
    assert set(items // SIZE) == set(range(GROUPS))
    assert 0 not in items
    most_known = np.argsort(-recommender.popularity)[:GROUPS]
    assert 0 in most_known


def test_the_list_says_what_a_question_is_good_for(recommender):
    frame = onboarding_items(recommender, 3)
    assert frame.columns == ["item_id", "rank", "share", "why"]
    assert frame["rank"].to_list() == [1, 2, 3]
    for item, _, share, why in frame.iter_rows():
        assert share == pytest.approx(recommender.popularity[item] / 240)
        spoken_for, against = (int(part.split()[-1]) for part in why.split(" and against "))
        assert spoken_for // SIZE == item // SIZE != against // SIZE


def test_the_list_is_the_same_for_every_order_of_rows(recommender):
    data = make_tastes()
    rows = data.interactions
    mixed = data.with_rows(rows.take(np.random.default_rng(1).permutation(len(rows))))
    again = Recommender.of(recommender.model, mixed)
    assert onboarding_items(again, 20).equals(onboarding_items(recommender, 20))


def test_an_interview_asks_on_where_the_answers_point(recommender):
    tastes = Tastes.of(recommender)
    interview = Interview(tastes, GROUPS)
    asked = []
    for _ in range(8):
        place = interview.next()
        group = tastes.item[place] // SIZE
        interview.answer(place, group == np.arange(GROUPS))
        asked.append(group)
    asked = np.stack(asked, axis=1)
    # A user of a group is asked mostly about that group once one item of it was known.
    later = (asked[:, 5:] == np.arange(GROUPS)[:, None]).mean()
    assert later > 0.6
    assert later > (asked[:, :2] == np.arange(GROUPS)[:, None]).mean() + 0.2
    place = np.array([int(np.flatnonzero(tastes.item == item)[0]) for item in range(5, GROUPS * SIZE, SIZE)])
    chances = np.stack([interview.probability(np.full(GROUPS, one)) for one in place])
    assert (chances.argmax(0) == np.arange(GROUPS)).all()


def test_answers_bring_the_lists_of_the_right_taste(recommender):
    tastes = Tastes.of(recommender)
    for group in range(GROUPS):
        interview, known = Interview(tastes), []
        while len(known) < 3:
            place = interview.next()
            item = int(tastes.item[place[0]])
            interview.answer(place, np.array([item // SIZE == group]))
            known += [item] if item // SIZE == group else []
        listed = recommender.recommend(["new"], 5, histories={"new": known})
        assert set(listed["source"]) == {"fold-in"}
        assert (listed["item_id"].to_numpy() // SIZE == group).mean() >= 0.8


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_asking_never_repeats_a_question_and_never_adds_doubt(seed):
    rng = np.random.default_rng(seed)
    data = make_tastes(users=24, seed=seed)
    interview = Interview(Tastes.of(Recommender.of(Popularity().fit(data), data)), 3)
    asked, doubt = [], np.inf
    for _ in range(len(interview.tastes.item)):
        place = interview.next()
        interview.answer(place, rng.random(3) < 0.5)
        asked.append(place)
        left = np.trace(interview.spread_BDD, axis1=1, axis2=2)
        assert (left > -1e-9).all()
        assert (left <= doubt + 1e-9).all()
        doubt = left
    assert all(len(set(row)) == len(asked) for row in np.stack(asked, axis=1))
    assert (interview.next() == -1).all()


def test_a_batch_is_asked_as_one_by_one(recommender):
    tastes = Tastes.of(recommender)
    known = np.random.default_rng(3).random((5, len(tastes.item))) < 0.4
    together, alone = Interview(tastes, 5), [Interview(tastes) for _ in range(5)]
    for _ in range(6):
        place = together.next()
        assert place.tolist() == [int(one.next()[0]) for one in alone]
        answer = known[np.arange(5), place]
        together.answer(place, answer)
        for one, at, yes in zip(alone, place, answer, strict=True):
            one.answer(np.array([at]), np.array([yes]))


@pytest.mark.parametrize("known", [np.ones((3, 4)), np.eye(1), np.ones((1, 5)), np.eye(3)[:, [0, 0, 0]]])
def test_small_and_uniform_histories_still_give_a_list(known):
    user, item = (rows.astype(np.int32) for rows in np.nonzero(known))
    ids = IdMap.of(np.arange(10))
    data = Dataset("small", ids, ids, Interactions(user, item, np.ones(len(user), np.float32)))
    frame = onboarding_items(Recommender.of(Popularity().fit(data), data), 10)
    assert sorted(frame["item_id"]) == sorted(set(item))
    assert np.isfinite(frame["share"].to_numpy()).all()


def test_mistakes_are_named(recommender):
    with pytest.raises(DataError, match="n=0: ask about at least 1 item"):
        onboarding_items(recommender, 0)
    empty = replace(recommender, seen=recommender.seen.select(np.full(3, -1)))
    with pytest.raises(DataError, match="has no training history"):
        onboarding_items(empty)
    data = make_tastes(users=40)
    for wrong, words in (
        ({"answers": 0}, "answers=0"),
        ({"questions": 3}, "questions=3"),
        ({"strategies": ("telepathy",)}, "telepathy"),
        ({"test_size": 1.0}, "test_size=1"),
        ({"answers": 30}, "has more than 30 items"),
    ):
        with pytest.raises(DataError, match=words):
            evaluate_onboarding(Popularity(), data, **wrong)


def test_a_like_weighs_what_likes_weigh_in_training(recommender, ml_100k):
    assert recommender.like_weight == 1.0
    assert Recommender.of(Popularity().fit(ml_100k), ml_100k).like_weight == 4.0


def test_popularity_with_the_answers_is_still_popularity():
    report = evaluate_onboarding(Popularity(), make_tastes(), strategies=("interview", "random"), test_size=0.3)
    for one in report.results:
        assert one.difference == 0.0
        assert one.ndcg == one.popularity > 0


def test_interviews_in_chunks_are_the_same():
    options = {"strategies": ("interview",), "test_size": 0.5}
    whole, chunks = (
        evaluate_onboarding(Popularity(), make_tastes(users=80), users_at_once=users, **options) for users in (1_024, 7)
    )
    assert chunks.results == whole.results


def test_users_with_too_few_rows_are_counted():
    data = make_tastes()
    rows = data.interactions
    short = rows.take((rows.user % 3 > 0) | (np.arange(len(rows)) - np.searchsorted(rows.user, rows.user) < 3))
    report = evaluate_onboarding(Popularity(), data.with_rows(short), strategies=("list",), test_size=0.5)
    assert report.of("list").users + sum(note.rows for note in report.notes) == 120
    assert report.notes[0].rows > 20
    with pytest.raises(DataError, match="'random' was not measured"):
        report.of("random")


def test_few_answers_win_on_data_with_clear_tastes():
    report = evaluate_onboarding(EASE(regularization=20), make_tastes(), test_size=0.3, answers=3, hidden_size=0.3)
    interview, listed, popular = (report.of(strategy) for strategy in ("interview", "list", "popular"))
    assert interview.low > 0.1
    assert listed.ndcg > popular.ndcg
    assert interview.questions < popular.questions
    # Hidden rows are the same whichever way the answers came.
    assert len({one.popularity for one in report.results}) == 1


def test_five_answers_beat_popularity_on_movielens(ml_100k):
    report = evaluate_onboarding(
        IALS.fast(), ml_100k, test_size=0.2, strategies=("interview", "list"), options=TrainOptions(seed=0)
    )
    for one in report.results:
        assert one.low > 0.02, one
        assert one.p < 0.01
    interview, listed = report.results
    assert interview.answers > 4
    assert interview.questions < listed.questions < 30
    assert report.to_frame()["strategy"].to_list() == ["interview", "list"]
    assert "188 users not in training" in report.how


def test_not_knowing_an_item_counts_a_fifth_of_knowing_it():
    """One item and one direction of taste: the update is that of a normal, its noise five times as large."""
    tastes = Tastes(np.array([0]), np.array([0.5]), np.array([[0.3]]), np.array([0.16]))
    for known, noise in ((1, 0.16), (0, 0.16 / 0.2)):
        interview = Interview(tastes)
        interview.answer(np.array([0]), np.array([known]))
        precision = 1 + 0.3**2 / noise
        assert interview.spread_BDD[0, 0, 0] == pytest.approx(1 / precision)
        assert interview.mean_BD[0, 0] == pytest.approx(0.3 * (known - 0.5) / noise / precision)


def test_eight_tastes_are_told_apart_and_no_more():
    data = make_tastes(users=600)
    tastes = Tastes.of(Recommender.of(EASE(regularization=20).fit(data), data))
    assert tastes.loading.shape[1] == 8
    explained = np.square(tastes.loading).sum(0)
    # Four groups are three directions beside the mean; the others are noise.
    assert np.sort(explained)[::-1][2] > 2 * np.sort(explained)[::-1][3]
