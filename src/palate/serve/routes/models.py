"""Routes of bundles: list, load, activate, roll back."""

from __future__ import annotations

from fastapi import APIRouter, Response

from palate.serve.routes.common import json_response
from palate.serve.schemas import ModelName
from palate.serve.service import Service


def add_routes(router: APIRouter, service: Service) -> None:
    """Add the routes to a router."""
    answers = service.answers

    @router.get("/v1/models", tags=["models"])
    async def models() -> Response:
        """The loaded bundles."""
        active = answers.deployment.version
        listed = [{**one.describe(), "active": one.version == active} for one in service.models.loaded.values()]
        return json_response({"active": active, "models": listed})

    @router.post("/v1/models/load", tags=["models"])
    async def load(body: ModelName) -> Response:
        """Load a bundle of the folder of models by its name; the active one goes on answering."""
        return json_response((await service.models.load(body.model)).describe())

    @router.post("/v1/models/activate", tags=["models"])
    async def activate(body: ModelName) -> Response:
        """Let a loaded version answer. Requests in progress end with the one that they began with."""
        return json_response((await service.models.switch(body.model)).describe())

    @router.post("/v1/models/rollback", tags=["models"])
    async def roll_back() -> Response:
        """Let the version that answered before answer again."""
        return json_response((await service.models.roll_back()).describe())

    @router.delete("/v1/models/{version}", tags=["models"], status_code=204)
    async def unload(version: str) -> Response:
        """Forget a version that does not answer."""
        await service.models.unload(version)
        return Response(status_code=204)
