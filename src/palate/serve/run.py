"""The process of a server: logs, sockets and their time limits, signals."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import time
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from palate.errors import DataError
from palate.serve import tracing
from palate.serve.app import make_app
from palate.serve.settings import Settings

ABOUT = ("request_id", "method", "route", "status", "ms")


MOST_HEADERS = 64 << 10  # bytes
END = b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
LATE, LARGE = b"HTTP/1.1 408 Request Timeout" + END, b"HTTP/1.1 431 Request Header Fields Too Large" + END
# A peer that has vanished, or that does not read its answer, loses the connection after half a minute.
SOCKET = (
    (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 0), 20),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 0), 5),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", 0), 3),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", 0), 30_000),
)


class _Server(uvicorn.Server):
    """A server that ends with code 0 after a signal; uvicorn would raise the signal again when it has drained.

    Args:
        config: as for uvicorn.
        ending: called when a signal asks the server to end, before it drains.
    """

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None]) -> None:
        super().__init__(config)
        self.ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking connections; answers that never end by themselves end now."""
        super().handle_exit(sig, frame)
        self.ending()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the server, and a second SIGINT end it at once."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


class _Connection(HttpToolsProtocol):
    """A connection whose client must send the headers of a request in time; uvicorn alone would wait for ever."""

    def __init__(self, *arguments: Any, header_seconds: float, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._header_seconds = header_seconds
        self._late: TimerHandle | None = None
        self._size = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on; headers may have so many bytes."""
        super().data_received(data)
        if self._late is not None:
            self._size += len(data)
            if self._size > MOST_HEADERS:
                self._close(LARGE)

    def on_message_begin(self) -> None:
        """Wait for the headers of a further request."""
        super().on_message_begin()
        if self._late is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """The headers are there; the body has a limit of its own."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(self._header_seconds, self._close, LATE)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late, self._size = None, 0

    def _close(self, answer: bytes) -> None:
        self._stop()
        if self.cycle is None or self.cycle.response_complete:  # else it would stand in the midst of an answer
            self.transport.write(answer)
        self.transport.close()


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: vars(record)[name] for name in ABOUT if name in vars(record)},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def run(settings: Settings, bundles: list[Path], tell: Callable[[str], None]) -> None:
    """Serve until a signal ends the process; requests in progress are answered first.

    Args:
        settings: the settings.
        bundles: folders; the first answers.
        tell: called with lines for a person, among them the address.

    Raises:
        DataError: the address is taken, or the settings do not fit.
    """
    _log(settings)
    end_traces = tracing.start(settings.traces)
    app = make_app(settings, bundles)
    listening = _listen(settings)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        app,
        http=partial(_Connection, header_seconds=settings.header_seconds),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.drain_seconds) or 1,
    )
    shown = f"[{host}]" if ":" in host else host
    if settings.is_loopback:
        tell(f"only this machine can connect; {settings.store.partition(':')[0]} keeps the events")
    else:
        tell("other machines can connect: every request needs an API key (palate keys)")
    tell(f"Palate listens on http://{shown}:{port}")
    # When NumPy or torch let go of the interpreter for a moment, the writing thread takes it and keeps it for the whole
    # interval, by default 5 ms: longer than an answer takes.
    sys.setswitchinterval(0.0005)
    try:
        _Server(config, app.state.service.stream.close).run(sockets=[listening])
    finally:
        end_traces()


def check(settings: Settings, bundles: list[Path]) -> Iterator[str]:
    """Load everything that a server needs, and say so line by line.

    Raises:
        PalateError: something does not fit.
    """
    tracing.start(settings.traces)()
    app = make_app(settings, bundles)
    service = app.state.service
    for bundle in service.models.loaded.values():
        yield f"bundle {bundle.version}: {len(bundle.users):,} users, {len(bundle.items):,} items"
    for name, rules in service.answers.scenario_rules.items():
        service.answers.deployment.recommender.bind(rules)
        yield f"scenario {name}: its rules fit the catalog"
    yield f"store: {service.store.engine.dialect.name}, tables up to date"
    service.store.engine.dispose()
    yield "the settings are right"


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.socket(family)
        for level, option, value in SOCKET:  # an accepted connection has those of the listening socket
            if option:
                listening.setsockopt(level, option, value)
        listening.bind((settings.host, settings.port))
        listening.listen(2048)
    except OSError as error:
        raise DataError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): choose another --port"
        ) from None
    return listening


def _log(settings: Settings) -> None:
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("palate")
    root.addHandler(handler)
    root.setLevel(logging.INFO if settings.log_format == "json" else logging.WARNING)
