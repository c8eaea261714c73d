"""Times of every kind: converted where they can be read in one way only, refused otherwise."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from palate.data.parsing import settle
from palate.data.readers import read_interactions
from palate.data.times import read_times
from palate.errors import DataError

NOW = 1631573101  # 2021-09-13 22:45:01
DAY = 1631491200  # 2021-09-13


def read(values, **options):
    """Seconds, and the texts of notes; refused values raise."""
    column = values if isinstance(values, pl.Series) else pl.Series("time", values, strict=False)
    parsed = read_times(column, **options)
    settle(parsed.flaws, type("", (), {"name": "log", "place": lambda _, row: f"row {row + 1}"})(), len(column), False)
    return parsed.values.to_list(), [note.text for note in parsed.notes]


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        ([NOW * 1000, NOW * 1000 + 500], [NOW, NOW + 0.5], None),
        ([NOW, NOW * 1000, NOW * 10**6], [NOW] * 3, "mix seconds (1), milliseconds (1), microseconds (1)"),
        ([20210913224501, 20210913224502], [NOW, NOW + 1], "dates with seconds such as 20210913224501"),
        ([202109132245, 202109132246], [NOW - 1, NOW + 59], "dates with minutes such as 202109132245"),
        ([20210913, 20210914], [DAY, DAY + 86400], "dates such as 20210913"),
        (["20210913", "20210914"], [DAY, DAY + 86400], "dates such as 20210913"),
        ([2021, 2022], [1609459200, 1640995200], "read as years"),
        ([202101, 202201], [1609459200, 1640995200], "read as months"),
        ([30, 10, 20], [30, 10, 20], "are no dates (10 to 30): taken as seconds from an unknown start"),
        (["2021-09-13", str(NOW)], [DAY, NOW], "both numbers and written dates"),
        (["2021-09-13T22:45:01Z", "2021-09-14 00:45:01 +0200", "2021-09-13"], [NOW, NOW, DAY], "without a zone"),
    ],
)
def test_times_that_can_be_read_in_one_way_are_converted_with_a_note(values, expected, note):
    seconds, notes = read(values)
    assert seconds == expected
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


SPELLED = [
    "2021-09-13 22:45:01 UTC", "Mon, 13 Sep 2021 22:45:01 +0000", "13/Sep/2021:22:45:01 +0000", "20210913T224501Z",
    "Mon Sep 13 22:45:01 +0000 2021", "2021-09-13 10:45:01 PM", "Sep 13, 2021 22:45:01", "2021-09-13 22:45:01,000",
    "September 13, 2021 22:45:01", "13 September 2021 22:45:01", "Mon Sep 13 2021 22:45:01 GMT+0000 (UTC)",
]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["May 1, 2021", "September 13, 2021"], [1619827200, DAY]),
        (["09 3, 2021", "09 13, 2021"], [DAY - 10 * 86400, DAY]),  # as Amazon writes the time of a review
        (["2021-09-13 22", "2021-09-13 23"], [NOW - 2701, NOW + 899]),
        (["3.9.2021", "4.9.2021"], [DAY - 10 * 86400, DAY - 9 * 86400]),  # with points the day is first
        (["9.13.2021", "9.3.2021"], [DAY, DAY - 10 * 86400]),
        (["13-Sep-21", "3-Sep-21"], [DAY, DAY - 10 * 86400]),
        (["13.09.21", "3.9.21", "13.9.99"], [DAY, DAY - 10 * 86400, 937180800]),
    ],
)
def test_more_spellings(texts, expected):
    assert read(texts) == (expected, [])


def test_months_are_their_first_day_and_noted():
    seconds, notes = read(["2021-09", "2021-10"])
    assert seconds == [1630454400, 1633046400]
    assert notes == ["times in column 'time' read as months"]


def test_times_in_scientific_notation_are_noted(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"u{i},i{i % 3},1.6{i}E+09\n" for i in range(6)))
    dataset = read_interactions(path)
    assert dataset.interactions.time[0] == 1_600_000_000
    assert "are in scientific notation, which has cut the seconds: 6 rows" in str(dataset.notes[0])


def test_the_order_of_day_and_month_can_be_given():
    dates = ["3/4/2021", "5/4/2021 10:00"]
    with pytest.raises(DataError, match=r"unclear which number is the month: .*--time-unit dmy"):
        read(dates)
    assert read(dates, unit="dmy")[0] == [1617408000, 1617616800]
    assert read(dates, unit="mdy")[0] == [1614816000, 1620122400]
    with pytest.raises(DataError, match="both orders occur"):
        read(["13/4/2021"], unit="mdy")
    with pytest.raises(DataError, match=r"'9/13/21' .*years of two digits: .*--time-unit dmy"):
        read(["9/13/21", "9/3/21 10:00"])
    assert read(["9/13/21", "9/3/21 10:00"], unit="mdy")[0] == [DAY, DAY - 10 * 86400 + 36000]


@pytest.mark.parametrize("text", SPELLED)
def test_usual_spellings(text):
    assert read([text, text])[0] == [NOW, NOW]


@pytest.mark.parametrize(
    "values",
    [
        [NOW, 0, NOW + 2], [20210913, 20210914, 0], ["2021-09-13", "0"], [NOW, -1], [NOW, 4102444800],
        [20211313, 20210914], [20206000000, 20206000001], ["1970-01-01", "2021-09-13"], ["9999-12-31", "2021-09-13"],
        pl.Series([dt.datetime(1970, 1, 1, 0, 0, 1), dt.datetime(1970, 1, 1, 0, 0, 2)]), [0, 900_000_000],
    ],
)  # fmt: skip
def test_times_outside_the_usual_years_are_refused_or_taken_in_a_named_unit(values):
    with pytest.raises(
        DataError, match=r"a time outside the years 1980 to 20\d\d in column '.*' in . row.*time-unit s"
    ):
        read(values)
    assert None not in read(values, unit="s")[0]


def test_a_named_unit_is_taken():
    assert read([0, 1500], unit="ms") == ([0, 1.5], [])
    with pytest.raises(DataError, match="time_unit='d': must be one of auto, s, ms, us, ns"):
        read([1], unit="d")


@pytest.mark.parametrize("values", [["soon", "2021-09-13"], [NOW, np.inf], ["2021-09-13 24:00"], ["x"] * 2000])
def test_what_is_no_time_is_refused(values):
    with pytest.raises(DataError, match="an unreadable timestamp"):
        read(values)


def test_a_spelling_that_is_rare_is_found_behind_many_others():
    assert read(["2021-09-13"] * 3000 + ["13 Sep 2021"])[0] == [DAY] * 3001
    assert read(["13 Sep 2021"] * 3000 + ["2021-09-13"])[0] == [DAY] * 3001
