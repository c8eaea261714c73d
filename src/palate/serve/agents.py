"""The read operations as tools of language-model agents: the Model Context Protocol over HTTP at /mcp (extra ``mcp``).

A tool is an operation of the API: its description and schema come from there, and a call is a request to it with the
caller's key, so it has the same answer, role and limits.
"""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

if TYPE_CHECKING:
    from mcp.server import Server

TOOLS = {
    "recommend": ("post", "/v1/recommend"),
    "why_not": ("get", "/v1/why-not"),
    "similar": ("get", "/v1/similar"),
    "popular": ("get", "/v1/popular"),
    "recent": ("get", "/v1/recent"),
    "search": ("get", "/v1/search"),
    "get_item": ("get", "/v1/items/{item_id}"),
    "list_items": ("get", "/v1/items"),
    "onboarding": ("get", "/v1/onboarding"),
    "scenarios": ("get", "/v1/scenarios"),
}
ABOUT = "Recommendations of a shop or library: lists for a user or a history, neighbors of items, search, reasons."
PASSED = (b"host", b"authorization", b"x-api-key")  # headers of the caller that a tool's request has, too


class AgentTools:
    """An ASGI application that answers at /mcp; the package is imported at the first request.

    Args:
        app: the application whose operations are the tools.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.installed = find_spec("mcp") is not None
        self._serving: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._serving = asyncio.create_task(self._serve(self._answer))
        answer = await asyncio.shield(self._answer)
        await answer(scope, receive, send)

    async def stop(self) -> None:
        """End the sessions."""
        self._end.set()
        if self._serving is not None:
            await self._serving

    async def _serve(self, started: asyncio.Future[Any]) -> None:
        try:
            server = await asyncio.to_thread(self._server)
            # Without sessions nothing is kept between requests, so any of several servers may answer the next one. The
            # edge has checked host, origin and size already.
            server.streamable_http_app(stateless_http=True, json_response=True, host="")
            async with server.session_manager.run():
                started.set_result(server.session_manager.handle_request)
                await self._end.wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    def _server(self) -> Server[Any]:
        from mcp import types
        from mcp.server import Server

        schemas = {name: self._operation(name) for name in TOOLS}
        tools = [
            types.Tool(name=name, description=about, input_schema=schema) for name, (about, schema) in schemas.items()
        ]

        async def list_tools(*_: Any) -> types.ListToolsResult:
            return types.ListToolsResult(tools=tools)

        async def call_tool(context: Any, call: types.CallToolRequestParams) -> types.CallToolResult:
            if call.name not in TOOLS:
                text = types.TextContent(type="text", text=f"unknown tool {call.name!r}: there are {', '.join(TOOLS)}")
                return types.CallToolResult(content=[text], is_error=True)
            status, body = await self._ask(context.request.scope, call.name, call.arguments or {})
            failed, text = status >= 400, types.TextContent(type="text", text=body.decode())
            return types.CallToolResult(
                content=[text], structured_content=None if failed else json.loads(body), is_error=failed
            )

        return Server(
            "palate", version=version("palate"), instructions=ABOUT, on_list_tools=list_tools, on_call_tool=call_tool
        )

    def _operation(self, name: str) -> tuple[str, dict[str, Any]]:
        """Description and schema of the arguments of a tool."""
        method, path = TOOLS[name]
        # References to schemas change from their place in the description to that of JSON Schema.
        text = json.dumps(self.app.openapi()).replace("#/components/schemas/", "#/$defs/")
        description = json.loads(text)
        operation, models = description["paths"][path][method], description["components"]["schemas"]
        if "requestBody" in operation:
            model = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            return operation["description"], {**models[model], "$defs": models}
        listed = operation.get("parameters", [])
        properties = {one["name"]: {**one["schema"], "description": one.get("description", "")} for one in listed}
        required = [one["name"] for one in listed if one["required"]]
        schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return operation["description"], schema

    async def _ask(self, caller: Scope, name: str, arguments: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of the operation of a tool, asked as the caller."""
        method, path = TOOLS[name]
        query, content = "", b""
        headers = [(key, value) for key, value in caller["headers"] if key in PASSED]
        if method == "post":
            content = json.dumps(arguments).encode()
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        else:
            path = path.format(item_id=arguments.get("item_id", ""))
            given = {
                key: one for key, one in arguments.items() if one is not None and f"{{{key}}}" not in TOOLS[name][1]
            }
            query = urlencode(
                {key: str(one).lower() if isinstance(one, bool) else one for key, one in given.items()}, doseq=True
            )
        scope = {
            **{key: caller[key] for key in ("type", "asgi", "http_version", "scheme", "server", "client")},
            **{"method": method.upper(), "path": path, "raw_path": quote(path).encode(), "root_path": ""},
            **{"query_string": query.encode(), "headers": headers},
        }
        status, parts = 0, list[bytes]()

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        await self.app(scope, receive, send)
        return status, b"".join(parts)
