"""Tools of language-model agents by the client of the protocol's own package, and traces of a real process."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from palate.serve import tracing
from palate.serve.security import add_key
from palate.serve.store import Store

mcp = pytest.importorskip("mcp", reason="the tools of agents need the extra mcp")
httpx2 = pytest.importorskip("httpx2")
streamable_http = pytest.importorskip("mcp.client.streamable_http")


def talk(server, conversation, **headers):
    """The result of a conversation with the tools of a server."""

    async def run():
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http.streamable_http_client(f"{server.url}/mcp", http_client=http)
            async with mcp.Client(transport) as client:
                return await conversation(client)

    return asyncio.run(run())


def test_the_tools_are_the_reading_operations(server):
    async def conversation(client):
        tools = {one.name: one for one in (await client.list_tools()).tools}
        assert {"recommend", "similar", "popular", "recent", "search", "why_not", "get_item"} <= tools.keys()
        assert all(one.description.endswith(".") for one in tools.values())
        assert tools["similar"].input_schema["required"] == ["item_id"]
        assert "history" in tools["recommend"].input_schema["properties"]
        listed = await client.call_tool("recommend", {"user_id": "u30", "k": 3, "rules": {"deny": {"kind": ["cream"]}}})
        rows = listed.structured_content["items"]
        assert json.loads(listed.content[0].text) == listed.structured_content
        assert [one["item_id"] for one in rows] == server.ids("u30", k=3, filter="kind:tea")
        item = await client.call_tool("get_item", {"item_id": "i/02 ä"})
        assert item.structured_content["title"] == "Tea number 2"
        found = await client.call_tool("search", {"q": "creme number 1", "limit": 5})
        assert len(found.structured_content["items"]) == 5
        wrong = await client.call_tool("recommend", {"user_id": "u30", "k": 5_000})
        assert wrong.is_error
        assert "ask for" in wrong.content[0].text
        assert (await client.call_tool("similar", {"item_id": "none"})).is_error
        assert (await client.call_tool("delete_user", {"user_id": "u30"})).is_error

    talk(server, conversation)


def test_tools_need_the_keys_of_the_api_and_leave_spans(serving, tmp_path):
    store = Store(f"sqlite:///{tmp_path}/palate-serve.db")
    with store.engine.begin() as connection:
        key = add_key(connection, "agent", "read")[0]
    store.engine.dispose()
    with serving("--require-keys", "--traces", "console", folder=tmp_path) as server:
        assert server.client.post("/mcp", json={}).status_code == 401

        async def conversation(client):
            return await client.call_tool("recommend", {"user_id": "secret-person", "k": 2})

        assert len(talk(server, conversation, authorization=f"Bearer {key}").structured_content["items"]) == 2
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        mine = {"authorization": f"Bearer {key}", "traceparent": parent}
        answer = server.client.get("/v1/recommend", params={"user_id": "secret-person"}, headers=mine)
        refused = {"user_id": "secret-person", "item_id": "i/00 ä", "type": "like"}
        assert server.client.post("/v1/feedback", json=refused, headers=mine).status_code == 403
        assert server.stop() == 0
    log = server.log.read_text()
    spans = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (request,) = (one for one in spans if one["attributes"].get("palate.request_id") == answer.headers["x-request-id"])
    assert request["name"] == "GET /v1/recommend"
    assert request["parent_id"] == "0xb7ad6b7169203331"
    assert request["attributes"]["http.response.status_code"] == 200
    assert request["resource"]["attributes"]["service.name"] == "palate"
    steps = [one["name"] for one in spans if one["parent_id"] == request["context"]["span_id"]]
    assert steps == ["validate", "score"]
    assert "secret" not in log


def test_spans_reach_a_collector(monkeypatch):
    got = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        stop = tracing.start("otlp")
        with tracing.span("score"):
            pass
        stop()
        collector.shutdown()
    ((path, body),) = got
    assert path == "/v1/traces"
    assert b"score" in body
    assert b"palate" in body
    with tracing.span("off again"):
        pass
    assert len(got) == 1
