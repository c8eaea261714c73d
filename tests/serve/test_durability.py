"""Acknowledged means committed: real servers are killed while they store, on each database.

PALATE_KILLS sets the number of kills per database (make kills: 25).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import select, text

from palate.serve import tables
from palate.serve.store import open_engine

KILLS = int(os.environ.get("PALATE_KILLS", "1"))
CLIENTS = 4


class Load:
    """Clients that send events, alone and in batches, until the server is gone; ``acknowledged`` holds their ids."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.acknowledged: list[str] = []
        self.sent: set[str] = set()
        self.threads = [threading.Thread(target=self.send, args=(number,)) for number in range(CLIENTS)]
        for one in self.threads:
            one.start()

    def send(self, number: int) -> None:
        count = 0
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while True:
                size = 1 if count % 3 else 7
                ids = [f"{self.name}-{number}-{count}-{place}" for place in range(size)]
                events = [
                    {"user_id": f"u{number:02}", "item_id": "i/00 ä", "type": "click", "event_id": one} for one in ids
                ]
                self.sent.update(ids)
                try:
                    answer = client.post("/v1/feedback", json={"events": events} if size > 1 else events[0])
                    if count % 5 == 0:  # a repeated request, as a client sends it after a timeout
                        client.post("/v1/feedback", json={"events": events})
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    self.acknowledged += ids
                count += 1

    def join(self) -> None:
        for one in self.threads:
            one.join(60)


def test_a_kill_under_load_loses_no_acknowledged_event_and_doubles_none(serving, store, tmp_path):
    rng = random.Random(0)
    acknowledged: list[str] = []
    sent: set[str] = set()
    for round_ in range(KILLS):
        with serving("--store", store, folder=tmp_path) as server:
            load = Load(server.url, f"r{round_}")
            time.sleep(0.5 + rng.random())
            server.stop(signal.SIGKILL)
            load.join()
        acknowledged += load.acknowledged
        sent |= load.sent
    assert len(acknowledged) > 10 * KILLS
    engine = open_engine(store)
    with engine.connect() as connection:
        stored = [row[0] for row in connection.execute(select(tables.events.c.event_id))]
    engine.dispose()
    assert not set(acknowledged) - set(stored)
    assert len(stored) == len(set(stored))
    assert not set(stored) - sent
    with serving("--store", store, folder=tmp_path) as server:
        assert server.get("/v1/stats")["live_events"] == len(stored)


def test_sqlite_flushes_each_commit(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/events.db")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    engine.dispose()


def test_two_servers_on_one_database_learn_from_each_other(serving, postgres, tmp_path):
    store = postgres("two")
    with serving("--store", store, folder=tmp_path) as one, serving("--store", store, folder=tmp_path) as two:
        first = one.ids("u02", k=3)
        assert two.ids("u02", k=3) == first
        one.post("/v1/feedback", {"user_id": "u02", "item_id": first[0], "type": "hide", "event_id": "e"})
        deadline = time.monotonic() + 20
        while first[0] in two.ids("u02", k=3) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert two.ids("u02", k=20) == one.ids("u02", k=20)
        assert two.client.delete("/v1/feedback/e").status_code == 204
        while one.ids("u02", k=3) != first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert one.ids("u02", k=3) == first
        assert one.get("/v1/stats")["live_events"] == two.get("/v1/stats")["live_events"] == 0

        def shared(look, expected):
            """What a request tells, once both servers agree."""
            deadline = time.monotonic() + 20
            while look(two) != expected and time.monotonic() < deadline:
                time.sleep(0.05)
            assert look(one) == look(two) == expected

        def title(server):
            return server.client.get("/v1/items/n%2F1").json()["title"]

        one.client.put("/v1/items/n%2F1", json={"title": "New"})
        shared(title, "New")
        one.client.post("/v1/import/items", content=b'{"item_id": "n/1", "title": "Newer"}')
        shared(title, "Newer")
        one.client.delete("/v1/items/n%2F1")
        shared(title, "Not Found")  # of the problem document
        one.client.patch(f"/v1/items/{quote(first[0], safe='')}", json={"in_stock": False})
        shared(lambda server: first[0] in server.ids("u02", k=20), False)
        one.client.patch("/v1/users/u02", json={"features": {"side": "right"}})
        shared(lambda server: server.get("/v1/users/u02")["features"]["side"], "right")
        one.client.post("/v1/import/users", content=b'{"user_id": "u02", "deleted": true}')
        shared(lambda server: server.get("/v1/recommend", user_id="u02")["items"][0]["source"], "popular")
        assert one.client.get("/v1/export/events").content == b""  # announcements are no events


@pytest.fixture
def small_disk():
    """A file system of a few megabytes."""
    if os.getuid():
        pytest.skip("a small file system needs root")
    with tempfile.TemporaryDirectory(prefix="palate-disk-") as name:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", name], check=False)
        if mounted.returncode:
            pytest.skip("this machine mounts nothing")
        yield Path(name)
        subprocess.run(["umount", "--lazy", name], check=True)


def test_a_full_disk_gets_503_and_writes_go_on_when_there_is_space(serving, small_disk, tmp_path):
    def event(number):
        return {"user_id": "u06", "item_id": "i/00 ä", "type": "view", "context": {"n": number, "x": "x" * 5_000}}

    with serving("--store", f"sqlite:///{small_disk}/events.db", folder=tmp_path) as server:
        filler = small_disk / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65_536)
        number, acknowledged = 0, 0
        while (refused := server.client.post("/v1/feedback", json=event(number))).status_code == 200:
            number += 1
            acknowledged += 1
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "disk" in refused.json()["detail"]
        assert server.client.patch("/v1/items/i%2F02 ä", json={"hidden": True}).status_code == 503
        assert not server.get("/v1/stats")["store"]["available"]
        assert len(server.ids("u06", k=5)) == 5  # reads go on
        assert server.get("/v1/items/i%2F02 ä")["listed"]
        assert len(server.get("/v1/events", user_id="u06", limit=1000)["events"]) == acknowledged
        filler.unlink()
        assert server.client.post("/v1/feedback", json=event(number)).status_code == 200
        assert server.get("/v1/health/ready")["store"]
    with serving("--store", f"sqlite:///{small_disk}/events.db", folder=tmp_path) as server:
        assert server.get("/v1/stats")["live_events"] == acknowledged + 1


def test_a_database_that_is_gone_gets_503_and_comes_back(serving, postgres, tmp_path):
    with serving("--store", postgres("gone"), folder=tmp_path) as server:
        event = {"user_id": "u04", "item_id": "i/01 ä", "type": "like"}
        before = server.ids("u04", k=3)
        postgres.restart(["stop", "-m", "immediate"])
        try:
            refused = server.client.post("/v1/feedback", json=event)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert server.ids("u04", k=3) == before  # reads go on
        finally:
            postgres.restart(["start"])
        deadline = time.monotonic() + 30
        while server.client.post("/v1/feedback", json=event).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert server.get("/v1/recommend", user_id="u04")["items"][0]["source"] == "fold-in"


def test_a_termination_drains(serving, tmp_path):
    with serving(folder=tmp_path) as server:
        load = Load(server.url, "t")
        time.sleep(0.5)
        assert server.stop(signal.SIGTERM) == 0
        load.join()
    engine = open_engine(f"sqlite:///{tmp_path}/palate-serve.db")
    with engine.connect() as connection:
        stored = {row[0] for row in connection.execute(select(tables.events.c.event_id))}
    engine.dispose()
    assert not set(load.acknowledged) - stored
