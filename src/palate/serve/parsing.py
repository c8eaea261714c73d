"""Strict reading of request bodies: what JSON leaves open is an error here, not a guess."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from palate.serve.problems import Problem

DEEPEST = 20  # levels of nesting


def strict_json(body: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        Problem: it is no JSON (NaN and invalid UTF-8 included), is nested too deeply or has a key twice.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is no JSON ({error}): send one JSON value in UTF-8") from None
    # orjson keeps the last of equal keys; the reader of the standard library shows them all.
    try:
        json.loads(body, object_pairs_hook=_without_twins)
    except RecursionError:
        raise Problem(400, "the body is nested too deeply: send a flatter one") from None
    if _depth(value) > DEEPEST:
        raise Problem(400, f"the body is nested more than {DEEPEST} levels deep: send a flatter one")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise Problem(400, f"the key {twin[:40]!r} is there twice in one object: send it once")
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        depth += 1
        parts = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for part in parts for one in part]
    return depth


class _StrictRequest(Request):
    async def json(self) -> Any:
        return strict_json(await self.body())


def unknown_parameter(name: str, known: Iterable[str]) -> Problem:
    """The error of a parameter that would be ignored."""
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none here'}"
    return Problem(422, f"the parameter {name[:40]!r} is unknown: {hint}")


class StrictRoute(APIRoute):
    """A route whose body is read by ``strict_json``, and which ignores no parameter of the query."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with a request that reads JSON strictly."""
        handler = super().get_route_handler()
        # A route that describes its parameters by hand reads them by hand, too.
        by_hand = "parameters" in (self.openapi_extra or {})
        known = [one.alias for one in self.dependant.query_params]

        async def strict(request: Request) -> Response:
            if not by_hand and request.scope["query_string"]:
                for name in request.query_params:
                    if name not in known:
                        raise unknown_parameter(name, known)
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict
