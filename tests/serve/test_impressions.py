"""The impression log as evidence: other lists are valued from what one server has shown, and the truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient

from conftest import ITEMS, make_shop
from palate.bundle import Bundle
from palate.cli.off_policy import off_policy
from palate.data.frame import from_frame
from palate.models.popularity import Popularity
from palate.serve.app import make_app
from palate.serve.settings import Scenario, Settings

VISITORS, K = 500, 5
# Item n is clicked with a chance that grows with n; the bundle in use prefers others.
CHANCE = 0.05 + 0.6 * np.arange(ITEMS) / ITEMS


def test_the_log_of_a_server_says_what_the_lists_of_another_bundle_would_earn(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shop = make_shop()
    names = [f"v{n}" for n in range(VISITORS)]
    rng = np.random.default_rng(5)
    # The other bundle lists the items 29, 28, ...: item n has n + 1 users.
    item = np.repeat(np.arange(ITEMS), np.arange(1, ITEMS + 1))
    users = [f"w{n}" for n in range(len(item))]
    train = from_frame(pl.DataFrame({"user_id": users, "item_id": shop.items.ids.gather(item)}))
    Bundle.of(Popularity(), Popularity().fit(train), train).save(tmp_path / "other")
    scenarios = {
        "log": Scenario(k=K, explore=0.5, explore_among="all"),
        "capped": Scenario(k=K, explore=0.5, rules={"caps": {"kind": 3}}),
        "plain": Scenario(k=K),
    }
    settings = Settings(store="sqlite:///log.db", scenarios=scenarios, impressions=1.0)
    places = {item_id: row for row, item_id in enumerate(shop.items.ids.to_list())}
    explored = 0
    with TestClient(make_app(settings, [bundle]), base_url="http://127.0.0.1") as client:
        for name in names:
            listed = client.get("/v1/recommend", params={"user_id": name, "scenario": "log"}).json()
            more = client.get("/v1/recommend", params={"recommendation_id": listed["recommendation_id"]}).json()
            shown = [row["item_id"] for row in listed["items"] + more["items"]]
            assert len(set(shown)) == 2 * K
            explored += sum(row["source"] == "explore" for row in listed["items"])
            events = [
                {"user_id": name, "item_id": one, "type": "view", "recommendation_id": listed["recommendation_id"]}
                for one in shown
                if rng.random() < CHANCE[places[one]]
            ]
            if events:
                assert client.post("/v1/feedback", json={"events": events}).status_code == 200
        for scenario in ("capped", "plain"):
            client.get("/v1/recommend", params={"user_id": "v0", "scenario": scenario})
        client.app.state.service.answers.impressions.flush()
        client.post("/v1/feedback", json={"user_id": "z", "item_id": shown[0], "type": "view"})  # behind the flush
        for kind in ("impressions", "events"):
            (tmp_path / f"{kind}.ndjson").write_bytes(client.get(f"/v1/export/{kind}").content)
    assert explored / VISITORS / K == pytest.approx(0.5, abs=0.05)
    stored = pl.read_ndjson(tmp_path / "impressions.ndjson")
    known = stored.filter(pl.col("propensity").is_not_null())
    assert len(known) == len(stored) - 2 == 2 * VISITORS
    assert known["explored"].unique().to_list() == pytest.approx([0.5])

    def valued(**target: Any) -> dict[str, Any]:
        exports = {"log": Path("impressions.ndjson"), "events": Path("events.ndjson"), "types": "view"}
        off_policy(**{"bundle": None, "explore": None, "k": K, "exclude_seen": True, "json": True, **exports, **target})
        return json.loads(capsys.readouterr().out)

    truth, found = CHANCE[-K:].mean(), valued(bundle=Path("other"))
    logged, *estimates = found["estimates"]
    assert logged["value"] < truth - 0.1
    for one in estimates:
        assert one["low"] < truth < one["high"], one
        assert one["high"] - one["low"] < 0.2
    assert found["decisions"] == found["left_out"] == K * VISITORS  # the second pages
    assert abs(found["mean_weight"] - 1) < 0.1
    # The policy in use has its own value, as the log shows it.
    logged, ips, *_ = valued(explore=0.5)["estimates"]
    assert ips["value"] == pytest.approx(logged["value"], abs=0.03)
