"""Problem documents (RFC 9457): the one form of every answer that is an error."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from palate.errors import DataError, ModelError, PalateError, RuleError

MEDIA_TYPE = "application/problem+json"
SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "The fact, the values and a remedy."},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["type", "title", "status", "detail"],
}
RESPONSE: dict[str, Any] = {
    "description": "A problem document (RFC 9457).",
    "content": {MEDIA_TYPE: {"schema": SCHEMA}},
}
logger = logging.getLogger(__name__)


SCALARS = frozenset({"bool", "int", "float", "str"})
# What the framework says where no route fits.
UNROUTED = {
    "Not Found": "there is no such address: see /openapi.json",
    "Method Not Allowed": "this address takes other methods: see the Allow header",
}


class Problem(HTTPException):
    """An error with its status; ``detail`` says the fact, the values and the remedy."""

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, errors: list[Any] | None = None
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.errors = errors


def answer(
    status: int, detail: str, headers: Mapping[str, str] | None = None, errors: list[Any] | None = None
) -> Response:
    """The problem document as a response."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors:
        body["errors"] = errors
    return Response(orjson.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Answer every exception with a problem document."""

    @app.exception_handler(StarletteHTTPException)
    async def http_error(_: Request, error: StarletteHTTPException) -> Response:
        detail = UNROUTED.get(str(error.detail), str(error.detail))
        return answer(error.status_code, detail, error.headers, getattr(error, "errors", None))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # Without the input: it may be large, and is not ours to repeat.
        found: dict[str, list[str]] = {}
        for one in error.errors():
            # Some parts of a place name a type that was tried there, and no field.
            at = ".".join(
                part
                for part in map(str, one["loc"])
                if part not in SCALARS and "[" not in part and not part[:1].isupper()
            )
            texts = found.setdefault(at, [])
            if (text := one["msg"].removeprefix("Value error, ")) not in texts:
                texts.append(text)
        errors = [{"at": at, "error": ", or: ".join(texts)} for at, texts in list(found.items())[:20]]
        first = errors[0] if errors else {"at": "request", "error": "it does not fit the schema"}
        return answer(422, f"{first['at']}: {first['error']}: see /openapi.json", errors=errors)

    @app.exception_handler(PalateError)
    async def refused(_: Request, error: PalateError) -> Response:
        status = 422 if isinstance(error, DataError | RuleError | ModelError) else 409
        return answer(status, str(error))

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        logger.error("a request failed", exc_info=error)
        return answer(500, "the server failed to answer: its log has the reason")
