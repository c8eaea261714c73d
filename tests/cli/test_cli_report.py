"""`palate report`: a saved comparison drawn again, in the format that the name of the file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from terminal import mistake, palate

SMALL: dict[str, Any] = {
    "palate": "0.1.0",
    "created": "2026-11-22T05:00:00+00:00",
    "data": {"name": "tiny", "rows": 12, "users": 3, "items": 4},
    "split": {"how": "by hand", "fingerprint": "abc", "train_rows": 9, "test_rows": 3, "test_users": 3, "notes": []},
    "k": 10, "lengths": [10], "candidates": None, "seeds": [0], "protocol": ["By hand."], "tests": [], "audit": None,
    "winner": {"name": None, "why": "Only one model was measured."},
    "models": [{
        "name": "popularity", "role": "baseline", "tuned": None, "recipe": {"recipe": "popularity", "fields": {}},
        "train_seconds": 0.1,
        "score_seconds": 0.1, "peak_memory_mb": 300.0, "curve": [], "sampled": None, "ratings": None, "seeds": [],
        "examples": [],
        "full": {
            "users": 3, "fingerprints": {"train": "def", "split": "abc", "candidates": None},
            "measures": [{"metric": "NDCG", "k": 10, "value": 0.4321, "low": None, "high": None}],
        },
    }],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "comparison.json").write_text(json.dumps(SMALL))
    return tmp_path


def test_without_out_the_page_lies_beside_the_comparison(folder: Path) -> None:
    pytest.importorskip("altair", reason="the page needs the report extra")
    done = palate("report", folder).ok()
    assert "report.html" in done.err
    assert done.out == ""
    assert "0.4321" in (folder / "report.html").read_text()


def test_the_ending_says_what_is_written(folder: Path) -> None:
    palate("report", folder / "comparison.json", "--out", folder / "a.md", "--out", folder / "b.json").ok()
    assert "| popularity (baseline) |" in (folder / "a.md").read_text()
    assert json.loads((folder / "b.json").read_text()) == SMALL
    assert not (folder / "report.html").exists()


def test_json_goes_to_stdout(folder: Path) -> None:
    assert palate("report", folder, "--json").ok().json == SMALL
    assert not (folder / "report.html").exists()


def test_mistakes_are_told_before_anything_is_written(folder: Path) -> None:
    message = mistake(palate("report", folder, "--out", folder / "a.md", "--out", folder / "a.pdf"))
    assert "end its name with .html, .md, .json" in message
    assert not (folder / "a.md").exists()
    assert "there is no comparison at" in mistake(palate("report", folder / "nowhere"))
