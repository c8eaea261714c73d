"""Items that come after training, ranked by their features.

Shape legend: N new items.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from palate.base import AddsItems, Vectors
from palate.data.columns import listed
from palate.data.ids import IdMap
from palate.errors import DataError, ModelError
from palate.recommend.request import typed
from palate.recommend.state import State

S = TypeVar("S", bound=State)


def with_items(state: S, table: pl.DataFrame) -> S:
    """A state whose catalog also holds these items, ranked by their features; the old one is unchanged.

    Args:
        state: its model must have an item tower.
        table: one row per new item: a column item_id, or else the first, the features that the model reads, and
            perhaps a title. Lists may be written as text with | between the values.

    Raises:
        DataError: an id is null, duplicated or in the catalog already, or a feature is missing or does not fit.
        ModelError: the model cannot rank an item by its features.
    """
    if not isinstance(state.model, AddsItems):
        raise ModelError(
            f"{type(state.model).__name__} has no item tower, so it cannot rank items without training rows: "
            "use the recipe feature-ials, or two-tower with item_features=['*']"
        )
    key = "item_id" if "item_id" in table.columns else table.columns[0]
    items, order = _appended(state.items, table[key])
    table = table[order]
    old = state.item_features
    assert old is not None, "a model that reads item features was trained on a table of them"
    new = pl.DataFrame([typed(name, table[name], old[name].dtype) for name in old.columns if name in table.columns])
    model = state.model.with_items(new)
    index = state.index
    if index is not None and isinstance(model, Vectors):
        with torch.no_grad():
            index = index.add(model.item_vectors()[len(state.items) :])
    titles = state.titles
    if titles is not None:
        names = table["title"] if "title" in table.columns else pl.Series([None] * len(table), dtype=pl.String)
        called = names.cast(pl.String).fill_null(items.ids[len(state.items) :].cast(pl.String))
        titles = pl.concat([titles, called.rename(titles.name)])
    return replace(
        state,
        model=model,
        items=items,
        popularity=np.concatenate([state.popularity, np.zeros(len(table), np.float32)]),
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
