"""The edge of the server: hosts, origins, keys, limits and headers of every request, in one layer below the routes.

request -> id -> host -> origin -> key and role -> rate -> size and time of the body -> route -> headers
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve import tables, tracing
from palate.serve.metrics import Metrics
from palate.serve.problems import Problem, answer
from palate.serve.settings import Settings
from palate.serve.tokens import token

ROLES = ("read", "feedback", "admin")
BULK = 100  # a bulk import may be so many times as large as another body
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
OPEN = ("/v1/health/", "/openapi.json", "/v1/version")  # needs no key
PRIVATE = (
    "/v1/users",
    "/v1/events",
    "/v1/export",
    "/v1/keys",
    "/v1/impressions",
    "/v1/dump",
    "/v1/experiments",
)  # needs admin to read
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
NO_STORE = [(b"cache-control", b"no-store")]
# The files of the page: kept, but asked for again each time, so that a new version is shown at once.
REVALIDATE = [(b"cache-control", b"no-cache")]
CLIENTS = 10_000  # whose rate is remembered
access = logging.getLogger("palate.serve.access")


class Key(NamedTuple):
    """An API key without its secret."""

    key_id: str
    name: str
    role: str
    salt: str
    digest: str
    created: float


class KeyRing:
    """The API keys of the store, kept in memory."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}

    def load(self, connection: Connection) -> None:
        """Read all keys again."""
        self.keys = {row.key_id: Key(*row) for row in connection.execute(select(tables.keys))}

    def find(self, text: str) -> Key | None:
        """The key that a client has sent, or None."""
        head, _, secret = text.partition(".")
        key = self.keys.get(head.removeprefix("palate_"))
        # An unknown key takes the time of a known one.
        salt, digest = (key.salt, key.digest) if key is not None else ("", "0" * 64)
        same = hmac.compare_digest(_digest(salt, secret), digest)
        return key if same and key is not None else None


def add_key(connection: Connection, name: str, role: str) -> tuple[str, Key]:
    """Store a fresh key: the text for the client, to be shown once, and the key. The store holds a salted hash."""
    key_id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
    key = Key(key_id, name, role, salt, _digest(salt, secret), time.time())
    connection.execute(tables.keys.insert(), key._asdict())
    return f"palate_{key_id}.{secret}", key


def remove_key(connection: Connection, key_id: str) -> bool:
    """Delete a key; False where there is none of this id."""
    return connection.execute(delete(tables.keys).where(tables.keys.c.key_id == key_id)).rowcount > 0


def _digest(salt: str, secret: str) -> str:
    # The secret has 256 random bits: nothing can guess it, so a slow hash would only slow down the requests.
    return hashlib.sha256(f"{salt}.{secret}".encode()).hexdigest()


def role_needed(method: str, path: str) -> str | None:
    """The least role for a request; None needs no key."""
    if path == "/mcp":
        return "read"  # each tool then asks for what it needs
    if not path.startswith("/v1/") or path.startswith(OPEN):
        return None
    if method in ("GET", "HEAD") and not path.startswith(PRIVATE):
        return "read"
    if path == "/v1/recommend":
        return "read"
    if path.startswith(("/v1/feedback", "/v1/onboarding", "/v1/sessions/")):
        return "feedback"
    return "admin"


class Buckets:
    """Token buckets: each client gains ``rate`` requests a second, and may save up those of ten seconds."""

    def __init__(self, rate: float) -> None:
        self.rate, self.size = rate, max(1.0, 10 * rate)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> tuple[bool, float]:
        """Whether a request may pass, and the number of requests left."""
        left, then = self._left.pop(client, (self.size, now))
        left = min(self.size, left + (now - then) * self.rate)
        passes = left >= 1
        left -= passes
        self._left[client] = (left, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return passes, left


class Edge:
    """ASGI middleware around the application.

    Args:
        app: the application.
        settings: limits and hosts.
        keys: the API keys.
        metrics: counts every request.
    """

    def __init__(self, app: ASGIApp, settings: Settings, keys: KeyRing, metrics: Metrics) -> None:
        self.app, self.settings, self.keys, self.metrics = app, settings, keys, metrics
        self.needs_keys = settings.require_keys or not settings.is_loopback
        self.buckets = None if settings.rate is None else Buckets(settings.rate)
        named = {settings.host, *settings.allowed_hosts, *LOOPBACK}
        # Where keys are needed, another name for the server gives an attacker's page nothing.
        self.hosts = None if self.needs_keys and not settings.allowed_hosts else {one.lower() for one in named}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, metrics = time.perf_counter(), self.metrics
        request_id = scope["request_id"] = token()
        extra = [*HEADERS, (b"x-request-id", request_id.encode())]
        extra += NO_STORE if scope["path"].startswith("/v1/") else REVALIDATE
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        metrics.in_progress += 1
        with tracing.request(scope) as traced:
            try:
                self._check(scope, extra)
                await self.app(scope, self._limited(scope, receive), sending)
            except Problem as problem:
                if status == 0:
                    await answer(problem.status_code, str(problem.detail), problem.headers)(scope, receive, sending)
            finally:
                self._note(scope, status, started, traced)

    def _note(self, scope: Scope, status: int, started: float, traced: Any) -> None:
        """Count, trace and log an answered request."""
        metrics = self.metrics
        metrics.in_progress -= 1
        seconds = time.perf_counter() - started
        route = getattr(scope.get("route"), "path", "other") if status != 404 else "other"
        if traced is not None:
            tracing.finish(traced, scope["method"], route, status)
        metrics.add(scope["method"], route, status, seconds, time.time())
        # The route instead of the path: ids stay out of logs.
        if access.isEnabledFor(logging.INFO):
            about = {"method": scope["method"], "route": route, "status": status, "ms": round(1000 * seconds, 2)}
            access.info(
                "%(method)s %(route)s %(status)s %(ms)s ms", about, extra={"request_id": scope["request_id"], **about}
            )

    def _check(self, scope: Scope, extra: list[tuple[bytes, bytes]]) -> None:
        """Refuse what may not reach a route."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self.metrics.in_progress > self.settings.max_requests:
            raise Problem(503, "too many requests are in progress: try again in a second", {"Retry-After": "1"})
        host = headers.get(b"host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.hosts is not None and name not in self.hosts:
            raise Problem(421, f"this server does not answer for host {host[:100]!r}: add it to allowed_hosts")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            # A page of another site must not change anything here through the browser of a visitor.
            origin = headers.get(b"origin")
            other = origin is not None and urlsplit(origin).netloc.lower() != host
            if other or headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                raise Problem(403, "a page of another origin may not do this")
        client = (scope.get("client") or ("?",))[0]
        scope["role"] = "admin"
        role = role_needed(scope["method"], scope["path"])
        if self.needs_keys and role is not None:
            key = self._check_key(headers, role)
            client, scope["role"] = key.key_id, key.role
        if self.buckets is not None and scope["path"].startswith("/v1/"):
            passes, left = self.buckets.take(client, time.monotonic())
            policy = f'"default";q={int(self.buckets.size)};w=10'
            extra += [(b"ratelimit-policy", policy.encode()), (b"ratelimit", f'"default";r={int(left)};t=1'.encode())]
            if not passes:
                wait = {"Retry-After": str(max(1, round(1 / self.buckets.rate)))}
                raise Problem(429, f"more than {self.buckets.rate:g} requests a second: wait", wait)
        length = headers.get(b"content-length", "0")
        if not length.isdigit():
            raise Problem(400, "Content-Length is not a number")
        if int(length) > self._most(scope["path"]):
            raise Problem(413, f"a body of {int(length):,} bytes: at most {self._most(scope['path']):,}")

    def _check_key(self, headers: Mapping[bytes, str], role: str) -> Key:
        scheme, _, text = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            text = headers.get(b"x-api-key", "")
        if not text:
            need = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, "an API key is needed: send Authorization: Bearer KEY (made by palate keys)", need)
        key = self.keys.find(text.strip())
        if key is None:
            raise Problem(401, "the API key is not known: make one with palate keys", {"WWW-Authenticate": "Bearer"})
        if ROLES.index(key.role) < ROLES.index(role):
            raise Problem(403, f"the key {key.name!r} has role {key.role}, this needs {role}")
        return key

    def _most(self, path: str) -> int:
        return self.settings.max_body * (BULK if path.startswith("/v1/import/") else 1)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """``receive`` with a limit on the bytes and the time of the body."""
        left = self._most(scope["path"])
        deadline = time.monotonic() + self.settings.body_seconds * (BULK if left > self.settings.max_body else 1)
        done = False
        if scope["method"] in ("GET", "HEAD"):  # no body is read, and a timer costs more than the check of an id
            return receive

        async def limited() -> Message:
            nonlocal left, done
            if done:  # only a disconnect can follow
                return await receive()
            try:
                message: MutableMapping[str, Any] = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except TimeoutError:
                close = {"Connection": "close"}
                raise Problem(408, f"the body did not arrive within {self.settings.body_seconds:g} s", close) from None
            left -= len(message.get("body", b""))
            done = not message.get("more_body", False)
            if left < 0:
                raise Problem(413, f"the body is larger than {self._most(scope['path']):,} bytes: send less at a time")
            return message

        return limited
