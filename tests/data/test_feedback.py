"""Feedback: the rule for positive rows is found from the values, given, kept and saved."""

import numpy as np
import polars as pl
import pytest

import palate
from palate.data.feedback import Feedback, as_min_rating, threshold
from palate.data.preprocessing import binarize, keep_rated, min_interactions
from palate.data.splits.split import Split
from palate.errors import DataError

STEPS = np.arange


@pytest.mark.parametrize(
    ("ratings", "expected"),
    [
        ([1, 2, 3, 4, 5], 4),
        (STEPS(1, 11), 8),
        (STEPS(0.5, 4.1, 0.5), 3.5),
        (STEPS(0.5, 5.1, 0.5), 4),
        (STEPS(0, 5.05, 0.1), 3.8),
        (STEPS(0, 101), 75),
        (np.linspace(-10, 10, 5_000), 5),
        ([0, 1], 1),
        ([-1, 1], 1),
        ([-1, 0, 1], 1),
        ([1, 2, 3], 3),
        (STEPS(1, 8), 6),
        ([1, 5], 4),  # thumbs written as 1 and 5
        ([1, 2, 5], 4),  # a rating of 4 that is not in the data is positive too
        ([3, 4, 5], 4),  # the low end is missing
        ([4, 5], 4),
        ([5, 5], 4),
        ([3, 3], None),  # one value tells of no scale
        ([-1, *range(1, 11)], 8),  # a code below the scale
        ([0, *STEPS(0.5, 5.1, 0.5)], 4),
        ([1, 2, 3, 4, 5] * 20 + [55], 4),  # a mistyped 55 is no end of the scale
        ([1, 2, 3, 4, 5] * 20 + [-999] * 5, 4),
        ([1, 2, 3, 4, 5] * 20 + [99] * 90, 75),  # too many to be left out
    ],
)
def test_threshold_of_a_scale(ratings, expected):
    assert threshold(np.asarray(ratings, np.float32)) == expected


def test_rules():
    weights = np.array([-1, 0, 0.5, 3, 4, 5], np.float32)
    assert Feedback("rating", 4).positive(weights).tolist() == [False] * 4 + [True] * 2
    every = Feedback.of("rating", weights, "any")
    assert every.lowest == -1, "the scale goes below 0"
    assert every.positive(weights).all(), "any rating"
    assert Feedback("rating").disliked(weights).tolist() == [True] + [False] * 5, "below a scale from 0 or above"
    assert not every.disliked(weights).any()
    for kind in ("quantity", "event", "label", "none"):
        assert Feedback(kind).positive(weights).tolist() == [False] * 2 + [True] * 4
    assert Feedback("quantity", 3).positive(weights).sum() == 3
    assert Feedback.of("rating", weights, "any").min_rating is None
    assert Feedback.of("quantity", weights, "auto", "plays") == Feedback("quantity", None, "plays")
    assert Feedback(**Feedback("rating", 4.0, "stars").record()) == Feedback("rating", 4.0, "stars")
    assert [Feedback(*rule).rule for rule in (("rating", 3.5), ("rating",), ("event",))] == [
        "rating at least 3.5",
        "any rating",
        "weight above 0",
    ]


def test_a_positive_rating_below_zero_is_no_dislike():
    ratings = pl.DataFrame({"user": [1, 1, 1, 2, 2], "item": [1, 2, 3, 1, 4], "rating": [-3.0, 4.0, 2.0, -5.0, 5.0]})
    data = palate.from_frame(ratings, min_rating="any")
    assert data.positives(dislikes=True).interactions.weight.tolist() == [1, 4, 2, 1, 5]
    assert data.history.positives(dislikes=True).weights.tolist() == [1, 4, 2, 1, 5]
    assert data.interactions.weight.tolist() == [-3, 4, 2, -5, 5], "recipes of ratings read them as they are"
    some = palate.from_frame(ratings, min_rating=-3)
    assert some.positives(dislikes=True).interactions.weight.tolist() == [1, 4, 2, 5]


def test_a_rating_far_from_the_others_is_pointed_out():
    stars = [1, 2, 3, 4, 5] * 20 + [55]
    frame = pl.DataFrame({"user": range(101), "item": [n % 7 for n in range(101)], "rating": stars})
    data = palate.from_frame(frame)
    assert data.feedback.min_rating == 4
    text = "rating 55 is far from the others (1 to 5), which give the scale; sentinels=(55,) (--sentinel 55) drops it"
    assert [note.rows for note in data.notes if note.text.startswith(text)] == [1]
    assert palate.from_frame(frame, sentinels=(55,)).notes[0].rows == 1
    tens = frame.with_columns(rating=pl.Series([n and 1 + n % 10 for n in range(101)]))
    assert palate.from_frame(tens).notes == (), "0 is on a scale from 0 to 10"


def test_min_rating_as_text_and_its_errors():
    assert [as_min_rating(value) for value in ("auto", "any", "3.5", 4)] == ["auto", "any", 3.5, 4.0]
    for wrong in ("high", "nan", float("inf"), None, True):
        with pytest.raises(DataError, match="must be auto, any or a number"):
            as_min_rating(wrong)
    with pytest.raises(DataError, match=r"min_rating=6 leaves no positive row \(highest value 5, 2 rows\): lower"):
        Feedback.of("rating", np.array([1, 5], np.float32), 6)


@pytest.fixture
def rated():
    return palate.from_frame(
        pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3], "stars": [5, 1, 4, 2, 3, 5]})
    )


def test_dataset_keeps_the_rule(rated):
    assert rated.feedback == Feedback("rating", 4.0, "stars")
    assert rated.explicit
    assert rated.positive.tolist() == [True, False, True, False, False, True]
    positives = rated.positives()
    assert (len(positives), positives.n_users, positives.n_items) == (3, 3, 3), "the maps stay whole"
    assert positives.positives() is positives
    assert "positive: rating at least 4 (3 of 6 rows)" in repr(rated)
    for kept in (min_interactions(rated, user=1), rated.compact(), rated.with_rows(rated.interactions)):
        assert kept.feedback == rated.feedback
    assert rated.with_min_rating("any").positive.all()
    assert rated.with_min_rating(3).positive.sum() == 4
    assert keep_rated(rated, 3).positive.all(), "the rows that were kept are positive"
    assert binarize(rated, 3).positive.all()
    assert not binarize(rated).explicit


def test_weights_of_zero_and_below_are_not_positive():
    log = pl.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 1, 2], "clicks": [0, 3, -1, 1]})
    data = palate.from_frame(log)
    assert data.feedback == Feedback("quantity", None, "clicks")
    assert data.positive.tolist() == [False, True, False, True]
    assert palate.from_frame(log, min_rating=2).positive.sum() == 1
    assert palate.from_frame(log.drop("clicks")).feedback.kind == "none"


def test_a_split_keeps_the_rule_when_saved(rated, tmp_path):
    split = palate.leave_one_out(rated)
    assert split.test.feedback == split.train.feedback == rated.feedback
    split.save(tmp_path / "split")
    again = Split.load(tmp_path / "split")
    assert again.train.feedback == again.test.feedback == rated.feedback
    other = again.with_min_rating(2)
    assert other.test.feedback == other.train.feedback == Feedback("rating", 2.0, "stars")
    assert other.fingerprint == split.fingerprint
