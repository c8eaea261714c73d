"""`palate data` and `palate reproduce` on real data; skipped and counted where it cannot be had."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from terminal import palate

from palate.datasets.registry import REGISTRY
from palate.reproduce.rows import Row

ROW = {field.name for field in fields(Row)}


def test_list_names_every_set_with_its_licence():
    rows = palate("data", "list", "--json").ok().json
    assert [row["name"] for row in rows] == list(REGISTRY)
    assert all(row["license"] and row["citation"] and row["where"] for row in rows)
    shown = palate("data", "list").ok().out
    assert all(name in shown for name in REGISTRY)
    assert "no redistribution" in shown


def test_info_describes_what_was_loaded(ml_100k):
    facts = palate("data", "info", "ml-100k", "--json").ok().json
    assert (facts["rows"], facts["users"], facts["items"]) == (100_000, 943, 1_682)
    assert facts["ratings"] == [1.0, 5.0]
    assert facts["fingerprint"] == ml_100k.fingerprint.digest
    assert "Harper" in palate("data", "info", "ml-100k").ok().out


def test_reproduce_writes_rows_with_the_agreed_keys(ml_100k, tmp_path):
    palate("reproduce", "B", "--fast", "--json", tmp_path / "rows.json").ok()
    run = json.loads((tmp_path / "rows.json").read_text())
    assert run["command"] == "palate reproduce B --fast"
    assert run["commit"]
    assert run["cpu_seconds"] > 0
    rows = run["rows"]
    assert all(set(row) == ROW for row in rows)
    assert {row["role"] for row in rows} >= {"published", "trivial"}
    assert {row["metric"] for row in rows} == {"HitRate", "NDCG"}
    for row in rows:
        assert row["system"] == "B"
        if row["role"] == "published":
            assert row["value"] is None
        else:
            assert row["low"] <= row["value"] <= row["high"]
            assert row["users"] == 943 or "; held out" in row["protocol"]
    trivial = {
        row["metric"]: row["value"] for row in rows if row["model"] == "popularity" and "last" in row["protocol"]
    }
    assert trivial["HitRate"] == pytest.approx(0.4221, abs=0.02)
    assert trivial["NDCG"] == pytest.approx(0.2269, abs=0.02)
