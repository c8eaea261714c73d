"""IdMap: external id <-> row number, the only place where the two meet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.errors import DataError

__all__ = ["IdMap"]


@dataclass(frozen=True)
class IdMap:
    """An append-only list of distinct external ids; the position of an id is its row number.

    Args:
        ids: distinct, non-null ids as Int64 or String, shape (n,).

    A new map is sorted, so it does not depend on the order of the rows it was made from. ``extend`` puts
    new ids behind the old ones: a row number, once given, never changes.
    """

    ids: pl.Series

    def __post_init__(self) -> None:
        if self.ids.dtype not in (pl.Int64, pl.String):
            raise DataError(f"ids must be integers or strings, got {self.ids.dtype}: cast the column first")

    @classmethod
    def of(cls, values: pl.Series | Sequence[Any] | NDArray[Any]) -> IdMap:
        """The sorted distinct ids among ``values`` (nulls are not ids)."""
        return cls(_as_ids(values).drop_nulls().unique().sort().rename("id"))

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self.ids.dtype == other.ids.dtype and self.ids.equals(other.ids)

    __hash__ = None  # type: ignore[assignment]

    def rows(self, values: pl.Series | Sequence[Any] | NDArray[Any]) -> NDArray[np.int32]:
        """Row number of each value, shape (len(values),); -1 where the id is unknown.

        Values of the other kind are converted ("42" finds the integer id 42), since a command line or a URL
        only has strings.
        """
        wanted = _as_ids(values)
        if wanted.dtype != self.ids.dtype:
            wanted = wanted.cast(self.ids.dtype, strict=False)
        found = wanted.to_frame("id").join(self._table, on="id", how="left", maintain_order="left")["row"]
        return found.fill_null(-1).to_numpy()

    def external(self, rows: NDArray[np.integer[Any]] | Sequence[int]) -> pl.Series:
        """The external ids of row numbers, in their order; a negative row number gives null."""
        index = pl.Series("row", np.asarray(rows), dtype=pl.Int64)
        return self.ids.gather(index.set(index < 0, None)).rename("id")

    def extend(self, values: pl.Series | Sequence[Any] | NDArray[Any]) -> IdMap:
        """This map with the ids of ``values`` that it lacks appended in sorted order."""
        given = _as_ids(values)
        if given.dtype != self.ids.dtype:
            given = given.cast(self.ids.dtype)
        new = given.drop_nulls().unique().sort()
        return IdMap(pl.concat([self.ids, new.filter(~new.is_in(self.ids.implode()))]))

    @cached_property
    def _table(self) -> pl.DataFrame:
        return self.ids.to_frame("id").with_columns(pl.int_range(pl.len(), dtype=pl.Int32).alias("row"))

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """A stable 64-bit hash of each id's text, shape (n,); 5 and "5" hash alike."""
        texts = cast(Iterable[str], self.ids.cast(pl.String))
        joined = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
        return np.frombuffer(joined, dtype="<u8")

    @cached_property
    def digest(self) -> str:
        """16 hex digits that identify the ids and their order; 5 and "5" count as the same id."""
        return hashlib.blake2b(self.hashes.tobytes(), digest_size=8).hexdigest()


def _as_ids(values: pl.Series | Sequence[Any] | NDArray[Any]) -> pl.Series:
    series = values if isinstance(values, pl.Series) else pl.Series("id", values)
    if series.dtype in (pl.Int64, pl.String):
        return series
    if series.dtype.is_integer():
        return series.cast(pl.Int64)
    if isinstance(series.dtype, pl.Categorical | pl.Enum) or series.dtype == pl.Boolean:
        return series.cast(pl.String)
    if series.dtype == pl.Null:
        return series.cast(pl.String)
    raise DataError(f"ids must be integers or strings, got {series.dtype}: cast the column first")
