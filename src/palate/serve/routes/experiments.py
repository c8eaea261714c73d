"""Routes of experiments: create, list, results, start, stop, delete."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import Connection

from palate.serve import experiments
from palate.serve.experiments import Experiment, Plan
from palate.serve.problems import Problem
from palate.serve.routes.common import json_response
from palate.serve.service import Service


def add_routes(router: APIRouter, service: Service) -> None:
    """Add the routes to a router."""
    store, every = service.store, service.answers.experiments

    async def described(name: str, *, status: int = 200) -> Response:
        await store.read(every.load)
        return json_response(every.get(name).describe(service.models.loaded), status)

    def check(plan: Plan) -> Plan:
        """The plan with versions in place of folders."""
        arms = [arm.model_copy(update={"model": service.models.version(arm.model)}) for arm in plan.arms]
        unknown = set(plan.types or ()) - set(service.settings.events)
        if unknown:
            raise Problem(422, f"unknown event type {min(unknown)!r}: there are {', '.join(service.settings.events)}")
        return plan.model_copy(update={"arms": arms})

    @router.post("/v1/experiments", tags=["experiments"], status_code=201)
    async def create(body: Plan) -> Response:
        """Store the plan of an experiment. It answers no requests before it is started."""
        plan = check(body)
        await store.write(lambda connection: experiments.create(connection, plan))
        return await described(body.name, status=201)

    @router.get("/v1/experiments", tags=["experiments"])
    async def listed() -> Response:
        """All experiments without their results, the latest first."""
        await store.read(every.load)
        newest = reversed(every.known.values())
        return json_response({"experiments": [one.describe(service.models.loaded) for one in newest]})

    @router.get("/v1/experiments/{name}", tags=["experiments"])
    async def result(name: str) -> Response:
        """One experiment with its results: figures of the arms with intervals, and whether its rule has decided."""
        await store.read(every.load)
        one = every.get(name)
        found: dict[str, Any] | None = None
        if one.started is not None:
            found = await store.read(lambda connection: results_of(connection, one, service))
        return json_response({**one.describe(service.models.loaded), "results": found})

    @router.post("/v1/experiments/{name}/start", tags=["experiments"])
    async def start(name: str) -> Response:
        """Let a draft answer requests that name no model."""
        await store.read(every.load)
        check(every.get(name).plan)
        await store.write(lambda connection: experiments.start(connection, name))
        return await described(name)

    @router.post("/v1/experiments/{name}/stop", tags=["experiments"])
    async def stop(name: str) -> Response:
        """End a running experiment: the active model answers again."""
        await store.read(every.load)
        every.get(name)
        await store.write(lambda connection: experiments.stop(connection, name))
        return await described(name)

    @router.delete("/v1/experiments/{name}", tags=["experiments"], status_code=204)
    async def remove(name: str) -> Response:
        """Delete a draft or a stopped experiment; its impressions stay in the log."""
        await store.read(every.load)
        every.get(name)
        await store.write(lambda connection: experiments.remove(connection, name))
        await store.read(every.load)
        return Response(status_code=204)


def results_of(connection: Connection, one: Experiment, service: Service) -> dict[str, Any]:
    """The results of an experiment so far."""
    # ``scipy.stats`` behind it takes a second to import, and memory: only for those who have experiments.
    from palate.serve.outcomes import results

    return results(connection, one, service.settings.events)
