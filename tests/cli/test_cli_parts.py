"""Ready-made parts: training, test and validation rows in files of their own."""

from __future__ import annotations

import pandas as pd
import pytest
from terminal import mistake, palate

from palate.data.frame import from_frame
from palate.data.splits.parts import from_parts, join_parts
from palate.data.splits.split import Split
from palate.errors import DataError
from palate.experiment import validation_split

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


def test_given_validation_rows_choose_the_epochs_and_all_training_rows_are_trained_on():
    words = ("--train", "train.csv", "--test", "test.csv", "--patience", 1, "--set", "epochs=3", "--json")
    given = palate("train", "gmf", *words, "--validation", "validation.csv").ok()
    assert "30 validation rows (the rows of validation" in given.err
    assert "these rows are not trained on" in given.err
    cut = palate("train", "gmf", *words, "--out", "cut").ok()
    assert "the rows of validation" not in cut.err
    unused = palate("train", "ease", *words[:4], "--validation", "validation.csv").ok()
    assert "the validation rows are not used" in unused.err


@pytest.mark.slow
def test_given_validation_rows_choose_the_recipe_and_the_settings_of_baselines():
    words = ("--train", "train.csv", "--test", "test.csv", "--validation", "validation.csv")
    chosen = palate("train", *words).ok()
    assert "has the best NDCG@10 on validation rows" in chosen.err
    assert "not used" not in chosen.err
    compared = palate("compare", *words, "--recipes", "popularity", "--negatives", 0, "--out", "c", "--json").ok()
    tuned = next(one for one in compared.json["models"] if one["name"] == "item-knn (tuned)")
    assert "the rows of validation" in tuned["tuned"]
    other = palate("compare", *words[:4], "--recipes", "popularity", "--negatives", 0, "--out", "c")
    assert "holds another comparison (validation" in mistake(other)


def test_a_saved_split_keeps_its_validation_rows():
    parts = {name: from_frame(rows) for name, rows in PARTS.items()}
    split = join_parts(parts["train"], parts["test"], "mine", parts["validation"])
    split.save("saved")
    again = Split.load("saved")
    assert again.validation is not None
    assert again.validation.fingerprint == split.validation.fingerprint
    inner = validation_split(again)
    assert inner.train is again.train
    assert inner.test.fingerprint.digest == parts["validation"].fingerprint.digest
    assert again.with_min_rating("any").validation is not None
    assert again.relevant("any").validation is not None


def test_parts_that_a_command_does_not_read_are_refused():
    for command in (("quickstart",), ("train", "ease", "--split", "none")):
        refused = palate(*command, "train.csv", "--test", "test.csv")
        assert "--test test.csv is not read here" in mistake(refused)
    evaluated = palate("evaluate", "b", "--train", "train.csv", "--validation", "validation.csv")
    assert evaluated.code == 2


def test_parts_that_are_not_whole_are_refused():
    assert "without --test: name the test rows too" in mistake(
        palate("compare", "--train", "train.csv", "--validation", "validation.csv")
    )
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
    chosen = from_parts(PARTS["train"], PARTS["test"], validation=PARTS["validation"], name="mine", how="given")
    assert chosen.fingerprint == split.fingerprint
    assert chosen.validation.fingerprint == from_frame(PARTS["validation"]).fingerprint
    with pytest.raises(DataError, match="only one of train and validation has a timestamp"):
        from_parts(*(PARTS[k] for k in ("train", "test")), validation=PARTS["test"][["user", "item"]], name="m", how="")
    flawed = PARTS["test"].astype({"user": object})
    flawed.loc[3, "user"] = None
    with pytest.raises(DataError, match="test: no id in column 'user' in 1 row: row 4"):
        from_parts(PARTS["train"], flawed, name="mine", how="given")
