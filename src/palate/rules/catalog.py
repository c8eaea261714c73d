"""The catalog as rules see it: columns, items that match a value, dates, values as codes, and item vectors.

Shape legend: I items, S values of one item at most, G distinct values, D width of a vector.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from palate.data.features import indicators
from palate.data.ids import IdMap
from palate.errors import RuleError
from palate.rules.rules import ITEM_ID, LAST_EVENT, Value

DAY = 86_400.0
FLAGS = {"true": True, "yes": True, "false": False, "no": False}
YEARS = (1, 9999)  # a number outside is not a calendar year


class Codes(NamedTuple):
    """Values of a column as numbers: codes_IS int64, from 1, 0 in empty places; names of the G values."""

    codes_IS: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items with the facts that rules refer to. Facts that take a pass over the data are computed once and kept.

    Args:
        items: the id map.
        features: one row per item in map order, or None.
        titles: one name per item in map order, or None; rules may use them as the column "title".
        seen: the history of all users, for the time of each item's latest interaction; or None.
        unit_items: (I, D) item vectors of length one; None compares items by their features.
    """

    items: IdMap
    features: pl.DataFrame | None = None
    titles: pl.Series | None = None
    seen: History | None = None
    unit_items: Tensor | None = None
    _exploded: dict[str, pl.DataFrame] = field(default_factory=dict, init=False, repr=False)
    _codes: dict[str, Codes] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    def column(self, name: str, rule: str) -> pl.Series:
        """A column of the features, or the titles.

        Raises:
            RuleError: no column has that name.
        """
        if self.features is not None and name in self.features.columns:
            return self.features[name]
        if name == "title" and self.titles is not None:
            return self.titles.rename("title")
        known = [] if self.features is None else self.features.columns
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
        raise RuleError(f"{rule}: the items have no column {name!r}: {hint}")

    def values(self, name: str, rule: str) -> pl.DataFrame:
        """Columns row and value of all known values; a list gives one row for each of its values.

        Raises:
            RuleError: the column is missing.
        """
        if name not in self._exploded:
            column = self.column(name, rule)
            table = pl.DataFrame({"row": np.arange(len(column)), "value": column})
            if isinstance(column.dtype, pl.Array):
                table = table.with_columns(pl.col("value").arr.to_list())
            if isinstance(table.schema["value"], pl.List):
                table = table.explode("value")
            if isinstance(table.schema["value"], pl.Categorical | pl.Enum):
                table = table.with_columns(pl.col("value").cast(pl.String))
            self._exploded[name] = table.drop_nulls()
        return self._exploded[name]

    def having(self, name: str, values: Sequence[Value], rule: str) -> tuple[NDArray[np.bool_], list[str]]:
        """Which items (I,) have one of the values, and the values that no item has.

        Raises:
            RuleError: the column is missing, or a value cannot be read as the type of the column.
        """
        # TOML, JSON and a command line write the same value as text, number or date: it is read in the column's type.
        texts = pl.Series("value", [str(value).lower() if isinstance(value, bool) else str(value) for value in values])
        found_I = np.zeros(len(self), bool)
        if name == ITEM_ID:
            row = self.items.rows(pl.Series("id", [str(value) for value in values], dtype=pl.String))
            found_I[row[row >= 0]] = True
            return found_I, [str(value) for value, one in zip(values, row, strict=True) if one < 0]
        table = self.values(name, rule)
        dtype = table.schema["value"]
        if dtype == pl.String:
            wanted = texts
        elif dtype == pl.Boolean:
            wanted = texts.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
        elif dtype == pl.Date:
            wanted = texts.str.to_date(strict=False)
        else:
            wanted = texts.cast(dtype, strict=False)
        if wanted.null_count():
            raise RuleError(
                f"{rule}: the column holds {dtype}, and {texts.filter(wanted.is_null())[0]!r} is none: correct it"
            )
        found_I[table.filter(pl.col("value").is_in(wanted.implode()))["row"].to_numpy()] = True
        here = wanted.is_in(table["value"].unique().implode())
        return found_I, [str(value) for value, known in zip(values, here, strict=True) if not known]

    def near(self, name: str, value: str, rule: str) -> str:
        """The value of a column that ``value`` may be a misspelling of, as the end of a sentence; or an empty text."""
        found = difflib.get_close_matches(value, self.values(name, rule)["value"].cast(pl.String).unique(), 1)
        return f"; did you mean {found[0]!r}?" if found else ""

    def true(self, name: str, rule: str) -> NDArray[np.bool_]:
        """Which items (I,) have a flag set: true, the word true or yes, or a number above 0; unknown is not set.

        Raises:
            RuleError: the column is missing, or holds values of another kind.
        """
        column = self.column(name, rule)
        if column.dtype == pl.String:  # a CSV file has no other way to write a flag
            words = column.str.strip_chars().str.to_lowercase()
            flags = words.replace_strict(FLAGS, default=None, return_dtype=pl.Boolean)
            column = _all_read(column, flags, rule, "a flag is true or false, yes or no")
        if column.dtype != pl.Boolean and not column.dtype.is_numeric():
            raise RuleError(f"{rule}: the column holds {column.dtype}: a flag is true or false, or a number")
        true = column if column.dtype == pl.Boolean else column > 0
        return np.asarray(true.fill_null(False).to_numpy(), bool)

    def since(
        self, name: str, days: float | None, since: date | None, rule: str, now: float | None = None
    ) -> NDArray[np.bool_]:
        """Which items (I,) have a date inside a time window; unknown dates are outside.

        Args:
            name: a column, or "last_event".
            days: length of the window, back from ``now``; or
            since: first day of the window.
            rule: name of the rule, for errors.
            now: seconds since 1970. Default: the time of the latest interaction.

        Raises:
            RuleError: the column is missing or holds no dates, or there are no times of interactions.
        """
        if days is not None:
            if now is None and self._last_event is not None:
                now = float(self._last_event.max(initial=-np.inf))
            if now is None or now == -np.inf:
                raise RuleError(
                    f"{rule}: days are counted from the time of the request, which is not known: give it, or since"
                )
            start = now - days * DAY
        else:
            start = _seconds(pl.Series([since]))[0]
        if name == LAST_EVENT:
            if self._last_event is None:
                raise RuleError(f"{rule}: the training rows have no times: use a column of dates")
            return np.asarray(self._last_event >= start)
        column = self.column(name, rule)
        if column.dtype == pl.String:  # a CSV file has no other way to write a date
            dates = column.str.strip_chars().str.head(10).str.to_date("%Y-%m-%d", strict=False)
            column = _all_read(column, dates, rule, "a date begins like 2020-01-31")
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
        # A year is inside if any day of it is.
        first = pl.Series([start * 1e6]).cast(pl.Int64).cast(pl.Datetime("us")).dt.year()[0]
        return np.asarray((year >= first).fill_null(False).to_numpy(), bool)

    def codes(self, name: str, rule: str) -> Codes:
        """The values of a column as codes, in ascending order of their text.

        Raises:
            RuleError: the column is missing.
        """
        if name not in self._codes:
            table = self.values(name, rule).with_columns(pl.col("value").cast(pl.String)).unique().sort("row", "value")
            names, row = table["value"].unique().sort(), table["row"].to_numpy()
            # The table is sorted by item, so a value's slot is its distance from the first value of its item.
            slot = np.arange(len(row)) - np.searchsorted(row, row)
            codes_IS = np.zeros((len(self), int(slot.max(initial=0)) + 1), np.int64)
            codes_IS[row, slot] = names.search_sorted(table["value"]).to_numpy() + 1
            self._codes[name] = Codes(torch.from_numpy(codes_IS), tuple(names))
        return self._codes[name]

    @cached_property
    def similarity_vectors(self) -> Tensor | None:
        """Rows (I, D) whose products are the similarities of items: item vectors, otherwise values of the features.

        With features the product is the mean over their columns of the cosine of values (numbers in eight bins).
        """
        if self.unit_items is not None:
            return self.unit_items
        blocks = [] if self.features is None else indicators(self.features)
        if not blocks:
            return None
        # Unit rows per column side by side: their product, divided by the length, is the mean of the cosines.
        stacked = sparse.csr_array(sparse.hstack(blocks, format="csr"))
        return nn.functional.normalize(torch.from_numpy(stacked.toarray().astype(np.float32)), dim=1)

    @cached_property
    def _last_event(self) -> NDArray[np.float64] | None:
        """Time of each item's latest interaction, (I,), -inf without any."""
        if self.seen is None or self.seen.times is None:
            return None
        last_I = np.full(len(self), -np.inf)
        np.maximum.at(last_I, self.seen.items, self.seen.times)
        return last_I


def _all_read(text: pl.Series, read: pl.Series, rule: str, wanted: str) -> pl.Series:
    """The values read from a text column; raises RuleError for the first text that could not be read."""
    unread = text.filter(read.is_null() & text.is_not_null())
    if len(unread):
        raise RuleError(f"{rule}: the column holds the text {unread[0]!r}: {wanted}")
    return read


def _seconds(dates: pl.Series) -> NDArray[np.float64]:
    """Seconds since 1970, NaN where a date is missing."""
    micros = dates.cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64) / 1e6
    return micros.fill_null(float("nan")).to_numpy()
