"""Ready-made parts: training, test and validation rows in files of their own."""

from __future__ import annotations

import pandas as pd
import pytest
from terminal import mistake, palate

from palate.data.frame import from_frame
from palate.data.splits.parts import from_parts, join_parts
from palate.errors import DataError

ROWS = [(u, (u % 2) + 2 * ((u * 5 + n * 7) % 11), 1_600_000_000 + u * 100 + n) for u in range(30) for n in range(8)]


def frame(keep) -> pd.DataFrame:
    return pd.DataFrame([row for n, row in enumerate(ROWS) if keep(n % 8)], columns=["user", "item", "time"])


PARTS = {"train": frame(lambda n: n < 6), "validation": frame(lambda n: n == 6), "test": frame(lambda n: n == 7)}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, rows in PARTS.items():
        rows.to_csv(f"{name}.csv", index=False)


def test_a_recipe_is_trained_and_measured_on_given_parts():
    result = palate("train", "item-knn", "--train", "train.csv", "--test", "test.csv", "--json").ok()
    assert result.json["reports"][0]["protocol"].startswith("ready-made parts: train.csv and test.csv")
    again = palate("evaluate", "bundles/trained", "--train", "train.csv", "--test", "test.csv", "--json").ok()
    assert again.json[0]["fingerprints"] == result.json["reports"][0]["fingerprints"]
    shorter = palate("train", "item-knn", "train.csv", "--test", "test.csv", "--json").ok()
    assert shorter.json["reports"][0]["fingerprints"] == result.json["reports"][0]["fingerprints"]


def test_a_study_measures_on_given_validation_rows():
    words = ("--train", "train.csv", "--validation", "validation.csv", "--trials", 1, "--out", "s")
    result = palate("tune", "item-knn", *words).ok()
    assert "ready-made parts: train.csv and validation.csv" in result.out
    assert "30 (ready-made parts" in result.err


def test_parts_that_are_not_whole_are_refused():
    assert "--train train.csv without --test" in mistake(palate("compare", "--train", "train.csv"))
    assert "no DATA: name a file" in mistake(palate("compare"))
    assert "give one of them" in mistake(palate("compare", "test.csv", "--train", "train.csv", "--test", "test.csv"))


def test_parts_are_joined_by_ids_that_look_alike():
    test = PARTS["test"].astype({"user": str}).replace({"user": {"7": "new"}})
    split = join_parts(from_frame(PARTS["train"]), from_frame(test), "mine")
    assert split.train.users.ids.to_list() == sorted({str(u) for u in range(30)} | {"new"})
    assert [str(note) for note in split.notes if "unknown to train" in note.text] == [
        "test rows of users unknown to train, kept: 1 row"
    ]
    with pytest.raises(DataError, match="only one of frame and frame has times"):
        join_parts(from_frame(PARTS["train"]), from_frame(test.drop(columns="time")), "mine")


def test_the_python_door_takes_pandas_and_the_rules_of_frames():
    split = from_parts(PARTS["train"], PARTS["test"], name="mine", how="given", user="user", timestamp="time")
    assert len(split.test) == 30
    flawed = PARTS["test"].astype({"user": object})
    flawed.loc[3, "user"] = None
    with pytest.raises(DataError, match="test: no id in column 'user' in 1 row: row 4"):
        from_parts(PARTS["train"], flawed, name="mine", how="given")
