"""Rules: what may be listed and how lists are shaped, as data that is read from TOML or comes with a request.

    rules = Rules.load("rules.toml").merged(Rules.of({"deny": {"genres": ["Horror"]}}))

The keys of the file are the fields of ``Rules``. Columns are those of the item features, and two more: ``item_id``, and
``last_event`` (when the item was last touched) in ``recency``.
"""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from palate.errors import RuleError

if TYPE_CHECKING:
    from palate.rules.catalog import Catalog
    from palate.rules.compiled import BoundRules

__all__ = ["ITEM_ID", "LAST_EVENT", "Condition", "Exclude", "Pin", "Recency", "Rules", "Value"]

ITEM_ID = "item_id"
LAST_EVENT = "last_event"
FORBID = {"extra": "forbid"}

Value = bool | int | float | str | date
Condition = Mapping[str, tuple[Value, ...]]
"""Column names and the values that count; in a column of lists one value of the list is enough."""
Exclude = Literal["seen", "bought", "none"]


def _tables(value: Any) -> Any:
    """One table is a list of one."""
    return [value] if isinstance(value, Mapping) else value


Conditions = Annotated[tuple[Condition, ...], BeforeValidator(_tables)]


@dataclass(frozen=True)
class Pin:
    """An item that stands at a place of its own, counted from 1."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID

    item: int | str
    at: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Recency:
    """A window: items whose date is older, or unknown, are kept out.

    Args:
        column: of dates, times or calendar years (numbers); or "last_event".
        days: the window reaches back that many days from the time of the request.
        since: or it begins on this day.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID

    column: str
    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    since: date | None = None

    def __post_init__(self) -> None:
        if (self.days is None) == (self.since is None):
            raise RuleError(f"recency on {self.column!r} needs one of days and since: days = 365 or since = 2020-01-31")


@dataclass(frozen=True)
class Rules:
    """What may be listed and how lists are shaped; without a field set, nothing changes.

    Args:
        exclude: which of the user's own items stay out: "seen", "bought" (events with a weight of at least
            ``bought_from``) or "none"; None leaves it to the caller.
        bought_from: the weight from which an event counts as bought.
        deny: items with any of these values are kept out.
        allow: items must have one of the values in every column that is named.
        flags: columns that must be true, or above 0; unknown is not true.
        recency: windows, all of which must hold.
        pins: items at places of their own.
        caps: column to the most items per value that one list may hold; an item of several values counts for each.
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

    @classmethod
    def load(cls, path: str | Path) -> Rules:
        """The rules of a TOML file.

        Raises:
            RuleError: the file cannot be read, is no TOML, or holds unknown keys or unfitting values.
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
        """The rules of plain data, as it comes from TOML or JSON.

        Raises:
            RuleError: unknown keys or unfitting values.
        """
        return _checked(plain, "")

    def merged(self, request: Rules) -> Rules:
        """These rules with those of one request on top.

        What keeps items out adds up (deny, allow, flags, recency): a request never lets through what is kept out
        already. What shapes the list is replaced: exclude, diversity, the cap of a column, the pin at a place or of
        an item.
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

    def bind(self, catalog: Catalog) -> BoundRules:
        """These rules with the items of a catalog in place of names.

        Raises:
            RuleError: a column is missing or of the wrong kind, or diversity has nothing to compare items by.
        """
        from palate.rules.compiled import bind  # imports torch, which reading a file does not need

        return bind(self, catalog)


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
        return TypeAdapter(Rules).validate_python(dict(plain))
    except ValidationError as error:
        # A key that is unknown explains one that is missing, so it comes first.
        first = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
    path, message = [str(part) for part in first["loc"]], first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # one of the checks above
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
