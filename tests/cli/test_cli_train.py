"""From rows to a bundle: choosing, splitting, stopping early, and coming back after a kill."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time

import pytest
from terminal import board, mistake, palate, start

from palate.models import RECIPES

GMF = ("train", "gmf", "clicks.csv", "--split", "leave-one-out")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.csv").write_text(board())


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_without_a_recipe_one_is_chosen_and_the_reason_is_told(tmp_path):
    result = palate("train", "clicks.csv", "--json").ok()
    told = result.json
    reason = next(line for line in result.err.splitlines() if line.startswith("no recipe named:"))
    assert f"{told['recipe']} has the best NDCG@10 on validation rows" in reason
    values = dict(pair.split() for pair in reason[reason.index("(") + 1 : -1].split(", "))
    assert told["recipe"] == max(values, key=lambda name: float(values[name]))
    assert told["recipe"] in RECIPES
    assert manifest(tmp_path / "bundles" / "trained")["recipe"]["name"] == told["recipe"]


def test_set_wins_over_config_and_config_over_the_preset(tmp_path):
    (tmp_path / "gmf.toml").write_text("epochs = 2\ndim = 4\n")
    told = palate(*GMF, "--config", "gmf.toml", "--set", "dim=6", "--json").ok().json
    fast = RECIPES["gmf"].fast()
    assert set(told) == {"recipe", "fields", "bundle", "reports", "columns", "feedback", "findings"}
    assert (told["fields"]["epochs"], told["fields"]["dim"]) == (2, 6)
    assert told["fields"]["batch_size"] == fast.batch_size
    published = palate(*GMF, "--published", "--set", "epochs=0", "--json").ok().json["fields"]
    assert published["batch_size"] == RECIPES["gmf"]().batch_size


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("leave-one-out", "latest"),
        ("time", "global time"),
        ("random", "random: 0.3 of all rows"),
        ("cold-users", "cold users: all rows of 7 of 24 users"),
        ("cold-items", "cold items: all rows of"),
        ("none", None),
    ],
)
def test_split_says_what_was_held_out(how, words):
    told = palate("train", "popularity", "clicks.csv", "--split", how, "--test-size", 0.3, "--json").ok().json
    if words is None:
        assert told["reports"] == []
    else:
        assert words in told["reports"][0]["protocol"]


def test_sampled_candidates_get_a_report_of_their_own():
    told = palate(*GMF, "--set", "epochs=1", "--negatives", 10, "--json").ok().json
    full, sampled = told["reports"]
    assert full["candidates"].startswith("all 24 items")
    assert sampled["candidates"].startswith("10 uniform negatives")
    assert full["fingerprints"]["candidates"] is None
    assert sampled["fingerprints"]["candidates"]
    shown = palate(*GMF, "--set", "epochs=1", "--negatives", 10).ok().out
    assert shown.count("95 % interval") == 2


def test_a_saved_split_gives_the_same_numbers_again():
    made = palate(*GMF, "--set", "epochs=3", "--negatives", 5, "--save-split", "split", "--json").ok().json
    again = palate("evaluate", "bundles/trained", "split", "--json").ok().json
    assert [report["measures"] for report in again] == [report["measures"] for report in made["reports"]]
    assert [report["fingerprints"] for report in again] == [report["fingerprints"] for report in made["reports"]]


def test_patience_stops_before_the_last_epoch(tmp_path):
    settings = ("--set", "epochs=200", "--set", "learning_rate=0.000001", "--patience", 1)
    result = palate(*GMF, *settings, "--folder", "run", "--logger", "csv").ok()
    assert "NDCG@10: early stopping: epoch " in result.err
    assert "fitted again on all rows with epochs=" in result.err
    with (tmp_path / "run" / "log" / "version_0" / "metrics.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["epoch"]]
    assert 1 <= max(epochs) < 199


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    command = (*GMF, "--set", "epochs=40", "--out", "b", "--folder", "run", "--logger", "csv")
    process = start(*command, folder=tmp_path)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("epoch-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "killed in the middle"
    assert list((tmp_path / "run").glob("epoch-*"))
    assert not (tmp_path / "b").exists()
    shutil.rmtree(tmp_path / "run" / "log", ignore_errors=True)  # so that the log below is that of the second run alone
    palate(*command).ok()
    with (tmp_path / "run" / "log" / "version_0" / "metrics.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["epoch"]]
    assert min(epochs) > 0, "the first epochs were not trained again"
    assert max(epochs) == 39
    palate(*GMF, "--set", "epochs=40", "--out", "whole").ok()
    weights = [manifest(tmp_path / name)["files"]["weights"]["sha256"] for name in ("b", "whole")]
    assert weights[0] == weights[1], "as if nothing had happened"
    other = (*GMF, "--set", "epochs=41", "--folder", "run")
    assert "checkpoint of another run" in mistake(palate(*other))


def test_ratings_are_measured_where_the_data_are_ratings_and_the_recipe_predicts_them(tmp_path):
    lines = ["user,item,rating"]
    lines += [
        f"u{u},i{i},{5 if u % 2 == i % 2 else 1 + (u + i) % 2}" for u in range(20) for i in range(20) if (u * i) % 3
    ]
    (tmp_path / "stars.csv").write_text("\n".join(lines))
    reports = palate("train", "user-item-means", "stars.csv", "--out", "b", "--json").ok().json["reports"]
    assert reports[-1]["all"]["rows"] == reports[-1]["known"]["rows"] + reports[-1]["cold"]["rows"]
    assert [one["metric"] for one in reports[-1]["all"]["measures"]] == ["MSE", "RMSE", "MAE"]
    metrics = json.loads((tmp_path / "b" / "manifest.json").read_text())["metrics"]
    assert {"MSE", "NDCG"} <= {row["metric"] for row in metrics}
    assert all("candidates" in row or "rows" in row for row in metrics)  # no number without its meaning
    assert "predicted ratings" in palate("evaluate", "b", "stars.csv", "--split", "random").ok().out


def test_session_logs_are_trained_with_the_split_that_measures_them(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"s{s},{(s + e) % 20},{1_700_000_000 + 60 * s + e}" for s in range(400) for e in range(1 + s % 3)]
    path.write_text("\n".join(["session_id,item,time", *rows]))
    assert (
        "--split leave-one-out), which suits session logs" in palate("train", "item-knn", path, "--split", "time").err
    )
    done = palate("train", "item-knn", path, "--out", tmp_path / "first").ok()
    assert "latest row is held out: a split by time measures only 0 of 400 users: 266 rows" in done.err
    path.write_text("\n".join(["session_id,item,time", *rows, "s0,7,1700090000"]))  # one session that comes back
    done = palate("train", "item-knn", path, "--out", tmp_path / "a", "--split", "time").ok()
    assert re.search(r"test rows of only \d of \d+ users; --split leave-one-out measures more", done.err)
    done = palate("train", "item-knn", path, "--split", "leave-one-out", "--out", tmp_path / "b").ok()
    assert "measures more" not in done.err


def test_the_work_goes_on_when_the_reader_of_the_notes_goes_away(tmp_path):
    process = start("train", "item-knn", "clicks.csv", "--split", "none", "--out", "kept", folder=tmp_path)
    process.stderr.close()
    process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=240) == 0
    assert (tmp_path / "kept" / "manifest.json").exists()
