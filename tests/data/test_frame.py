import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.columns import Columns, find_columns
from palate.data.frame import from_frame, to_frame
from palate.data.id_columns import SPELLINGS
from palate.data.ids import plain_text
from palate.errors import DataError

ROWS = {"user_id": ["b", "a", "b", "c"], "item_id": [3, 1, 2, 3], "rating": [5, 4, 3, 1], "timestamp": [40, 30, 20, 10]}


def notes(dataset):
    return {note.text: note.rows for note in dataset.notes if note.kind != "relative-times"}


def with_times(values):
    return from_frame(pl.DataFrame({"user": [1, 2], "item": [1, 2], "time": values})).interactions.time.tolist()


# --- columns


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["userId", "movieId", "rating", "timestamp"], ("userId", "movieId", "rating", "timestamp")),
        (["visitorid", "event", "itemid", "ts"], ("visitorid", "itemid", None, "ts")),
        (["t_dat", "customer_id", "article_id", "price"], ("customer_id", "article_id", None, "t_dat")),
        (["userID", "artistID", "weight"], ("userID", "artistID", "weight", None)),
        (["user_id:token", "item_id:token", "rating:float"], ("user_id:token", "item_id:token", "rating:float", None)),
        (["User", "SKU", "Stars", "Quantity", "created_at"], ("User", "SKU", "Stars", "created_at")),
        (["user", "user_id", "item"], ("user_id", "item", None, None)),
    ],
)
def test_usual_names_are_found(names, expected):
    found = find_columns(names)
    assert (found.user_id, found.item_id, found.rating, found.timestamp)[:2] == expected[:2]
    assert found.timestamp == expected[3]
    assert found.rating == expected[2]


def test_given_names_win_and_empty_means_none():
    found = find_columns(["user_id", "buyer", "item_id", "rating"], user="buyer", rating="")
    assert found == Columns("buyer", "item_id", None, None)


@pytest.mark.parametrize(
    ("names", "given_names", "message"),
    [
        (["who", "item"], {}, r"no column looks like the user: the columns are 'who', 'item'.*user=.*--user"),
        (["user", "item"], {"item": "itm"}, r"no column 'itm' for the item, did you mean 'item'"),
        (["user", "item", "date", "time"], {}, r"'date', 'time' could all be the timestamp.*--time"),
        (["user", "item"], {"user": "item", "item": "item"}, r"mapped twice"),
    ],
)
def test_columns_that_cannot_be_told(names, given_names, message):
    with pytest.raises(DataError, match=message):
        find_columns(names, **given_names)


# --- every kind of frame


@pytest.mark.parametrize("make", [pl.DataFrame, pl.LazyFrame, pd.DataFrame, pa.table])
def test_every_dataframe_gives_the_same(make):
    dataset = from_frame(make(ROWS))
    assert dataset.users.ids.to_list() == ["a", "b", "c"]
    assert dataset.items.ids.to_list() == [1, 2, 3]
    assert dataset.interactions.user.tolist() == [1, 0, 1, 2]
    assert dataset.interactions.weight.dtype == np.float32
    assert dataset.explicit
    assert dataset.fingerprint == from_frame(pl.DataFrame(ROWS)).fingerprint


ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=8, unique=True),
    # Texts in which nothing is invisible and that stand for no missing id: these are the matter of test_id_columns.
    st.lists(
        st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=6), min_size=2, max_size=8, unique=True
    ).filter(lambda texts: texts == plain_text(pl.Series(texts)).to_list() and set(SPELLINGS).isdisjoint(texts)),
)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), explicit=st.booleans(), timed=st.booleans())
def test_round_trip(data, explicit, timed):
    users, items = data.draw(ids), data.draw(ids)
    # A pair of rows with two users and two items, then anything.
    pairs = [(users[0], items[0]), (users[1], items[1])]
    pairs += data.draw(st.lists(st.tuples(st.sampled_from(users), st.sampled_from(items)), max_size=20))
    n = len(pairs)
    weights = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=n, max_size=n))
    table = pl.DataFrame(
        {"user_id": [u for u, _ in pairs], "item_id": [i for _, i in pairs], "rating": weights}, strict=False
    ).rename({} if explicit else {"rating": "weight"})
    if timed:
        seconds = data.draw(st.lists(st.floats(3.2e8, 1.7e9), min_size=n, max_size=n))
        table = table.with_columns(timestamp=pl.Series(seconds, dtype=pl.Float64))
    dataset = from_frame(table, explicit=explicit, duplicates="keep")
    back = to_frame(dataset)
    assert back.columns == table.columns
    assert back.equals(table.cast({table.columns[2]: pl.Float32}))
    again = from_frame(back, explicit=explicit, duplicates="keep")
    assert again.users == dataset.users
    assert again.items == dataset.items
    assert again.fingerprint == dataset.fingerprint


def test_pandas_floats_next_to_a_missing_id_become_integers():
    frame = pd.DataFrame({"user": [7, None, 9], "item": [1, 2, 3]})
    with pytest.raises(DataError, match=r"no id in column 'user' in 1 row: row 2: None"):
        from_frame(frame)
    dataset = from_frame(frame, drop_invalid=True)
    assert dataset.users.ids.to_list() == [7, 9]
    assert notes(dataset)["dropped: no id in column 'user'"] == 1
    assert any("stored as floats" in what for what in notes(dataset))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([1, 2], dtype=pl.UInt8), [1, 2]),
        (pl.Series([2**64 - 1, 5], dtype=pl.UInt64), [str(2**64 - 1), "5"]),
        (pl.Series(["é", "日本"], dtype=pl.Categorical), ["é", "日本"]),
        (pl.Series(["007", "7"]), ["007", "7"]),
        (pl.Series([1.5, 2.0]), ["1.5", "2.0"]),
    ],
)
def test_ids_of_any_type(values, expected):
    assert from_frame(pl.DataFrame({"user": values, "item": [1, 2]})).users.ids.to_list() == expected


def test_explicit_is_decided_by_name_and_values():
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "x": [3, 4]})
    assert from_frame(frame.rename({"x": "stars"})).explicit
    assert not from_frame(frame.rename({"x": "plays"})).explicit
    assert not from_frame(frame.with_columns(rating=1).drop("x")).explicit
    assert not from_frame(frame).explicit
    with pytest.raises(DataError, match="explicit=True needs a rating column"):
        from_frame(frame, explicit=True)


# --- times


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_unit_of_numbers(unit):
    assert with_times([1427932800 * unit, 1427932801 * unit]) == [1427932800.0, 1427932801.0]
    assert with_times([str(1427932800 * unit), str(1427932801 * unit)]) == [1427932800.0, 1427932801.0]


MIDNIGHT = 1427932800.0  # 2015-04-02 00:00 UTC


@pytest.mark.parametrize(
    "spelled",
    [
        "2015-04-02 23:53:47",
        "2015-04-02T23:53:47Z",
        "2015-04-03T01:53:47+02:00",
        "2015-04-02T23:53:47.000000",
        "2015/04/02 23:53:47",
        "2015-04-02 23:53:47 UTC",
        " 2015-04-02 23:53:47 ",
    ],
)
def test_spelled_times(spelled):
    assert with_times([spelled, "2015-04-02"]) == [MIDNIGHT + 23 * 3600 + 53 * 60 + 47, MIDNIGHT]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["04/02/2015", "12/31/2015"], [MIDNIGHT, 1451520000.0]),
        (["02.04.2015", "31.12.2015"], [MIDNIGHT, 1451520000.0]),
        (["4/2/2015 1:00", "12/31/2015 00:00"], [MIDNIGHT + 3600, 1451520000.0]),
        ([20150402, 20151231], [MIDNIGHT, 1451520000.0]),
        ([dt.date(2015, 4, 2), dt.date(2015, 12, 31)], [MIDNIGHT, 1451520000.0]),
        (
            [dt.datetime(2015, 4, 2, tzinfo=dt.UTC), dt.datetime(2015, 12, 31, tzinfo=dt.UTC)],
            [MIDNIGHT, 1451520000.0],
        ),
    ],
)
def test_dates(values, expected):
    assert with_times(values) == expected


def test_ambiguous_dates_are_refused():
    with pytest.raises(DataError, match=r"'03/04/2015' in column 'time': it is unclear which number is the month"):
        with_times(["03/04/2015", "05/06/2015"])
    with pytest.raises(DataError, match="both orders occur"):
        with_times(["13/04/2015", "05/16/2015"])


# --- flawed rows


def test_flaws_name_row_column_value_and_remedy_or_are_counted():
    frame = pl.DataFrame(
        {
            "user": ["a", "b", None, "d", "e", "f", ""],
            "item": [1, 2, 3, 4, 5, 6, 7],
            "rating": ["5", "abc", None, "nan", "inf", " 3 ", "4"],
            "time": ["2015-04-02", "2015-04-03", "2015-04-03", "2015-04-03", "2015-04-03", "soon", "2015-04-03"],
        }
    )
    with pytest.raises(DataError) as caught:
        from_frame(frame, source="clicks")
    message = str(caught.value)
    assert message.startswith("clicks: no id in column 'user' in 2 rows: row 3: None, row 7: ''")
    assert "a rating that is not a number in column 'rating' in 1 row: row 2: 'abc'" in message
    assert "a NaN or infinite rating in column 'rating' in 2 rows: row 4: 'nan', row 5: 'inf'" in message
    assert "an unreadable timestamp in column 'time' in 1 row: row 6: 'soon'" in message
    assert message.endswith("pass drop_invalid=True (--drop-invalid)")
    with pytest.raises(DataError, match="has only the value 'a'"):
        from_frame(frame, drop_invalid=True)
    dataset = from_frame(
        pl.concat([frame, frame[:1].with_columns(user=pl.lit("z"), item=pl.lit(9, pl.Int64))]), drop_invalid=True
    )
    assert dataset.users.ids.to_list() == ["a", "z"]
    assert sum(notes(dataset).values()) == 6, "each dropped row is counted once"


def test_only_three_rows_are_shown():
    frame = pl.DataFrame({"user": [1, 2, 3, 4, 5], "item": [1, 2, 3, 4, 5], "rating": ["x", "y", "z", "q", "5"]})
    with pytest.raises(DataError, match=r"in 4 rows: row 1: 'x', row 2: 'y', row 3: 'z', \.\.\.:"):
        from_frame(frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"user": [], "item": []}), "dataframe: no rows"),
        (pl.DataFrame({"user": [1, 1], "item": [1, 2]}), "column 'user' has only the value 1"),
        (pl.DataFrame({"user": [1, 2], "item": ["x", "x"]}), "column 'item' has only the value 'x'"),
        (pl.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [dt.date(2015, 1, 1)] * 2}), "ratings must be numb"),
        (pl.DataFrame({"user": [1, 2], "item": [1, 2], "time": [True, False]}), "times must be numbers or dates"),
        (pd.DataFrame([[1, 2]], columns=["user", "user"]), "two columns have the same name"),
        (pd.DataFrame({"user": [1, "x"], "item": [1, 2]}), "a column mixes types"),
        (pd.DataFrame({0: [1]}), "the column name 0 is not a string"),
        ({"user": [1]}, "a dict is not a table"),
    ],
)
def test_frames_that_cannot_be_used(frame, message):
    with pytest.raises(DataError, match=message):
        from_frame(frame)


@pytest.mark.parametrize("index", ["user", ["user", "item"]])
def test_ids_in_an_index_get_a_remedy_that_works(index):
    frame = pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 2]}).set_index(index)
    with pytest.raises(DataError, match=r"two are needed; frame.reset_index\(\) makes columns"):
        from_frame(frame)
    assert len(from_frame(frame.reset_index())) == 3
    rated = frame.assign(stars=[5, 3, 4], price=9)
    with pytest.raises(DataError, match=r"the index \('user'.* is no column: pass frame.reset_index\(\)"):
        from_frame(rated)
    with pytest.raises(DataError, match=r"a Series is not a table: pass its reset_index\(\)"):
        from_frame(rated["stars"])


def test_sentinels_are_dropped_and_counted_or_pointed_out():
    frame = pl.DataFrame({"user": [1, 2, 3, 4, 5], "item": [1, 2, 3, 4, 5], "rating": [-1, 7, 8, 9, -1]})
    kept = from_frame(frame)
    assert len(kept) == 5
    assert [note.rows for note in kept.notes if "rating -1 looks like a sentinel" in note.text] == [2]
    dropped = from_frame(frame, sentinels=(-1,))
    assert dropped.interactions.weight.tolist() == [7, 8, 9]
    assert notes(dropped) == {"dropped: sentinel rating -1": 2}
    with pytest.raises(DataError, match=r"none of 5 rows is left \(dropped: sentinel rating -1: 2 rows"):
        from_frame(frame, sentinels=(-1, 7, 8, 9))


def test_a_scale_that_starts_below_one_is_no_sentinel():
    frame = pl.DataFrame({"user": range(4), "item": range(4), "rating": [0.0, 0.25, 0.5, 1.0]})
    assert from_frame(frame).notes == ()


# --- duplicates

REPEATED = pl.DataFrame(
    {"user": ["a", "b", "a", "a", "b"], "item": [1, 2, 1, 1, 1], "rating": [5, 4, 3, 2, 1], "time": [9, 1, 9, 2, 3]}
)


@pytest.mark.parametrize(
    ("frame", "policy", "weights"),
    [
        (REPEATED, "last", [4, 3, 1]),  # of the two latest the last row
        (REPEATED.drop("time"), "last", [4, 2, 1]),
        (REPEATED, "sum", [4, 10, 1]),
        (REPEATED, "keep", [5, 4, 3, 2, 1]),
    ],
)
def test_duplicate_policies(frame, policy, weights):
    dataset = from_frame(frame, duplicates=policy)
    assert dataset.interactions.weight.tolist() == weights
    assert sum(notes(dataset).values()) == len(frame) - len(weights)
    if policy == "sum":
        assert dataset.interactions.time.tolist() == [1, 9, 3]


def test_duplicates_can_be_an_error():
    with pytest.raises(DataError, match=r"in 2 rows \(user 'a' with item 1, .*pass duplicates='last'"):
        from_frame(REPEATED, duplicates="error")
    with pytest.raises(DataError, match="duplicates='first': must be one of auto, last, sum"):
        from_frame(REPEATED, duplicates="first")


# --- features


def test_items_that_nobody_touched_are_kept_if_wished():
    films = pl.DataFrame({"movie": ["3", "1", "99", "x"], "name": ["Heat", "Alien", "NegativeSampler", "Odd"]})
    dataset = from_frame(pl.DataFrame(ROWS), item_features=films, keep_cold_items=True)
    assert dataset.items.ids.to_list() == [1, 2, 3, 99]
    assert dataset.titles.to_list() == ["Alien", "2", "Heat", "NegativeSampler"]
    assert dataset.items.ids.gather(dataset.interactions.item).to_list() == ROWS["item_id"]
    assert notes(dataset)["items without interactions, kept for their features"] == 1
    assert notes(dataset)["item features of ids without interactions, left out"] == 1  # x is no integer
    with pytest.raises(DataError, match="keep_cold_items=True needs a table about the items"):
        from_frame(pl.DataFrame(ROWS), keep_cold_items=True)


def test_features_and_titles_are_aligned():
    films = pl.DataFrame(
        {"movie": ["3", "1", "99"], "name": ["Heat", "Alien", "NegativeSampler"], "year": [1995, 1979, 2000]}
    )
    people = pd.DataFrame({"age": [30, 40, 50], "user_id": ["c", "b", "a"]})
    dataset = from_frame(pl.DataFrame(ROWS), item_features=films, user_features=people)
    assert dataset.item_features["year"].to_list() == [1979, None, 1995]
    assert dataset.user_features.to_dict(as_series=False) == {"age": [50, 40, 30]}
    assert dataset.titles.to_list() == ["Alien", "2", "Heat"]
    assert notes(dataset) == {
        "item features of ids without interactions, left out": 1,
        "items without features, given nulls": 1,
    }


def test_features_that_cannot_be_aligned():
    frame = pl.DataFrame(ROWS)
    with pytest.raises(DataError, match="ids 3 occur more than once in column 'item_id'"):
        from_frame(frame, item_features=pl.DataFrame({"item_id": [3, 3, 1], "x": [1, 2, 3]}))
    with pytest.raises(DataError, match="none of 1 ids in column 'x' occurs"):
        from_frame(frame, item_features=pl.DataFrame({"x": [12]}))
    with pytest.raises(DataError, match="titles='nome' is not a column"):
        from_frame(frame, titles="nome", item_features=pl.DataFrame({"item_id": [3], "name": ["x"]}))


# --- keywords, and frames back


def test_columns_are_plain_keywords():
    frame = pl.DataFrame({"customer": [1, 2, 1], "sku": ["a", "b", "b"], "stars": [1.0, 5.0, 3.0], "n": [1, 2, 3]})
    rated = from_frame(frame, user="customer", item="sku", rating="stars")
    assert (rated.explicit, rated.interactions.weight.tolist()) == (True, [1, 5, 3])
    strengths = from_frame(frame, user="customer", item="sku", weight="n")
    assert (strengths.explicit, strengths.interactions.weight.tolist()) == (False, [1, 2, 3])
    assert from_frame(frame, weight="n").interactions.weight.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match="rating='stars' and weight='n': give one"):
        from_frame(frame, rating="stars", weight="n")


def test_the_remedy_of_a_missing_column_can_be_written():
    frame = pl.DataFrame({"who": [1, 2], "what": [1, 2]})
    with pytest.raises(DataError, match=r"name it with user=\.\.\."):
        from_frame(frame)
    with pytest.raises(DataError, match=r"name it with item=\.\.\."):
        from_frame(frame, user="who")
    assert len(from_frame(frame, user="who", item="what")) == 2


def test_pandas_comes_back_as_pandas_and_polars_as_polars():
    rows = {"user_id": ["a", "b"], "item_id": [1, 2], "timestamp": [1.5e9, 1.6e9]}
    one, two = from_frame(pd.DataFrame(rows)), from_frame(pl.DataFrame(rows))
    assert isinstance(one.to_frame(), pd.DataFrame)
    assert isinstance(two.to_frame(), pl.DataFrame)
    assert isinstance(two.to_pandas(), pd.DataFrame)
    assert one.to_polars().equals(two.to_polars())
    assert isinstance(one.with_rows(one.interactions).to_frame(), pd.DataFrame)
    assert from_frame(one.to_frame()).fingerprint == two.fingerprint


def test_a_data_set_says_what_it_is():
    rows = {"user_id": ["a", "b"], "item_id": [1, 2], "rating": [1, 5], "timestamp": [1.5e9, 1.6e9]}
    data = from_frame(pl.DataFrame(rows), item_features=pl.DataFrame({"item_id": [1, 2], "genre": ["x", "<y>"]}))
    assert repr(data).splitlines() == [
        "Dataset frame: 2 rows, 2 users, 2 items",
        "  ratings: 1 to 5",
        "  positive: rating at least 4 (1 of 2 rows)",
        "  time: 2017-07-14 to 2020-09-13",
        "  item features: genre",
    ]
    assert "<td>2017-07-14 to 2020-09-13</td>" in data._repr_html_()


@pytest.mark.parametrize("make", [pl.DataFrame, lambda rows: pl.DataFrame(rows).to_pandas()])
def test_lists_of_items_are_one_interaction_per_element(make):
    dataset = from_frame(make({"user": ["a", "b", "c"], "items": [["x", "y"], ["y"], []]}), item="items")
    assert dataset.users.external(dataset.interactions.user).to_list() == ["a", "a", "b"]
    assert dataset.items.external(dataset.interactions.item).to_list() == ["x", "y", "y"]
    assert notes(dataset)["an empty list: no interaction"] == 1
