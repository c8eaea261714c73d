import gzip

import pytest

from palate.data.audit import audit
from palate.data.frame import to_frame
from palate.data.readers import read_interactions
from palate.data.splits.strategies import by_time, leave_one_out
from palate.errors import DataError
from palate.experiment.validation import hold_out


def rows(path, **options):
    return to_frame(read_interactions(path, **options)).rows()


PAIRS = [(7, 5), (7, 3), (7, 9), (8, 3), (9, 5), (9, 9)]


@pytest.mark.parametrize(
    "text",
    [
        "7 5 3 9\n8 3\n9 5 9\n",
        "7  5 3 9 \r\n8 3\r\n\r\n9 5 9",
        "7\t5\t3\t9\n8\t3\n9\t5\t9\n",
        "7 3 5 3 9\n8 1 3\n9 2 5 9\n",
        "7,5,3,9\n8,3\n9,5,9\n",
    ],
    ids=["blanks", "more blanks", "tabs", "count second", "commas"],
)
def test_one_line_per_user(tmp_path, text):
    path = tmp_path / "log.txt.gz"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    with pytest.raises(DataError, match=r"the lines have . to . fields: .* pass --layout lines \(layout=\"lines\"\)"):
        read_interactions(path)
    assert [row[:2] for row in rows(path, layout="lines")] == PAIRS
    dataset = read_interactions(path, layout="lines")
    assert dataset.interactions.time.tolist() == [1, 2, 3, 1, 1, 2]
    assert dataset.columns == "columns: user=user item=item time=position in the line"
    assert [note.rows for note in dataset.notes if note.kind == "order-times"] == [6]
    split = leave_one_out(dataset)
    assert to_frame(split.test)["item_id"].to_list() == [9, 9]  # the last of each line
    with pytest.raises(DataError, match=r"times are the order of the rows of each user.*--split leave-one-out"):
        by_time(dataset)
    assert {audit(split).unchecked[kind] for kind in ("activity", "global-leak")} == {
        "the times are no dates",
        "times of different users cannot be compared",
    }


def test_the_last_of_each_line_is_held_out_by_default(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("\n".join(f"{u} {u % 7} {(u + 2) % 7} {(u + 4) % 7}" for u in range(30)))
    split = hold_out(read_interactions(path, layout="lines"))
    assert split.how.startswith("leave one out")
    assert all(item == (user + 4) % 7 for user, item, *_ in to_frame(split.test).rows())


def test_lines_that_begin_with_a_count(tmp_path):
    path = tmp_path / "users.dat"
    path.write_text("3 5 3 9\n0\n1 3\n2 5 9\n")
    dataset = read_interactions(path, layout="lines")
    assert [row[:2] for row in to_frame(dataset).rows()] == [(1, 5), (1, 3), (1, 9), (3, 3), (4, 5), (4, 9)]
    assert any("users are line numbers" in note.text for note in dataset.notes)
    assert [note.rows for note in dataset.notes if note.text == "users without items, left out"] == [1]


def test_a_matrix_with_users_and_items(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("user,i1,i2,i3\nu1,5,,3\nu2,,4,\n")
    assert rows(path, layout="wide") == [("u1", "i1", 5.0), ("u1", "i3", 3.0), ("u2", "i2", 4.0)]


def jester(missing="99", first=lambda number, ratings: sum(one != "99" for one in ratings)):
    values = [[f"{(u * 7 + i * 3) % 19 - 9}.{u}5" if (u + i) % 3 else "99" for i in range(12)] for u in range(9)]
    lines = [[str(first(number, ratings)), *ratings] for number, ratings in enumerate(values)]
    return "\n".join(",".join(line) for line in lines).replace("99", missing) + "\n", values


def test_a_matrix_without_names(tmp_path):
    text, values = jester()
    path = tmp_path / "jester.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"13 columns of numbers: .* --layout wide --missing 99 \(layout=\"wide\", mis"):
        read_interactions(path)
    with pytest.raises(DataError, match=r"99 is in 3.% of the cells"):
        read_interactions(path, layout="wide")
    dataset = read_interactions(path, layout="wide", missing=99)
    assert any("the first column holds the number of ratings" in note.text for note in dataset.notes)
    expected = [
        (user + 1, item + 1, pytest.approx(float(value)))
        for user, ratings in enumerate(values)
        for item, value in enumerate(ratings)
        if value != "99"
    ]
    assert to_frame(dataset).rows() == expected
    path.write_text(jester(first=lambda number, _: 100 + 7 * number)[0])
    assert rows(path, layout="wide", missing=99)[0][:2] == (100, 2)


@pytest.mark.parametrize(
    ("values", "decimal", "expected"),
    [
        (["3,5", "4", "2,25"], None, [3.5, 4, 2.25]),
        (["1.234,5", "4", "2,25"], None, [1234.5, 4, 2.25]),
        (["1,234.5", "4", "12,000"], None, [1234.5, 4, 12000]),
        (["1,234", "4", "12,500"], ",", [1.234, 4, 12.5]),
        (["1,234", "4", "12,500"], ".", [1234, 4, 12500]),
        (["1.234", "2,5", "7"], None, [1234, 2.5, 7]),
        (["1.234.567", "1.234", "7"], None, [1234567, 1234, 7]),
        (["1\u00a0234,5", "950", "12 000"], None, [1234.5, 950, 12000]),
        (["1'234.5", "950", "12'000"], None, [1234.5, 950, 12000]),
        (["1.234", "950", "12.500"], ",", [1234, 950, 12500]),
        (["1.234", "2.500", "12.500"], ",", [1234, 2500, 12500]),
    ],
)
def test_decimal_commas_and_thousands(tmp_path, values, decimal, expected):
    path = tmp_path / "log.csv"
    path.write_text("user;item;rating\n" + "".join(f"u{i};i{i};{value}\n" for i, value in enumerate(values)))
    if decimal is not None and len({"." in value or "," in value for value in values}) == 2:
        with pytest.raises(DataError, match=r"'1[.,]234' in column 'rating' could be 1234 or 1.234: pass --decimal"):
            read_interactions(path)
    dataset = read_interactions(path, decimal=decimal)
    assert dataset.interactions.weight.tolist() == pytest.approx(expected)
    assert any("in column 'rating'" in note.text for note in dataset.notes)


@pytest.mark.parametrize(
    "values", [["3.125", "4.500", "2.250"], ["0.125", "4", "2.250", "1.125"], ["4", "3.125", "2.5"]]
)
def test_three_decimals_are_no_thousands(tmp_path, values):
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating\n" + "".join(f"u{i},i{i},{value}\n" for i, value in enumerate(values)))
    for decimal in (None, "."):
        dataset = read_interactions(path, decimal=decimal)
        assert dataset.interactions.weight.tolist() == [float(value) for value in values]


@pytest.mark.parametrize("text", ["7\t5,3,9\n8\t3\n9\t5,9\n", "7: 5 3 9\n8: 3\n9: 5 9\n", "7;5|3|9\n8;3\n9;5|9\n"])
def test_another_mark_behind_the_user(tmp_path, text):
    path = tmp_path / "log.txt"
    path.write_text(text)
    assert [row[:2] for row in rows(path, layout="lines")] == PAIRS


def test_a_mark_inside_the_user_is_kept(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("shop:7 5 3 9\nshop:8 3\n")
    assert [row[:2] for row in rows(path, layout="lines")] == [
        ("shop:7", 5),
        ("shop:7", 3),
        ("shop:7", 9),
        ("shop:8", 3),
    ]


def test_items_behind_another_mark_are_no_item(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"u{u}\t{','.join(f'i{(u + n) % 9}' for n in range(1 + u % 4))}\n" for u in range(20)))
    with pytest.raises(DataError, match=r"the lines have 2 to 5 fields: .* --layout lines"):
        read_interactions(path)
    assert len(read_interactions(path, layout="lines")) == sum(1 + u % 4 for u in range(20))


@pytest.mark.parametrize("cell", ['"{}"'.format, "[{}]".format, '"[{}]"'.format])
@pytest.mark.parametrize("mark", [",", " ", ";", "|"])
def test_a_text_of_several_items_is_taken_apart(tmp_path, cell, mark):
    lists = [[f"i{(u * n) % 11}" for n in range(1, 5)] for u in range(1, 13)]
    if cell("") == "[]" and mark == ",":
        mark = ";"  # a comma would need quotes
    path = tmp_path / "baskets.csv"
    path.write_text("user,items\n" + "".join(f"u{u},{cell(mark.join(one))}\n" for u, one in enumerate(lists)))
    dataset = read_interactions(path, duplicates="keep")
    assert [row[1] for row in to_frame(dataset).rows()] == [item for one in lists for item in one]
    assert dataset.notes[0].text == "lists in a row, read as one interaction per element"


def test_lines_of_one_length_are_offered_as_lines(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"u{u} i{u % 5} i{(u + 1) % 5} i{(u + 2) % 5}\n" for u in range(20)))
    with pytest.raises(DataError, match=r"looks like a row.*pass --layout lines .* user followed by items"):
        read_interactions(path)
    assert len(read_interactions(path, layout="lines")) == 60


def test_titles_are_no_lists(tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("user,title\n" + "".join(f"{n % 5},The Film {n % 3}\n" for n in range(15)))
    assert set(read_interactions(path).items.ids) == {"The Film 0", "The Film 1", "The Film 2"}


@pytest.mark.parametrize(
    ("missing", "option"), [("NA", ""), ("?", ""), ("nan", ""), ("0", " --missing 0"), ("99", " --missing 99")]
)
def test_a_matrix_whose_users_have_a_name_is_offered_as_one(tmp_path, missing, option):
    cells = [[str(1 + (u + i) % 5) if (u * i) % 4 == 1 else missing for i in range(12)] for u in range(20)]
    path = tmp_path / "wide.csv"
    names = ",".join(f"j{i}" for i in range(12))
    path.write_text(f"user,{names}\n" + "".join(f"p{u},{','.join(one)}\n" for u, one in enumerate(cells)))
    with pytest.raises(DataError, match=rf"pass --layout wide{option} \("):
        read_interactions(path)
    if option:
        with pytest.raises(DataError, match=rf"of the cells.*if it means a missing rating, pass{option} "):
            read_interactions(path, layout="wide")
    dataset = read_interactions(path, layout="wide", missing=float(missing) if option else None)
    assert len(dataset) == sum(one != missing for row in cells for one in row)
    empty = [note.rows for note in dataset.notes if note.text == "cells such as NA, taken as empty"]
    assert empty == ([] if option else [240 - len(dataset)])
