"""The page of the reproductions and the rows that it is made from agree, and the builder keeps what it should."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

from palate.reproduce import SYSTEMS

DOCS = Path(__file__).parents[2] / "docs"
BUILDER = runpy.run_path(str(DOCS / "make_reproductions.py"))
RUNS = json.loads((DOCS / "reproductions.json").read_text())
PAGE = (DOCS / "reproductions.md").read_text()


def run(commit: str, *rows: dict) -> dict:
    return {"command": "palate reproduce X", "commit": commit, "date": "2026-11-30", "rows": list(rows)}


def row(model: str, value: float, **more) -> dict:
    return {
        "system": "X", "dataset": "tiny", "protocol": "by hand", "role": "best", "model": model, "metric": "NDCG",
        "k": 10, "value": value, "low": value - 0.01, "high": value + 0.01, "users": 95, **more,
    }  # fmt: skip


def test_the_page_is_what_its_rows_make() -> None:
    assert BUILDER["page"](PAGE, RUNS) == PAGE, "run python docs/make_reproductions.py"
    assert (DOCS / "reproductions.json").read_text() == BUILDER["as_text"](RUNS)


def test_every_system_has_its_tables() -> None:
    systems = set(SYSTEMS) - {"beyond"}  # which has a page of its own
    assert set(re.findall(r"<!-- tables: (\S+) -->", PAGE)) == systems
    assert {row["system"] for run in RUNS for row in run["rows"]} == systems


def test_a_later_run_takes_the_place_of_the_same_rows_alone() -> None:
    runs = BUILDER["merged"]([run("old", row("ease", 0.1), row("knn", 0.2)), run("new", row("ease", 0.3))])
    assert [(one["commit"], [r["value"] for r in one["rows"]]) for one in runs] == [("old", [0.2]), ("new", [0.3])]
    assert [
        one["commit"] for one in BUILDER["merged"]([run("old", row("ease", 0.1)), run("new", row("ease", 0.3))])
    ] == ["new"]


def test_tables_name_their_runs_and_fold_all_but_the_first() -> None:
    runs = [
        run("aaa", row("ease", 0.1)),
        run("bbb", row("ease", 0.00045, protocol="by hand; known users"), row("ease", 0.2, protocol="another")),
    ]
    text = BUILDER["page"]("Before\n<!-- tables: X -->\nanything\n<!-- end -->\nafter", runs)
    assert text.startswith("Before\n<!-- tables: X -->\n\n**tiny: by hand**")
    assert "0.1000 (0.0900 to 0.1100)" in text
    assert "From `palate reproduce X`, commit aaa, 2026-11-30." in text
    folded = text[text.index("<details>") : text.index("</details>")]
    assert "| best | known users: ease | 0.00045" in folded
    assert "another" not in folded
    assert "commit bbb" in folded
    assert text.endswith("\n<!-- end -->\nafter")
