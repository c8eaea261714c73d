"""Settings of a server: one frozen object of defaults, a TOML file, environment variables and flags, in that order.

    [server]                            # keys of ``Settings``
    host = "127.0.0.1"
    max_k = 1000

    [events.like]                       # keys of ``EventType``; adds a type or changes one
    weight = 1.0

    [scenarios.home]                    # keys of ``Scenario``
    k = 20
    rules = { caps = { genres = 3 } }

An environment variable is the name of a key in capitals after ``PALATE_SERVE_``, such as ``PALATE_SERVE_MAX_K=500``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from palate.bounds import Count, Fraction, Positive, check_fields
from palate.errors import DataError

PREFIX = "PALATE_SERVE_"
Limit = Annotated[int, Field(ge=1, le=1 << 34)]


@dataclass(frozen=True)
class EventType:
    """The meaning of a type of events.

    Args:
        weight: in the history of the user, relative to a like: below 0 is a dislike, 0 is stored but not learned from.
        positive: whether it counts for the popularity of the item.
        seen: whether the item is no longer listed while ``exclude_seen``.
        hides: whether the item is never listed again to this user, whatever the request says.
        rated: whether ``value`` of the event is its weight, as for a rating.
        lifetime_days: age after which the event is ignored. Default: None, never.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    weight: float = 1.0
    positive: bool = True
    seen: bool = True
    hides: bool = False
    rated: bool = False
    lifetime_days: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self, "event type", DataError)


EVENTS: Mapping[str, EventType] = {
    "view": EventType(weight=0.5, seen=False),
    "click": EventType(),
    "play": EventType(),
    "cart": EventType(),
    "purchase": EventType(),
    "like": EventType(),
    "rating": EventType(rated=True),
    "dislike": EventType(weight=-1.0, positive=False, hides=True),
    "hide": EventType(weight=-1.0, positive=False, hides=True),
    "skip": EventType(weight=0.0, positive=False, seen=False),
    "unknown": EventType(weight=0.0, positive=False, seen=False),
}


@dataclass(frozen=True)
class Scenario:
    """A named set of options of a request, such as "home" or "cart".

    Args:
        k: list length.
        rules: plain rules, as in a rules file.
        exclude_seen: leave out the items of the user's history.
        explore: share of the places given to less known items. Default: that of the bundle.
        explore_among: "less-known" items, or "all" items evenly. Default: that of the bundle.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    k: Annotated[int, Field(ge=1, le=10_000)] = 10
    rules: dict[str, Any] = field(default_factory=dict)
    exclude_seen: bool = True
    explore: Fraction | None = None
    explore_among: Literal["less-known", "all"] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "scenario", DataError)


@dataclass(frozen=True)
class Settings:
    """Everything about a server that its bundles do not say.

    Args:
        host, port: the address to listen on; an address other than loopback needs API keys. Port 0 takes a free one.
        store: URL of the database: ``sqlite:///file.db`` or ``postgresql://user@host/name``.
        allowed_hosts: accepted values of the Host header, besides loopback names and ``host``.
        models: a folder; bundles may be loaded from it by name while serving. Default: the folder of the first bundle.
        trusted_key: a file of public keys; bundles that none of them has signed are refused, at the start and later.
            Default: None, any bundle is loaded.
        require_keys: ask for API keys on a loopback address, too.
        log_format: "text" or "json".
        traces: "otlp" sends OpenTelemetry traces to a collector, "console" writes them to standard error.
        threads: torch threads. One is right while requests share the cores.
        max_body: bytes of a request body; of a bulk import, 100 times as many.
        max_batch: events in one request.
        max_history: events of a posted history.
        max_k, max_exclude, max_page: list length, excluded or candidate items, rows of a page.
        max_requests: requests in progress; more are refused with 503.
        max_streams: open streams of /v1/stream; more are refused with 503.
        rate: requests a second for each key, and for each address where no keys are needed. Default: None, no limit.
        header_seconds: time for a client to send the headers of a request.
        body_seconds: time for a client to send the body of a request.
        drain_seconds: time for requests in progress to end at a shutdown.
        impressions: share of the served lists that are stored.
        page_seconds: time during which a list can be continued by its ``recommendation_id``.
        events, scenarios: by name.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    store: str = "sqlite:///palate-serve.db"
    allowed_hosts: tuple[str, ...] = ()
    models: Path | None = None
    trusted_key: Path | None = None
    require_keys: bool = False
    log_format: Literal["text", "json"] = "text"
    traces: Literal["off", "otlp", "console"] = "off"
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    max_body: Limit = 1 << 20
    max_batch: Count = 1_000
    max_history: Count = 1_000
    max_k: Count = 1_000
    max_exclude: Count = 10_000
    max_page: Count = 1_000
    max_requests: Count = 1_000
    max_streams: Count = 100
    rate: Positive | None = None
    header_seconds: Positive = 10.0
    body_seconds: Positive = 20.0
    drain_seconds: Positive = 20.0
    impressions: Fraction = 1.0
    page_seconds: Positive = 3600.0
    events: dict[str, EventType] = field(default_factory=dict)
    scenarios: dict[str, Scenario] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, "server", DataError)
        object.__setattr__(self, "events", {**EVENTS, **self.events})

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def read(cls, path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
        """Settings of a TOML file, the environment and flags, each over those before it.

        Raises:
            DataError: the file cannot be read, or a key or value is wrong; the message names it.
        """
        plain = {} if path is None else _toml(path)
        scalars = [one.name for one in fields(cls) if one.name not in ("events", "scenarios")]
        found = {name: os.environ.get(PREFIX + name.upper()) for name in scalars}
        values: dict[str, Any] = {name: text for name, text in found.items() if text is not None}
        values |= {name: value for name, value in (flags or {}).items() if value is not None}
        if isinstance(values.get("allowed_hosts"), str):
            values["allowed_hosts"] = [one.strip() for one in values["allowed_hosts"].split(",")]
        return cls(**{**plain, **values})


def _toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the settings {path} ({error.strerror}): give the path of a TOML file") from None
    except ValueError as error:
        raise DataError(f"{path} is not TOML ({error}): correct the file") from None
    unknown = content.keys() - {"server", "events", "scenarios"}
    if unknown:
        raise DataError(f"{path}: unknown table [{min(unknown)}]: there are [server], [events.NAME], [scenarios.NAME]")
    server = content.get("server", {})
    wrong = server.keys() - {one.name for one in fields(Settings)} | server.keys() & {"events", "scenarios"}
    if wrong:
        names = ", ".join(one.name for one in fields(Settings) if one.name not in ("events", "scenarios"))
        raise DataError(f"{path}: unknown key server.{min(wrong)}: there are {names}")
    plain: dict[str, Any] = dict(server)
    for table, kind in (("events", EventType), ("scenarios", Scenario)):
        plain[table] = {}
        for name, keys in content.get(table, {}).items():
            allowed = [one.name for one in fields(kind)]
            other = keys.keys() - set(allowed) if isinstance(keys, dict) else {"?"}
            if other:
                raise DataError(f"{path}: unknown key {table}.{name}.{min(other)}: there are {', '.join(allowed)}")
            base = EVENTS.get(name) if table == "events" else None
            try:
                plain[table][name] = kind(**keys) if base is None else replace(base, **keys)
            except DataError as error:
                raise DataError(f"{path}: [{table}.{name}] {error}") from None
    return plain
