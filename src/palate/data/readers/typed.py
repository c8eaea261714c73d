"""Columns that are typed while they are read, so that no column of text as long as the file is ever held.

Ids are 32-bit integers where all are, else codes of their distinct texts; numbers are float32; times are integers or
float64. A batch that does not fit turns the column into text: no value is lost, and the message shows it as it is.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from palate.data.id_columns import integers
from palate.data.readers.numbers import may_have_groups

Role = Literal["id", "number", "time", "any"]


class TypedColumn:
    """One column, in the order of the rows.

    Args:
        name: its name.
        role: what its values are used for; "any" keeps each batch as it is.
    """

    def __init__(self, name: str, role: Role) -> None:
        self._name, self._role = name, role
        self._shards: list[pl.Series] = []
        self._parts: list[pl.Series] = []
        self._coded = False
        # One dictionary for all batches of this column, and for no other column.
        self._codes = pl.Categorical(pl.Categories.random())
        # Polars forgets the dictionary when no column uses it.
        self._holder = pl.Series([], dtype=self._codes)
        self._n_saved = 0  # texts that shards have

    def add(self, values: pl.Series, untyped: bool) -> None:
        """Take the next batch; ``untyped`` values are texts that may spell numbers."""
        if self._role == "id":
            values = self._as_ids(values, untyped)
        elif self._role == "number":
            values = _as_numbers(values)
        elif self._role == "time" and values.dtype == pl.String:
            values = _as_times(values)
        if self._role == "time" and values.dtype.is_integer():
            values = values.cast(pl.Float64)  # as they are used, so that there is no second column
        self._parts.append(values)

    def shard(self) -> tuple[pl.Series, pl.Series | None]:
        """The batches since the last shard, texts as codes; and the texts that no shard has, in the order of codes."""
        shards, self._shards = self._shards, []
        column, self._shards = self.take(), shards
        if not self._coded:
            return column, None
        # With the first text, integers of earlier shards have become texts too.
        several = [column] if self._n_saved else [column, *shards]
        distinct = pl.concat([one.alias("").unique() for one in several]).unique().drop_nulls()
        table = pl.DataFrame({"code": distinct.to_physical(), "text": distinct.cast(pl.String)})
        return column.to_physical(), table.filter(pl.col("code") >= self._n_saved).sort("code")["text"]

    def map(self, column: pl.Series, texts: pl.Series | None) -> None:
        """Take back what ``shard`` has given, from a file."""
        if texts is not None:
            texts.cast(self._codes)  # the same order gives the same codes
            self._n_saved += len(texts)
            self._start_codes()
            column = column.cat.to(self._codes)
        self._shards.append(column)

    def take(self) -> pl.Series:
        """The whole column; it is not kept here."""
        parts, self._shards, self._parts = [*self._shards, *self._parts], [], []
        if not parts:
            return pl.Series(self._name, [], pl.String)
        dtypes = {part.dtype for part in parts}
        if len(dtypes) > 1:
            empty = (pl.DataFrame([part.clear().alias("")]) for part in parts)
            common = pl.String if pl.String in dtypes else pl.concat(empty, how="vertical_relaxed").dtypes[0]
            parts = [part.cast(common) for part in parts]
        # Not in one piece, which would take the memory of the column twice.
        return pl.concat(parts, rechunk=False).alias(self._name)

    def _as_ids(self, values: pl.Series, untyped: bool) -> pl.Series:
        if isinstance(values.dtype, pl.Categorical):
            values = values.cast(pl.String)
        if values.dtype == pl.String and untyped and not self._coded:
            values = integers(values)
        if values.dtype.is_integer() and not self._coded:
            small = values.cast(pl.Int32, strict=False)
            return small if small.null_count() == values.null_count() else values
        if values.dtype.is_integer():  # written as an integer would be, so that its text is known
            values = values.cast(pl.String)
        if values.dtype != pl.String:
            return values
        self._start_codes()
        return values.cast(self._codes)

    def _start_codes(self) -> None:
        if self._coded:
            return
        self._coded = True
        self._shards, self._parts = (
            [part.cast(pl.String).cast(self._codes) if part.dtype.is_integer() else part for part in parts]
            for parts in (self._shards, self._parts)
        )


def _as_numbers(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        numbers = values.cast(pl.Float64, strict=False)
        plain = numbers.null_count() == values.null_count() and not may_have_groups(values)
        return numbers.cast(pl.Float32) if plain else values
    return values.cast(pl.Float32) if values.dtype.is_numeric() else values


def _as_times(text: pl.Series) -> pl.Series:
    for kind in (pl.Int64, pl.Float64):
        numbers = text.cast(kind, strict=False)
        if numbers.null_count() == text.null_count():
            # Numbers such as 1.6E+09 are looked at as text: a program has cut them.
            return text if kind == pl.Float64 and text.str.contains("[eE]").any() else numbers
    return text
