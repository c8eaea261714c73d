"""Routes of feedback: events, undo, onboarding answers, sessions."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import select

from palate.serve import tables
from palate.serve.problems import Problem
from palate.serve.routes.common import Limit, json_response, page_size
from palate.serve.schemas import (
    MAX_ID,
    Accepted,
    Answers,
    Feedback,
    FeedbackBatch,
    FeedbackEvent,
    Merge,
    Recommendations,
    RecommendRequest,
)
from palate.serve.service import Service


def add_routes(router: APIRouter, service: Service) -> None:
    """Add the routes to a router."""
    answers, store = service.answers, service.store

    @router.post("/v1/feedback", response_model=Accepted, status_code=200, tags=["feedback"])
    async def feedback(request: Request, body: Feedback) -> Response:
        """Store one event or many. They are on the disk, and in the next answer, when this is answered."""
        if isinstance(body, FeedbackBatch):
            events = body.events
        else:
            events = [body if isinstance(body, FeedbackEvent) else body.feedback()]
        if len(events) > service.settings.max_batch:
            raise Problem(
                413, f"{len(events):,} events: at most {service.settings.max_batch:,} at a time, or /v1/import"
            )
        rows, stored = await service.feedback(events)
        return json_response(
            {
                "request_id": request.scope["request_id"],
                "stored": len(stored),
                "repeated": len(rows) - len(stored),
                "event_ids": [row.event_id for row in rows],
            }
        )

    @router.delete("/v1/feedback/{event_id:path}", tags=["feedback"], status_code=204)
    async def undo(event_id: Annotated[str, Path(min_length=1, max_length=200)]) -> Response:
        """Take an event back."""
        if not await service.undo(event_id):
            raise Problem(404, f"no event {event_id[:60]!r} to take back")
        return Response(status_code=204)

    @router.post("/v1/onboarding", response_model=Recommendations, tags=["users"])
    async def answer_onboarding(request: Request, body: Answers) -> Response:
        """Store the answers of a new user and recommend."""
        if not body.known and not body.unknown:
            raise Problem(422, "no answers: give known or unknown items")
        who: dict[str, Any] = {"user_id": body.user_id, "session_id": body.session_id}
        events = [
            FeedbackEvent.model_construct(
                **who,
                item_id=item,
                type=kind,
                event_id=None,
                value=None,
                time=None,
                recommendation_id=None,
                context=None,
            )
            for kind, ids in (("like", body.known), ("unknown", body.unknown))
            for item in ids
        ]
        if len(events) > service.settings.max_batch:
            raise Problem(413, f"{len(events):,} answers: at most {service.settings.max_batch:,}")
        await service.feedback(events)
        asked = RecommendRequest.model_construct(**who, k=body.k)
        return json_response(await answers.recommend(asked, request.scope["request_id"]))

    @router.post("/v1/sessions/merge", tags=["users"])
    async def merge(body: Merge) -> Response:
        """Give the events of a session to a user account."""
        return json_response({"moved": await service.merge(body.session_id, body.user_id)})

    @router.get("/v1/events", tags=["feedback"])
    async def list_events(
        user_id: Annotated[str | None, Query(min_length=1, max_length=MAX_ID)] = None,
        item_id: Annotated[str | None, Query(min_length=1, max_length=MAX_ID)] = None,
        cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
        limit: Limit = 100,
    ) -> Response:
        """Events that were not taken back, the newest first."""
        table, size = tables.events, page_size(service, limit)
        query = select(table).where(table.c.undone.is_(False), table.c.type.not_like("$%"))
        if user_id is not None:
            query = query.where(table.c.user_id == service.user_key(user_id, None))
        if item_id is not None:
            query = query.where(table.c.item_id == answers.deployment.canonical(answers.deployment.items, item_id))
        if cursor is not None:
            query = query.where(table.c.seq < int(cursor))
        query = query.order_by(table.c.seq.desc()).limit(size)
        rows = await store.read(lambda connection: connection.execute(query).mappings().all())
        events = [
            {
                **{name: row[name] for name in ("seq", "event_id", "user_id", "item_id", "type", "value", "time")},
                "recommendation_id": row["recommendation_id"],
                "context": None if row["context"] is None else orjson.loads(row["context"]),
                "title": answers.items.title(row["item_id"]),
            }
            for row in rows
        ]
        return json_response({"events": events, "next": str(rows[-1]["seq"]) if len(rows) == size else None})
