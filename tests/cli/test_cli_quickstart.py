"""`palate quickstart`: one's own file in one command, whatever the columns are called."""

from __future__ import annotations

import polars as pl
import pytest
from terminal import board, palate

KEYS = {"columns", "feedback", "data", "rows", "users", "items", "notes", "protocol", "validation", "left_out",
        "failed", "best", "summary", "bundle", "page", "reports", "examples", "next"}  # fmt: skip
REPORT_KEYS = {"model", "data", "protocol", "candidates", "ties", "users", "exclude_seen", "fingerprints", "seconds",
               "notes", "measures", "segments", "exposure", "exposure_k", "popularity"}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_csv_with_odd_names_gives_a_table_a_bundle_and_the_next_steps(tmp_path):
    (tmp_path / "clicks.csv").write_text(board("Visitor-ID,sku,Event_Time"))
    result = palate("quickstart", "clicks.csv", "--out", "shop").ok()
    assert "clicks: 288 rows, 24 users, 24 items" in result.err
    assert "global time: the last 0.2 of the time-sorted rows" in result.err
    for word in ("popularity", "item-knn", "sasrec", "NDCG@10", "95 % interval",
                 " puts one of the items a visitor really took next into the top 10 for ",
                 "all 24 items", "ties count against the model", "palate recommend shop"):  # fmt: skip
        assert word in result.out, word
    assert (tmp_path / "shop" / "manifest.json").is_file()
    assert palate("recommend", "shop", "u0", "--json").ok().json[0]["user_id"] == "u0"


def test_json_has_the_documented_keys_and_only_json_on_stdout(tmp_path):
    (tmp_path / "clicks.tsv").write_text(board(separator="\t"))
    told = palate("quickstart", "clicks.tsv", "--json", "-k", 3).ok().json
    assert set(told) == KEYS
    assert (told["rows"], told["users"], told["items"]) == (288, 24, 24)
    assert told["best"] == max(told["validation"], key=told["validation"].get)
    assert {report["model"] for report in told["reports"]} == set(told["validation"])
    for report in told["reports"]:
        assert set(report) == REPORT_KEYS
        assert 3 in {measure["k"] for measure in report["measures"]}
        assert report["fingerprints"]["split"] == told["reports"][0]["fingerprints"]["split"]
    assert {"user_id", "item_id", "rank", "score", "source"} <= set(told["examples"][0])


def test_parquet_without_a_time_is_split_at_random_and_says_so(tmp_path):
    rows = pl.read_csv(board("user,item", size=12).encode())
    rows.rename({"user": "who", "item": "what"}).write_parquet(tmp_path / "plays.parquet")
    result = palate("quickstart", "plays.parquet", "--user", "who", "--item", "what", "--json").ok()
    assert result.json["protocol"].startswith("random: 0.2 of all rows, seed 0")


def test_flawed_rows_are_dropped_on_request_and_counted(tmp_path):
    text = board("user,item,time", size=12) + "u1,,1600000000\n"
    (tmp_path / "clicks.csv").write_text(text)
    assert palate("quickstart", "clicks.csv").code == 2
    notes = palate("quickstart", "clicks.csv", "--drop-invalid", "--json").ok().json["notes"]
    assert any("'item'" in note and note.endswith("1 row") for note in notes)


def test_titles_of_an_item_table_reach_the_lists(tmp_path):
    (tmp_path / "clicks.csv").write_text(board(size=12))
    (tmp_path / "things.csv").write_text("item,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(12)))
    told = palate("quickstart", "clicks.csv", "--items", "things.csv", "--json").ok().json
    assert all(row["title"] == f"Thing {row['item_id'][1:]}" for row in told["examples"])
