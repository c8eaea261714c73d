"""`--json` of train and evaluate: the format that docs/evaluation.md documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from terminal import board, palate

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
MEASURES = {"HitRate", "NDCG", "Recall", "Precision", "MRR", "MAP"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.csv").write_text(board())


def documented():
    """Names in the first column of the tables of the section JSON output."""
    section = PAGE.read_text().split("## JSON output")[1].split("\n## ")[0]
    return {
        name for line in re.findall(r"^\| (`[^|]+)", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)
    }


def check(report, lengths):
    assert set(report) <= documented()
    for one in report["measures"]:
        assert set(one) == {"metric", "k", "value", "low", "high"}
    for k in lengths:
        named = {one["metric"]: one for one in report["measures"] if one["k"] == k}
        assert set(named) >= MEASURES
        ndcg = named["NDCG"]
        assert ndcg["low"] <= ndcg["value"] <= ndcg["high"]
    for one in report["segments"]:
        assert set(one) == {"by", "segment", "users", "rows", "measures"}


def test_train_and_evaluate_print_reports_with_measures():
    trained = palate("train", "item-knn", "clicks.csv", "--split", "leave-one-out", "--negatives", 3, "--json",
                     "--save-split", "split", "--out", "b").ok().json  # fmt: skip
    assert set(trained) == {"recipe", "fields", "bundle", "reports", "findings", "feedback", "columns"}
    assert len(trained["reports"]) == 2
    for report in trained["reports"]:
        check(report, (10,))
    full, sampled = palate("evaluate", "b", "split", "-k", 5, "-k", 10, "--json").ok().json
    check(full, (5, 10))
    check(sampled, (5, 10))
    assert full["fingerprints"]["candidates"] is None
    assert sampled["fingerprints"]["candidates"]
    assert {one["metric"] for one in full["measures"]} >= {"Coverage", "Gini", "Popularity", "Novelty"}
    (gini,) = (one for one in full["measures"] if one["metric"] == "Gini" and one["k"] == 10)
    assert gini["low"] is None
    ten = [one for one in full["measures"] if one["k"] == 10]
    assert ten == trained["reports"][0]["measures"]


def test_seen_items_are_included_on_request():
    palate("train", "item-knn", "clicks.csv", "--split", "random", "--save-split", "split", "--out", "b").ok()
    without, with_seen = (
        palate("evaluate", "b", "split", option, "--json").ok().json[0]
        for option in ("--exclude-seen", "--include-seen")
    )
    assert without["exclude_seen"]
    assert not with_seen["exclude_seen"]
    assert "seen items left in" in with_seen["candidates"]
