"""Connections that last or stall: the stream of server-sent events, slow and half-open clients."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from palate.serve.security import add_key
from palate.serve.store import Store
from palate.serve.stream import Stream


@pytest.fixture(scope="module")
def keyed(serving, tmp_path_factory):
    """A server with keys, one stream and short time limits; ``keys`` by role. A drain would outlast the test."""
    folder = tmp_path_factory.mktemp("keyed")
    store = Store(f"sqlite:///{folder}/palate-serve.db")
    with store.engine.begin() as connection:
        keys = {role: add_key(connection, role, role)[0] for role in ("read", "admin")}
    store.engine.dispose()
    limits = {"REQUIRE_KEYS": "true", "MAX_STREAMS": "1", "HEADER_SECONDS": "1", "BODY_SECONDS": "1"}
    environment = {f"PALATE_SERVE_{name}": value for name, value in limits.items()}
    with serving("--drain-seconds", "600", folder=folder, **environment) as server:
        server.keys = keys
        yield server


def messages(answer: httpx.Response) -> Iterator[tuple[str, dict]]:
    lines = answer.iter_lines()
    for line in lines:
        if line.startswith("event: "):
            yield line.removeprefix("event: "), json.loads(next(lines).removeprefix("data: "))


def headers(server, role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {server.keys[role]}"}


def test_a_stream_tells_figures_and_events_as_they_come(keyed):
    assert keyed.client.get("/v1/stream").status_code == 401
    mine = headers(keyed, "admin")
    with keyed.client.stream("GET", "/v1/stream", headers=mine) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        found = messages(answer)
        assert [next(found)[0], next(found)[0]] == ["overview", "history"]
        event = {"user_id": "u02", "item_id": "i/00 ä", "type": "like", "event_id": "s1"}
        assert httpx.post(f"{keyed.url}/v1/feedback", json=event, headers=mine, timeout=60).status_code == 200
        seen = dict(next((name, data) for name, data in found if name == "events")[1])
        (row,) = seen["events"]
        assert (row["event_id"], row["user_id"], row["title"], seen["changed"]) == ("s1", "u02", "Tea number 0", False)
        assert httpx.delete(f"{keyed.url}/v1/feedback/s1", headers=mine, timeout=60).status_code == 204
        assert next(data for name, data in found if name == "events")["changed"]
        latest = next(data for name, data in found if name == "overview")
        assert (latest["events_stored"], latest["streams"]) == (2, 1)
        full = httpx.get(f"{keyed.url}/v1/stream", headers=mine, timeout=60)
        assert full.status_code == 503
        assert full.headers["retry-after"]


def test_a_reading_key_gets_figures_but_no_ids(keyed):
    while True:  # the server notices within moments that the stream of another test was closed
        with keyed.client.stream("GET", "/v1/stream", headers=headers(keyed, "read")) as answer:
            if answer.status_code == 503:
                continue
            found, names = messages(answer), []
            event = {"user_id": "u03", "item_id": "i/00 ä", "type": "like"}
            mine = headers(keyed, "admin")
            assert httpx.post(f"{keyed.url}/v1/feedback", json=event, headers=mine, timeout=60).status_code == 200
            while names.count("overview") < 4:
                name, data = next(found)
                names.append(name)
                assert "u03" not in str(data)
            assert set(names) == {"overview", "history"}
            return


def connect(server) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    while part := connection.recv(65536):
        found += part
    connection.close()
    return found


HEAD = b"GET /v1/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b"408"),
        (b"GET /v1/health", b"408"),
        (HEAD, b"408"),
        (HEAD + b"\r\n" + HEAD, b"408"),
        (HEAD + b"X-Long: " + b"x" * 80_000, b"431"),
    ],
    ids=["nothing", "a line", "headers", "second request", "large"],
)
def test_a_client_that_stalls_loses_its_connection(keyed, sent, status):
    connection = connect(keyed)
    connection.sendall(sent)
    assert status in rest(connection)


def test_a_body_that_does_not_come_is_not_waited_for(keyed):
    connection = connect(keyed)
    key = keyed.keys["read"].encode()
    connection.sendall(
        b"POST /v1/recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{" % key
    )
    assert b"408" in rest(connection)


def test_a_termination_ends_the_streams(keyed):
    with httpx.stream("GET", f"{keyed.url}/v1/stream", headers=headers(keyed, "read"), timeout=60) as answer:
        found = messages(answer)
        assert next(found)[0] == "overview"
        keyed.process.send_signal(signal.SIGTERM)
        assert {name for name, _ in found} <= {"overview", "history"}  # until the end, which is whole
    assert keyed.process.wait(60) == 0


def test_a_listener_that_goes_away_leaves_nothing_behind():
    async def left() -> int:
        stream = Stream()
        messages = stream.messages(private=False, first={})
        assert await anext(messages) == b"retry: 2000\n\n"
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0.01)
        assert len(stream) == 1
        waiting.cancel()
        await asyncio.wait({waiting})
        await asyncio.sleep(0)
        assert len(stream) == 0
        return len(asyncio.all_tasks())

    assert asyncio.run(left()) == 1
