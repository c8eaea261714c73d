"""What a column of numbers or event types means, found by name and values, given, and said in one line."""

import shlex

import numpy as np
import pandas as pd
import polars as pl
import pytest

from palate.data.columns import find_columns
from palate.data.events import parse_weights
from palate.data.frame import from_frame
from palate.data.readers import read_interactions
from palate.errors import DataError

N = 4000


def rows(**columns):
    rng = np.random.default_rng(0)
    pair = rng.choice(100 * 80, N, replace=False)
    return pl.DataFrame({"user": pair // 80, "item": pair % 80, **columns})


def values(kind):
    rng = np.random.default_rng(1)
    return {
        "stars": rng.integers(1, 6, N),
        "half stars": rng.integers(1, 11, N) / 2,
        "ten": rng.integers(0, 11, N),
        "percent": rng.normal(65, 15, N).clip(0, 100),
        "continuous": rng.uniform(-10, 10, N),
        "mostly zero of ten": np.where(rng.random(N) < 0.6, 0, rng.integers(1, 11, N)),
        "stars with a code": np.where(rng.random(N) < 0.001, 999, rng.integers(1, 6, N)),
        "hours": np.exp(rng.normal(1.5, 2, N)).round(1) + 0.1,
        "counts": rng.zipf(1.6, N).clip(0, 3000),
        "uniform counts": rng.integers(1, 3001, N),
        "labels": rng.integers(0, 2, N),
        "thumbs": rng.integers(0, 2, N) * 2 - 1,
        "ones": np.ones(N),
    }[kind]


# --- ratings, quantities, labels


@pytest.mark.parametrize("name", ["rating", "score", "grade"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("stars", "rating"),
        ("half stars", "rating"),
        ("ten", "rating"),
        ("percent", "rating"),
        ("continuous", "rating"),
        ("mostly zero of ten", "rating"),
        ("stars with a code", "rating"),
        ("hours", "quantity"),
        ("counts", "quantity"),
        ("uniform counts", "quantity"),
        ("labels", "label"),
        ("thumbs", "label"),
        ("ones", "none"),
    ],
)
def test_the_kind_of_a_column_called_rating_is_judged_by_its_values(name, kind, expected):
    dataset = from_frame(rows(**{name: values(kind)}))
    assert dataset.feedback.kind == expected
    assert dataset.feedback.column == name
    said = [note.text for note in dataset.notes if "taken as quantities" in note.text]
    assert bool(said) == (expected == "quantity")


@pytest.mark.parametrize("name", ["Hours", "plays", "qty", "playcount", "weight", "watch_time", "amount"])
@pytest.mark.parametrize("kind", ["hours", "counts", "stars"])
def test_the_name_of_a_quantity_decides(name, kind):
    assert from_frame(rows(**{name: values(kind)})).feedback.kind == "quantity"


def test_what_is_given_wins():
    assert from_frame(rows(plays=values("counts")), explicit=True).feedback.kind == "rating"
    assert from_frame(rows(stars=values("stars")), explicit=False).feedback.kind == "quantity"
    assert from_frame(rows(stars=values("stars")), weight="stars").feedback.kind == "quantity"
    assert from_frame(rows(x=values("counts")), rating="x").feedback.kind == "quantity"
    assert from_frame(rows(x=values("stars")), rating="x").feedback.kind == "rating"


def test_small_counts_under_an_unknown_name_are_in_doubt_and_said():
    counts = np.random.default_rng(2).geometric(0.6, N)
    dataset = from_frame(rows(x=counts), rating="x")
    assert dataset.feedback.kind == "rating"
    assert any("if they are quantities, pass weight='x' (--weight x)" in note.text for note in dataset.notes)
    assert from_frame(rows(x=counts), weight="x").feedback.kind == "quantity"


@pytest.mark.parametrize("name", ["label", "clicked", "click", "is_click", "liked", "purchased", "clicks"])
@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.astype(bool), lambda x: np.where(x == 1, "True", "false")])
def test_labels_are_recognized(name, make):
    labels = values("labels")
    dataset = from_frame(rows(**{name: make(labels)}))
    assert dataset.feedback.kind == "label"
    assert dataset.positive.tolist() == (labels == 1).tolist()
    assert f"weight={name} (0/1 label)" in dataset.columns


def test_a_label_seen_again_without_a_click_stays_positive():
    frame = pl.DataFrame({"user": [1, 1, 2, 2], "item": [1, 1, 1, 2], "clicked": [1, 0, 0, 0], "time": [1, 2, 3, 4]})
    dataset = from_frame(frame)
    assert dataset.interactions.weight.tolist() == [1, 0, 0]


# --- event types

EVENTS = {
    "user": [1, 1, 1, 2, 2, 2, 3],
    "item": ["a", "a", "b", "a", "a", "b", "c"],
    "event": ["view", "purchase", "view", "purchase", "return", "cart", "hide"],
    "time": [1, 2, 3, 4, 5, 6, 7],
}


def weights(dataset):
    frame = dataset.to_polars()
    return {(row[0], row[1]): row[2] for row in frame.select("user_id", "item_id", "weight").iter_rows()}


def test_events_get_the_weights_of_their_types():
    dataset = from_frame(pl.DataFrame(EVENTS), event="event")
    assert dataset.feedback.kind == "event"
    # A purchase after a view counts, a return after a purchase cancels it.
    assert weights(dataset) == {(1, "a"): 10, (1, "b"): 1, (2, "a"): -1, (2, "b"): 3, (3, "c"): -1}
    assert dataset.positive.sum() == 3
    assert "event=event (return -1, hide -1, view 1, cart 3, purchase 10)" in dataset.columns


@pytest.mark.parametrize(
    "given",
    [
        {"view": 0, "cart": 2, "purchase": 7, "return": -3, "hide": -1},
        "view=0,cart=2, PURCHASE=7,return=-3",  # hide is negative by its name
    ],
)
def test_weights_are_given(given):
    dataset = from_frame(pl.DataFrame(EVENTS), event="event", event_weights=given)
    assert weights(dataset) == {(1, "a"): 7, (1, "b"): 0, (2, "a"): -3, (2, "b"): 2, (3, "c"): -1}
    assert dataset.positive.sum() == 2


@pytest.mark.parametrize("head", ["", "[events]\n"])
def test_weights_in_toml(tmp_path, head):
    path = tmp_path / "events.toml"
    path.write_text(head + 'view = 0\n"add to cart" = 2.5\n')
    assert parse_weights(path) == parse_weights(str(path)) == {"view": 0, "add to cart": 2.5}


def test_a_positive_event_after_a_dislike_counts():
    frame = pl.DataFrame({"user": [1, 1, 1, 2], "item": [1, 1, 1, 2], "event": ["like", "dislike", "view", "view"]})
    assert weights(from_frame(frame, event="event")) == {(1, 1): 1, (2, 2): 1}
    assert weights(from_frame(frame, event="event", event_weights="like=1,view=0,dislike=-2")) == {
        (1, 1): -2,
        (2, 2): 0,
    }


def test_a_type_without_weight_is_refused_with_an_option_that_works():
    frame = pl.DataFrame({**EVENTS, "event": ["view", "zap it", "view", "zap it", "hide", "view", "view"]})
    for given in (None, "view=2"):
        with pytest.raises(DataError, match=r"no weight for event type 'zap it'.*view 4 rows, zap it 2 rows") as found:
            from_frame(frame, event="event", event_weights=given)
        words = shlex.split(str(found.value).split("such as ")[1].split(" (event_weights")[0])
        assert words[0] == "--event-weights"
        assert weights(from_frame(frame, event="event", event_weights=words[1]))[(1, "a")] > 0


def test_codes_and_pandas_are_event_types():
    frame = pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "behavior_type": [1, 4, None]})
    with pytest.raises(DataError, match="no event type in column 'behavior_type' in 1 row"):
        from_frame(frame, event="behavior_type", event_weights="1=1,4=10")
    dataset = from_frame(frame, event="behavior_type", event_weights={1: 1, 4: 10}, drop_invalid=True)
    assert dataset.interactions.weight.tolist() == [1, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"event_weights": "view=1"}, r"event_weights without a column of event types: .*--event"),
        ({"event": "event", "rating": "time"}, "give one"),
        ({"event": "event", "event_weights": "view"}, r"'view' is not NAME=WEIGHT: write view=1,cart=3"),
        ({"event": "event", "event_weights": "view=x"}, r"view='x': must be a finite number"),
        ({"event": "event", "event_weights": {"view": float("nan")}}, r"view=nan: must be a finite number"),
        ({"event": "event", "event_weights": {}}, "event_weights is empty"),
        ({"event": "event", "event_weights": "no.toml"}, "no.toml does not exist"),
        ({"event": "evnt"}, r"no column 'evnt' for the event, did you mean 'event'"),
    ],
)
def test_mistakes_with_events(arguments, message):
    with pytest.raises(DataError, match=message):
        from_frame(pl.DataFrame(EVENTS), **arguments)


def test_a_column_of_many_values_holds_no_event_types():
    with pytest.raises(DataError, match=r"column 'text' has 4,000 different values"):
        from_frame(rows(text=[f"t{n}" for n in range(N)]), event="text")


# --- several rows of a pair


@pytest.mark.parametrize(
    ("column", "expected"),
    [({"hours": [1.0, 2.0, 4.0]}, 3), ({"stars": [5, 3, 4]}, 3), ({}, 1), ({"clicked": [1, 0, 0]}, 1)],
)
def test_repeated_pairs_are_merged_by_their_kind(column, expected):
    frame = pl.DataFrame({"user": [1, 1, 2], "item": [1, 1, 2], "time": [1, 2, 3], **column})
    assert from_frame(frame).interactions.weight[0] == expected
    assert from_frame(frame, duplicates="last").interactions.weight[0] == (
        frame[next(iter(column))][1] if column else 1
    )


# --- the line


def shop(n=N):
    rng = np.random.default_rng(0)
    return rows(
        qty=rng.geometric(0.3, n),
        event=rng.choice(["view", "cart", "purchase"], n, p=[0.81, 0.12, 0.07]),
        mode=rng.choice(["zig", "zag"], n, p=[0.75, 0.25]),
        country=rng.choice(["DE", "FR"], n, p=[0.75, 0.25]),
        price=rng.random(n).round(4),
        event_time=rng.integers(1_600_000_000, 1_700_000_000, n),
    )


@pytest.mark.parametrize("form", ["polars", "pandas", "csv", "csv.gz", "parquet"])
def test_one_line_says_what_was_read(tmp_path, form):
    frame, path = shop(), tmp_path / f"shop.{form}"
    if form in ("polars", "pandas"):
        line = from_frame(frame if form == "polars" else frame.to_pandas()).columns
    else:
        frame.write_parquet(path) if form == "parquet" else frame.write_csv(
            path, compression="gzip" if "gz" in form else "uncompressed"
        )
        line = read_interactions(path).columns
    start, _, rest = line.partition(" · not used: ")
    assert start == "columns: user=user item=item weight=qty (quantity) time=event_time (UTC)"
    event, mode, country, price = rest.split("), ")
    of = r"( in [\d,]+ sampled rows)?" if "gz" in form else ""
    assert pl.Series([event]).str.contains(
        rf"^event \(3 values{of}: view 8\d %, cart 1\d %, purchase [678] % — use --event event$"
    )[0]
    assert "zig 7" in mode
    assert mode.endswith("event types? use --event mode")
    assert country.startswith("country (2 values")
    assert "--event" not in country
    assert price == "price"


def test_columns_that_polars_cannot_hold_are_named_only():
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "mixed": [1, "a"], "list": [[1], [2]]})
    assert from_frame(frame).columns == "columns: user=user item=item · not used: mixed, list"


def test_event_names_of_analytics_have_weights():
    names = [
        "view_item",
        "Product Added",
        "begin_checkout",
        "purchase",
        "Order Refunded",
        "view_item_list",
        "pv",
        "fav",
    ]
    frame = pl.DataFrame({"user": range(8), "item": [0, 1] * 4, "event": names})
    dataset = from_frame(frame, event="event")
    assert dataset.interactions.weight.tolist() == [1, 3, 3, 10, -1, 0, 1, 3]


# --- names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["msno", "song_id", "target"], ("msno", "song_id", None, None)),
        (["visitor", "hotel", "review_date"], ("visitor", "hotel", None, "review_date")),
        (
            ["customer_unique_id", "product_code", "order_date", "amount"],
            ("customer_unique_id", "product_code", "amount", "order_date"),
        ),
        (["user", "recipe_id", "stars", "event_ts"], ("user", "recipe_id", "stars", "event_ts")),
        (["player", "game", "playtime_forever", "ts_ms"], ("player", "game", "playtime_forever", "ts_ms")),
        (["viewer", "video_id", "watch_time", "duration"], ("viewer", "video_id", "watch_time", None)),
        (["user_id", "clicked", "item_id", "watch_time"], ("user_id", "item_id", "clicked", None)),
        (["customer", "session_id", "sku"], ("customer", "sku", None, None)),
    ],
)
def test_more_usual_names(names, expected):
    found = find_columns(names)
    assert (found.user_id, found.item_id, found.rating, found.timestamp) == expected


@pytest.mark.parametrize(
    "names",
    [
        ["customer_id", "customer_unique_id", "sku"],
        ["user_id", "asin", "parent_asin"],
        ["user_id", "item_id", "is_click", "is_like"],
        ["user_id", "item_id", "plays", "hours"],
        ["user_id", "item_id", "order_date", "event_time"],
    ],
)
def test_two_plausible_columns_are_never_guessed(names):
    with pytest.raises(DataError, match="could all be"):
        find_columns(names)


# --- columns that hold no numbers


@pytest.mark.parametrize(("yes", "no"), [("Y", "N"), ("true", "false"), ("yes", "no"), ("1.0", "0.0")])
def test_words_of_truth_are_labels(yes, no):
    given = from_frame(rows(clicked=[yes, no] * (N // 2)))
    assert given.feedback.kind == "label"
    assert given.interactions.weight.tolist() == [1.0, 0.0] * (N // 2)


def test_durations_are_seconds():
    watched = rows(watch_time=pl.int_range(1, N + 1, eager=True) * 60_000)
    given = from_frame(watched.with_columns(pl.col("watch_time").cast(pl.Duration("ms"))))
    assert given.feedback.kind == "quantity"
    assert given.interactions.weight[:2].tolist() == [60.0, 120.0]


def test_a_column_that_holds_no_ratings_gets_a_remedy_that_works():
    thumbs = rows(rating=["like", "dislike"] * (N // 2))
    with pytest.raises(
        DataError, match=r"'like', .*name it as event types with event='rating' \(--event rating\)"
    ) as e:
        from_frame(thumbs)
    assert "--drop-invalid" not in str(e.value), "no row would be left"
    given = from_frame(thumbs, event="rating")
    assert set(given.interactions.weight.tolist()) == {5.0, -1.0}
    with pytest.raises(DataError, match=r'correct them, or leave the column out with rating="" \(--rating ""\)$'):
        from_frame(rows(rating=["60%", "80%"] * (N // 2)))
    assert from_frame(rows(rating=["60%", "80%"] * (N // 2)), rating="").feedback.kind == "none"
    with pytest.raises(DataError, match=r'leave the column out with timestamp="" \(--time ""\)$'):
        from_frame(rows(time=["12:30:01", "12:30:02"] * (N // 2)))
    with pytest.raises(DataError, match=r"3 rows: .*: correct them, or pass drop_invalid=True \(--drop-invalid\)$"):
        from_frame(rows(rating=["?"] * 3 + ["4"] * (N - 3)))
