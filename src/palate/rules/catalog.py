"""The catalog as rules see it: columns, the items that match a value, dates, values as codes, and likeness.

Shape legend: I items, H history events of all users, S values of one item at most, G distinct values, D width of a
vector.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from palate.data.dataset import History
from palate.data.ids import IdMap
from palate.data.indicators import indicators
from palate.errors import RuleError
from palate.rules.rules import ITEM_ID, LAST_EVENT, Value

__all__ = ["Catalog", "Codes"]

DAY = 86_400.0
FLAGS = {"true": True, "yes": True, "false": False, "no": False}
YEARS = (1, 9999)  # a number outside is no calendar year


class Codes(NamedTuple):
    """Values of a column as numbers: codes, int64, from 1, 0 in empty places; names of the G values."""

    codes_IS: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Catalog:
    """What rules may ask about the items.

    Args:
        items: the id map.
        features: one row per item in map order, or None.
        titles: one name per item in map order, or None; rules may use them as the column "title".
        seen: the history of all users, which tells when an item was last touched; or None.
        unit_items: (I, D) item vectors of length one, or None: then items are alike by their features.
        now: time of the request in seconds since 1970; None is the time of the latest event.
    """

    items: IdMap
    features: pl.DataFrame | None = None
    titles: pl.Series | None = None
    seen: History | None = None
    unit_items: Tensor | None = None
    now: float | None = None

    def __len__(self) -> int:
        return len(self.items)

    def column(self, name: str, rule: str) -> pl.Series:
        """A column of the features, or the titles.

        Raises:
            RuleError: there is none of that name.
        """
        if self.features is not None and name in self.features.columns:
            return self.features[name]
        if name == "title" and self.titles is not None:
            return self.titles.rename("title")
        known = [] if self.features is None else self.features.columns
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
        raise RuleError(f"{rule}: the items have no column {name!r}: {hint}")

    def having(self, name: str, values: Sequence[Value], rule: str) -> tuple[NDArray[np.bool_], list[str]]:
        """Which items (I,) have one of the values, and those of the values that no item has.

        Raises:
            RuleError: the column is missing, or the values are not of its kind.
        """
        found_I = np.zeros(len(self), bool)
        if name == ITEM_ID:
            row = self.items.rows(pl.Series("id", [str(value) for value in values], dtype=pl.String))
            found_I[row[row >= 0]] = True
            return found_I, [str(value) for value, one in zip(values, row, strict=True) if one < 0]
        column = self.column(name, rule)
        table = _exploded(column)
        wanted = _like(values, table["value"], rule)
        found_I[table.filter(pl.col("value").is_in(wanted.implode()))["row"].to_numpy()] = True
        here = wanted.is_in(table["value"].unique().implode())
        return found_I, [str(value) for value, known in zip(values, here, strict=True) if not known]

    def true(self, name: str, rule: str) -> NDArray[np.bool_]:
        """Which items (I,) have a flag set: true, the word true or yes, or a number above 0; unknown is not set.

        Raises:
            RuleError: the column is missing, or holds something else.
        """
        column = self.column(name, rule)
        if column.dtype == pl.String:
            column = _flags(column, rule)
        if column.dtype != pl.Boolean and not column.dtype.is_numeric():
            raise RuleError(f"{rule}: the column holds {column.dtype}: a flag is true or false, or a number")
        true = column if column.dtype == pl.Boolean else column > 0
        return np.asarray(true.fill_null(False).to_numpy(), bool)

    def since(self, name: str, days: float | None, since: date | None, rule: str) -> NDArray[np.bool_]:
        """Which items (I,) have a date inside the window; unknown dates are outside.

        Raises:
            RuleError: the column is missing or holds no dates, or there are no times of events.
        """
        start = self._clock(rule) - days * DAY if days is not None else _seconds(pl.Series([since]))[0]
        if name == LAST_EVENT:
            return np.asarray(self._last_event(rule) >= start)
        column = self.column(name, rule)
        if column.dtype == pl.String:
            column = _dates(column, rule)
        if column.dtype.is_temporal() and column.dtype != pl.Time:
            # A day is inside if any moment of it is.
            whole = DAY if column.dtype == pl.Date else 0.0
            return np.asarray(_seconds(column) + whole > start)
        if not column.dtype.is_numeric():
            raise RuleError(f"{rule}: the column holds {column.dtype}: a window needs dates, times or calendar years")
        year = column.cast(pl.Float64)
        if not year.drop_nulls().is_between(*YEARS).all():
            odd = year.filter(~year.is_between(*YEARS))[0]
            raise RuleError(f"{rule}: the column holds {odd:g}, which is no calendar year: make it a column of dates")
        first = pl.Series([start * 1e6]).cast(pl.Int64).cast(pl.Datetime("us")).dt.year()[0]
        return np.asarray((year >= first).fill_null(False).to_numpy(), bool)

    def codes(self, name: str, rule: str) -> Codes:
        """The values of a column as codes, in ascending order of their text.

        Raises:
            RuleError: the column is missing.
        """
        table = (
            _exploded(self.column(name, rule))
            .with_columns(pl.col("value").cast(pl.String))
            .unique()
            .sort("row", "value")
        )
        names = table["value"].unique().sort()
        row = table["row"].to_numpy()
        slot = np.arange(len(row)) - np.searchsorted(row, row)
        codes_IS = np.zeros((len(self), int(slot.max(initial=0)) + 1), np.int64)
        codes_IS[row, slot] = names.search_sorted(table["value"]).to_numpy() + 1
        return Codes(torch.from_numpy(codes_IS), tuple(names))

    @cached_property
    def likeness(self) -> Tensor | None:
        """Rows (I, D) whose products say how much alike two items are: item vectors, else values of the features.

        With features it is the mean over their columns of the cosine of values (numbers in eight bins).
        """
        if self.unit_items is not None:
            return self.unit_items
        blocks = [] if self.features is None else indicators(self.features)
        if not blocks:
            return None
        stacked = sparse.csr_array(sparse.hstack(blocks, format="csr"))
        return nn.functional.normalize(torch.from_numpy(stacked.toarray().astype(np.float32)), dim=1)

    def _clock(self, rule: str) -> float:
        if self.now is not None:
            return self.now
        if self.seen is None or self.seen.times is None or not len(self.seen.times):
            raise RuleError(
                f"{rule}: days are counted from the time of the request, which is not known: give it, or since"
            )
        return float(self.seen.times.max())

    def _last_event(self, rule: str) -> NDArray[np.float64]:
        if self.seen is None or self.seen.times is None:
            raise RuleError(f"{rule}: the training rows have no times: use a column of dates")
        last_I = np.full(len(self), -np.inf)
        np.maximum.at(last_I, self.seen.items, self.seen.times)
        return last_I


def _exploded(column: pl.Series) -> pl.DataFrame:
    """Columns row and value of all that is known; a list gives a row for each of its values."""
    table = pl.DataFrame({"row": np.arange(len(column)), "value": column})
    if isinstance(column.dtype, pl.Array):
        table = table.with_columns(pl.col("value").arr.to_list())
    if isinstance(table.schema["value"], pl.List):
        table = table.explode("value")
    if isinstance(table.schema["value"], pl.Categorical | pl.Enum):
        table = table.with_columns(pl.col("value").cast(pl.String))
    return table.drop_nulls()


def _like(values: Sequence[Value], column: pl.Series, rule: str) -> pl.Series:
    """The values in the type of a column; raises RuleError where one does not fit."""
    texts = pl.Series("value", [str(value).lower() if isinstance(value, bool) else str(value) for value in values])
    if column.dtype == pl.String:
        return texts
    if column.dtype == pl.Boolean:
        found = texts.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    elif column.dtype == pl.Date:
        found = texts.str.to_date(strict=False)
    else:
        found = texts.cast(column.dtype, strict=False)
    if found.null_count():
        raise RuleError(
            f"{rule}: the column holds {column.dtype}, and {texts.filter(found.is_null())[0]!r} is none: correct it"
        )
    return found


def _flags(column: pl.Series, rule: str) -> pl.Series:
    """Words as flags, since a CSV file has no others."""
    words = column.str.strip_chars().str.to_lowercase()
    flags = words.replace_strict(FLAGS, default=None, return_dtype=pl.Boolean)
    return _all_read(column, flags, rule, "a flag is true or false, yes or no")


def _dates(column: pl.Series, rule: str) -> pl.Series:
    """Texts as days, since a CSV file has no others."""
    days = column.str.strip_chars().str.head(10).str.to_date("%Y-%m-%d", strict=False)
    return _all_read(column, days, rule, "a date begins like 2020-01-31")


def _all_read(text: pl.Series, read: pl.Series, rule: str, wanted: str) -> pl.Series:
    unread = text.filter(read.is_null() & text.is_not_null())
    if len(unread):
        raise RuleError(f"{rule}: the column holds the text {unread[0]!r}: {wanted}")
    return read


def _seconds(dates: pl.Series) -> NDArray[np.float64]:
    """Seconds since 1970, NaN where a date is missing."""
    micros = dates.cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64) / 1e6
    return micros.fill_null(float("nan")).to_numpy()


def near(value: str, column: pl.Series) -> str:
    """What ``value`` perhaps meant, as the end of a sentence; empty where nothing is near."""
    found = difflib.get_close_matches(value, _exploded(column)["value"].cast(pl.String).unique(), 1)
    return f"; did you mean {found[0]!r}?" if found else ""
