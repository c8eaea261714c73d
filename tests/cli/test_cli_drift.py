"""`palate drift` and `palate off-policy`: exit codes, tables, JSON and mistakes."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from terminal import mistake, palate

from palate.bundle import Bundle
from palate.data.frame import from_frame
from palate.models.popularity import Popularity

ITEMS = 30


def clicks(seed: int, start: float, offset: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    item = ((rng.random(3_000) ** 3 * ITEMS).astype(int) + offset) % ITEMS
    times = start + np.sort(rng.random(3_000)) * 864_000
    return pl.DataFrame({"user_id": rng.integers(0, 1_000, 3_000), "item_id": item, "timestamp": times})


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with the bundle b, events of the same distribution and others, and a log with propensities."""
    folder = tmp_path_factory.mktemp("shop")
    train = from_frame(clicks(1, 1.6e9))
    Bundle.of(Popularity(), Popularity().fit(train), train).save(folder / "b")
    clicks(2, 1.6e9 + 864_000).write_csv(folder / "same.csv")
    clicks(2, 1.6e9 + 864_000, 15).write_csv(folder / "shifted.csv")
    rng = np.random.default_rng(3)
    user, item = np.repeat(np.arange(200), 20), rng.integers(0, ITEMS, 4_000)
    reward = (rng.random(4_000) < np.where(item < 5, 0.5, 0.1)).astype(float)
    log = pl.DataFrame({"user_id": user, "item_id": item, "propensity": 1 / ITEMS, "reward": reward})
    log.write_csv(folder / "shown.csv")
    log.drop("propensity").write_csv(folder / "plain.csv")
    return folder


@pytest.fixture(autouse=True)
def _here(shop, monkeypatch):
    monkeypatch.chdir(shop)


def test_drift_passes_on_the_same_distribution_and_fails_on_another():
    same = palate("drift", "b", "same.csv").ok()
    assert "popularity" in same.out
    assert "past their limits" not in same.err
    shifted = palate("drift", "b", "shifted.csv", "--json")
    assert shifted.code == 1
    assert "past their limits: popularity" in shifted.err
    assert shifted.json["past"] == ["popularity"]
    assert {one["name"] for one in shifted.json["measures"]} >= {"popularity", "volume", "scores"}
    assert next(one for one in shifted.json["measures"] if one["name"] == "scores")["value"] is None
    assert palate("drift", "b", "shifted.csv", "--limit", "popularity=1").code == 0


def test_mistakes_of_drift():
    assert "NAME=NUMBER" in mistake(palate("drift", "b", "same.csv", "--limit", "popularity"))
    assert "for one of popularity" in mistake(palate("drift", "b", "same.csv", "--limit", "fun=1"))
    assert "does not exist" in mistake(palate("drift", "nowhere", "same.csv"))


def test_off_policy_estimates_the_lists_of_a_bundle():
    # The bundle lists the five items that are clicked with 50 %: the first of a popularity that falls by item.
    shown = palate("off-policy", "shown.csv", "--bundle", "b", "-k", 5, "--include-seen").ok()
    assert "DR" in shown.out
    assert "interval over users" in shown.out
    found = palate("off-policy", "shown.csv", "--bundle", "b", "-k", 5, "--include-seen", "--json").ok().json
    assert [one["name"] for one in found["estimates"]] == ["logged", "IPS", "SNIPS", "DR"]
    assert all(0.4 < one["value"] < 0.6 and one["low"] < 0.5 < one["high"] for one in found["estimates"][1:])


def test_off_policy_of_a_server(shop):
    rng = np.random.default_rng(4)
    lists, events = [], []
    for row in range(400):
        explored = rng.random(4) < 0.25
        name, items = f"r{row}", [f"i{one}" for one in range(4)]
        sources = ["explore" if one else "model" for one in explored]
        lists.append({"recommendation_id": name, "first_rank": 1, "user_id": f"u{row}", "time": 1.0 * row})
        lists[-1] |= {"items": items, "sources": sources, "propensity": [0.1] * 4, "explored": 0.25}
        events += [
            {"recommendation_id": name, "item_id": item, "type": "click", "user_id": f"u{row}", "time": 1.0 * row}
            for item, one in zip(items, explored, strict=True)
            if rng.random() < (0.1 if one else 0.4)
        ]
    for name, rows in (("impressions", lists), ("events", events)):
        (shop / f"{name}.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("off-policy", "impressions.ndjson", "--events", "events.ndjson", "--explore", 0, "--json")
    found = palate(*command).ok().json
    assert abs(found["estimates"][1]["value"] - 0.4) < 0.06
    assert found["estimates"][0]["value"] < 0.36
    none = palate(*command, "--types", "purchase").ok().json
    assert {one["value"] for one in none["estimates"]} == {0.0}


def test_mistakes_of_off_policy():
    assert "no column propensity" in mistake(palate("off-policy", "plain.csv", "--bundle", "b"))
    assert "give one policy" in mistake(palate("off-policy", "shown.csv"))
    assert "give one policy" in mistake(palate("off-policy", "shown.csv", "--explore", 0))
    assert "not exports of the server" in mistake(
        palate("off-policy", "shown.csv", "--explore", 0, "--events", "same.csv")
    )


def test_tables_whose_first_line_is_a_row_are_told_to_name_their_columns(shop):
    lines = (shop / "shown.csv").read_text().splitlines()[1:]
    (shop / "headless.csv").write_text("\n".join(lines))
    assert "its first line must name" in mistake(palate("off-policy", "headless.csv", "--bundle", "b"))
