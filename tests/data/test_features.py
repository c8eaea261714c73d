"""Feature schemas: fitted on training rows alone, encoding by hand-computed values, and the trip through JSON."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import Dataset, Interactions
from palate.data.features import MAX_SLOTS, FeatureSchema, FeatureTable
from palate.data.ids import IdMap
from palate.errors import DataError

FILMS = pl.DataFrame(
    {
        "studio": ["A", "B", None, "A"],
        "genres": [["x", "y"], [], None, ["z", "y", "x"]],
        "year": [1990, 1992, None, 1994],
        "title": ["The Matrix", "matrix reloaded", "", None],
        "vector": [[1.0, 0.0], [3.0, 4.0], None, [2.0, 2.0]],
        "released": [date(2000, 1, 1), None, date(2000, 1, 3), date(2000, 1, 2)],
    }
)


def fitted(*wanted: str) -> FeatureTable:
    return FeatureTable.fit(FILMS, wanted, "item")


def test_values_become_codes_of_one_table_and_nulls_nothing() -> None:
    table = fitted("studio", "genres")
    codes, weights, numbers = table.encode(FILMS)
    assert [column.vocabulary for column in table.columns] == [("A", "B"), ("x", "y", "z")]
    assert (table.codes, table.slots, table.numbers) == (5, 4, 0)
    assert codes.tolist() == [[1, 3, 4, 0], [2, 0, 0, 0], [0, 0, 0, 0], [1, 5, 4, 3]]
    np.testing.assert_allclose(weights, [[1, 0.5, 0.5, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1 / 3, 1 / 3, 1 / 3]])
    assert numbers.shape == (4, 0)


def test_numbers_are_standardised_and_missing_ones_are_the_mean() -> None:
    _, _, numbers = fitted("year", "vector", "released").encode(FILMS)
    root = np.sqrt(1.5)
    np.testing.assert_allclose(numbers[:, 0], [-root, 0, 0, root], rtol=1e-6)
    np.testing.assert_allclose(numbers[:, 1], [-root, root, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(numbers[:, 2], [-root, root, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(numbers[:, 3], [-root, 0, root, 0], rtol=1e-6)


def test_words_of_a_text_are_hashed_alike_whatever_their_case() -> None:
    table = fitted("title:text")
    codes, weights, _ = table.encode(FILMS)
    assert codes.max() <= table.codes
    shared = set(codes[0][codes[0] > 0]) & set(codes[1][codes[1] > 0])
    assert len(shared) == 1  # "matrix"
    assert codes[2].tolist() == codes[3].tolist() == [0, 0]
    np.testing.assert_allclose(weights.sum(1), [1, 1, 0, 0])
    again, _, _ = table.encode(pl.DataFrame({"title": ["MATRIX of another kind"]}))
    assert shared <= set(again[0])


def test_the_usual_kinds_of_types() -> None:
    assert {c.name: c.kind for c in fitted("*").columns} == {
        "studio": "categorical",
        "genres": "multi",
        "year": "numeric",
        "title": "categorical",
        "vector": "vector",
        "released": "numeric",
    }
    names = pl.DataFrame({"name": [f"film {number}" for number in range(50)]})
    assert FeatureTable.fit(names, ["*"], "item").columns[0].kind == "text"
    assert fitted("*", "year:categorical").columns[2].vocabulary == ("1990", "1992", "1994")


def test_only_training_rows_are_looked_at() -> None:
    rows = Interactions(np.array([0, 1], np.int32), np.array([0, 1], np.int32), np.ones(2, np.float32))
    data = Dataset("films", IdMap.of([1, 2]), IdMap.of([1, 2, 3, 4]), rows, item_features=FILMS)
    schema = FeatureSchema.fit(data, items=("genres", "year"))
    assert schema.items.columns[0].vocabulary == ("x", "y")
    assert schema.items.columns[1].mean == (1991.0,)
    codes, _, numbers = schema.items.encode(FILMS)
    assert codes[3].tolist() == [2, 1]  # z is unknown; y and x remain, in the order of the list
    np.testing.assert_allclose(numbers[3], [3])


def test_long_lists_are_cut() -> None:
    long = pl.DataFrame({"tags": [[f"t{n:03}" for n in range(MAX_SLOTS + 9)], ["t000"]]})
    table = FeatureTable.fit(long, ["tags"], "item")
    codes, weights, _ = table.encode(long)
    assert codes.shape == (2, MAX_SLOTS)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("genre", "no item feature 'genre': the item features are studio, genres"),
        ("year:text", "feature 'year' of type Int64 cannot be text"),
        ("studio:numeric", "feature 'studio' of type String cannot be numeric"),
        ("genres:vector", "cannot be vector|could not"),
        ("year:color", "unknown kind 'color'"),
    ],
)
def test_mistakes_are_named(wanted: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fitted(wanted)


def test_bad_values_are_named() -> None:
    with pytest.raises(DataError, match="infinite"):
        FeatureTable.fit(pl.DataFrame({"x": [1.0, float("inf")]}), ["x"], "item")
    with pytest.raises(DataError, match="lengths"):
        FeatureTable.fit(pl.DataFrame({"x": [[1.0], [1.0, 2.0]]}), ["x"], "item")
    with pytest.raises(DataError, match="column 'year' is missing"):
        fitted("year").encode(FILMS.drop("year"))
    with pytest.raises(DataError, match="no feature schema"):
        FeatureSchema.from_dict({"users": {"columns": [{"name": 3}]}})


VALUES = st.lists(st.none() | st.lists(st.sampled_from("abcdefg") | st.none(), max_size=5), min_size=1, max_size=12)


@settings(deadline=None, max_examples=40)
@given(VALUES)
def test_every_known_value_is_found_again(values: list[Any]) -> None:
    frame = pl.DataFrame({"tags": pl.Series(values, dtype=pl.List(pl.String))})
    table = FeatureTable.fit(frame, ["tags"], "item")
    codes, weights, _ = table.encode(frame)
    for row, tags in enumerate(values):
        kept = [tag for tag in tags or [] if tag is not None]
        assert [table.columns[0].vocabulary[code - 1] for code in codes[row] if code] == kept
        np.testing.assert_allclose(weights[row].sum(), 1 if kept else 0, rtol=1e-6)


def test_a_schema_survives_json_and_encodes_alike(ml_100k: Dataset) -> None:
    schema = FeatureSchema.fit(ml_100k, users=("*",), items=("*",))
    back = FeatureSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert back == schema
    kinds = {column.name: column.kind for column in (*schema.users.columns, *schema.items.columns)}
    assert kinds["genres"] == "multi"
    assert kinds["title"] == "text"
    assert kinds["age"] == kinds["year"] == kinds["release_date"] == "numeric"
    for ours, theirs in zip(
        schema.items.encode(ml_100k.item_features), back.items.encode(ml_100k.item_features), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert np.isfinite(ours).all()
