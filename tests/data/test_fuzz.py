"""Random files and frames give a Dataset or an error of one line; ``make fuzz`` reads 20,000 of them."""

import polars as pl
import pytest
from fuzz import make_input, problem, watched_stderr

from palate.data.frame import from_frame, to_frame
from palate.data.readers import read_interactions
from palate.errors import DataError


@pytest.mark.parametrize("first", [0, 100, 200])
def test_random_inputs(tmp_path, first):
    with watched_stderr() as stderr:
        inputs = (make_input(seed, tmp_path) for seed in range(first, first + 100))
        found = [f"{one.what}\n-> {text}" for one in inputs if (text := problem(one, stderr))]
    assert not found, found[0]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"user,item\na,b\n", {"encoding": "rot13"}, "encoding='rot13' is unknown: try utf-8"),
        (b"user,item\na,b\n", {"encoding": "base64"}, "encoding='base64' is unknown: try utf-8"),
        (b"\xc8", {}, "line 1 is not UTF-8"),
        (b"5\n4\n3\n", {"layout": "wide"}, "one column where a matrix"),
    ],
)
def test_what_random_files_found(tmp_path, content, options, message):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_interactions(tmp_path / "log.csv", **options)


def test_items_of_a_matrix_may_have_any_name(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"id,user,number\na,1,5\nb,2,\n")
    dataset = read_interactions(tmp_path / "log.csv", layout="wide")
    assert to_frame(dataset).rows() == [("a", "user", 1.0), ("a", "number", 5.0), ("b", "user", 2.0)]


def test_a_matrix_may_have_decimal_commas(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"1,5;2,5\n3,5;4,5\n")
    dataset = read_interactions(tmp_path / "log.csv", layout="wide", header=False, separator=";")
    assert dataset.interactions.weight.tolist() == [1.5, 2.5, 3.5, 4.5]


def test_types_that_are_no_ids_or_events():
    rows = pl.DataFrame({"user": [1, 2], "item": ["a", "b"], "span": pl.Series([1, 2], dtype=pl.Duration)})
    with pytest.raises(DataError, match=r"'span' holds Duration.*: ids must be"):
        from_frame(rows, item="span")
    with pytest.raises(DataError, match=r"'span' holds Duration.*: event types must be"):
        from_frame(rows, event="span")


def test_the_line_of_columns_is_one_line():
    rows = pl.DataFrame({"user": [1, 2, 1], "item": [1, 2, 2], "action\n": ["view\r", "cart\u2028", "view\r"]})
    assert from_frame(rows).columns.isprintable()
