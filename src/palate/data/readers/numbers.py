"""Numbers with a decimal comma, or with marks between thousands."""

from __future__ import annotations

from typing import Literal

import polars as pl

from palate.data.dataset import Note
from palate.errors import DataError

Decimal = Literal[",", "."]
COMMA = r"^\s*[+-]?\d*,\d+\s*$"
DOTS_AND_COMMA = r"^\s*[+-]?\d{1,3}(\.\d{3})+(,\d+)?\s*$"
THOUSANDS = r"^\s*[+-]?\d{1,3}(,\d{3})+(\.\d+)?\s*$"


def with_points(text: pl.Series, decimal: Decimal | None, source: str) -> tuple[pl.Series, list[Note]]:
    """Numbers as text with a decimal point and nothing between thousands, and a note on what was rewritten.

    Args:
        text: numbers as they are written; other texts stay as they are.
        decimal: the decimal mark; None finds it.
        source: name of the file in error messages.

    Raises:
        DataError: a comma could be either, as in 1,234.
    """
    odd = text.filter(text.is_not_null() & text.cast(pl.Float64, strict=False).is_null())
    commas = odd.filter(odd.str.contains(",", literal=True))
    if not len(commas):
        return text, []
    thousands, decimals = (
        commas.str.contains(THOUSANDS),
        commas.str.contains(COMMA) | commas.str.contains(DOTS_AND_COMMA),
    )
    if decimal is None and (thousands & decimals).all():
        value = commas[0].strip()
        raise DataError(
            f"{source}: {value!r} in column {text.name!r} could be {value.replace(',', '')} or "
            f"{value.replace(',', '.')}: pass --decimal . or --decimal , (decimal=)"
        )
    if decimal == "." or (decimal is None and thousands.all()):
        changed = text.str.contains(THOUSANDS) & text.str.contains(",", literal=True)
        note = Note(f"commas between thousands in column {text.name!r} left out", int(changed.sum()))
        return text.zip_with(~changed.fill_null(False), text.str.replace_all(",", "", literal=True)), [note]
    changed = text.str.contains(COMMA) | text.str.contains(r"^\s*[+-]?\d{1,3}(\.\d{3})+,\d+\s*$")
    plain = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    note = Note(f"decimal commas in column {text.name!r} read as decimal points", int(changed.sum()))
    return text.zip_with(~changed.fill_null(False), plain), [note]
