"""Values of an id column that are no ids, and ids that differ in what nobody sees."""

from __future__ import annotations

import decimal
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from palate.data.frame import from_frame
from palate.data.readers import read_interactions
from palate.errors import DataError

MISSING = ["nan", "NaN", "NULL", "null", "None", "NA", "n/a", "N/A", r"\N", "<NA>", "undefined", " nan ", "\u200bnull"]
MISSING += ["(not set)", "unknown", "Anonymous", "-", "?"]


def of(users, **options):
    """A data set of these users and two items."""
    items = pl.Series("item", np.arange(len(users)) % 2)
    frame = pd.DataFrame({"user": users, "item": items}) if isinstance(users, pd.Series) else pl.DataFrame(
        {"user": users, "item": items}
    )  # fmt: skip
    return from_frame(frame, duplicates="keep", **options)


def notes(dataset):
    return {note.text: note.rows for note in dataset.notes}


@pytest.mark.parametrize("text", MISSING)
def test_a_text_that_stands_for_a_missing_id_is_refused_dropped_or_kept(text):
    users = ["a", text, "b", text, "c", "d"]
    with pytest.raises(DataError, match=r"stands for a missing id in column 'user' in 2 rows: row 2: .*--valid-id"):
        of(users)
    dropped = of(users, drop_invalid=True)
    assert dropped.users.ids.to_list() == ["a", "b", "c", "d"]
    assert [note.rows for note in dropped.notes if note.kind == "refused"] == [2]
    kept = of(users, valid_ids=[text.strip(" \u200b")], strip=True)
    assert len(kept) == 6


def test_a_blank_id_is_a_missing_one():
    with pytest.raises(DataError, match=r"no id in column 'user' in 1 row: row 3: '  '"):
        of(["a", "b", "  ", "c"])


ALIKE = [
    ("u1", "u1 "),
    ("u1", "\tu1"),
    ("Caf\u00e9", "Cafe\u0301"),
    ("u1", "\ufeffu1"),
    ("u1", "u\u200b1"),
    (" u1", "u1 "),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_ids_that_look_alike_are_refused_merged_kept_or_dropped(one, other):
    users = [one, other, "b", "c"]
    with pytest.raises(DataError, match=r"differs from another only in blanks.*--strip.*--no-strip.*--drop-invalid"):
        of(users)
    merged = of(users, strip=True)
    assert merged.n_users == 3
    assert "ids in column 'user' stripped of blanks and invisible characters" in notes(merged)
    assert of(users, strip=False).n_users == 4
    assert of(users, drop_invalid=True).n_users == (2 if one.startswith(" ") else 3)


def test_blanks_that_merge_nothing_are_noted():
    dataset = of([" a", "b", "c", "d"])
    assert dataset.users.ids.to_list() == [" a", "b", "c", "d"]
    assert [rows for text, rows in notes(dataset).items() if "--strip" in text] == [1]


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (pl.Series([decimal.Decimal("7.00"), decimal.Decimal("8.00")]), [7, 8]),
        (pl.Series([decimal.Decimal("7.10"), decimal.Decimal("8.00")]), ["7.10", "8.00"]),
        (pl.Series([b"ab", b"cd"]), ["ab", "cd"]),
        (pl.Series([b"ab", b"\xff"]), ["6162", "ff"]),
        (pl.Series([2**70, 2**71], dtype=pl.Int128), [str(2**70), str(2**71)]),
        pytest.param(
            pd.Series([uuid.UUID(int=5), uuid.UUID(int=6)]),
            [str(uuid.UUID(int=5)), str(uuid.UUID(int=6))],
            marks=pytest.mark.skipif(int(pa.__version__.split(".")[0]) < 24, reason="of pandas by pyarrow 24 or newer"),
        ),
        (pl.Series([uuid.UUID(int=5), uuid.UUID(int=6)]), [str(uuid.UUID(int=5)), str(uuid.UUID(int=6))]),
        (pd.Series([2**63, 2**63 + 5]), [str(2**63), str(2**63 + 5)]),
        (pd.Series([2**70, 5]), [str(2**70), "5"]),
        (pd.Series([2**200, 2**71]), [str(2**200), str(2**71)]),
        (pd.Series(pd.Categorical(["x", "y"])), ["x", "y"]),
        (pd.Series(pd.Categorical([7, 8])), [7, 8]),
    ],
)
def test_ids_of_unusual_types(users, expected):
    assert of(users).users.ids.to_list() == expected


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (pl.Series([2.0**53, 1.0, 2.0]), r"a float of 9007199254740992 or more, whose last digits .*dtype=\{'user': s"),
        (pl.Series([2.0**24, 1.0, 2.0], dtype=pl.Float32), "a float of 16777216 or more"),
        (pl.Series([np.inf, 1.0, 2.0]), "an infinite id in column 'user' in 1 row"),
        (pd.Series(pd.period_range("2020-01", "2020-02", freq="M")), "ids must be integers or strings"),
        (pl.Series([{"a": 1}, {"a": 2}]), "ids must be integers or strings"),
    ],
)
def test_ids_that_cannot_be_used(users, message):
    with pytest.raises(DataError, match=message):
        of(users)


@pytest.mark.parametrize(("users", "words"), [(["1.0", "2.0"], "end in .0"), (["1.2E+5", "3E10"], "scientific")])
def test_ids_that_a_program_has_rewritten_are_noted(users, words):
    dataset = of(users)
    assert dataset.users.ids.to_list() == users
    assert any(words in text for text in notes(dataset))


def test_a_repeated_header_is_refused_or_dropped_and_ids_stay_integers(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("user,item,timestamp\n1,10,1600000000\n2,11,1600000001\nuser,item,timestamp\n3,10,1600000002\n")
    with pytest.raises(
        DataError, match=r"the names of the columns once more in column 'user' in 1 row: row 3 \(line 4"
    ):
        read_interactions(path)
    dataset = read_interactions(path, drop_invalid=True)
    assert dataset.users.ids.to_list() == [1, 2, 3]
    assert dataset.items.ids.to_list() == [10, 11]
    assert notes(dataset) == {"dropped: the names of the columns once more in column 'user'": 1}


def test_integers_beside_missing_texts_and_blanks_stay_integers(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\n1,10\n2,11\nNULL,11\n 3,10\n")
    assert read_interactions(path, drop_invalid=True, strip=True).users.ids.to_list() == [1, 2, 3]
