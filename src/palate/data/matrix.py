"""Data sets from and to the forms of other libraries: sparse matrices (implicit) and the dataframes of RecTools."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from palate.data.dataset import Dataset
from palate.data.frame import from_frame
from palate.errors import DataError


def from_csr(matrix: Any, users: Any = None, items: Any = None, *, name: str = "matrix", **options: Any) -> Dataset:
    """A data set from a sparse matrix of users by items, whose values are quantities such as plays or confidence.

    Args:
        matrix: a SciPy matrix or array of any sparse format, (users, items). Users and items without a value are left
            out.
        users, items: the id of each row and of each column. Default: their numbers.
        name: of the data set.
        options: as for ``from_frame``; ``explicit=True`` where the values are ratings.

    Raises:
        DataError: it is no sparse matrix, the ids do not fit its shape, or as ``from_frame``.
    """
    if not sparse.issparse(matrix) or matrix.ndim != 2:
        raise DataError(f"{name}: a {type(matrix).__name__} is no sparse matrix: pass scipy.sparse.csr_array(...)")
    cells = sparse.coo_array(matrix)
    columns = {}
    for column, given, place, size in zip(
        ("user_id", "item_id"), (users, items), (cells.row, cells.col), cells.shape, strict=True
    ):
        ids = pl.Series(column, np.arange(size) if given is None else given)
        if len(ids) != size:
            raise DataError(f"{name}: {len(ids):,} ids of {column} for a matrix of {size:,}: give one for each")
        columns[column] = ids[pl.Series(place.astype(np.uint32))]
    value = "rating" if options.get("explicit") else "weight"
    frame = pl.DataFrame({**columns, value: cells.data.astype(np.float64)})
    settings: dict[str, Any] = {**options, value: value}
    return from_frame(frame, name=name, **settings)


def to_csr(dataset: Dataset) -> sparse.csr_array:
    """The rows as a sparse matrix (users, items) of their weights, float32; several rows of one pair are added.

    Row and column numbers are those of ``dataset.users`` and ``dataset.items``.
    """
    rows = dataset.interactions
    shape = (dataset.n_users, dataset.n_items)
    return sparse.csr_array((rows.weight, (rows.user, rows.item)), shape=shape, dtype=np.float32)


def to_rectools(dataset: Dataset) -> Any:
    """The rows as a pandas dataframe for ``Dataset.construct`` of RecTools: user_id, item_id, weight, datetime.

    RecTools demands a datetime: it is 1970-01-01 where the rows have no times.

    Raises:
        DataError: pandas is not installed.
    """
    rows = dataset.interactions
    time = np.zeros(len(rows)) if rows.time is None else rows.time
    frame = pl.DataFrame(
        {
            "user_id": dataset.users.ids.gather(rows.user),
            "item_id": dataset.items.ids.gather(rows.item),
            "weight": rows.weight,
            "datetime": pl.from_epoch(pl.Series((time * 1e6).astype(np.int64)), time_unit="us"),
        }
    )
    try:
        return frame.to_pandas()
    except ModuleNotFoundError as error:
        raise DataError(f"RecTools takes pandas tables, which need {error.name}: pip install {error.name}") from None
