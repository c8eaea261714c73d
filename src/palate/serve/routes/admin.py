"""Routes of API keys."""

from __future__ import annotations

from fastapi import APIRouter, Response

from palate.serve.problems import Problem
from palate.serve.routes.common import json_response
from palate.serve.schemas import NewKey
from palate.serve.security import KeyRing, add_key, remove_key
from palate.serve.service import Service


def add_routes(router: APIRouter, service: Service, keys: KeyRing) -> None:
    """Add the routes to a router."""
    store = service.store

    @router.get("/v1/keys", tags=["operations"])
    async def list_keys() -> Response:
        """The API keys without their secrets."""
        rows = [
            {name: getattr(key, name) for name in ("key_id", "name", "role", "created")} for key in keys.keys.values()
        ]
        return json_response({"keys": rows})

    @router.post("/v1/keys", tags=["operations"], status_code=201)
    async def create_key(body: NewKey) -> Response:
        """Make an API key; its text is in this answer only."""
        text, key = await store.write(lambda connection: add_key(connection, body.name, body.role))
        await store.read(keys.load)
        return json_response({"key_id": key.key_id, "name": key.name, "role": key.role, "key": text}, 201)

    @router.delete("/v1/keys/{key_id}", tags=["operations"], status_code=204)
    async def revoke_key(key_id: str) -> Response:
        """Delete an API key."""
        if not await store.write(lambda connection: remove_key(connection, key_id)):
            raise Problem(404, f"no key {key_id[:40]!r}: see GET /v1/keys")
        await store.read(keys.load)
        return Response(status_code=204)
