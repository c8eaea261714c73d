"""The stream of server-sent events, and the task that fills it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from palate.serve.metrics import Metrics
from palate.serve.problems import Problem
from palate.serve.routes.operations import overview
from palate.serve.service import Service
from palate.serve.store import Stored

TICK = 0.25  # seconds until a stored event is shown
OVERVIEW, HISTORY = 4, 20  # ticks between two of their messages
SHOWN = 100  # events of one message


def add_routes(router: APIRouter, service: Service, metrics: Metrics) -> None:
    """Add the routes to a router."""

    @router.get(
        "/v1/stream",
        tags=["operations"],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def stream(request: Request) -> StreamingResponse:
        """Server-sent events: ``overview`` every second, ``history`` every five, ``events`` as they are stored.

        Overview and history are as of /v1/stats and /v1/stats/history. Only a key with role admin gets events.
        """
        most = service.settings.max_streams
        if len(service.stream) >= most:
            raise Problem(503, f"{most:,} streams are open: close one, or ask /v1/stats", {"Retry-After": "5"})
        first = {"overview": overview(service, metrics), "history": metrics.history(time.time())}
        messages = service.stream.messages(request.scope["role"] == "admin", first)
        # nginx would hold the messages back until its buffer is full.
        return StreamingResponse(messages, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def fill(service: Service, metrics: Metrics) -> None:
    """Publish figures and new events as long as a stream is open."""
    waiting: list[Stored] = []
    service.on_events = _keep(service, waiting)
    tick = 0
    while True:
        await asyncio.sleep(TICK)
        tick += 1
        if not len(service.stream):
            waiting.clear()
            continue
        if waiting:
            service.stream.publish("events", _document(service, waiting), private=True)
            waiting.clear()
        if tick % OVERVIEW == 0:
            service.stream.publish("overview", overview(service, metrics))
        if tick % HISTORY == 0:
            service.stream.publish("history", metrics.history(time.time()))


def _keep(service: Service, waiting: list[Stored]) -> Callable[[Iterable[Stored]], None]:
    def keep(rows: Iterable[Stored]) -> None:
        if len(service.stream):
            waiting.extend(rows)

    return keep


def _document(service: Service, rows: list[Stored]) -> dict[str, Any]:
    """The newest events, newest first; ``changed`` says that older ones were taken back, moved or deleted."""
    plain = [row for row in rows if not row.event.type.startswith("$")]
    names = ("event_id", "user_id", "item_id", "type", "value", "time", "recommendation_id")
    return {
        "count": len(plain),
        "changed": len(plain) < len(rows),
        "events": [
            {
                "seq": seq,
                **{name: getattr(event, name) for name in names},
                "title": service.answers.items.title(event.item_id),
            }
            for seq, event in reversed(plain[-SHOWN:])
        ],
    }
