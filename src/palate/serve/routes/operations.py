"""Routes of operations: health, version, figures, metrics, scenarios, bundles."""

from __future__ import annotations

import time
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse

from palate.serve.metrics import Metrics
from palate.serve.problems import Problem
from palate.serve.routes.common import json_response
from palate.serve.service import Service


def add_routes(router: APIRouter, service: Service, metrics: Metrics) -> None:
    """Add the routes to a router."""
    answers, store = service.answers, service.store

    @router.get("/v1/health/live", tags=["operations"])
    async def live() -> Response:
        """Whether the process answers."""
        return json_response({"status": "ok"})

    @router.get("/v1/health/ready", tags=["operations"])
    async def ready() -> Response:
        """Whether requests are answered; 503 while starting and stopping."""
        if not service.ready:
            raise Problem(503, "the server is starting or stopping: wait", {"Retry-After": "1"})
        return json_response({"status": "ok", "model": answers.deployment.version, "store": store.available})

    @router.get("/v1/version", tags=["operations"])
    async def versions() -> Response:
        """Versions of the server and of the bundle that answers."""
        return json_response({"palate": version("palate"), "model": answers.deployment.version})

    @router.get("/v1/stats", tags=["operations"])
    async def stats() -> Response:
        """Figures for an overview."""
        return json_response(overview(service, metrics))

    @router.get("/v1/stats/history", tags=["operations"])
    async def history() -> Response:
        """Requests, events and latency of the last quarter of an hour, every five seconds."""
        return json_response(metrics.history(time.time()))

    @router.get("/v1/stats/exposure", tags=["operations"])
    async def exposure(limit: Annotated[int, Query(ge=0, le=100)] = 10) -> Response:
        """How the places of the lists served since the start are spread over the items, and those shown most."""
        listed = int(answers.deployment.listed_I.sum())
        return json_response(answers.exposure.describe(listed, limit, answers.items.title))

    @router.get("/v1/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Counts and latency histograms in the text format of Prometheus."""
        gauges = [
            ("palate_events_stored_total", "counter", "", store.stored),
            ("palate_store_waiting", "gauge", "", store.waiting),
            ("palate_store_available", "gauge", "", store.available),
            ("palate_store_commit_seconds", "gauge", "", store.commit_seconds),
            ("palate_live_events", "gauge", "", answers.live.total),
            ("palate_batches_total", "counter", "", answers.batcher.batches),
            ("palate_batched_requests_total", "counter", "", answers.batcher.asked),
            ("palate_impressions_dropped_total", "counter", "", answers.impressions.dropped),
            ("palate_model_info", "gauge", f'{{version="{answers.deployment.version}"}}', 1),
        ]
        return Response(metrics.text(gauges), media_type="text/plain; version=0.0.4")

    @router.get("/v1/scenarios", tags=["recommend"])
    async def scenarios() -> Response:
        """Named options of requests, and the types of events."""
        settings = service.settings
        return json_response(
            {
                "scenarios": {name: asdict(one) for name, one in settings.scenarios.items()},
                "events": {name: asdict(one) for name, one in settings.events.items()},
            }
        )


def overview(service: Service, metrics: Metrics) -> dict[str, Any]:
    """Figures for a person: the answer of /v1/stats."""
    answers, store = service.answers, service.store
    last = [seconds for when, seconds in metrics.recent if when > time.time() - 60]
    return {
        "model": answers.deployment.version,
        "uptime_seconds": round(time.time() - service.started, 1),
        "requests": sum(metrics.requests.values()),
        "errors": sum(count for key, count in metrics.requests.items() if key[2] >= 500),
        "requests_last_minute": len(last),
        "in_progress": metrics.in_progress,
        **metrics.quantiles(),
        "events_stored": store.stored,
        "live_events": answers.live.total,
        "live_users": len(answers.live.users),
        "store": {
            "kind": store.engine.dialect.name,
            "available": store.available,
            "waiting": store.waiting,
            "commits": store.commits,
            "last_commit_ms": round(1000 * store.commit_seconds, 3),
        },
        "streams": len(service.stream),
        "batches": answers.batcher.batches,
        "batched_requests": answers.batcher.asked,
        "dropped_impressions": answers.impressions.dropped,
    }
