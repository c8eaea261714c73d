"""The application: routes, errors, the edge and the page, around one ``Service``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from fastapi import APIRouter, FastAPI, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from palate.errors import DataError
from palate.serve.agents import AgentTools
from palate.serve.metrics import Metrics
from palate.serve.parsing import StrictRoute
from palate.serve.problems import RESPONSE, add_handlers, answer
from palate.serve.routes import (
    admin,
    bulk,
    experiments,
    feedback,
    items,
    models,
    operations,
    recommend,
    stream,
    users,
)
from palate.serve.security import Edge, KeyRing
from palate.serve.service import Service, load_bundles
from palate.serve.settings import Settings
from palate.serve.store import StoreUnavailableError

PAGES = Path(__file__).with_name("pages")
KEY_SECONDS = 2.0
PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": RESPONSE, "5XX": RESPONSE}
logger = logging.getLogger(__name__)


def make_app(settings: Settings, bundles: list[Path]) -> FastAPI:
    """The application of some bundles, the first of which answers.

    Raises:
        BundleError: a bundle is missing or damaged.
        DataError: the settings do not fit; for example, an address beyond loopback without any API key.
        StoreUnavailableError: the database cannot be opened.
    """
    torch.set_num_threads(settings.threads)
    service = Service(settings, load_bundles(bundles, settings.trusted_key))
    keys, metrics = KeyRing(), Metrics(lambda: service.store.stored)
    service.store.read_now(keys.load)
    if not settings.is_loopback and not keys.keys:
        raise DataError(
            f"host={settings.host} can be reached from other machines and there are no API keys: "
            "make one with palate keys create NAME --role admin"
        )

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        tasks = [asyncio.create_task(one) for one in (_refresh(keys, service), stream.fill(service, metrics))]
        yield
        for one in tasks:
            one.cancel()
        await agents.stop()
        await service.stop()

    # FastAPI's own traces would hold paths and queries, and with them ids.
    app = FastAPI(
        title="Palate",
        version=version("palate"),
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    agents = AgentTools(app)
    app.state.service, app.state.keys, app.state.metrics = service, keys, metrics
    add_handlers(app)

    @app.exception_handler(StoreUnavailableError)
    async def unavailable(_: Any, error: StoreUnavailableError) -> Response:
        return answer(503, str(error), {"Retry-After": "1"})

    router = APIRouter(route_class=StrictRoute, responses=PROBLEMS)
    for part in (recommend, feedback, items, users, models, bulk, experiments):
        part.add_routes(router, service)
    operations.add_routes(router, service, metrics)
    stream.add_routes(router, service, metrics)
    admin.add_routes(router, service, keys)
    app.include_router(router)
    if agents.installed:
        app.router.routes.append(Route("/mcp", agents))
    app.mount("/", StaticFiles(directory=PAGES, html=True))
    app.add_middleware(Edge, settings=settings, keys=keys, metrics=metrics)
    return app


async def _refresh(keys: KeyRing, service: Service) -> None:
    """Read keys and experiments again and again: other processes make and delete them."""
    while True:
        await asyncio.sleep(KEY_SECONDS)
        try:
            await service.store.read(keys.load)
            await service.store.read(service.answers.experiments.load)
        except StoreUnavailableError as error:
            logger.warning("keys and experiments cannot be read: %s", error)
