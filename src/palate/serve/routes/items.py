"""Routes of items: get, list, put, change, delete."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Response

from palate.serve.items import Item
from palate.serve.problems import Problem
from palate.serve.routes.common import AnyId, Limit, json_response, page_size
from palate.serve.schemas import (
    ItemChange,
)
from palate.serve.service import Service


def add_routes(router: APIRouter, service: Service) -> None:
    """Add the routes to a router."""
    answers, store = service.answers, service.store

    def known_item(item_id: str) -> Item:
        item = answers.items.get(answers.deployment.canonical(answers.deployment.items, item_id))
        if item is None:
            raise Problem(404, f"item {item_id[:60]!r} is not known: put it first, or see /v1/search")
        return item

    @router.get("/v1/items", tags=["items"])
    async def list_items(
        cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,12}$")] = None,
        limit: Limit = 100,
        item_id: Annotated[
            list[str] | None, Query(description="Only these; repeat it. Unknown ones are left out.")
        ] = None,
    ) -> Response:
        """All items, page by page, or those that are named."""
        if item_id is None:
            ids, following = answers.items.page(cursor, page_size(service, limit))
        else:
            page_size(service, len(item_id))
            ids, following = [answers.deployment.canonical(answers.deployment.items, one) for one in item_id], None
        items = [answers.items.describe(item) for item in map(answers.items.get, ids) if item is not None]
        return json_response({"items": items, "next": following})

    @router.get("/v1/items/{item_id:path}", tags=["items"])
    async def get_item(item_id: AnyId) -> Response:
        """One item."""
        return json_response(answers.items.describe(known_item(item_id)))

    @router.put("/v1/items/{item_id:path}", tags=["items"])
    async def put_item(item_id: AnyId, body: ItemChange) -> Response:
        """Make an item, or set all its fields."""
        item_id = answers.deployment.canonical(answers.deployment.items, item_id)
        item = Item(item_id, body.title, body.features, bool(body.hidden), body.in_stock is not False, body.expires)
        await answers.items.save(store, item)
        return json_response(answers.items.describe(item))

    @router.patch("/v1/items/{item_id:path}", tags=["items"])
    async def patch_item(item_id: AnyId, body: ItemChange) -> Response:
        """Change some fields of an item."""
        item, fields = known_item(item_id), body.model_dump(exclude_unset=True)
        for name in ("hidden", "in_stock"):
            if fields.get(name, True) is None:
                raise Problem(422, f"{name} is null: give true or false")
        if fields.get("features") is not None:
            fields["features"] = {**(item.features or {}), **fields["features"]}
        item = replace(item, **fields)
        await answers.items.save(store, item)
        return json_response(answers.items.describe(item))

    @router.delete("/v1/items/{item_id:path}", tags=["items"], status_code=204)
    async def delete_item(item_id: AnyId) -> Response:
        """Delete an item; one of the bundle is hidden for good."""
        await answers.items.delete(store, known_item(item_id).item_id)
        return Response(status_code=204)
