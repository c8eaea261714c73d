"""The process of a server: logs, the listening socket, signals."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from palate.errors import DataError
from palate.serve.app import make_app
from palate.serve.settings import Settings

ABOUT = ("request_id", "method", "route", "status", "ms")


class _Server(uvicorn.Server):
    """A server that ends with code 0 after a signal; uvicorn would raise the signal again when it has drained."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the server, and a second SIGINT end it at once."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


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
    app = make_app(settings, bundles)
    listening = _listen(settings)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.drain_seconds) or 1,
        h11_max_incomplete_event_size=64 << 10,
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
    _Server(config).run(sockets=[listening])


def check(settings: Settings, bundles: list[Path]) -> Iterator[str]:
    """Load everything that a server needs, and say so line by line.

    Raises:
        PalateError: something does not fit.
    """
    app = make_app(settings, bundles)
    service = app.state.service
    for bundle in service.bundles.values():
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
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
