"""Keys and roles, bundles swapped while serving, bulk data, metrics, logs and settings."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import threading
import time
from unittest.mock import patch
from urllib.parse import quote

import httpx
import pytest

from conftest import start
from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.cli import main
from palate.errors import DataError
from palate.models.popularity import Popularity
from palate.serve.metrics import Metrics
from palate.serve.security import Buckets
from palate.serve.settings import Settings
from palate.signature import make_keys


def palate(*arguments, cwd, code=0):
    """Run a command in this process: each new one would import the libraries again."""
    out, err, ended = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        patch.object(sys, "argv", ["palate", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            ended = end.code or 0
    assert ended == code, err.getvalue()
    return out.getvalue() or err.getvalue()


def test_other_machines_need_a_key_with_a_role(serving, bundle, tmp_path):
    error = palate("serve", bundle, "--host", "0.0.0.0", "--port", "0", cwd=tmp_path, code=2)
    assert "palate keys create" in error
    keys = {role: palate("keys", "create", role, "--role", role, cwd=tmp_path).strip() for role in ("read", "feedback")}
    listed = json.loads(palate("keys", "list", "--json", cwd=tmp_path))
    assert sorted(key["role"] for key in listed) == ["feedback", "read"]
    stored = (tmp_path / "palate-serve.db").read_bytes()
    assert all(key.partition(".")[2].encode() not in stored for key in keys.values())
    with (
        serving("--host", "0.0.0.0", folder=tmp_path) as server,
        httpx.Client(base_url=server.url.replace("0.0.0.0", "127.0.0.1"), timeout=60) as client,
    ):

        def status(method, path, key=None, **more):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            return client.request(method, path, headers=headers, **more).status_code

        like = {"json": {"user_id": "u00", "item_id": "i/01 ä", "type": "like"}}
        assert status("GET", "/v1/recommend?user_id=u00") == 401
        assert status("GET", "/v1/recommend?user_id=u00", "palate_abc.def") == 401
        assert status("GET", "/v1/recommend?user_id=u00", keys["read"][:-1]) == 401
        assert status("GET", "/v1/recommend?user_id=u00", keys["read"]) == 200
        assert status("POST", "/v1/feedback", keys["read"], **like) == 403
        assert status("POST", "/v1/feedback", keys["feedback"], **like) == 200
        assert status("GET", "/v1/events", keys["feedback"]) == 403
        assert status("DELETE", "/v1/users/u00", keys["feedback"]) == 403
        assert status("GET", "/v1/health/ready") == 200
        admin = palate("keys", "create", "me", "--role", "admin", cwd=tmp_path).strip()
        for _ in range(200):  # another process has made it: the server sees it within seconds
            if status("GET", "/v1/events", admin) == 200:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the new key is not known")
        made = client.post("/v1/keys", json={"name": "x", "role": "read"}, headers={"x-api-key": admin})
        assert made.status_code == 201
        assert status("GET", "/v1/version", made.json()["key"]) == 200
        assert status("DELETE", f"/v1/keys/{made.json()['key_id']}", admin) == 204
        assert status("GET", "/v1/recommend?user_id=u00", made.json()["key"]) == 401
        assert keys["read"] not in server.log.read_text()


@pytest.fixture(scope="module")
def models(bundle, shop, tmp_path_factory):
    """A folder with the bundle, one of another recipe and a damaged one."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(bundle, folder / "shop")
    model = Popularity().fit(shop, TrainOptions(threads=1))
    Bundle.of(Popularity(), model, shop).save(folder / "plain")
    shutil.copytree(folder / "plain", folder / "damaged")
    (weights,) = (folder / "damaged").glob("weights-*")
    weights.write_bytes(weights.read_bytes()[:-1])
    return folder


def test_bundles_are_swapped_under_load_without_a_failed_request_or_a_mixed_answer(serving, models, tmp_path):
    with serving(folder=tmp_path, PALATE_SERVE_MODELS=str(models)) as server:
        old = server.get("/v1/models")["active"]
        new = server.post("/v1/models/load", {"model": "plain"})["version"]
        failed, seen, stop = [], set(), threading.Event()

        def ask(number):
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while not stop.is_set():
                    answer = client.get("/v1/recommend", params={"user_id": f"u{number:02}", "k": 5})
                    if answer.status_code != 200:
                        failed.append(answer.text)
                        continue
                    document = answer.json()
                    top = document["items"][0]
                    # The recipe "popularity" scores by whole counts, iALS never does.
                    seen.add((document["model"], top["score"] >= 1))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for one in threads:
            one.start()
        for turn in range(20):
            if turn % 2:
                assert server.post("/v1/models/rollback", None)["version"] == old
            else:
                assert server.post("/v1/models/activate", {"model": new})["version"] == new
        stop.set()
        for one in threads:
            one.join()
        assert not failed
        assert seen <= {(old, False), (new, True)}
        bad = server.client.post("/v1/models/load", json={"model": "damaged"})
        assert bad.status_code == 409
        assert "bytes" in bad.json()["detail"]
        for name in ("../models", "/etc", "..", "shop/.."):
            assert server.client.post("/v1/models/load", json={"model": name}).status_code == 422
        assert server.client.post("/v1/models/activate", json={"model": "none"}).status_code == 404
        assert server.client.post("/v1/models/rollback").status_code == 409
        assert server.client.delete(f"/v1/models/{old}").status_code == 409
        assert server.client.delete(f"/v1/models/{new}").status_code == 204
        assert server.get("/v1/models")["active"] == old


def test_only_signed_bundles_are_served_at_the_start_and_later(models, tmp_path):
    folder = shutil.copytree(models, tmp_path / "models")
    key = make_keys(tmp_path / "release.key")
    for name in ("shop", "plain"):
        Bundle.sign(folder / name, tmp_path / "release.key")
    plain = Bundle.load(folder / "plain", trusted_key=key)
    plain.save(folder / "not signed")
    plain.save(folder / "changed")
    shutil.copyfile(folder / "shop" / "signature.json", folder / "changed" / "signature.json")
    error = palate("serve", folder / "not signed", "--trusted-key", key, cwd=tmp_path, code=2)
    assert "not signed is not signed: palate bundle sign" in error
    (tmp_path / "serve.toml").write_text(f"[server]\ntrusted_key = '{key}'\n")
    server = start(str(folder / "shop"), "--config", "serve.toml", folder=tmp_path)
    try:
        for name, reason in (("not signed", "is not signed"), ("changed", "was changed after it was signed")):
            refused = server.client.post("/v1/models/load", json={"model": name})
            assert refused.status_code == 409
            assert reason in refused.json()["detail"]
        assert server.post("/v1/models/load", {"model": "plain"})["recipe"] == "popularity"
        assert len(server.get("/v1/models")["models"]) == 2
    finally:
        server.stop()


def test_live_events_stay_through_a_swap(serving, models, tmp_path):
    with serving(str(models / "plain"), folder=tmp_path) as server:
        active, other = server.get("/v1/models")["active"], None
        (other,) = {one["version"] for one in server.get("/v1/models")["models"]} - {active}
        popular = server.get("/v1/popular", k=30)["items"]
        hidden = server.ids("u00", k=1)[0]
        server.post("/v1/feedback", {"user_id": "u00", "item_id": hidden, "type": "hide"})
        server.post("/v1/feedback", {"user_id": "x", "item_id": popular[1]["item_id"], "type": "like"})
        server.client.patch("/v1/items/i%2F03 ä", json={"in_stock": False})
        after = server.get("/v1/popular", k=30)["items"]
        server.post("/v1/models/activate", {"model": other})
        assert hidden not in server.ids("u00", k=30)
        assert server.get("/v1/popular", k=30)["items"] == after
        assert not server.get("/v1/items/i%2F03 ä")["listed"]
        server.post("/v1/models/rollback", None)
        assert server.get("/v1/popular", k=30)["items"] == after


def test_bulk_import_counts_what_it_refuses_and_an_export_can_be_imported(serving, tmp_path):
    with serving(folder=tmp_path) as server:
        lines = [
            json.dumps({"user_id": f"b{n}", "item_id": "i/00 ä", "type": "like", "event_id": f"b{n}"})
            for n in range(2500)
        ]
        lines[3], lines[5] = "{", json.dumps({"user_id": "b", "item_id": "i/00 ä", "type": "odd"})
        body = "\n".join([*lines, "", lines[0]])
        found = server.client.post("/v1/import/events", content=body.encode()).json()
        assert {name: found[name] for name in ("lines", "stored", "refused", "repeated")} == {
            "lines": 2501,
            "stored": 2498,
            "refused": 2,
            "repeated": 1,
        }
        assert [one["line"] for one in found["errors"]] == [4, 6]
        server.client.post(
            "/v1/import/items",
            content=b'{"item_id": "n/1", "title": "New"}\n{"item_id": "i/00 \xc3\xa4", "hidden": true}',
        )
        assert server.get("/v1/items/n%2F1")["title"] == "New"
        server.client.post("/v1/import/users", content=b'{"user_id": "b1", "features": {"side": "left"}}')
        server.client.delete("/v1/users/u05")
        dump = {kind: server.client.get(f"/v1/export/{kind}").content for kind in ("events", "items", "users")}
        assert len(dump["events"].splitlines()) == 2498
        server.get("/v1/recommend", user_id="b1")
        deadline = time.monotonic() + 20  # impressions are stored after the answer
        listed = []
        while not listed and time.monotonic() < deadline:
            rows = server.client.get("/v1/export/impressions").content.splitlines()
            listed = [row for row in rows if b'"b1"' in row]
        assert len(listed) == 1
    with serving("--store", "sqlite:///other.db", folder=tmp_path) as other:
        for kind, content in dump.items():
            assert other.client.post(f"/v1/import/{kind}", content=content).json()["refused"] == 0
        for kind, content in dump.items():
            again = other.client.get(f"/v1/export/{kind}").content
            assert sorted(again.splitlines()) == sorted(content.splitlines())
        assert other.get("/v1/recommend", user_id="u05")["items"][0]["source"] == "popular"


def test_metrics_and_logs_name_no_id(serving, tmp_path):
    with serving(folder=tmp_path, PALATE_SERVE_LOG_FORMAT="json", PALATE_SERVE_RATE="100000") as server:
        answer = server.client.get("/v1/recommend", params={"user_id": "secret-person"})
        assert "ratelimit" in answer.headers
        server.client.get("/v1/items/secret-item")
        text = server.client.get("/v1/metrics").text
        assert 'palate_requests_total{method="GET",route="/v1/recommend",status="200"} 1' in text
        assert "palate_request_seconds_bucket" in text
        assert "secret" not in text
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert {"route", "status", "ms", "request_id"} <= lines[0].keys()
    assert "secret" not in server.log.read_text()


def test_settings_are_checked_and_named(bundle, tmp_path, monkeypatch):
    path = tmp_path / "serve.toml"
    path.write_text("[server]\nmax_k = 20\nport = 9\n[events.view]\nweight = 0.2\n[scenarios.home]\nk = 3\n")
    monkeypatch.setenv("PALATE_SERVE_MAX_K", "30")
    settings = Settings.read(path, {"port": 8001, "host": None})
    assert (settings.max_k, settings.port, settings.scenarios["home"].k) == (30, 8001, 3)
    assert settings.events["view"].weight == 0.2
    assert not settings.events["view"].seen  # the other fields of the type stay
    monkeypatch.delenv("PALATE_SERVE_MAX_K")
    for text, message in (
        ("[server]\nmax_kk = 1", "max_kk"),
        ("[server]\nmax_k = 0", "at least 1"),
        ("[sever]\nport = 1", "sever"),
        ("[events.like]\nwait = 1", "wait"),
        ("[scenarios.home]\nk = 0", "home"),
        ("port = ", "TOML"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            Settings.read(path)
    path.write_text("[scenarios.home]\nrules = { caps = { kind = 1 } }\n")
    assert "settings are right" in palate("serve", bundle, "--config", path, "--check", cwd=tmp_path)
    path.write_text("[scenarios.home]\nrules = { caps = { kinds = 1 } }\n")
    assert "did you mean 'kind'" in palate("serve", bundle, "--config", path, "--check", cwd=tmp_path, code=2)


def test_the_history_has_every_slot_and_leaves_out_who_looks_on():
    stored = [0]
    metrics = Metrics(lambda: stored[0])
    assert metrics.history(1000.0)["time"] == []
    for now, seconds in ((1001.0, 0.1), (1002.0, 0.3), (1003.0, 0.2)):
        metrics.add("GET", "/v1/recommend", 200, seconds, now)
    metrics.add("GET", "/v1/stats", 200, 9.0, 1003.0)
    stored[0] = 10
    assert metrics.history(1016.0) == {
        "time": [1005.0, 1010.0, 1015.0],
        "requests_per_second": [0.6, 0.0, 0.0],
        "events_per_second": [2.0, 0.0, 0.0],
        "p50_ms": [200.0, None, None],
        "p99_ms": [300.0, None, None],
    }
    metrics.add("GET", "/v1/recommend", 200, 0.1, 1e6)  # after a long silence nothing old is shown
    assert metrics.history(1e6)["time"] == []


def test_a_loaded_model_answers_when_it_is_named(serving, models, tmp_path):
    with serving(str(models / "plain"), folder=tmp_path) as server:
        listed = server.get("/v1/models")
        active = listed["active"]
        (other,) = {one["version"] for one in listed["models"]} - {active}
        first = server.get("/v1/recommend", user_id="u05", k=3)
        second = server.get("/v1/recommend", user_id="u05", k=3, model=other)
        assert (first["model"], second["model"]) == (active, other)
        assert [one["score"] for one in first["items"]] != [one["score"] for one in second["items"]]
        page = server.get("/v1/recommend", recommendation_id=second["recommendation_id"])
        assert page["model"] == other
        assert page["items"][0]["rank"] == 4
        # Hiding an item and feedback hold for both.
        gone = second["items"][0]["item_id"]
        assert server.client.patch(f"/v1/items/{quote(gone, safe='')}", json={"hidden": True}).status_code == 200
        server.post("/v1/feedback", {"user_id": "u05", "item_id": second["items"][1]["item_id"], "type": "like"})
        after = server.ids("u05", k=20, model=other)
        assert not {gone, second["items"][1]["item_id"]} & set(after)
        assert server.client.patch(f"/v1/items/{quote(gone, safe='')}", json={"hidden": False}).status_code == 200
        assert gone in server.ids("u05", k=20, model=other)
        assert server.client.get("/v1/recommend", params={"user_id": "u05", "model": "none"}).status_code == 404


def test_a_bucket_refills_with_time():
    buckets = Buckets(2.0)
    assert all(buckets.take("a", 0.0)[0] for _ in range(20))
    assert not buckets.take("a", 0.0)[0]
    assert buckets.take("b", 0.0)[0]
    assert buckets.take("a", 0.5)[0]
    assert not buckets.take("a", 0.5)[0]
