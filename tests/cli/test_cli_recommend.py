"""From a bundle to lists: known users, new users, everybody, similar items; and measuring it again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from terminal import board, mistake, palate

COLUMNS = ["user_id", "item_id", "rank", "score", "source", "title"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with clicks.csv, items.csv and the bundle b, trained on all but the latest click of each user."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "clicks.csv").write_text(board())
    (folder / "items.csv").write_text("item,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(24)))
    (folder / "new.csv").write_text("user,item,time\nu0,i1,1700000000\nu1,i0,1700000000\nnobody,i3,1700000000\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        palate("train", "gmf", "clicks.csv", "--items", "items.csv", "--split", "leave-one-out", "--out", "b").ok()
    return folder


@pytest.fixture(autouse=True)
def _here(shop, monkeypatch):
    monkeypatch.chdir(shop)


def test_known_users_get_their_kind_of_item_and_nothing_they_had():
    rows = palate("recommend", "b", "u0", "u1", "-k", 3, "--json").ok().json
    seen = {tuple(line.split(",")[:2]) for line in board().splitlines()[1:]}
    assert list(rows[0]) == COLUMNS
    assert {row["source"] for row in rows} == {"model"}
    # All but the held-out click of each user was in training, so that one is what may come back.
    assert sum((row["user_id"], row["item_id"]) in seen for row in rows) <= 2
    assert [row["rank"] for row in rows] == [1, 2, 3, 1, 2, 3]


def test_keep_seen_leaves_them_in():
    rows = palate("recommend", "b", "u0", "-k", 24, "--include-seen", "--json").ok().json
    assert len(rows) == 24
    assert len(palate("recommend", "b", "u0", "-k", 24, "--json").ok().json) == 24 - 11


def test_an_unknown_user_gets_popular_items_and_is_told_so():
    rows = palate("recommend", "b", "somebody", "-k", 2, "--json").ok().json
    assert [row["source"] for row in rows] == ["popular", "popular"]


def test_a_new_user_with_a_history_gets_the_same_kind_of_item():
    result = palate("recommend", "b", "somebody", "--history", "i0, i2,i4,i6,i8,nothing", "-k", 3, "--json").ok()
    assert "history items unknown to clicks (nothing): 1 row" in result.err
    assert {row["source"] for row in result.json} == {"fold-in"}
    numbers = [int(row["item_id"][1:]) for row in result.json]
    assert sum(number % 2 == 0 for number in numbers) >= 2
    assert not {0, 2, 4, 6, 8} & set(numbers)


def test_everybody_in_one_file_as_one_by_one(shop):
    told = palate("recommend", "b", "--all", "--out", "lists.parquet", "-k", 4, "--json").ok().json
    lists = pl.read_parquet(shop / "lists.parquet")
    assert told == {"rows": 96, "users": 24, "out": "lists.parquet"}
    assert lists.columns == COLUMNS
    one = pl.DataFrame(palate("recommend", "b", "u7", "-k", 4, "--json").ok().json)
    assert lists.filter(pl.col("user_id") == "u7")["item_id"].to_list() == one["item_id"].to_list()


def test_out_writes_csv_or_parquet(shop):
    for name, read in (("some.csv", pl.read_csv), ("some.parquet", pl.read_parquet)):
        result = palate("recommend", "b", "u3", "u5", "--out", name).ok()
        assert result.out == ""
        assert set(read(shop / name)["user_id"]) == {"u3", "u5"}


def test_similar_by_id_and_by_title():
    by_id = palate("similar", "b", "i4", "-k", 5, "--json").ok().json
    assert by_id == palate("similar", "b", "thing 4", "-k", 5, "--json").ok().json
    assert list(by_id[0]) == ["item_id", "rank", "score", "source", "title"]
    assert "Thing" in palate("similar", "b", "i4").ok().out
    assert "did you mean 'Thing 4'" in mistake(palate("similar", "b", "Thing 4x"))


def test_a_table_shows_titles():
    shown = palate("recommend", "b", "u0").ok().out
    assert "Thing" in shown
    assert "source" in shown


def test_rows_of_training_are_refused_unless_allowed():
    assert "the model was trained on test rows" in mistake(palate("evaluate", "b", "clicks.csv"))
    allowed = palate("evaluate", "b", "clicks.csv", "--allow-trained-rows", "--json").ok().json
    assert allowed[0]["users"] == 24


def test_new_rows_are_measured_and_unknown_users_counted():
    result = palate("evaluate", "b", "new.csv", "--json").ok()
    assert result.json[0]["users"] == 2
    assert "1 row" in result.err


def test_the_held_out_part_of_the_same_file_is_measured():
    report, sampled = palate(
        "evaluate", "b", "clicks.csv", "--split", "leave-one-out", "--negatives", 5, "--json", "-k", 5
    ).ok().json  # fmt: skip
    assert report["users"] == sampled["users"] == 24
    assert {measure["metric"] for measure in report["measures"]} >= {"NDCG", "HitRate", "Coverage", "Novelty"}
    for measure in sampled["measures"]:
        assert measure["low"] - 1e-12 <= measure["value"] <= measure["high"] + 1e-12


def test_the_time_of_the_request_is_told_and_may_change_the_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    late_UL = (
        rng.random((200, 8)) < 0.5
    )  # back after a day: the item before on the circle; after a second: the next one
    item_UL = (rng.integers(0, 20, (200, 1)) + np.where(late_UL, -1, 1).cumsum(1)) % 20
    time_UL = np.where(late_UL, 86_400, 1).cumsum(1) + 1_600_000_000
    pl.DataFrame({"user": np.repeat(np.arange(200), 8), "item": item_UL.ravel(), "time": time_UL.ravel()}).write_csv(
        "waits.csv"
    )
    fields = ("dim=16", "epochs=40", "batch_size=128", "learning_rate=0.01", "average=0.9", "mask_seen=false")
    sets = [part for field in (*fields, "request_time=true") for part in ("--set", field)]
    palate("train", "sasrec", "waits.csv", "--split", "none", *sets, "--out", "b").ok()
    last, when = int(item_UL[0, -1]), datetime.fromtimestamp(int(time_UL[0, -1]), tz=UTC)
    asked = ("recommend", "b", "0", "-k", 1, "--include-seen", "--json", "--at")
    soon, late = when + timedelta(seconds=1), when + timedelta(days=1)
    for at in (soon.timestamp(), soon.isoformat(), soon.replace(tzinfo=None).isoformat()):
        assert palate(*asked, at).ok().json[0]["item_id"] == (last + 1) % 20
    assert palate(*asked, late.isoformat()).ok().json[0]["item_id"] == (last - 1) % 20
    for at, file in ((soon, "soon.parquet"), (late, "late.parquet")):
        palate("recommend", "b", "--all", "--out", file, "-k", 1, "--include-seen", "--at", at.isoformat()).ok()
    assert not pl.read_parquet("soon.parquet").equals(pl.read_parquet("late.parquet"))
    for wrong in ("tomorrow", "nan", "1e999"):
        said = mistake(palate("recommend", "b", "0", "--at", wrong))
        assert f"--at {wrong}: no moment; write 2026-11-28" in said


def test_a_user_with_nothing_left_is_told_so_and_is_in_the_json():
    history = ",".join(f"i{n}" for n in range(24))
    result = palate("recommend", "b", "u0", "--history", history, "--json").ok()
    assert "user u0: nothing left to recommend" in result.err
    assert result.json[0]["user_id"] == "u0"
    assert result.json[0]["item_id"] is None
    assert "nothing left to recommend" in result.json[0]["note"]


def test_an_id_in_another_spelling_is_pointed_out():
    assert "unknown user 'U0 ': did you mean 'u0'?" in palate("recommend", "b", "U0 ", "-k", 2).ok().err


def test_an_id_that_looks_like_an_option_is_pointed_out():
    assert "-5 is no option: an id that begins with - goes behind all options" in mistake(
        palate("recommend", "b", "-5")
    )
    assert palate("recommend", "b", "-k", 2, "--json", "--", "-5").ok().json[0]["user_id"] == "-5"
