"""The audit: each kind of finding is found where it is planted and not in clean rows; real data give known numbers."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.audit import KINDS, SEVERITIES, audit
from palate.data.audit.advice import ADVICE
from palate.data.audit.shape import gini
from palate.data.dataset import Dataset, Interactions
from palate.data.frame import from_frame
from palate.data.splits.split import Candidates, Split
from palate.data.splits.strategies import at_random, by_time, leave_one_out
from palate.errors import DataError, SourceError

DAY = 86_400
START = 1_600_000_000
USERS, ITEMS, EACH = 200, 40, 10


def clean() -> pl.DataFrame:
    """200 users with 10 of 40 items each, rated 1 to 5, every row at a time of its own; half of the rows are early."""
    user, place = np.divmod(np.arange(USERS * EACH), EACH)
    item = (user * 7 + place * (1 + user % 3)) % ITEMS
    rating = 1 + (user * 3 + item * item) % 5
    seconds = START + place * 30 * DAY + user * 61
    rows = pl.DataFrame({"user_id": user, "item_id": item, "rating": rating.astype(float), "timestamp": seconds})
    return rows.sample(fraction=1.0, shuffle=True, seed=1)


def read(rows: pl.DataFrame, **more) -> Dataset:
    return from_frame(rows, name="planted", duplicates="keep", drop_invalid=True, **more)


def plus(rows: pl.DataFrame, *more: tuple) -> pl.DataFrame:
    """The rows, and others of (user, item, rating, time) behind them."""
    extra = pl.DataFrame(list(more), schema=rows.columns, orient="row").cast(dict(rows.schema))
    return pl.concat([rows, extra])


def titled(titles: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"item_id": range(ITEMS), "title": titles})


TITLES = [f"Film {number}" for number in range(ITEMS)]
NOBODY = (pl.lit(900, pl.Int64), pl.lit(901, pl.Int64))
CLEAN = clean()
LATEST = CLEAN.sort("timestamp").unique("user_id", keep="last", maintain_order=True).sort("user_id")


def whole() -> Dataset:
    return read(CLEAN, item_features=titled(TITLES))


def with_negatives(split: Split, own: int = 0, known: int = 0) -> Split:
    """Five listed negatives each, none of them the user's; then for some users the test item, or a training item."""
    rows = np.zeros((USERS, split.train.n_items), bool)
    for part in (split.train.interactions, split.test.interactions):
        rows[part.user, part.item] = True
    negatives = np.argsort(rows, axis=1, kind="stable")[:, :5].astype(np.int32)
    held = split.test.interactions
    negatives[held.user[:own], 0] = held.item[:own]
    for user in range(USERS - known, USERS):
        negatives[user, 1] = split.train.history.of(user)[0]
    return split.with_candidates(Candidates(split.test_users, negatives, "listed"))


def test_clean_rows_have_no_finding_that_fires():
    found = audit(whole())
    assert [finding.kind for finding in found.findings if finding.fires] == []
    assert {finding.kind for finding in found.findings} | set(found.unchecked) == set(KINDS)
    needs_split = {"leak", "global-leak", "trained-rows", "listed-positives", "unknown-users", "unknown-items"}
    assert set(found.unchecked) == needs_split | {"few-test-users"}
    assert (found.rows, found.users, found.items, found.split) == (USERS * EACH, USERS, ITEMS, None)


def test_a_clean_split_by_time_has_no_finding_that_fires():
    found = audit(with_negatives(leave_one_out(whole())))
    assert [finding.kind for finding in found.findings if finding.fires] == []
    assert not found.unchecked
    found = audit(by_time(whole(), test_size=0.1))
    assert [finding.kind for finding in found.findings if finding.fires] == []


PLANTED: dict[str, tuple[pl.DataFrame, int, str]] = {
    "dropped-rows": (plus(CLEAN, (3, 4, None, START), (None, 4, 2.0, START)), 2, "warning"),
    "equal-rows": (pl.concat([CLEAN, CLEAN.head(4)]), 4, "warning"),
    "duplicates": (CLEAN.head(3).with_columns(pl.col("timestamp") - 999).vstack(CLEAN), 3, "warning"),
    "sentinels": (
        CLEAN.with_columns(rating=pl.when(pl.col("item_id") == 3).then(-1.0).otherwise("rating")), 0, "problem"
    ),
    "row-number-ids": (CLEAN.with_columns(user_id=pl.int_range(pl.len())), USERS * EACH, "problem"),
    "equal-users": (
        pl.concat([CLEAN, *(CLEAN.filter(pl.col("user_id") == 5).with_columns(user_id=n) for n in NOBODY)]),
        3,
        "warning",
    ),
    "ties": (
        CLEAN.with_columns(timestamp=pl.when(pl.col("user_id") < 8).then(START).otherwise("timestamp")), 8, "warning"
    ),
    "short-history": (plus(CLEAN, *((900 + n, n % ITEMS, 3.0, START + n) for n in range(50))), 50, "warning"),
    "rows-per-user": (
        CLEAN.with_columns(user_id=pl.when(pl.col("user_id") % 2 == 0).then(0).otherwise("user_id")), 2, "warning"
    ),
    "ratings": (CLEAN.with_columns(rating=pl.when(pl.col("item_id") == 3).then(2.0).otherwise(4.0)), 0, "warning"),
    "concentration": (
        CLEAN.with_columns(item_id=pl.when(pl.int_range(pl.len()) % 80 == 0).then(pl.int_range(pl.len())).otherwise(0)),
        0,
        "warning",
    ),
    "density": (CLEAN.with_columns(pl.col("item_id") % 12), 0, "warning"),
    "activity": (plus(CLEAN, (3, 39, 4.0, 0), (4, 39, 4.0, 86_399)), 2, "problem"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_in_rows_is_found_and_counted(kind):
    rows, count, severity = PLANTED[kind]
    finding = audit(read(rows, time_unit="s")).of(kind)
    assert finding.severity == severity, finding
    assert finding.why
    assert finding.remedy
    if count:
        assert finding.count == count
        assert f"{count:,}" in finding.what


def test_equal_titles_are_found():
    titles = [f"Film {number // 2 * 2 if number < 6 else number}" for number in range(ITEMS)]
    titles[1] = "  FILM 0"
    finding = audit(read(CLEAN, item_features=titled(titles))).of("equal-items")
    assert (finding.severity, finding.count) == ("warning", 6)
    assert finding.examples[0] == "Film 0: items 0, 1"


@pytest.mark.parametrize(
    ("value", "severity"),
    [(-1.0, "problem"), (99.0, "problem"), (-999.0, "problem"), (3.0, "ok"), (5.5, "problem")],
)
def test_marks_among_ratings(value, severity):
    """A single row; 5.5 stands near the scale and is found by how rare it is."""
    rows = pl.concat([CLEAN.sample(6000, with_replacement=True, seed=1), CLEAN.head(1).with_columns(rating=value)])
    finding = audit(read(rows)).of("sentinels")
    assert finding.severity == severity, finding
    assert finding.count == (severity != "ok")


def test_marks_at_both_ends_and_a_frequent_zero():
    both = CLEAN.with_columns(
        rating=pl.when(pl.col("item_id") == 3).then(-999.0).when(pl.col("item_id") == 4).then(99.0).otherwise("rating")
    )
    assert audit(read(both)).of("sentinels").count == CLEAN["item_id"].is_in([3, 4]).sum()
    zero = CLEAN.with_columns(rating=pl.when(pl.col("item_id") < 20).then(0.0).otherwise("rating"))
    assert audit(read(zero)).of("sentinels").severity == "warning"
    halves = CLEAN.with_columns(rating=pl.when(pl.col("item_id") == 3).then(0.0).otherwise(pl.col("rating") / 2))
    assert audit(read(halves)).of("sentinels").severity == "ok"
    assert audit(read(CLEAN, sentinels=(5.0,))).of("sentinels").severity == "ok"


def test_weights_may_be_far_apart_but_not_negative():
    plays = CLEAN.rename({"rating": "plays"}).with_columns(plays=pl.int_range(pl.len()) % 7)
    heavy = plays.with_columns(plays=pl.when(pl.int_range(pl.len()) == 5).then(90_000).otherwise("plays"))
    assert audit(read(heavy)).of("sentinels").severity == "ok"
    below = plays.with_columns(plays=pl.when(pl.int_range(pl.len()) == 5).then(-1).otherwise("plays"))
    assert audit(read(below)).of("sentinels").count == 1


def test_returns_labels_and_events_are_no_codes():
    third = pl.int_range(pl.len()) % 3 == 0
    bare = CLEAN.drop("rating")
    returned = audit(read(bare.with_columns(qty=pl.when(third).then(-1).otherwise(1 + pl.int_range(pl.len()) % 4))))
    assert (returned.of("sentinels").severity, returned.of("not-positive").severity) == ("ok", "warning")
    events = bare.with_columns(event=pl.when(third).then(pl.lit("hide")).otherwise(pl.lit("view")))
    hidden = audit(read(events, event="event"))
    assert (hidden.of("sentinels").severity, hidden.of("not-positive").severity) == ("ok", "info")
    liked = audit(read(bare.with_columns(liked=third.cast(pl.Int8))))
    assert (liked.of("sentinels").severity, liked.of("not-positive").severity) == ("ok", "info")
    assert not [one for one in liked.findings if one.severity in ("warning", "problem")]


def test_repeated_visits_without_a_time_are_no_copies_but_a_file_joined_twice_is():
    visits = CLEAN.select("user_id", "item_id")
    found = audit(read(pl.concat([visits, visits.head(30), visits.head(9)])))
    assert (found.of("equal-rows").severity, found.of("equal-rows").count) == ("info", 39)
    assert found.of("duplicates").severity == "info"
    assert audit(read(pl.concat([visits, visits]))).of("equal-rows").severity == "problem"


def test_dropped_rows_are_named_once():
    finding = audit(read(PLANTED["dropped-rows"][0])).of("dropped-rows")
    assert finding.what == "2 rows of 2,002 dropped while reading, all because of a missing or unreadable value"
    assert finding.examples == ("no id in column 'user_id': 1 row", "no rating in column 'rating': 1 row")


def test_impossible_times_and_a_day_that_holds_most_rows():
    ahead = plus(CLEAN, (3, 39, 4.0, int(time.time()) + 90 * DAY))
    assert audit(read(ahead)).of("activity").count == 1
    burst = CLEAN.with_columns(timestamp=pl.when(pl.col("user_id") < 150).then(START).otherwise("timestamp"))
    finding = audit(read(burst)).of("activity")
    assert (finding.severity, finding.count) == ("warning", 1500 + 50)


@pytest.fixture(scope="module")
def latest_out() -> Split:
    return leave_one_out(whole())


def moved(split: Split, **columns) -> Split:
    """The split with other columns of its test rows."""
    return Split(split.train, split.test.with_rows(replace(split.test.interactions, **columns)), split.how, split.notes)


def test_ties_of_a_split_are_with_training_rows(latest_out):
    rows = latest_out.test.interactions
    times = rows.time.copy()
    last = np.full(USERS, -np.inf)
    np.maximum.at(last, latest_out.train.interactions.user, latest_out.train.interactions.time)
    times[:12] = last[rows.user[:12]]
    finding = audit(moved(latest_out, time=times)).of("ties")
    assert (finding.severity, finding.count, finding.share) == ("problem", 12, 0.06)
    assert audit(latest_out).of("ties").severity == "ok"


def test_a_look_into_the_users_own_future_is_a_leak(latest_out):
    times = latest_out.test.interactions.time.copy()
    times[:7] -= 100 * DAY
    finding = audit(moved(latest_out, time=times)).of("leak")
    assert (finding.severity, finding.count) == ("warning", 7)
    assert audit(latest_out).of("leak").severity == "ok"
    at_will = audit(at_random(whole(), seed=3))
    assert at_will.of("leak").severity == "problem"
    assert at_will.unchecked["ties"] == "the split does not hold out the latest rows"


def test_a_look_into_the_future_of_others_is_a_global_leak(latest_out):
    staggered = CLEAN.with_columns(pl.col("timestamp") + pl.col("user_id") * 5 * DAY)
    split = leave_one_out(read(staggered))
    finding = audit(split).of("global-leak")
    early = split.test.interactions.time < split.train.interactions.time.max()
    assert (finding.severity, finding.count) == ("warning", early.sum())
    assert finding.count > 150
    assert audit(latest_out).of("global-leak").severity == "ok"
    assert audit(by_time(read(staggered), test_size=0.3)).of("global-leak").severity == "ok"


def test_test_rows_that_training_has_too(latest_out):
    rows = latest_out.test.interactions
    items = rows.item.copy()
    for place in range(5):
        items[place] = latest_out.train.history.of(int(rows.user[place]))[0]
    finding = audit(moved(latest_out, item=items)).of("trained-rows")
    assert (finding.severity, finding.count, finding.share) == ("problem", 5, 0.025)
    assert audit(latest_out).of("trained-rows").severity == "ok"


def test_positives_among_listed_negatives(latest_out):
    assert audit(with_negatives(latest_out)).of("listed-positives").severity == "ok"
    finding = audit(with_negatives(latest_out, own=6)).of("listed-positives")
    assert (finding.severity, finding.count, finding.share) == ("problem", 6, 0.03)
    both = audit(with_negatives(latest_out, own=6, known=4)).of("listed-positives")
    assert both.count == 10
    assert "6 of 200 test users" in both.what
    assert ", 4 one of their training items" in both.what


@pytest.mark.parametrize("cold", ["keep", "drop"])
def test_users_and_items_unknown_to_training(cold):
    late = START + 400 * DAY
    rows = plus(CLEAN, *((900 + n, n, 4.0, late) for n in range(30)), (3, 777, 4.0, late), (4, 778, 4.0, late))
    found = audit(by_time(read(rows), date=START + 250 * DAY, cold=cold))
    users, items = found.of("unknown-users"), found.of("unknown-items")
    assert (users.count, items.count) == (30, 2)
    assert users.share == pytest.approx(30 / 232, abs=1e-6)
    assert (users.severity, items.severity) == ("warning", "info")
    assert ("30 dropped" in users.what) == (cold == "drop")


def test_few_test_users_and_users_with_little_history():
    few = audit(leave_one_out(read(CLEAN.filter(pl.col("user_id") < 60))))
    assert (few.of("few-test-users").severity, few.of("few-test-users").count) == ("warning", 60)
    short = pl.concat([CLEAN.filter(pl.col("user_id") >= 70), CLEAN.filter(pl.col("user_id") < 70).unique("user_id"),
                       LATEST.filter(pl.col("user_id") < 70).with_columns(item_id=pl.lit(990, pl.Int64))])  # fmt: skip
    assert audit(leave_one_out(read(short))).of("short-history").count == 70


def test_raw_rows_stand_in_for_those_of_the_split(latest_out):
    raw = read(pl.concat([CLEAN, CLEAN.head(4)]))
    assert audit(latest_out).of("equal-rows").severity == "ok"
    found = audit(latest_out, raw=raw)
    assert found.of("equal-rows").count == 4
    assert found.of("leak").severity == "ok"
    assert found.rows == len(raw)


def test_what_cannot_be_checked_is_not_called_clean():
    found = audit(read(CLEAN.select("user_id", "item_id")))
    assert found.unchecked["ties"] == "the rows have no time"
    assert {"activity", "ratings", "sentinels", "equal-items"} <= set(found.unchecked)
    with pytest.raises(DataError, match="ties was not checked in planted: the rows have no time"):
        found.of("ties")
    with pytest.raises(DataError, match="no such kind"):
        found.of("tie")


def test_no_rows_are_an_error():
    data = whole()
    none = data.with_rows(data.interactions.take(np.zeros(len(data), bool)))
    with pytest.raises(DataError, match="planted has no rows to check"):
        audit(none)
    with pytest.raises(DataError, match="2,000, 2,000, 0 of all"):
        audit(Split(data, none, "nothing held out"))


def test_the_most_severe_comes_first_and_json_holds_everything(latest_out):
    found = audit(with_negatives(latest_out, own=6))
    order = [SEVERITIES.index(finding.severity) for finding in found.findings]
    assert order == sorted(order)
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(facts) == ["data", "rows", "users", "items", "split", "findings", "unchecked", "profile"]
    keys = ["kind", "severity", "what", "count", "share", "why", "remedy", "examples"]
    assert all(list(finding) == keys for finding in facts["findings"])
    profile = facts["profile"]
    assert sum(one["rows"] for one in profile["ratings"]) == USERS * EACH
    assert profile["ratings_per_user"] == [{"low": 8, "high": 15, "users": USERS}]
    assert (profile["popularity"][0], profile["popularity"][-1]) == ({"items": 0, "rows": 0}, {"items": 1, "rows": 1})
    assert len(profile["popularity"]) <= 50
    assert sum(one["rows"] for one in profile["activity"]) == USERS * EACH
    assert [date.fromisoformat(one["start"]) for one in profile["activity"]]


@pytest.mark.parametrize("span", [0, 50, 3_000, 80_000, 40 * DAY, 300 * DAY, 2_000 * DAY, 18_000 * DAY, 2.5e11, 9e15])
def test_activity_has_few_periods_whatever_the_span(span):
    times = np.linspace(0, span, USERS * EACH)
    data = whole()
    found = audit(data.with_rows(replace(data.interactions, time=times)))
    periods = found.profile["activity"]
    assert 1 <= len(periods) <= 60
    assert sum(one["rows"] for one in periods) == len(times)


def test_a_continuous_scale_is_binned():
    jokes = CLEAN.with_columns(rating=pl.Series(np.linspace(-10, 10, len(CLEAN))))
    found = audit(read(jokes))
    assert len(found.profile["ratings"]) == 20
    assert sum(one["rows"] for one in found.profile["ratings"]) == len(CLEAN)
    assert found.of("sentinels").severity == "ok"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
@settings(deadline=None, max_examples=50)
def test_gini_is_half_the_mean_difference_over_the_mean(counts):
    x = np.array(counts, np.float64)
    assert gini(x.astype(np.int64)) == pytest.approx(np.abs(x[:, None] - x).mean() / (2 * x.mean()))


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_counts_equal_those_of_plain_python(data):
    """Any small log: duplicates, copies, ties and dense ids by hand."""
    rows = data.draw(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=40)
    )
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    base = whole()
    log = Interactions(columns[0].astype(np.int32), columns[1].astype(np.int32), np.ones(len(rows), np.float32),
                       columns[2].astype(np.float64))  # fmt: skip
    found = audit(base.with_rows(log))
    assert found.of("equal-rows").count == len(rows) - len(set(rows))
    assert found.of("duplicates").count == len(rows) - len({row[:2] for row in rows})
    tied = 0
    for user in range(5):
        latest = max((row[2] for row in rows if row[0] == user), default=None)
        tied += len({row[1] for row in rows if row[0] == user and row[2] == latest}) > 1
    several = [user for user in range(5) if len({row[1] for row in rows if row[0] == user}) > 1]
    assert (found.of("ties").count if several else 0) == tied


def test_every_kind_has_advice_and_is_documented():
    assert set(ADVICE) == set(KINDS)
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text()
    listed = re.findall(r"^\| `([a-z-]+)` \|", page.split("## Kinds of findings")[1], re.MULTILINE)
    assert sorted(listed) == sorted(KINDS)


def test_the_official_ncf_files_list_156_positives(ncf_ml_1m):
    found = audit(ncf_ml_1m)
    finding = found.of("listed-positives")
    assert (finding.severity, finding.count) == ("problem", 156)
    assert found.of("unknown-items").count == 2
    assert found.of("leak").severity == "ok"
    assert found.rows == 1_000_209


def test_ml_100k_has_ties_at_the_hold_out_and_films_with_two_ids(ml_100k, ml_100k_loo):
    found = audit(ml_100k)
    assert found.of("ties").count == audit(ml_100k_loo).of("ties").count == 415
    assert found.of("equal-items").count == 36
    assert {found.of(kind).severity for kind in ("duplicates", "equal-rows", "sentinels", "equal-users")} == {"ok"}
    new_users = audit(by_time(ml_100k, test_size=0.2)).of("unknown-users")
    assert (new_users.severity, new_users.count) == ("warning", 17_048)


def test_anime_marks_what_was_not_rated_with_minus_one():
    from palate.datasets.formats import read_anime
    from palate.datasets.registry import REGISTRY, load

    try:
        raw = load(replace(REGISTRY["anime"], read=partial(read_anime, keep_unrated=True)))
    except SourceError as error:
        pytest.skip(f"anime cannot be had here: {error}")
    finding = audit(raw).of("sentinels")
    assert finding.severity == "problem"
    assert finding.count == (raw.interactions.weight == -1).sum()
    assert audit(load("anime")).of("sentinels").severity == "ok"


def test_ids_that_are_no_people_are_found():
    rows = CLEAN.with_columns(pl.col("user_id").cast(pl.String))
    crawler = pl.DataFrame({"item_id": range(ITEMS)}).select(
        user_id=pl.lit("crawler"), item_id=pl.col("item_id").cast(CLEAN.schema["item_id"]), rating=4.0, timestamp=START
    ).cast(dict(rows.schema))  # fmt: skip
    odd = rows.head(6).with_columns(user_id=pl.Series(["nan", "NULL", "Ann", "ann", "ann ", "Bob"]))
    found = audit(read(pl.concat([rows, crawler, odd]), strip=False))
    assert (found.of("missing-ids").count, found.of("missing-ids").severity) == (2, "problem")
    assert (found.of("alike-ids").count, found.of("alike-ids").severity) == (3, "warning")
    padded = audit(read(rows.with_columns(pl.col("user_id") + "\t"), strip=False)).of("alike-ids")
    assert (padded.severity, padded.count) == ("info", rows["user_id"].n_unique())
    assert found.of("dominant-ids").severity in ("ok", "warning")
    assert audit(read(CLEAN)).of("dominant-ids").severity == "ok"


def test_a_user_with_all_items_is_found_where_others_have_few():
    rows = pl.DataFrame(
        {
            "user": [u for u in range(40) for _ in range(8)],
            "item": [(u * 3 + n * 7) % 30 for u in range(40) for n in range(8)],
        }
    )
    bot = pl.DataFrame({"user": [99] * 30, "item": list(range(30))})
    assert audit(from_frame(rows)).of("dominant-ids").severity == "ok"
    finding = audit(from_frame(pl.concat([rows, bot]))).of("dominant-ids")
    assert (finding.severity, finding.examples) == ("warning", ("user 99: 30 rows",))


def test_coming_back_to_an_item_is_no_error_and_zero_on_a_continuous_scale_no_code():
    again = CLEAN.drop("rating").head(50).with_columns(pl.col("timestamp") + 5)
    assert audit(read(pl.concat([CLEAN.drop("rating"), again]))).of("duplicates").severity == "info"
    scale = CLEAN.with_columns(rating=pl.Series([(n * 0.37) % 4.9 if n % 3 else 0.0 for n in range(len(CLEAN))]))
    assert audit(read(scale, explicit=True)).of("sentinels").severity == "ok"
