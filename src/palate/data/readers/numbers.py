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
# 1.234 and 950, but neither 0.125 nor 3.5: where all values are such, the points may stand between thousands.
GROUPS = r"^\s*[+-]?(0|[1-9]\d{0,2}(\.\d{3})*)\s*$"
SEVERAL_GROUPS = r"^\s*[+-]?\d{1,3}(\.\d{3}){2,}\s*$"
# Blanks of three widths, and apostrophes, as in France, Sweden and Switzerland.
BLANKS = "[ \u00a0\u202f'\u2019]"
APART = rf"^\s*[+-]?\d{{1,3}}({BLANKS}\d{{3}})+([.,]\d+)?\s*$"


def may_have_groups(text: pl.Series) -> bool:
    """Whether all numbers are written as integers or with points before three digits, so that 1.234 may be 1234."""
    if not text.str.contains(".", literal=True).any():
        return False
    # Most columns of ratings are told by their first values, and are not read to the end.
    return all(bool(part.str.contains(GROUPS).all()) for part in (text.drop_nulls().head(100), text))


def with_points(text: pl.Series, decimal: Decimal | None, source: str) -> tuple[pl.Series, list[Note]]:
    """Numbers as text with a decimal point and nothing between thousands, and notes on what was rewritten.

    Args:
        text: numbers as they are written; other texts stay as they are.
        decimal: the decimal mark; None finds it.
        source: name of the file in error messages.

    Raises:
        DataError: a comma or a point could be either, as in 1,234.
    """
    column, notes = f"in column {text.name!r}", list[Note]()
    odd = text.filter(text.is_not_null() & text.cast(pl.Float64, strict=False).is_null())
    apart = odd.str.contains(APART)
    if apart.any():
        changed = text.str.contains(APART).fill_null(False)
        text = text.zip_with(~changed, text.str.strip_chars().str.replace_all(BLANKS, ""))
        notes.append(Note(f"blanks or apostrophes between thousands {column} left out", int(changed.sum())))
        odd = text.filter(text.is_not_null() & text.cast(pl.Float64, strict=False).is_null())
    commas = odd.filter(odd.str.contains(",", literal=True))
    if decimal is None and not len(commas) and may_have_groups(text) and not odd.str.contains(SEVERAL_GROUPS).any():
        points = text.filter(text.str.contains(".", literal=True))
        # Numbers with three decimals all have a point; without trailing zeros some have fewer digits behind it.
        if 1 < len(points) < text.len() - text.null_count():
            _refuse(points[0], ".", text.name, source)
        return text, notes
    thousands, decimals = (
        commas.str.contains(THOUSANDS),
        commas.str.contains(COMMA) | commas.str.contains(DOTS_AND_COMMA),
    )
    if decimal is None and len(commas) and (thousands & decimals).all():
        _refuse(commas[0], ",", text.name, source)
    if decimal == "." or (decimal is None and len(commas) and thousands.all()):
        changed = (text.str.contains(THOUSANDS) & text.str.contains(",", literal=True)).fill_null(False)
        said = [Note(f"commas between thousands {column} left out", int(changed.sum()))] if changed.any() else []
        return text.zip_with(~changed, text.str.replace_all(",", "", literal=True)), notes + said
    if decimal is None and not len(commas) and not odd.str.contains(SEVERAL_GROUPS).any():
        return text, notes
    grouped = text.str.contains(DOTS_AND_COMMA).fill_null(False)
    changed = text.str.contains(COMMA).fill_null(False) | grouped
    plain = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    rewritten = {
        f"decimal commas {column} read as decimal points": (changed & text.str.contains(",", literal=True)).sum(),
        f"points between thousands {column} left out": grouped.sum(),
    }
    notes += [Note(words, int(rows)) for words, rows in rewritten.items() if rows]
    return text.zip_with(~changed, plain), notes


def _refuse(value: str, mark: str, column: str, source: str) -> None:
    value = value.strip()
    raise DataError(
        f"{source}: {value!r} in column {column!r} could be {value.replace(mark, '')} or "
        f"{value.replace(mark, '.')}: pass --decimal . or --decimal , (decimal=)"
    )
