"""People and items that come after training, known by their features: the tables that a model of features reads.

Shape legend: B users asked for, N new items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from palate.data.columns import listed
from palate.data.ids import IdMap
from palate.errors import DataError, ModelError

if TYPE_CHECKING:
    from palate.recommend.recommender import Recommender

__all__ = ["UserFeatures", "features_of", "with_items"]

UserFeatures = Mapping[Any, Mapping[str, Any]]
"""Per asked user, a value by name of feature."""

LIST_SEPARATOR = "|"


def features_of(
    table: pl.DataFrame | None, asked: pl.Series, rows: NDArray[np.integer[Any]], told: UserFeatures | None
) -> pl.DataFrame | None:
    """One row of features per asked user (B): what is told about them before what the table says; None without any.

    Args:
        table: one row per known user, or None.
        asked: ids (B,).
        rows: their row numbers in the table (B,), -1 where they are not in it.
        told: values by name, for some of them.

    Raises:
        DataError: a name is no feature of the table, a value does not fit, or somebody is not asked for.
    """
    if told:
        _check(told, asked, [] if table is None else table.columns)
    if table is None:
        return None
    index = pl.Series(rows, dtype=pl.Int64)
    known = table.select(pl.all().gather(index.set(index < 0, None)))
    if not told:
        return known
    by_name = {str(user): values for user, values in told.items()}
    per_user = [by_name.get(name, {}) for name in asked.cast(pl.String)]
    columns = dict.fromkeys(name for values in per_user for name in values)
    new = (_typed(name, [values.get(name) for values in per_user], known[name].dtype) for name in columns)
    return known.with_columns(pl.coalesce(column, pl.col(column.name)).alias(column.name) for column in new)


def with_items(recommender: Recommender, table: pl.DataFrame) -> Recommender:
    """A recommender whose catalog holds these items too, ranked by their features; the old one stays as it is.

    Args:
        recommender: its model must have an item tower.
        table: one row per new item: a column item_id, or else the first, the features that the model reads, and
            perhaps a title. Lists may be written as text with | between the values.

    Raises:
        DataError: an id is null, there twice or in the catalog already, or a feature is missing or does not fit.
        ModelError: the model cannot rank an item by its features.
    """
    grow = getattr(recommender.model, "with_items", None)
    if grow is None:
        raise ModelError(
            f"{type(recommender.model).__name__} has no item tower, so it cannot rank items without training rows: "
            "use the recipe two-tower with item_features=['*']"
        )
    key = "item_id" if "item_id" in table.columns else table.columns[0]
    items, order = _appended(recommender.items, table[key])
    table = table[order]
    old = recommender.item_features
    assert old is not None, "a model that reads item features was trained on a table of them"
    new = pl.DataFrame([_typed(name, table[name], old[name].dtype) for name in old.columns if name in table.columns])
    model = grow(new)
    index = recommender.index
    if index is not None:
        with torch.no_grad():
            index = index.add(model.item_vectors()[len(recommender.items) :])
    titles = recommender.titles
    if titles is not None:
        names = table["title"] if "title" in table.columns else pl.Series([None] * len(table), dtype=pl.String)
        called = names.cast(pl.String).fill_null(items.ids[len(recommender.items) :].cast(pl.String))
        titles = pl.concat([titles, called.rename(titles.name)])
    return replace(
        recommender,
        model=model,
        items=items,
        popularity=np.concatenate([recommender.popularity, np.zeros(len(table), np.float32)]),
        titles=titles,
        item_features=pl.concat([old, new], how="diagonal"),
        index=index,
    )


def _appended(items: IdMap, ids: pl.Series) -> tuple[IdMap, NDArray[np.int32]]:
    """The map with the new ids behind the old ones, and the order that puts the table's rows into that of the map."""
    given = ids.cast(items.ids.dtype, strict=False)
    if given.null_count():
        raise DataError(f"{given.null_count()} of {len(ids):,} new items have no usable id in {ids.name!r}: give one")
    twice = given.filter(given.is_duplicated()).unique(maintain_order=True)
    if len(twice):
        raise DataError(f"new items {listed(twice.head(3).to_list())} are there more than once: keep one row each")
    old = given.filter(items.rows(given) >= 0)
    if len(old):
        raise DataError(f"items {listed(old.head(3).to_list())} are in the catalog already: leave them out")
    every = items.extend(given)
    return every, IdMap(given).rows(every.ids[len(items) :])


def _check(told: UserFeatures, asked: pl.Series, columns: list[str]) -> None:
    others = {str(user) for user in told} - set(asked.cast(pl.String))
    if others:
        raise DataError(f"features name user {sorted(others)[0]!r}, who is not asked for: add the id to users")
    for name in (name for values in told.values() for name in values):
        if name not in columns:
            raise DataError(f"no user feature {name!r}: the user features are {', '.join(columns) or 'none'}")


def _typed(name: str, values: pl.Series | list[Any], dtype: pl.DataType) -> pl.Series:
    """Values as a column of the type that training had; a text becomes a list at each |."""
    try:
        column = pl.Series(name, values, strict=True)
        if isinstance(dtype, pl.List) and column.dtype == pl.String:
            column = column.str.split(LIST_SEPARATOR)
        return column.cast(dtype)
    except (pl.exceptions.PolarsError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"values of feature {name!r} are no {dtype} ({reason}): write them as in training") from None
