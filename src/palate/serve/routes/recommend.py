"""Routes that read: lists, neighbors, search, reasons and onboarding questions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import ValidationError

from palate.recommend import explain
from palate.serve.answers import Answers
from palate.serve.parsing import unknown_parameter
from palate.serve.problems import Problem
from palate.serve.routes.common import ItemId, K, check_k, json_response
from palate.serve.schemas import MAX_ID, Listing, Recommendations, RecommendRequest
from palate.serve.service import Service


def _parameter(name: str, about: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    schema = {"type": "array", "items": {"type": "string"}} if kind == "array" else {"type": kind, **more}
    return {"name": name, "in": "query", "required": False, "description": about, "schema": schema}


ID: dict[str, Any] = {"minLength": 1, "maxLength": MAX_ID}
PARAMETERS = [
    _parameter("user_id", "A user id, known or not.", **ID),
    _parameter("session_id", "A session without account.", **ID),
    _parameter("k", "List length; 10 if left out.", "integer", minimum=1, maximum=1_000_000),
    _parameter("exclude", "Items that must not be listed; repeat it.", "array"),
    _parameter("exclude_seen", "Leave out what the user has had.", "boolean"),
    _parameter("filter", "field:value of items; repeat it.", "array"),
    _parameter("scenario", "Named options of the settings."),
    _parameter("at", "Time of the request.", "number", minimum=-1e11, maximum=1e11),
    _parameter("explain", "Name the reasons of each row.", "boolean"),
    _parameter("recommendation_id", "Go on with this list."),
    _parameter("model", "Version of a loaded model; else the active one."),
]
QUERY = {one["name"]: one["schema"]["type"] for one in PARAMETERS}


def read_query(text: bytes) -> RecommendRequest:
    """The request of a query, such as ``user_id=196&k=5&exclude=50``.

    FastAPI would take a third of the time of the whole answer for these eleven parameters.

    Raises:
        RequestValidationError: a value does not fit.
        Problem: a filter is not field:value, or a parameter is unknown or there twice.
    """
    values: dict[str, Any] = {}
    for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
        kind = QUERY.get(name)
        if kind is None:
            raise unknown_parameter(name, QUERY)
        if kind == "array":
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Problem(422, f"{name} is there twice: send it once")
        else:
            values[name] = value
    if "filter" in values:
        values["filter"] = split_filter(values["filter"])
    try:
        return RecommendRequest.model_validate(values)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in error.errors()]) from None


def split_filter(filters: list[str]) -> dict[str, Any]:
    """``["genres:Comedy", "genres:Drama"]`` as ``{"genres": ["Comedy", "Drama"]}``."""
    found: dict[str, Any] = {}
    for text in filters:
        name, colon, value = text.partition(":")
        if not colon or not name:
            raise Problem(422, f"filter={text[:60]!r}: write it as field:value, such as genres:Comedy")
        found.setdefault(name, []).append(value)
    return found


def add_routes(router: APIRouter, service: Service) -> None:
    """Add the routes to a router."""
    answers = service.answers

    @router.get(
        "/v1/recommend", response_model=Recommendations, tags=["recommend"], openapi_extra={"parameters": PARAMETERS}
    )
    async def recommend(request: Request) -> Response:
        """The best items for a user."""
        asked = read_query(request.scope["query_string"])
        return json_response(await answers.recommend(asked, request.scope["request_id"]))

    @router.post("/v1/recommend", response_model=Recommendations, tags=["recommend"])
    async def recommend_to(request: Request, body: RecommendRequest) -> Response:
        """The best items for a user or for a history without an account, with rules, candidates and features."""
        return json_response(await answers.recommend(body, request.scope["request_id"]))

    @router.get("/v1/why-not", tags=["recommend"])
    async def why_not(
        user_id: Annotated[str, Query(min_length=1, max_length=MAX_ID)],
        item_id: ItemId,
        k: K = 10,
        scenario: str | None = None,
    ) -> Response:
        """Why an item is not in the list of a user, or its place there."""
        asked = RecommendRequest.model_construct(user_id=user_id, k=k, scenario=scenario)
        return json_response(why_not_document(answers, asked, item_id))

    @router.get("/v1/similar", response_model=Listing, tags=["items"])
    async def similar(request: Request, item_id: ItemId, k: K = 10) -> Response:
        """The items most similar to an item."""
        deployment = answers.deployment
        if deployment.items.row(item_id) < 0:
            raise Problem(404, f"item {item_id[:60]!r} is not in the catalog of the model: see /v1/search")
        k = check_k(service, k)
        spare = int((~deployment.listed_I).sum())
        frame = await asyncio.to_thread(deployment.recommender.similar, item_id, min(k + spare, len(deployment.items)))
        rows = [(str(row["item_id"]), row["score"], row["source"]) for row in frame.iter_rows(named=True)]
        return listing(request, answers, [row for row in rows if answers.items.listed(row[0])][:k])

    @router.get("/v1/popular", response_model=Listing, tags=["items"])
    async def popular(request: Request, k: K = 10) -> Response:
        """The items with most events, those since training included."""
        deployment = answers.deployment
        return listing(
            request, answers, best(answers, deployment.recommender.popularity, check_k(service, k), "popular")
        )

    @router.get("/v1/recent", response_model=Listing, tags=["items"])
    async def recent(request: Request, k: K = 10) -> Response:
        """The items that are popular now: events count half after 30 days."""
        return listing(request, answers, best(answers, answers.deployment.recent, check_k(service, k), "recent"))

    @router.get("/v1/search", response_model=Listing, tags=["items"])
    async def search(
        request: Request,
        q: Annotated[str, Query(min_length=1, max_length=200, description="Words, or beginnings of words.")],
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Response:
        """Items by their titles."""
        return listing(request, answers, [(item_id, None, None) for item_id in answers.items.search(q, limit)])

    @router.get("/v1/onboarding", tags=["users"])
    async def onboarding(request: Request, n: Annotated[int, Query(ge=1, le=50)] = 10) -> Response:
        """Items to ask a new user about, chosen so that the answers tell tastes apart."""
        deployment = answers.deployment
        tastes = (
            deployment.tastes if "tastes" in vars(deployment) else await asyncio.to_thread(lambda: deployment.tastes)
        )
        places = await asyncio.to_thread(tastes.questions, min(2 * n, len(tastes.item)))
        ids = [(deployment.ids[int(tastes.item[place])], float(tastes.share[place])) for place in places]
        return listing(
            request, answers, [(one, share, None) for one, share in ids if answers.items.listed(one)][:n], "share"
        )


def best(answers: Answers, scores: NDArray[Any], k: int, source: str) -> list[tuple[str, float | None, str | None]]:
    """The k listed items with the highest scores, which are above 0."""
    deployment = answers.deployment
    answers.items.expire()
    found = np.where(deployment.listed_I, scores, 0.0)
    k = min(k, int((found > 0).sum()))
    # By score, and the first in the catalog among equals.
    rows = np.argsort(-found, kind="stable")[:k].tolist()
    return [(deployment.ids[row], float(scores[row]), source) for row in rows]


def listing(
    request: Request, answers: Answers, rows: Sequence[tuple[str, float | None, str | None]], score: str = "score"
) -> Response:
    """A list of items with rank and title."""
    items = []
    for rank, (item_id, value, source) in enumerate(rows, 1):
        row: dict[str, Any] = {"item_id": item_id, "rank": rank, "title": answers.items.title(item_id)}
        if value is not None:
            row[score] = value
        if source is not None:
            row["source"] = source
        items.append(row)
    return json_response(
        {"request_id": request.scope["request_id"], "model": answers.deployment.version, "items": items}
    )


def why_not_document(answers: Answers, asked: RecommendRequest, item_id: str) -> dict[str, Any]:
    """The reason why an item is not listed, by the same state, events and rules as the list."""
    # In an experiment the list is that of the user's arm; of an interleaved one, the first model gives reasons.
    trial = answers.experiments.join(asked, answers.who(asked), answers.loaded)
    deployment, items = answers.pick(None if trial is None else trial.models[0])
    state = deployment.recommender
    row = deployment.items.row(item_id)
    if row < 0:
        raise Problem(404, f"item {item_id[:60]!r} is not in the catalog of the model: see /v1/search")
    items.expire()
    ask, _ = answers.ask(deployment, asked)
    document: dict[str, Any] = {"user_id": ask.user_id, "item_id": deployment.ids[row], "k": ask.options.k}
    item = items.get(deployment.ids[row])
    if not deployment.listed_I[row]:
        hidden = "it is hidden" if item is not None and item.hidden else "it has expired or is not in stock"
        return {**document, "stage": "unlisted", "reason": f"{hidden}: no list holds it", "place": None}
    if row in ask.hide:
        words = "you said to hide it" if row in answers.live.view(deployment, ask.user_id).hide else "you have had it"
        return {**document, "stage": "feedback", "reason": words, "place": None}
    histories = None
    user: Any = ask.user_id
    if ask.given is not None:
        given = ask.given
        assert given.times is not None
        ids = deployment.items.ids[given.items].to_list()
        histories = {user: list(zip(ids, given.weights.tolist(), given.times.tolist(), strict=True))}
    found = explain.why_not(state, user, deployment.items.ids[row], ask.options, histories, None)
    return {**found.to_dict(), **document, "model": deployment.version}
