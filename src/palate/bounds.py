"""Bounds of the fields of frozen dataclasses: declared in the annotation, held by pydantic, reported in one line.

    @dataclass(frozen=True)
    class Cut:
        test_size: Fraction = 0.2
        users: Count | None = None

        def __post_init__(self) -> None:
            check_fields(self, "cut", DataError)

    Cut(test_size=2.0)       # DataError: cut, field test_size=2.0: must be at most 1

Numbers are finite and, where they size an array, bounded above, so that a slip of a digit is refused before any data
are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from functools import cache
from typing import Annotated, Any, cast, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

__all__ = ["Chance", "Count", "Fraction", "NonNegative", "Positive", "Rounds", "Seed", "Width", "check_fields"]

Count = Annotated[int, Field(ge=1, le=10_000_000)]
"""A number of rows, users, items or draws."""

Rounds = Annotated[int, Field(ge=0, le=1_000_000)]
"""A number of epochs or sweeps; 0 leaves the initial state."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A start of random numbers, within the range that torch takes."""

Width = Annotated[int, Field(ge=1, le=65_536)]
"""A width of vectors or layers."""

Positive = Annotated[float, Field(gt=0, le=1e12)]
NonNegative = Annotated[float, Field(ge=0, le=1e12)]
"""A rate, weight or span of time; the bound leaves room for squares in 32 bits and for seconds since 1970."""

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A share of a whole, both ends included."""

Chance = Annotated[float, Field(ge=0, lt=1)]
"""A probability of leaving something out, which must not be certain."""

_SENTENCES = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:,}",
    "less_than": "must be below {lt:g}",
    "finite_number": "must be a finite number",
    "literal_error": "choose {expected}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "too_short": "must hold at least {min_length}",
}


def check_fields(instance: Any, subject: str, error: type[Exception]) -> None:
    """Validate a dataclass by its annotations; call it in ``__post_init__``.

    Values are converted as the types allow ("0.01" to 0.01, a list to a tuple) and stored converted.

    Args:
        instance: the dataclass; it may be frozen.
        subject: the first words of the message, such as "recipe mlp".
        error: the exception to raise.

    Raises:
        error: the first field that does not fit, with its value and the bound.
    """
    names, adapter = _adapter(cast(Hashable, type(instance)))
    try:
        values = adapter.validate_python(tuple(getattr(instance, name) for name in names))
    except ValidationError as found:
        first: Any = found.errors()[0]
        place, *inside = first["loc"]
        field = names[place] + "".join(f"[{part}]" for part in inside if isinstance(part, int))
        template = _SENTENCES.get(first["type"], first["msg"].removeprefix("Value error, "))
        sentence = template.format(**first["ctx"]) if first["type"] in _SENTENCES and "ctx" in first else template
        raise error(f"{subject}, field {field}={first['input']!r}: {sentence}") from None
    for name, value in zip(names, values, strict=True):
        object.__setattr__(instance, name, value)


@cache
def _adapter(kind: Any) -> tuple[list[str], TypeAdapter[Any]]:
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]
    # One tuple of all fields: a pydantic model would forbid field names such as "json" and "copy".
    types: Any = tuple[tuple(hints[name] for name in names)]  # type: ignore[misc]
    return names, TypeAdapter(types, config=ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True))
