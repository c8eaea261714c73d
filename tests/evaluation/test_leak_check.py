"""Rows that a model was trained on are known by their pairs of user and item, with other times or none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.bundle import Bundle
from palate.data.dataset import SKETCH_ROWS, Dataset, Fingerprint, Interactions, fingerprint
from palate.data.frame import from_frame
from palate.data.ids import IdMap
from palate.data.splits.strategies import leave_one_out
from palate.errors import LeakError
from palate.evaluation.evaluate import evaluate
from palate.models.popularity import Popularity
from palate.recommend.recommender import Recommender

START, DAY = 1_600_000_000, 86_400
LOG = pl.DataFrame(
    [(f"u{u}", f"i{(u * 3 + n * 7) % 20}", START + (u * 977 + n * 7919) * 60) for u in range(40) for n in range(8)],
    schema=["user", "item", "time"], orient="row",
)  # fmt: skip
CHANGED = {
    "no times": LOG.drop("time"),
    "days": LOG.with_columns(pl.col("time") // DAY * DAY),
    "another zone": LOG.with_columns(pl.col("time") - 7200),
    "dates": LOG.with_columns(pl.from_epoch("time").dt.date()),
}


@pytest.mark.parametrize("change", CHANGED)
def test_trained_rows_with_other_times_are_refused(change, tmp_path):
    data = from_frame(LOG, duplicates="keep")
    recipe = Popularity()
    recommender = Recommender.of(recipe.fit(data), data)
    Bundle.of(recipe, recommender.model, data, []).save(tmp_path / "b")
    again = from_frame(CHANGED[change], duplicates="keep")
    for known in (recommender, Bundle.load(tmp_path / "b").recommender):
        with pytest.raises(LeakError, match=r"320 of 320 checked pairs .*not later.*--allow-trained-rows"):
            evaluate(known.model, known.against(again), resamples=0)
        split = leave_one_out(again, cold="keep")  # trained on all rows, while the split holds some out
        with pytest.raises(LeakError):
            evaluate(known.model, split, resamples=0)
    assert evaluate(known.model, known.against(again), resamples=0, allow_trained_rows=True).notes


def test_users_who_come_back_later_are_no_leak():
    data = from_frame(LOG, duplicates="keep")
    recommender = Recommender.of(Popularity().fit(data), data)
    later = from_frame(LOG.with_columns(pl.col("time") + 100 * DAY), duplicates="keep")
    split = recommender.against(later)
    assert [str(note) for note in split.notes] == [
        "test rows that repeat a trained pair of user and item later on: 320 rows"
    ]
    assert evaluate(recommender.model, split, exclude_seen=False, resamples=0).users == 40


def test_some_trained_pairs_are_noted_in_the_report():
    data = from_frame(LOG, duplicates="keep")
    recommender = Recommender.of(Popularity().fit(data), data)
    some = pl.concat([LOG.head(100), LOG.head(300).with_columns(item=pl.lit("i7"))]).drop("time")
    report = evaluate(recommender.model, recommender.against(from_frame(some)), exclude_seen=False, resamples=0)
    assert any("pair of user and item was trained, not later" in note for note in report.notes)


def test_repeats_within_one_split_are_no_leak():
    often = from_frame(pl.concat([LOG, LOG.with_columns(pl.col("time") + DAY)]), duplicates="keep")
    split = leave_one_out(often)
    assert evaluate(Popularity().fit(split.train), split, exclude_seen=False, resamples=0).users == 40


def test_pairs_are_sketched_whatever_their_order_and_number():
    rng = np.random.default_rng(0)
    n = 3 * SKETCH_ROWS
    users, items = IdMap.of(np.arange(2000)), IdMap.of(np.arange(500))
    user, item = rng.integers(0, 2000, n).astype(np.int32), rng.integers(0, 500, n).astype(np.int32)
    user, item = np.concatenate([user, user]), np.concatenate([item, item])
    one = fingerprint(Interactions(user, item, np.ones(2 * n, np.float32)), users, items)
    order = rng.permutation(2 * n)
    time = rng.random(2 * n)
    two = fingerprint(Interactions(user[order], item[order], np.ones(2 * n, np.float32), time), users, items)
    assert one.pairs is not None
    assert len(one.pairs) == len(np.unique(one.pairs)) == SKETCH_ROWS
    assert np.array_equal(one.pairs, two.pairs)
    assert one.pair_overlap(two) == (SKETCH_ROWS, SKETCH_ROWS)
    assert one.overlap(two)[0] == 0
    old = Fingerprint(one.rows, one.digest, one.sketch)
    assert old.pair_overlap(two) == (0, 0)


def test_a_small_set_has_all_its_pairs():
    data: Dataset = from_frame(pl.concat([LOG, LOG.head(50)]), duplicates="keep")
    assert len(data.fingerprint.pairs) == 320
