"""Rules: which items may be listed and how lists are shaped, as data from a TOML file or a request.

    rules = Rules.load("rules.toml").merged(Rules.of({"deny": {"genres": ["Horror"]}}))

The keys of the file are the fields of ``Rules``. Columns are those of the item features, and two more: ``item_id``, and
``last_event`` (time of the item's latest interaction) in ``recency``.
"""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from palate.bounds import check_fields
from palate.errors import RuleError

ITEM_ID = "item_id"
LAST_EVENT = "last_event"
FORBID = {"extra": "forbid"}

Value = bool | int | float | str | date
Condition = Mapping[str, tuple[Value, ...]]
"""Column names and the values to match; in a column of lists one value of the list is enough."""
Exclude = Literal["seen", "bought", "none"]
# In TOML, [deny] is one table and [[deny]] is a list of tables: both are accepted.
Conditions = Annotated[
    tuple[Condition, ...], BeforeValidator(lambda value: [value] if isinstance(value, Mapping) else value)
]


@dataclass(frozen=True)
class Pin:
    """An item at a fixed place of the list, counted from 1."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID

    item: int | str
    at: Annotated[int, Field(ge=1)]

    def __post_init__(self) -> None:
        check_fields(self, "pin", RuleError)


@dataclass(frozen=True)
class Recency:
    """A time window: items whose date is older, or unknown, are excluded.

    Args:
        column: a column of dates, times or calendar years (numbers), or "last_event".
        days: length of the window, back from the time of the request; or
        since: first day of the window.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID

    column: str
    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    since: date | None = None

    def __post_init__(self) -> None:
        check_fields(self, "recency", RuleError)
        if (self.days is None) == (self.since is None):
            raise RuleError(f"recency on {self.column!r} needs one of days and since: days = 365 or since = 2020-01-31")


@dataclass(frozen=True, eq=False)
class Rules:
    """Which items may be listed and how lists are shaped; without a field set, nothing changes.

    Rules are hashable, so they can be the key of a cache of compiled rules. In deny and allow the values 1, 1.0, True
    and "1" differ, as they do in a text column.

    Args:
        exclude: the user's own items to exclude: "seen", "bought" (events with a weight of at least ``bought_from``)
            or "none". Default: None, the request decides.
        bought_from: weight from which an event counts as bought.
        deny: items with any of these values are excluded.
        allow: items must have one of the values in every named column.
        flags: columns that must be true, or above 0; unknown is not true.
        recency: time windows, all of which must hold.
        pins: items at fixed places.
        caps: column to the maximum number of items per value in one list; an item of several values counts for each.
        diversity: strength of MMR, from 0 (order of the scores) to 1 (as unlike the items listed before as possible).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID

    exclude: Exclude | None = None
    bought_from: float | None = None
    deny: Conditions = ()
    allow: Conditions = ()
    flags: tuple[str, ...] = ()
    recency: tuple[Recency, ...] = ()
    pins: tuple[Pin, ...] = ()
    caps: Mapping[str, Annotated[int, Field(ge=1)]] = field(default_factory=dict)
    diversity: Annotated[float, Field(ge=0, le=1)] | None = None

    def __post_init__(self) -> None:
        # Copies the mappings too: a dictionary that its owner changes later must not change a key of a cache.
        check_fields(self, "rules", RuleError)
        if (self.exclude == "bought") != (self.bought_from is not None):
            raise RuleError(
                f"exclude={self.exclude!r} with bought_from={self.bought_from}: "
                'exclude = "bought" and bought_from = 4 (the weight that means bought) belong together'
            )
        for place in _repeated(pin.at for pin in self.pins):
            items = " and ".join(repr(pin.item) for pin in self.pins if pin.at == place)
            raise RuleError(f"{items} are pinned at the same place {place}: give each place one item")
        for item in _repeated(str(pin.item) for pin in self.pins):
            raise RuleError(f"item {item!r} is pinned twice: give it one place")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        # Conditions by their text: they are matched as text in text columns, where Python's 1 == True would let the
        # cache of one rule answer for another.
        conditions = repr((self.deny, self.allow))
        caps = frozenset(self.caps.items())
        shape = (self.flags, self.recency, self.pins, caps, self.diversity)
        return (self.exclude, self.bought_from, conditions, *shape)

    @property
    def reads_request_time(self) -> bool:
        """Whether a time window reaches back from the time of the request."""
        return any(window.days is not None for window in self.recency)

    @classmethod
    def load(cls, path: str | Path) -> Rules:
        """The rules of a TOML file.

        Raises:
            RuleError: the file cannot be read, is not TOML, or holds unknown keys or invalid values.
        """
        try:
            plain = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise RuleError(f"cannot read the rules {path} ({error.strerror}): give the path of a TOML file") from None
        except ValueError as error:
            raise RuleError(f"{path} is not TOML ({error}): correct the file") from None
        return _checked(plain, f"{path}: ")

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Rules:
        """The rules of plain data, as read from TOML or JSON.

        Raises:
            RuleError: unknown keys or invalid values.
        """
        return _checked(plain, "")

    def merged(self, request: Rules) -> Rules:
        """These rules with those of one request on top.

        Rules that exclude items add up (deny, allow, flags, recency): a request never lets through an item that is
        excluded already. Rules that shape the list are replaced: exclude, diversity, the cap of a column, the pin at
        a place or of an item.
        """
        own = request if request.exclude is not None else self
        taken = {pin.at for pin in request.pins} | {str(pin.item) for pin in request.pins}
        return Rules(
            exclude=own.exclude,
            bought_from=own.bought_from,
            deny=self.deny + request.deny,
            allow=self.allow + request.allow,
            flags=tuple(dict.fromkeys(self.flags + request.flags)),
            recency=self.recency + request.recency,
            pins=tuple(pin for pin in self.pins if not {pin.at, str(pin.item)} & taken) + request.pins,
            caps={**self.caps, **request.caps},
            diversity=self.diversity if request.diversity is None else request.diversity,
        )


# Built once: it takes 4 ms, and a server reads rules with every request.
ADAPTER = TypeAdapter(Rules)
PARTS: dict[str, type] = {"pins": Pin, "recency": Recency}
LIKE_THIS = {
    "exclude": 'exclude = "seen"',
    "bought_from": "bought_from = 4",
    "deny": 'deny = { item_id = [50], genres = ["Horror"] }',
    "allow": 'allow = { genres = ["Comedy"] }',
    "flags": 'flags = ["in_stock"]',
    "recency": 'recency = [{ column = "released", days = 365 }]',
    "pins": "pins = [{ item = 50, at = 1 }]",
    "caps": "caps = { genres = 3 }",
    "diversity": "diversity = 0.3",
}


def _repeated(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def _checked(plain: Mapping[str, Any], where: str) -> Rules:
    try:
        return ADAPTER.validate_python(dict(plain))
    except ValidationError as error:
        # A key that is unknown explains one that is missing, so it comes first.
        first = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
    path, message = [str(part) for part in first["loc"]], first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # from a __post_init__ above, which names rule and remedy itself
        raise RuleError(f"{where}{message}")
    if first["type"] == "missing":
        raise RuleError(f"{where}rule {'.'.join(path)!r} is missing: add it")
    if first["type"] == "unexpected_keyword_argument":
        known = [one.name for one in fields(PARTS.get(path[0], Rules))]
        near = difflib.get_close_matches(path[-1], known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RuleError(f"{where}unknown rule {'.'.join(path)!r}: {hint}there are {', '.join(known)}")
    like = LIKE_THIS.get(path[0], "docs/rules.md") if path else "docs/rules.md"
    raise RuleError(f"{where}rule {'.'.join(path)} = {first['input']!r}: {message}: write it like {like}")
