"""Routes of users: get, list, put, change, delete."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection, delete

from palate.serve import tables
from palate.serve.answers import SESSION
from palate.serve.problems import Problem
from palate.serve.routes.common import AnyId, Limit, json_response, page_size
from palate.serve.schemas import (
    UserChange,
)
from palate.serve.service import Service
from palate.serve.store import USER


def add_routes(router: APIRouter, service: Service) -> None:
    """Add the routes to a router."""
    answers, store = service.answers, service.store

    def describe_user(user: str) -> dict[str, Any]:
        deployment = answers.deployment
        row = answers.live.row(deployment, user)
        live = answers.live.users.get(user)
        features: dict[str, Any] = {}
        table = deployment.recommender.user_features
        if row >= 0 and table is not None:
            features = table.row(row, named=True)
        return {
            "user_id": user,
            "in_model": row >= 0,
            "training_events": len(deployment.recommender.seen.of(row)),
            "live_events": 0 if live is None else len(live.events),
            "features": {**features, **(answers.features.get(user) or {})},
        }

    def known_user(user_id: str) -> str:
        user = service.user_key(user_id, None)
        known = (
            answers.live.row(answers.deployment, user) >= 0 or user in answers.live.users or user in answers.features
        )
        if not known:
            raise Problem(404, f"user {user_id[:60]!r} is not known: feedback or PUT makes a user")
        return user

    @router.get("/v1/users", tags=["users"])
    async def list_users(
        cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,12}$")] = None, limit: Limit = 100
    ) -> Response:
        """All users, page by page: those of the training data, then new ones. Sessions are left out."""
        deployment, live = answers.deployment, answers.live
        start, size = int(cursor or 0), page_size(service, limit)
        known = [str(one) for one in deployment.users.ids.slice(start, size).to_list()]
        if len(known) < size:
            new = [*live.users, *(one for one in answers.features if one not in live.users)]
            new = [one for one in new if deployment.users.row(one) < 0 and not one.startswith(SESSION)]
            first = max(0, start - len(deployment.users))
            known += new[first : first + size - len(known)]
            more = start + size < len(deployment.users) + len(new)
        else:
            more = True
        users = [describe_user(user) for user in known if user not in live.deleted]
        return json_response({"users": users, "next": str(start + size) if more else None})

    @router.get("/v1/users/{user_id:path}", tags=["users"])
    async def get_user(user_id: AnyId) -> Response:
        """One user."""
        return json_response(describe_user(known_user(user_id)))

    @router.put("/v1/users/{user_id:path}", tags=["users"])
    async def put_user(user_id: AnyId, body: UserChange) -> Response:
        """Make a user, or set the features of one."""
        return await save_user(service.user_key(user_id, None), body.features or {})

    @router.patch("/v1/users/{user_id:path}", tags=["users"])
    async def patch_user(user_id: AnyId, body: UserChange) -> Response:
        """Change some features of a user."""
        user = known_user(user_id)
        return await save_user(user, {**(answers.features.get(user) or {}), **(body.features or {})})

    async def save_user(user: str, features: dict[str, Any]) -> Response:
        deleted = user in answers.live.deleted
        row = {
            "user_id": user,
            "features": orjson.dumps(features).decode() if features else None,
            "deleted": deleted,
            "updated": time.time(),
        }

        def change(connection: Connection) -> None:
            connection.execute(delete(tables.users).where(tables.users.c.user_id == user))
            connection.execute(tables.users.insert(), row)
            store.announce(connection, USER, [user])

        await store.write(change)
        answers.features[user] = features
        return json_response(describe_user(user))

    @router.delete("/v1/users/{user_id:path}", tags=["users"])
    async def delete_user(user_id: AnyId) -> Response:
        """Delete a user with all events and impressions; answers treat the id as unknown from now on."""
        return json_response({"events": await service.delete_user(user_id)})
