"""Splits: they partition the rows, hold out what they say, count what they drop, and survive the disk."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from palate.data.dataset import Dataset, Interactions, Note
from palate.data.feedback import Feedback
from palate.data.ids import IdMap
from palate.data.splits.parts import from_parts
from palate.data.splits.split import Candidates, Split
from palate.data.splits.strategies import at_random, by_time, leave_one_out
from palate.errors import BundleError, DataError

FAST = settings(deadline=None, max_examples=60)


def dataset(user, item, when=None, weight=None, *, n_users=None, n_items=None, **more) -> Dataset:
    n_users = n_users or max(user, default=-1) + 1
    n_items = n_items or max(item, default=-1) + 1
    rows = Interactions(
        np.array(user, np.int32),
        np.array(item, np.int32),
        np.arange(len(user), dtype=np.float32) if weight is None else np.array(weight, np.float32),
        None if when is None else np.array(when, np.float64),
    )
    users, items = IdMap.of([f"u{k:02}" for k in range(n_users)]), IdMap.of([10 * k for k in range(n_items)])
    return Dataset("toy", users, items, rows, **more)


@st.composite
def datasets(draw, times=True):
    """Small logs with ties, duplicates and ids that never occur; the weight of a row is its place in the source.

    Somebody has three rows at least, so that few examples have to be discarded because no split is possible.
    """
    row = st.tuples(st.integers(0, 6), st.integers(0, 8), st.integers(0, 5))
    pairs = draw(st.lists(row, min_size=1, max_size=48))
    more = [(pairs[0][0], item, when) for _, item, when in draw(st.lists(row, min_size=2, max_size=2))]
    pairs = draw(st.permutations(pairs + more))
    user, item, when = (list(column) for column in zip(*pairs, strict=True))
    return dataset(user, item, when if times else None, n_users=8, n_items=10)


def rows_of(data: Dataset) -> Counter:
    rows = data.interactions
    when = rows.time if rows.time is not None else np.zeros(len(rows))
    users, items = data.users.external(rows.user), data.items.external(rows.item)
    return Counter(zip(users, items, rows.weight.tolist(), when.tolist(), strict=True))


def attempt(make, *args, **options) -> Split:
    """A split, or a discarded example where the rows allow none."""
    try:
        return make(*args, **options)
    except DataError:
        assume(False)
        raise


SPLITTERS = {
    "leave_one_out": lambda data, cold: leave_one_out(data, cold=cold),
    "rows": lambda data, cold: by_time(data, test_size=0.3, cold=cold),
    "span": lambda data, cold: by_time(data, span=0.3, cold=cold),
    "date": lambda data, cold: by_time(data, date=3.0, cold=cold),
    "random": lambda data, cold: at_random(data, test_size=0.3, cold=cold),
    "random_per_user": lambda data, cold: at_random(data, test_size=0.4, per_user=True, cold=cold),
}


@pytest.mark.parametrize("name", SPLITTERS)
@FAST
@given(data=datasets())
def test_kept_splits_partition_the_rows_and_counts_of_cold_rows_add_up(name, data):
    kept = attempt(SPLITTERS[name], data, "keep")
    assert rows_of(kept.train) + rows_of(kept.test) == rows_of(data)
    seen_users, seen_items = set(kept.train.interactions.user), set(kept.train.interactions.item)
    test = kept.test.interactions
    cold = sum(u not in seen_users or i not in seen_items for u, i in zip(test.user, test.item, strict=True))
    assert sum(note.rows for note in kept.notes if "unknown to train" in note.text) == cold
    if cold == len(test):
        with pytest.raises(DataError, match="cold='drop' left no test rows"):
            SPLITTERS[name](data, "drop")
        return
    dropped = SPLITTERS[name](data, "drop")
    assert rows_of(dropped.train) == rows_of(kept.train)
    assert len(kept.test) - len(dropped.test) == cold
    assert not rows_of(dropped.test) - rows_of(kept.test)
    assert sum(note.rows for note in dropped.notes if "dropped" in note.text) == cold
    assert set(dropped.train.users.ids) == {user for user, *_ in rows_of(kept.train)}
    assert set(dropped.train.items.ids) == {item for _, item, *_ in rows_of(kept.train)}


@pytest.mark.parametrize("tie", ["first", "last"])
@FAST
@given(data=datasets())
def test_leave_one_out_holds_out_the_latest_row_by_its_tie_rule(tie, data):
    split = attempt(leave_one_out, data, tie=tie)
    rows, held = data.interactions, split.test.interactions
    assert len(np.unique(held.user)) == len(held)
    assert set(held.user) == {u for u in rows.user if (rows.user == u).sum() >= 2}
    for user, place in zip(held.user, held.weight, strict=True):
        own = np.flatnonzero(rows.user == user)
        latest = own[rows.time[own] == rows.time[own].max()]
        assert place == (latest[0] if tie == "first" else latest[-1])


@FAST
@given(data=datasets(times=False))
def test_leave_one_out_without_time_takes_the_last_row_of_the_source(data):
    split = attempt(leave_one_out, data)
    rows = data.interactions
    assert "no time" in split.how
    for user, place in zip(split.test.interactions.user, split.test.interactions.weight, strict=True):
        assert place == np.flatnonzero(rows.user == user)[-1]


def test_users_with_short_histories_stay_in_train_and_are_counted():
    split = leave_one_out(dataset([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 2], [3, 1, 2, 1, 2, 9]), min_history=2)
    assert split.test.interactions.weight.tolist() == [0]
    assert [str(note) for note in split.notes] == ["rows of 2 users with fewer than 3 rows, all in train: 3 rows"]
    with pytest.raises(DataError, match=r"min_history=3 left no user to test \(6 rows, largest user has 3\)"):
        leave_one_out(
            split.train.with_rows(dataset([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 2]).interactions), min_history=3
        )


@FAST
@given(data=datasets(), share=st.floats(0.05, 0.95))
def test_time_cut_by_rows_respects_time_and_source_order_and_size(data, share):
    split = attempt(by_time, data, share, cold="keep")
    assert abs(len(split.train) - (1 - share) * len(data)) < 1
    past, future = split.train.interactions, split.test.interactions
    last = max(zip(past.time, past.weight, strict=True))
    assert last < min(zip(future.time, future.weight, strict=True))


@FAST
@given(data=datasets())
def test_time_cut_by_span_and_date_leave_no_time_on_both_sides(data):
    for option in ({"span": 0.5}, {"date": 2.0}):
        split = attempt(by_time, data, **option, cold="keep")
        assert split.train.interactions.time.max() < split.test.interactions.time.min()


def test_a_row_exactly_at_the_cut_is_a_test_row():
    data = dataset([0] * 5, range(5), [0, 1, 2, 3, 4])
    for option in ({"span": 0.5}, {"date": 2}):
        assert by_time(data, **option, cold="keep").test.interactions.weight.tolist() == [2, 3, 4]


def test_one_date_can_be_written_in_four_ways():
    day = 86_400.0
    data = dataset([0, 0, 1, 1], [0, 1, 0, 1], [0, day, 2 * day, 3 * day])
    ways = ("1970-01-03", 2 * day, datetime(1970, 1, 3), datetime(1970, 1, 3, tzinfo=UTC))
    splits = [by_time(data, date=date, cold="keep") for date in ways]
    assert [split.test.interactions.weight.tolist() for split in splits] == [[2, 3]] * 4
    assert len({split.fingerprint for split in splits}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_size": 0.2, "span": 0.2}, "test_size=0.2 and span=0.2: give only one"),
        ({"test_size": 1.0}, "test_size=1.0: must be a fraction between 0 and 1"),
        ({"test_size": float("nan")}, "must be a fraction"),
        ({"test_size": "0.2"}, "test_size='0.2': must be a fraction"),
        ({"date": "soon"}, "date='soon' is not a date: write it like"),
        ({"date": float("nan")}, "is not a date"),
        ({"date": "2030-01-01"}, r"left no test rows of 3: cut elsewhere"),
        ({"date": 0}, r"date=0 over 3 rows from 1970-01-01 .* left no training rows"),
        ({"test_size": 0.2, "cold": "dorp"}, "cold='dorp': choose"),
    ],
)
def test_cuts_that_make_no_sense_are_named(options, message):
    with pytest.raises(DataError, match=message):
        by_time(dataset([0, 0, 1], [0, 1, 0], [1, 2, 3]), **options)


def test_time_splits_refuse_rows_without_usable_time():
    with pytest.raises(DataError, match=r"toy has no time to split by: use palate\.at_random"):
        by_time(dataset([0, 0], [0, 1]), test_size=0.5)
    with pytest.raises(DataError, match="1 of 2 timestamps are not finite"):
        leave_one_out(dataset([0, 0], [0, 1], [1.0, np.nan]))


@FAST
@given(data=datasets(), seed=st.integers(0, 5), per_user=st.booleans())
def test_random_splits_depend_on_the_seed_alone(data, seed, per_user):
    once, twice = (attempt(at_random, data, test_size=0.5, per_user=per_user, seed=seed, cold="keep") for _ in range(2))
    assert once.fingerprint == twice.fingerprint
    if per_user:
        counts = np.bincount(data.interactions.user, minlength=8)
        assert np.bincount(once.test.interactions.user, minlength=8).tolist() == (counts // 2).tolist()
    else:
        assert len(once.train) == len(data) // 2


def test_random_splits_hold_out_each_row_equally_often():
    data = dataset([0] * 6 + [1] * 4, list(range(6)) + list(range(4)))
    for per_user in (False, True):
        held = np.zeros(10)
        for seed in range(600):
            split = at_random(data, test_size=0.5, per_user=per_user, seed=seed, cold="keep")
            held[split.test.interactions.weight.astype(int)] += 1
        assert (abs(held - 300) < 5 * np.sqrt(150)).all()


def test_features_and_titles_are_cut_with_the_maps():
    features = pl.DataFrame({"genre": ["a", "b", "c", None]})
    data = dataset([0, 1, 1, 2], [0, 1, 3, 2], [1, 2, 8, 9], item_features=features, titles=pl.Series(list("wxyz")))
    split = by_time(data, test_size=0.5, cold="keep")
    assert split.test.titles.to_list() == list("wxyz")
    with pytest.raises(DataError, match=r"cold='drop' left no test rows \(test rows of users unknown.*: 1 row"):
        by_time(data, test_size=0.5)
    split = by_time(data, test_size=0.25, cold="keep")
    assert [note.rows for note in split.notes] == [1]
    split = by_time(
        dataset([0, 1, 1, 0], [0, 3, 2, 3], [1, 2, 8, 9], item_features=features, titles=data.titles), test_size=0.5
    )
    for side in (split.train, split.test):
        assert side.titles.to_list() == ["w", "z"]
        assert side.item_features["genre"].to_list() == ["a", None]
    assert split.test.items.external(split.test.interactions.item).to_list() == [30]


def test_relevant_keeps_what_is_rated_high_and_its_candidates():
    data = dataset([0, 1, 0, 1, 1], [0, 1, 1, 0, 2], [1, 1, 5, 5, 6], weight=[5, 5, 3, 4, 4.5])
    split = by_time(data, test_size=0.6, cold="keep")
    split = split.with_candidates(Candidates(np.array([0, 1], np.int32), np.array([[2], [2]], np.int32), "listed"))
    relevant = split.relevant(4)
    assert relevant.test.interactions.weight.tolist() == [4, 4.5]
    assert relevant.candidates.users.tolist() == [1]
    assert relevant.notes[-1] == Note(
        "test rows that are not relevant, the rule is weight at least 4, 1 user has no other and is not measured", 1
    )
    assert relevant.relevant() is relevant, "what was chosen stays relevant"
    assert relevant.fingerprint != split.fingerprint
    with pytest.raises(
        DataError, match=r"none of 3 test rows is relevant \(weight at least 6; highest weight 4.5\): lower min_rating"
    ):
        split.relevant(6)


def test_fingerprints_do_not_depend_on_order_or_numbering():
    data = dataset([0, 1, 0, 1], [0, 1, 1, 0], [1, 2, 3, 4])
    split = by_time(data, test_size=0.5, cold="keep")
    shuffled = data.with_rows(data.interactions.take(np.array([2, 0, 3, 1])))
    wider = dataclasses.replace(shuffled, items=data.items.extend([99]))
    assert by_time(wider, test_size=0.5, cold="keep").fingerprint == split.fingerprint
    assert by_time(data, test_size=0.25, cold="keep").fingerprint != split.fingerprint
    swapped = Split(split.test, split.train, split.how)
    assert swapped.fingerprint != split.fingerprint
    one = Candidates(np.array([0, 1], np.int32), np.array([[0, 1], [1, 1]], np.int32), "a")
    other = Candidates(np.array([0, 1], np.int32), np.array([[1, 0], [1, 1]], np.int32), "b")
    third = Candidates(np.array([0, 1], np.int32), np.array([[1, 1], [1, 0]], np.int32), "b")
    assert one.fingerprint(data.users, data.items) == other.fingerprint(data.users, data.items)
    assert one.fingerprint(data.users, data.items) != third.fingerprint(data.users, data.items)


def test_candidates_of_another_split_are_refused():
    split = by_time(dataset([0, 1, 0, 1], [0, 1, 1, 0], [1, 2, 3, 4]), test_size=0.25, cold="keep")
    with pytest.raises(DataError, match="not those of the test users"):
        split.with_candidates(Candidates(np.array([0], np.int32), np.array([[0]], np.int32), ""))
    with pytest.raises(DataError, match="items beyond the 2"):
        split.with_candidates(Candidates(np.array([1], np.int32), np.array([[2]], np.int32), ""))
    with pytest.raises(DataError, match="ascending and distinct"):
        Candidates(np.array([1, 0], np.int32), np.array([[2], [1]], np.int32), "")


PARTS = (
    pl.DataFrame({"user_id": [7, 7, 3], "item_id": ["é", "b", "b"], "rating": [5, 3, 4], "timestamp": [1, 2, 3]}),
    pl.DataFrame({"user_id": [7, 3], "item_id": ["c", "é"], "rating": [2, 1], "timestamp": [9, 8]}),
)


def test_ready_made_parts_share_one_numbering_and_their_flaws_are_counted():
    negatives = np.array([["x", "b", "c"], ["x", "c", "y"]])
    split = from_parts(*PARTS, negatives, name="mine", how="as published")
    assert split.train.explicit
    assert split.train.items.ids.to_list() == sorted({"é", "b", "c", "x", "y"})
    assert split.candidates.users.tolist() == [0, 1]
    listed = [split.train.items.external(row).to_list() for row in split.candidates.negatives]
    assert listed == [["x", "c", "y"], ["x", "b", "c"]]
    assert {note.text: note.rows for note in split.notes if note.kind != "relative-times"} == {
        "test rows of known users with items unknown to train, kept": 1,
        "listed negatives that are a test item of that user, kept": 1,
        "listed negatives that the user has in train, kept": 1,
    }
    frame = pl.DataFrame({"user_id": [3, 7] * 3, "item_id": ["x", "x", "c", "b", "y", "c"]})
    again = from_parts(*PARTS, frame, name="mine", how="as published")
    assert again.candidates.negatives.tolist() == split.candidates.negatives.tolist()
    dates = [part.with_columns(pl.from_epoch("timestamp").dt.replace_time_zone("UTC")) for part in PARTS]
    assert from_parts(*dates, name="", how="", time_unit="s").fingerprint == split.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"negatives": np.array([["x"]])}, r"negatives of shape \(1, 1\) for 2 test rows"),
        ({"negatives": pl.DataFrame({"user_id": [7], "item_id": ["x"]})}, "negatives name 1 users, 1 of them among"),
        ({"negatives": pl.DataFrame({"user_id": [7, 3, 3], "item_id": list("xyz")})}, "users have 1 to 2 negatives"),
        ({"negatives": pl.DataFrame({"user": [7]})}, "negatives: no column looks like the item"),
        ({"test": PARTS[1].drop("timestamp")}, "only one of train and test has a timestamp"),
        ({"test": PARTS[1].with_columns(rating=pl.lit(float("nan")))}, "a NaN or infinite rating in column 'rating'"),
        (
            {"train": PARTS[0].with_columns(user_id=pl.lit(None, pl.Int64))},
            "no id in column 'user_id' in 3 rows",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(change, message):
    with pytest.raises(DataError, match=message):
        from_parts(**{"train": PARTS[0], "test": PARTS[1], "name": "", "how": "", **change})


def test_columns_of_parts_are_named_as_in_from_frame():
    names = {"user_id": "who", "item_id": "thing", "rating": "mark", "timestamp": "moment"}
    given = {"user": "who", "item": "thing", "rating": "mark", "timestamp": "moment"}
    named = [part.rename(names) for part in PARTS]
    expected = from_parts(*PARTS, name="", how="")
    with pytest.raises(DataError, match=r"train: no column looks like the user.*name it with user=\.\.\."):
        from_parts(*named, name="", how="")
    split = from_parts(*named, name="", how="", **given)
    assert split.fingerprint == expected.fingerprint
    assert split.train.explicit
    given["weight"] = given.pop("rating")
    assert not from_parts(*named, name="", how="", **given).train.explicit
    untimed = (PARTS[0], PARTS[1].drop("timestamp"))
    with pytest.raises(DataError, match='pass timestamp="" to use none'):
        from_parts(*untimed, name="", how="")
    assert from_parts(*untimed, name="", how="", timestamp="").train.interactions.time is None


@settings(deadline=None, max_examples=25)
@given(data=datasets(), timed=st.booleans(), described=st.booleans(), listed=st.booleans())
def test_a_saved_split_comes_back_equal(data, timed, described, listed):
    if described:
        data = dataclasses.replace(
            data,
            titles=pl.Series("title", [None, *"ABCDEFGHI"]),
            item_features=pl.DataFrame({"tags": [["a", "b"]] * 10, "id": range(10)}),
            user_features=pl.DataFrame({"age": [None, *range(7)]}),
            notes=(Note("rows with a café, dropped", 3),),
        )
    split = attempt(leave_one_out, data) if timed else attempt(at_random, data, test_size=0.5)
    if listed:
        users = np.unique(split.test.interactions.user)
        split = split.with_candidates(Candidates(users, np.zeros((len(users), 4), np.int32), "none but the first"))
    with tempfile.TemporaryDirectory() as folder:
        split.save(f"{folder}/deep/split")
        back = Split.load(f"{folder}/deep/split")
        assert [path.name for path in Path(folder, "deep").iterdir()] == ["split"]
    assert (back.fingerprint, back.how, back.notes) == (split.fingerprint, split.how, split.notes)
    for ours, theirs in ((split.train, back.train), (split.test, back.test)):
        for name in ("name", "users", "items", "explicit", "notes", "fingerprint"):
            assert getattr(theirs, name) == getattr(ours, name)
        for name in ("user", "item", "weight", "time"):
            assert np.array_equal(getattr(theirs.interactions, name), getattr(ours.interactions, name))
            assert getattr(theirs.interactions, name).dtype == getattr(ours.interactions, name).dtype
        assert (theirs.titles is None) == (ours.titles is None)
        assert ours.titles is None or theirs.titles.equals(ours.titles)
        for name in ("user_features", "item_features"):
            mine, other = getattr(ours, name), getattr(theirs, name)
            assert other is None if mine is None else mine.equals(other)
    if listed:
        assert back.candidates.how == split.candidates.how
        assert back.candidates.negatives.dtype == np.int32
        assert np.array_equal(back.candidates.negatives, split.candidates.negatives)
        assert np.array_equal(back.candidates.users, split.candidates.users)
    else:
        assert back.candidates is None


@pytest.fixture
def saved(tmp_path):
    split = by_time(dataset([0, 1, 0, 1], [0, 1, 1, 0], [1, 2, 3, 4]), test_size=0.5, cold="keep")
    users = np.array([0, 1], np.int32)
    split.with_candidates(Candidates(users, np.array([[0, 1], [0, 1]], np.int32), "both")).save(tmp_path / "split")
    return tmp_path / "split"


FILES = ["users", "items", "train", "test", "candidates"]


@pytest.mark.parametrize("name", [*(f"{name}.parquet" for name in FILES), "split.json"])
def test_damaged_files_are_refused_by_name(saved, name):
    path = saved / name
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:place])
        with pytest.raises(BundleError, match=name):
            Split.load(saved)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BundleError, match=r"again|upgrade Palate|give the folder of one"):
            Split.load(saved)
    path.unlink()
    with pytest.raises(BundleError, match=name):
        Split.load(saved)


def test_another_version_is_refused_with_a_remedy(saved):
    facts = json.loads((saved / "split.json").read_text())
    (saved / "split.json").write_text(json.dumps(facts | {"version": 99}))
    with pytest.raises(BundleError, match="format version 99, this Palate reads up to 2: upgrade Palate"):
        Split.load(saved)


def test_saving_replaces_a_split_and_nothing_else(saved, tmp_path):
    split = Split.load(saved)
    at_random(split.train, test_size=0.5, cold="keep").save(saved)
    assert Split.load(saved).fingerprint != split.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["split"]
    mine = tmp_path / "thesis"
    mine.mkdir()
    split.save(mine)
    assert Split.load(mine).fingerprint == split.fingerprint
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"x")
    (tmp_path / "file").write_text("x")
    for name in ("photos", "file"):
        with pytest.raises(BundleError, match=f"{name} exists and is not a split"):
            split.save(tmp_path / name)
    with pytest.raises(BundleError, match="could not write a split to"):
        split.save(tmp_path / "file" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos", "split", "thesis"]


SAVER = """
import sys
import numpy as np
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.splits.strategies import at_random
rng = np.random.default_rng(0)
n = 50_000
rows = Interactions(rng.integers(0, 500, n, np.int32), rng.integers(0, 300, n, np.int32), np.ones(n, np.float32))
data = Dataset("toy", IdMap.of(range(500)), IdMap.of(range(300)), rows)
splits = [at_random(data, seed=seed) for seed in (0, 1)]
print(*(split.fingerprint for split in splits), flush=True)
while True:
    for split in splits:
        split.save(sys.argv[1])
"""


def test_a_killed_save_leaves_a_whole_split_or_none(tmp_path):
    unfinished = 0
    rng = np.random.default_rng(0)
    for attempt_number in range(10):
        folder = tmp_path / str(attempt_number % 2) / "split"
        before = folder.exists()
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], stdout=subprocess.PIPE, text=True)
        fingerprints = process.stdout.readline().split()
        time.sleep(rng.uniform(0, 0.06))
        process.kill()
        process.communicate()
        assert len(fingerprints) == 2
        unfinished += len(list(folder.parent.glob(".split.new-*"))) if folder.parent.exists() else 0
        if before or folder.exists():
            assert Split.load(folder).fingerprint in fingerprints
        else:
            with pytest.raises(BundleError, match="is not a palate split"):
                Split.load(folder)
    assert unfinished, "no save was killed half-way: the test shows nothing"


def test_a_save_removes_what_killed_saves_have_left_and_no_save_that_is_running(saved):
    old, new = saved.with_name(".split.new-0123abcd"), saved.with_name(".split.new-4567cdef")
    for folder in (old, new):
        folder.mkdir()
        (folder / "train.parquet").write_bytes(b"x")
    os.utime(old, (0, 0))
    Split.load(saved).save(saved)
    assert (old.exists(), new.exists()) == (False, True)


def test_the_usual_sizes_need_no_argument_and_a_size_no_name():
    data = dataset([0, 1] * 5, list(range(5)) * 2, range(10))
    assert by_time(data).test.fingerprint == by_time(data, test_size=0.2).test.fingerprint
    assert at_random(data, 0.3, seed=1).fingerprint == at_random(data, test_size=0.3, seed=1).fingerprint


@pytest.mark.parametrize("make", [leave_one_out, by_time, at_random])
def test_rows_that_are_no_data_set_are_refused_with_the_call_to_write(make):
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2]})
    with pytest.raises(
        DataError, match=rf"{make.__name__} got a DataFrame, .* palate.{make.__name__}\(palate.from_frame"
    ):
        make(frame)


def test_a_save_killed_between_its_renames_leaves_the_older_split(saved):
    split = Split.load(saved)
    saved.rename(saved.with_name(".split.old"))
    assert Split.load(saved).fingerprint == split.fingerprint
    at_random(split.train, test_size=0.5, cold="keep").save(saved)
    assert Split.load(saved).fingerprint != split.fingerprint
    assert [path.name for path in saved.parent.iterdir()] == ["split"]


@pytest.fixture(scope="module")
def ml_100k() -> Dataset:
    folder = os.environ.get("PALATE_DATA")
    if not folder or not Path(folder, "ml-100k.zip").exists():
        pytest.skip("PALATE_DATA has no ml-100k.zip")
    with zipfile.ZipFile(Path(folder, "ml-100k.zip")) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/u.data") or name == "u.data")
        raw = pl.read_csv(io.BytesIO(archive.read(name)), separator="\t", has_header=False)
    users, items = IdMap.of(raw[:, 0]), IdMap.of(raw[:, 1])
    weight, when = raw[:, 2].to_numpy().astype(np.float32), raw[:, 3].to_numpy().astype(np.float64)
    rows = Interactions(users.rows(raw[:, 0]), items.rows(raw[:, 1]), weight, when)
    return Dataset("ml-100k", users, items, rows, Feedback("rating"))


def test_system_e_has_the_published_counts(ml_100k):
    assert np.bincount(ml_100k.interactions.user).min() >= 20
    split = by_time(ml_100k, test_size=0.2)
    assert (len(split.train), split.train.n_users, split.train.n_items) == (80_000, 751, 1_616)
    relevant = split.relevant(4)
    assert (len(relevant.test), len(np.unique(relevant.test.interactions.user))) == (1_571, 95)
    assert len(split.test) + sum(note.rows for note in split.notes) == 20_000


def test_system_b_holds_out_one_row_of_each_user(ml_100k):
    split = leave_one_out(ml_100k)
    assert (len(split.train), len(split.test)) == (100_000 - 943, 943)
    latest = np.zeros(943)
    np.maximum.at(latest, ml_100k.interactions.user, ml_100k.interactions.time)
    assert np.array_equal(split.test.interactions.time, latest[split.test.interactions.user])
    assert leave_one_out(ml_100k, tie="last").fingerprint != split.fingerprint


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([0.0] * 20, "20 rows have this time, as all rows have, and the order of the source divides them"),
        ([86_400.0 * (row // 10) for row in range(20)], "10 rows have this time, a whole day, and"),
        ([100.0 * (row // 10) for row in range(20)], "10 rows have this time, and"),
        ([100.0 * row for row in range(20)], None),
    ],
)
def test_a_time_cut_through_equal_times_says_so(times, said):
    user, item = (np.arange(20, dtype=np.int32) % n for n in (4, 5))
    rows = Interactions(user, item, np.ones(20, np.float32), np.array(times) + 86_400.0 * 18_000)
    split = by_time(Dataset("d", IdMap.of(range(4)), IdMap.of(range(5)), rows))
    assert said in split.how if said else "the order of the source divides" not in split.how
