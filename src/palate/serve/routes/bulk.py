"""Routes of bulk data: NDJSON in and out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, delete, select, tuple_

from palate.serve import tables
from palate.serve.answers import SESSION
from palate.serve.items import Item
from palate.serve.parsing import strict_json
from palate.serve.problems import Problem
from palate.serve.routes.common import json_response
from palate.serve.schemas import FeedbackEvent, ImportedEvent, ImportedItem, ImportedUser
from palate.serve.service import Service
from palate.serve.store import ITEM, USER

SHOWN = 20  # refused lines that an import names
CHUNK = 1_000  # lines stored, or rows read, at a time
Kind = Literal["items", "users", "events"]
TABLES = {"items": tables.items, "users": tables.users, "events": tables.events, "impressions": tables.impressions}
NDJSON = "application/x-ndjson"


def add_routes(router: APIRouter, service: Service) -> None:
    """Add the routes to a router."""
    store_lines = _Import(service)
    kinds: dict[str, tuple[type[BaseModel], Callable[[Any], Any]]] = {
        "items": (ImportedItem, store_lines.items),
        "users": (ImportedUser, store_lines.users),
        "events": (ImportedEvent, store_lines.events),
    }

    @router.post(
        "/v1/import/{kind}",
        tags=["bulk"],
        openapi_extra={"requestBody": {"content": {NDJSON: {"schema": {"type": "string"}}}, "required": True}},
    )
    async def bulk_import(kind: Kind, request: Request) -> Response:
        """Store one JSON object a line. Lines that do not fit are refused, counted and named; the others are stored."""
        model, put = kinds[kind]
        counts = {"lines": 0, "stored": 0, "refused": 0}
        errors: list[dict[str, Any]] = []
        waiting: list[Any] = []
        async for number, line in _lines(request):
            counts["lines"] += 1
            try:
                row = model.model_validate(strict_json(line))
                if isinstance(row, FeedbackEvent):
                    service.event(row, time.time())
                elif isinstance(row, ImportedUser):
                    service.user_key(row.user_id, None)
            except (ValidationError, Problem) as error:
                counts["refused"] += 1
                if len(errors) < SHOWN:
                    errors.append({"line": number, "error": _reason(error)})
                continue
            waiting.append(row)
            if len(waiting) == CHUNK:
                counts["stored"] += await put(waiting)
                waiting = []
        if waiting:
            counts["stored"] += await put(waiting)
        repeated = counts["lines"] - counts["refused"] - counts["stored"]
        return json_response({**counts, "repeated": repeated, "errors": errors})

    @router.get("/v1/export/{kind}", tags=["bulk"], response_class=StreamingResponse)
    async def export(
        kind: Literal["items", "users", "events", "impressions"],
        cursor: Annotated[int, Query(ge=0, le=1 << 62, description="Events: only those with a larger seq.")] = 0,
    ) -> StreamingResponse:
        """All rows, one JSON object a line, in a form that the import takes; events in the order of their seq."""
        return StreamingResponse(_rows(service, kind, cursor), media_type=NDJSON)


class _Import:
    """Stores the checked lines of an import."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def items(self, rows: list[ImportedItem]) -> int:
        """Store items; their number."""
        deployment = self.service.answers.deployment
        items = {
            one.item_id: one
            for one in (
                Item(
                    deployment.canonical(deployment.items, row.item_id),
                    row.title,
                    row.features,
                    bool(row.hidden),
                    row.in_stock is not False,
                    row.expires,
                )
                for row in rows
            )
        }
        now = time.time()

        def change(connection: Connection) -> None:
            connection.execute(delete(tables.items).where(tables.items.c.item_id.in_(list(items))))
            connection.execute(tables.items.insert(), [one.row(now) for one in items.values()])
            self.service.store.announce(connection, ITEM, items)

        await self.service.store.write(change)
        self.service.answers.items.put(*items.values())
        return len(items)

    async def users(self, rows: list[ImportedUser]) -> int:
        """Store users; their number."""
        features = {self.service.user_key(row.user_id, None): row.features or {} for row in rows}
        gone = self.service.answers.live.deleted
        gone.update(self.service.user_key(row.user_id, None) for row in rows if row.deleted)
        now = time.time()

        def change(connection: Connection) -> None:
            connection.execute(delete(tables.users).where(tables.users.c.user_id.in_(list(features))))
            new = [
                {
                    "user_id": user,
                    "features": orjson.dumps(values).decode() if values else None,
                    "deleted": user in gone,
                    "updated": now,
                }
                for user, values in features.items()
            ]
            connection.execute(tables.users.insert(), new)
            self.service.store.announce(connection, USER, features)

        await self.service.store.write(change)
        self.service.answers.features.update({user: one for user, one in features.items() if one or user not in gone})
        return len(features)

    async def events(self, rows: list[FeedbackEvent]) -> int:
        """Store events; the number of new ones."""
        return len((await self.service.feedback(rows))[1])


async def _lines(request: Request) -> AsyncIterator[tuple[int, bytes]]:
    """Numbered lines of a body as they arrive; empty ones are skipped."""
    number, rest = 0, b""
    async for part in request.stream():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            number += 1
            if line.strip():
                yield number, line
    if rest.strip():
        yield number + 1, rest


def _reason(error: ValidationError | Problem) -> str:
    if isinstance(error, Problem):
        return str(error.detail)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


async def _rows(service: Service, kind: str, after: int) -> AsyncIterator[bytes]:
    table = TABLES[kind]
    # Pages by the key: a transaction that lasts as long as a slow client would keep the database from tidying up.
    keys = list(table.primary_key.columns) if kind != "events" else [table.c.seq]
    last: tuple[Any, ...] | None = (after,) if kind == "events" else None
    while True:
        query = select(table).order_by(*keys).limit(CHUNK)
        if kind == "events":
            query = query.where(table.c.undone.is_(False), table.c.type.not_like("$%"))
        if last is not None:
            query = query.where(tuple_(*keys) > last) if len(keys) > 1 else query.where(keys[0] > last[0])
        rows = await service.store.read(lambda connection, query=query: connection.execute(query).mappings().all())  # type: ignore[misc]
        if not rows:
            return
        yield b"".join(
            orjson.dumps(_exported(kind, {str(name): value for name, value in row.items()})) + b"\n" for row in rows
        )
        last = tuple(rows[-1][key.name] for key in keys)


def _exported(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    for name in ("features", "context", "items", "sources", "propensity", "row_arms"):
        if row.get(name) is not None:
            row[name] = orjson.loads(row[name])
    if kind == "events" and row["user_id"].startswith(SESSION):
        row["session_id"] = row.pop("user_id").removeprefix(SESSION)
    for name in ("updated", "received", "undone", "seq") if kind != "events" else ("undone", "received"):
        row.pop(name, None)
    return row
