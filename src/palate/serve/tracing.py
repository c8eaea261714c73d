"""OpenTelemetry traces: a span for each request, and inside it the steps validate, score and store; off by default.

    start("otlp")                # to the collector of OTEL_EXPORTER_OTLP_ENDPOINT
    with span("score"):
        ...

A span names the route and no id, path or query, as the logs do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

from starlette.types import Scope

from palate.errors import DataError

Kind = Literal["off", "otlp", "console"]
NO_SPAN = nullcontext()


class _Traces:
    tracer: Any = None  # opentelemetry.trace.Tracer, while traces are on


traces = _Traces()


def start(kind: Kind) -> Callable[[], None]:
    """Send traces from now on, unless ``kind`` is "off"; a function that sends what waits and ends it.

    Args:
        kind: "otlp" sends to a collector by OTLP over HTTP, configured by the variables of OpenTelemetry such as
            ``OTEL_EXPORTER_OTLP_ENDPOINT``; "console" writes a JSON object a line to standard error.

    Raises:
        DataError: the packages are not installed.
    """
    if kind == "off":
        return lambda: None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

        name = os.environ.get("OTEL_SERVICE_NAME", "palate")
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        if kind == "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        else:
            lines = ConsoleSpanExporter(out=sys.stderr, formatter=lambda one: one.to_json(indent=None) + "\n")
            provider.add_span_processor(SimpleSpanProcessor(lines))
    except ModuleNotFoundError as error:
        raise DataError(f"traces={kind} needs {error.name}: pip install 'palate[tracing]'") from None
    traces.tracer = provider.get_tracer("palate.serve")

    def stop() -> None:
        traces.tracer = None
        provider.shutdown()

    return stop


def span(name: str) -> AbstractContextManager[Any]:
    """A step of the request; costs nothing while traces are off."""
    return NO_SPAN if traces.tracer is None else traces.tracer.start_as_current_span(name)


def request(scope: Scope) -> AbstractContextManager[Any]:
    """The span of a request, below that of its client if it sends ``traceparent``; None while traces are off."""
    return NO_SPAN if traces.tracer is None else _request(scope)


@contextmanager
def _request(scope: Scope) -> Iterator[Any]:
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind

    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    attributes = {"http.request.method": scope["method"], "palate.request_id": scope["request_id"]}
    with traces.tracer.start_as_current_span(
        scope["method"], propagate.extract(headers), SpanKind.SERVER, attributes
    ) as current:
        yield current


def finish(current: Any, method: str, route: str, status: int) -> None:
    """Name the span of a request by its route, and note how it ended."""
    from opentelemetry.trace import StatusCode

    current.update_name(f"{method} {route}")
    current.set_attributes({"http.route": route, "http.response.status_code": status})
    if status >= 500:
        current.set_status(StatusCode.ERROR)
