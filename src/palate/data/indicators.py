"""Feature tables as sparse indicator matrices, for models that are linear in features.

Shape legend: n rows of the table, f categories of one column.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import sparse

__all__ = ["indicators", "unit_rows"]

MOST_CATEGORIES = 100  # a text column with more is taken for a name and left out
BINS = 8  # of a numeric column


def indicators(table: pl.DataFrame) -> list[sparse.csr_array]:
    """One block (n, f) per usable column of the table; every row of a block has length 1, or 0 where it is unknown.

    Texts, flags and lists of texts are categories; numbers are cut into bins of about equal size. Dates, and texts
    with more than 100 categories (names, postal codes), are left out.
    """
    blocks = []
    for column in table:
        categories = _categories(column)
        if categories is None:
            continue
        frame = pl.DataFrame({"row": np.arange(len(column)), "of": categories})
        frame = (frame.explode("of") if isinstance(categories.dtype, pl.List) else frame).drop_nulls().unique()
        names = frame["of"].unique().sort()
        if 1 < len(names) <= MOST_CATEGORIES:
            place = (frame["row"].to_numpy(), frame["of"].cast(pl.Enum(names)).to_physical().to_numpy())
            ones = np.ones(len(frame), np.float32)
            blocks.append(unit_rows(sparse.csr_array((ones, place), shape=(len(table), len(names)))))
    return blocks


def unit_rows(pattern: sparse.csr_array) -> sparse.csr_array:
    """A pattern of ones (n, f) with every row divided by the root of its count."""
    counts = np.diff(pattern.indptr)
    scale = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
    return sparse.csr_array(((pattern.data * scale).astype(np.float32), pattern.indices, pattern.indptr), pattern.shape)


def _categories(column: pl.Series) -> pl.Series | None:
    """Strings or lists of strings, or None for a column of another kind."""
    dtype = column.dtype
    if isinstance(dtype, pl.List):
        return column if dtype.inner == pl.String else None
    if dtype.is_numeric():
        number = column.cast(pl.Float64).fill_nan(None)
        if number.drop_nulls().is_empty():
            return None
        edges = np.unique(np.quantile(number.drop_nulls().to_numpy(), np.arange(1, BINS) / BINS))
        place = pl.Series(np.searchsorted(edges, number.fill_null(0.0).to_numpy()))
        return place.cast(pl.String).set(number.is_null(), None)
    if dtype in (pl.String, pl.Boolean) or isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    return None
