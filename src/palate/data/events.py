"""Event types to weights: a view counts 1, a purchase 10, a return below 0.

A positive weight makes a row positive; 0 keeps it as history only (the item counts as seen); below 0 it is a dislike.
"""

from __future__ import annotations

import math
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from palate.data.columns import one_line, plain, shortened
from palate.data.dataset import Note
from palate.data.parsing import Flaw, Parsed, Source
from palate.errors import DataError

EventWeights = Mapping[str, float] | str | Path
LARGEST = 1e9  # a weight must stay exact in float32 sums
TYPES = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)
MOST = 50  # distinct values of a column of event types

# Weights of usual names, compared without case and punctuation. No data was fitted: they only order the types.
_USUAL = {
    # With the names of GA4, Segment, RetailRocket and Taobao.
    0.0: "impression impressions exposure show shown served removefromcart cartremove removefromwishlist viewitemlist "
    "productremoved productlistviewed",
    1.0: "view views viewed viewitem pageview productview productviewed detail detailview click clicks clicked "
    "selectitem productclicked pv open opened read play played listen watch watched visit",
    3.0: "cart addtocart carted basket addtobasket wishlist addtowishlist favorite favourite fav collect bookmark save "
    "productadded productaddedtowishlist begincheckout checkoutstarted viewcart cartviewed addpaymentinfo "
    "addshippinginfo",
    5.0: "like liked love share follow upvote thumbsup",
    10.0: "purchase purchased buy bought order ordered ordercompleted transaction checkout conversion subscribe "
    "booking book install download rent",
    -1.0: "hide hidden dislike disliked return returned refund refunded orderrefunded skip skipped downvote "
    "thumbsdown unlike cancel notinterested block",
}
USUAL: dict[str, float] = {name: weight for weight, names in _USUAL.items() for name in names.split()}


class Events(NamedTuple):
    """A column of event types as weights, and the weight of each type that occurs."""

    parsed: Parsed
    weights: dict[str, float]


def read_events(column: pl.Series, given: EventWeights | None, source: Source) -> Events:
    """The weights (Float32) of a column of event types, null where a row has none.

    Types are compared without blanks around and, where that is unambiguous, without case. Without ``given`` every
    type must be a usual name (``USUAL``); with it, only negative names (hide, dislike, return) may be left out.

    Raises:
        DataError: a type has no weight, or the column has too many different values.
    """
    if not (column.dtype.is_numeric() or column.dtype in TYPES):
        raise DataError(
            f"{source.name}: column {column.name!r} holds {column.dtype}: event types must be texts or numbers: "
            "name another column with event=... (--event)"
        )
    text = column.cast(pl.String).str.strip_chars()
    if column.dtype.is_float():  # codes next to a missing value: pandas makes 1.0 of 1
        text = text.str.replace(r"\.0$", "")
    # A header that is repeated inside a file is reported as such.
    text = text.set(text.is_in(["", column.name]), None)
    counts = {str(name): int(n) for name, n in text.drop_nulls().value_counts(sort=True).iter_rows()}
    if len(counts) > MOST:
        raise DataError(
            f"{source.name}: column {column.name!r} has {len(counts):,} different values, such as "
            f"{', '.join(map(shortened, list(counts)[:3]))}, where event types are at most {MOST}: "
            "name another column with event=... (--event)"
        )
    table = None if given is None else parse_weights(given)
    found = {name: _weight(name, table) for name in counts}
    if None in found.values():
        raise DataError(f"{source.name}: {one_line(_unknown(column.name, counts, found))}")
    weights = {name: weight for name, weight in found.items() if weight is not None}
    values = text.replace_strict(weights, default=None, return_dtype=pl.Float32).alias(column.name)
    notes = []
    if table is not None:
        folded = {name.casefold() for name in counts}
        notes = [
            Note(f"event type {name!r} of the weights does not occur", 0)
            for name in table
            if name.casefold() not in folded
        ]
        taken = {name: weight for name, weight in weights.items() if _given(name, table) is None}
        notes += [
            Note(f"event type {name!r} taken as negative ({weight:g})", counts[name]) for name, weight in taken.items()
        ]
    return Events(Parsed(values, [Flaw(column, "no event type", text.is_null().to_numpy())], notes), weights)


def parse_weights(given: EventWeights) -> dict[str, float]:
    """Weights by event type, from a mapping, ``"view=1,cart=3"``, or a TOML file with a line or a table ``[events]``.

    Raises:
        DataError: it cannot be read, or a weight is not a finite number.
    """
    if isinstance(given, Mapping):
        table: Mapping[str, Any] = given
    else:
        table = _from_file(Path(given)) if str(given).endswith(".toml") else _from_text(str(given))
    weights: dict[str, float] = {}
    for name, value in table.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not abs(number) < LARGEST:
            raise DataError(f"event_weights: {name}={value!r}: must be a finite number (--event-weights)")
        weights[str(name).strip()] = number
    if not weights:
        raise DataError("event_weights is empty: give a weight per event type, such as view=1,purchase=10")
    return weights


def _from_text(text: str) -> dict[str, str]:
    parts = [part.rpartition("=") for part in text.split(",") if part.strip()]
    bad = [name + value for name, equals, value in parts if not (equals and name.strip())]
    if bad:
        raise DataError(
            f"event_weights {text!r}: {bad[0]!r} is not NAME=WEIGHT: write view=1,cart=3,purchase=10, or name a "
            "TOML file (--event-weights events.toml)"
        )
    return {name: value for name, _, value in parts}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"event_weights: {path} does not exist: check the path (--event-weights)") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(
            f"event_weights: {path.name} is not readable TOML ({error}): write lines such as view = 1"
        ) from error
    table = found.get("events", found)
    if not isinstance(table, dict):
        raise DataError(
            f"event_weights: {path.name}: events must be a table: write [events] and lines such as view = 1"
        )
    return table


def _given(name: str, table: Mapping[str, float]) -> float | None:
    """The weight that a table gives to a type, by its name or by the only name that is equal without case."""
    if name in table:
        return table[name]
    alike = [weight for other, weight in table.items() if other.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def _weight(name: str, table: Mapping[str, float] | None) -> float | None:
    """The given weight of a type, else the usual one: of any name without a table, of negative ones with it."""
    usual = USUAL.get(plain(name))
    if table is None:
        return usual
    given = _given(name, table)
    return usual if given is None and usual is not None and usual < 0 else given


def _unknown(column: str, counts: dict[str, int], found: dict[str, float | None]) -> str:
    """The types without weight, all types with their rows, and a complete option to type."""
    missing = ", ".join(shortened(name) for name, weight in found.items() if weight is None)
    listed = ", ".join(f"{name} {count:,} rows" for name, count in counts.items())
    whole = {name: USUAL.get(plain(name), 1.0) if weight is None else weight for name, weight in found.items()}
    text = ",".join(f"{name}={weight:g}" for name, weight in whole.items())
    # Names with a comma or an equals sign can only be written in a file.
    option = (
        f"--event-weights {shlex.quote(text)}"
        if not any("," in name for name in whole)
        else "--event-weights FILE.toml"
    )
    python = "{" + ", ".join(f"{name!r}: {weight:g}" for name, weight in whole.items()) + "}"
    return (
        f"no weight for event type {missing} in column {column!r} ({listed}): give every type one, such as "
        f"{option} (event_weights={python}); 0 keeps a type as history only, below 0 is a dislike"
    )
