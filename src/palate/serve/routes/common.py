"""What the routes share: parameters, limits and JSON responses."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import Path, Query, Response

from palate.serve.problems import Problem
from palate.serve.schemas import MAX_ID
from palate.serve.service import Service

ItemId = Annotated[str, Query(min_length=1, max_length=MAX_ID)]
K = Annotated[int, Query(ge=1, le=1_000_000, description="List length.")]


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON document."""
    return Response(value if isinstance(value, bytes) else orjson.dumps(value), status, media_type="application/json")


AnyId = Annotated[str, Path(min_length=1, max_length=MAX_ID, description="Any characters; / may be written as it is.")]
Limit = Annotated[int, Query(ge=1, le=1_000_000, description="Rows of a page.")]


def page_size(service: Service, limit: int) -> int:
    """A page size within the limit.

    Raises:
        Problem: it is above.
    """
    if limit > service.settings.max_page:
        raise Problem(422, f"limit={limit:,} is above {service.settings.max_page:,}: go on with the cursor instead")
    return limit


def check_k(service: Service, k: int) -> int:
    """A list length within the limit.

    Raises:
        Problem: it is above.
    """
    if k > service.settings.max_k:
        raise Problem(422, f"k={k:,} is above the limit of {service.settings.max_k:,}: ask for a shorter list")
    return k
