"""`palate check` on real files: what it reports, in words and as JSON, and how it ends for a pipeline."""

from __future__ import annotations

import json
import re

import pytest
from terminal import board, mistake, palate

from palate.data.audit import KINDS
from palate.data.readers import read_interactions
from palate.data.splits.strategies import leave_one_out

DAY = 86_400


@pytest.fixture
def clicks(tmp_path):
    """24 users with 12 items each; every row of a user at another time."""
    path = tmp_path / "clicks.csv"
    path.write_text(board())
    return path


@pytest.fixture
def messy(tmp_path):
    """Ratings with a copy, a repeat, a mark, a missing id, an unreadable rating and a time of 0."""
    path = tmp_path / "messy.csv"
    lines = board("user_id,item_id,timestamp").splitlines()
    rows = ["user_id,item_id,timestamp,rating", *(f"{line},{1 + n % 5}" for n, line in enumerate(lines[1:]))]
    day = 1_600_000_000
    rows += [rows[1], f"u1,i1,{day + 500 * DAY},2", f"u2,i1,{day},-1", f"u3,,{day},3", f"u3,i0,{day},x", "u5,i0,0,3"]
    path.write_text("\n".join(rows) + "\n")
    return path


def severities(found: dict) -> dict[str, str]:
    return {finding["kind"]: finding["severity"] for finding in found["findings"]}


def test_a_messy_file_is_reported_not_refused(messy):
    found = palate("check", messy, "--json").ok().json
    counts = {one["kind"]: (one["count"], one["severity"]) for one in found["findings"]}
    assert counts["dropped-rows"] == (3, "warning")  # one of them for its time of 0
    assert counts["equal-rows"] == (1, "warning")
    assert counts["duplicates"] == (2, "warning")
    assert counts["sentinels"] == (1, "problem")
    assert counts["activity"][1] != "problem"
    assert mistake(palate("train", "popularity", messy))


def test_a_split_is_audited_as_training_would_get_it_and_its_rows_as_they_stand(messy):
    found = palate("check", messy, "--split", "leave-one-out", "--sentinel", "-1", "--json").ok().json
    kinds = severities(found)
    assert found["split"].startswith("leave one out")
    assert kinds["duplicates"] == "warning"
    assert kinds["trained-rows"] == kinds["leak"] == kinds["sentinels"] == "ok"
    kept = palate("check", messy, "--split", "random", "--duplicates", "keep", "--test-size", "0.5", "--json").ok().json
    assert severities(kept)["leak"] == "problem"


def test_the_table_says_what_and_what_to_do(messy):
    shown = palate("check", messy, "--split", "time").ok().out
    flat = re.sub(r"[│\s]+", " ", shown)
    assert "1 row has the value -1 in rating, far from the others (1 to 5)" in flat
    assert "-> Pass --sentinel VALUE to drop such rows" in flat
    assert "(such as no id in column 'item_id': 1 row" in flat
    assert "ok: " in flat
    assert "not checked, the items have no titles: equal-items" in flat
    assert "█" in shown


def test_a_gate_ends_with_one_where_a_finding_fires(clicks, messy):
    assert palate("check", clicks, "--fail-on", "duplicates,sentinels, leak", "--split", "leave-one-out").code == 2
    assert palate("check", clicks, "--fail-on", "duplicates, leak", "--split", "leave-one-out").code == 0
    fired = palate("check", messy, "--fail-on", "duplicates,sentinels,ratings", "--json")
    assert fired.code == 1
    assert fired.json["rows"] == 291
    assert fired.err.splitlines()[-1] == "--fail-on: sentinels, duplicates"
    assert palate("check", messy, "--fail-on", "problem").code == 1
    assert palate("check", messy, "--fail-on", "warning").code == 1
    leaky = palate("check", clicks, "--split", "random", "--fail-on", "leak")
    assert leaky.code == 1
    assert "few-test-users" in leaky.out
    only_warned = palate("check", clicks, "--split", "leave-one-out", "--fail-on", "problem")
    assert only_warned.code == 0
    assert "warning" in only_warned.out


def test_mistakes_end_with_two_and_one_line(clicks, tmp_path):
    unknown = mistake(palate("check", clicks, "--fail-on", "leek"))
    assert "--fail-on leek: no such kind or severity" in unknown
    assert all(kind in unknown for kind in KINDS)
    blind = mistake(palate("check", clicks, "--fail-on", "leak"))
    assert "--fail-on leak cannot be checked: there is no split" in blind
    assert "did you mean ml-100k" in mistake(palate("check", "movielens100k"))
    (tmp_path / "empty.csv").write_text("")
    assert "the file is empty" in mistake(palate("check", tmp_path / "empty.csv"))
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    assert "not a text file" in mistake(palate("check", tmp_path / "picture.csv"))
    (tmp_path / "one.csv").write_text("user,item\na,1\na,2\n")
    assert "only the value 'a'" in mistake(palate("check", tmp_path / "one.csv"))
    assert "choose one of" in mistake(palate("check", clicks, "--split", "nested"))


def test_a_saved_split_is_checked_as_it_is(clicks, tmp_path):
    leave_one_out(read_interactions(clicks)).save(tmp_path / "latest")
    found = palate("check", tmp_path / "latest", "--json", "--fail-on", "leak,trained-rows").ok().json
    assert found["split"].startswith("leave one out")
    assert found["rows"] == 288
    assert "is already split" in mistake(palate("check", tmp_path / "latest", "--split", "time"))


def test_named_data_are_checked(ml_100k):
    found = palate("check", "ml-100k", "--split", "leave-one-out", "--json")
    ties = next(one for one in found.ok().json["findings"] if one["kind"] == "ties")
    assert (ties["count"], ties["severity"]) == (415, "problem")


def test_the_official_ncf_split_fires_its_gate(ncf_ml_1m):
    ended = palate("check", "ncf-ml-1m", "--fail-on", "listed-positives")
    assert ended.code == 1
    assert "156 of 6,040 test users" in re.sub(r"[│\s]+", " ", ended.out)


def test_purchases_at_another_price_are_no_equal_rows(tmp_path):
    path = tmp_path / "orders.csv"
    rows = ["customer,sku,qty,price", "a,x,1,3.5", "a,x,1,4.5", "b,x,2,3.5", "b,y,1,1.0", "c,y,7,1.0", "c,z,1,9.0"]
    path.write_text("\n".join(rows))
    found = {one["kind"]: one for one in json.loads(palate("check", path, "--json").ok().out)["findings"]}
    assert found["equal-rows"]["severity"] == "ok"
    assert found["duplicates"]["severity"] == "info"
    assert found["ratings"]["what"].startswith("qty: mean")
    path.write_text("\n".join([*rows, rows[1]]))
    found = {one["kind"]: one for one in json.loads(palate("check", path, "--json").ok().out)["findings"]}
    assert (found["equal-rows"]["severity"], found["equal-rows"]["count"]) == ("problem", 1)
