"""The protocol of every index: the search call, its result, the measured quality, and the items a request excludes.

Shape legend: B queries, D width of a vector, I items, N new items, K list length, H excluded (query, item) pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import History
from palate.errors import ModelError


class SearchResult(NamedTuple):
    """Best first, equal scores by lower row: values (B, K) float32 and items (B, K) int64; -inf and -1 if empty."""

    values: Tensor
    items: Tensor


@dataclass(frozen=True)
class IndexInfo:
    """Parameters of an index and its measured recall.

    Args:
        kind: "exact", "ivf" or "hnsw".
        items: number of items it was built over; items added later are not counted.
        dim: width of a vector.
        parameters: of the kind, tuned ones included: nlist, nprobe; M, efConstruction, efSearch, max_norm;
            oversampling.
        recall: mean share of the exact best k that was found, over queries that were not used for tuning.
        k, queries: list length and number of queries of this measurement.
        target_recall: the recall to tune for.
        build_seconds: time to build, measurement included.
    """

    kind: str
    items: int
    dim: int
    parameters: dict[str, float] = field(default_factory=dict)
    recall: float = 1.0
    k: int = 0
    queries: int = 0
    target_recall: float = 1.0
    build_seconds: float = 0.0


class Index(Protocol):
    """Items that can be searched by dot product. An index never changes, so threads may share one."""

    @property
    def info(self) -> IndexInfo:
        """Parameters and measured recall."""

    @property
    def vectors(self) -> Tensor:
        """The items' vectors (I, D) float32."""

    def __len__(self) -> int: ...

    def search(
        self, query_BD: Tensor, k: int, *, exclude: History | None = None, allowed_I: Tensor | None = None
    ) -> SearchResult:
        """The k best items of each query, K being k or, where there are fewer, the number of items.

        Args:
            query_BD: float vectors, on any device; the result is on the device of the items' vectors.
            k: list length.
            exclude: a (perhaps empty) history per query: items not to return. Rows beyond the last item are ignored.
            allowed_I: bool per item, those that may be returned. Default: all.

        Raises:
            ModelError: shapes do not fit, or a query is not a number.
        """

    def add(self, vectors_ND: Tensor) -> Index:
        """An index that also holds N new items, in the rows behind the last; this one does not change.

        Nothing is trained again. The vectors are copied, so add many at once rather than one by one.

        Raises:
            ModelError: the width differs, or a vector is not a number.
        """


class ExcludedPairs(NamedTuple):
    """Pairs that must not be returned, each once, sorted by query: query (H,) and item (H,) int64."""

    query: NDArray[np.int64]
    item: NDArray[np.int64]

    @classmethod
    def of(cls, exclude: History | None, queries: int, items: int) -> ExcludedPairs:
        """The pairs of a history that name an item of the index.

        Raises:
            ModelError: the history does not have one entry per query.
        """
        if exclude is None:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        if len(exclude) != queries:
            raise ModelError(f"{queries} queries but {len(exclude)} histories to exclude: give one per query")
        query = np.repeat(np.arange(queries, dtype=np.int64), exclude.counts)
        inside = (exclude.items >= 0) & (exclude.items < items)
        return cls(*np.divmod(np.unique(query[inside] * items + exclude.items[inside]), items))

    def of_queries(self, rows: NDArray[np.int64]) -> ExcludedPairs:
        """The pairs of some (ascending) queries, numbered by their position among these."""
        if not len(self.query):
            return self
        place = np.searchsorted(rows, self.query).clip(max=len(rows) - 1)
        kept = rows[place] == self.query
        return ExcludedPairs(place[kept], self.item[kept])


def as_vectors(values: Tensor, dim: int | None, name: str) -> Tensor:
    """Rows as contiguous float32 without gradients.

    Raises:
        ModelError: it is not a table of ``dim`` columns, or holds a number that is not finite.
    """
    if values.ndim != 2 or dim not in (None, values.shape[1]) or not values.shape[1]:
        wanted = "(rows, width)" if dim is None else f"(rows, {dim})"
        raise ModelError(f"{name} have shape {tuple(values.shape)}: give {wanted}")
    rows = values.detach().to(torch.float32).contiguous()
    # A finite sum proves all finite; only where it is not (it may overflow), each number is looked at.
    if not math.isfinite(float(rows.sum())) and not bool(torch.isfinite(rows).all()):
        raise ModelError(f"{name} hold NaN or infinity: train the model again with a lower learning rate")
    return rows


def check_allowed(allowed_I: Tensor | None, items: int) -> None:
    """Raises ModelError for a mask that is not one bool per item."""
    if allowed_I is not None and (allowed_I.shape != (items,) or allowed_I.dtype != torch.bool):
        raise ModelError(
            f"allowed_I is {allowed_I.dtype} of shape {tuple(allowed_I.shape)} but the index holds {items:,} items: "
            "give one bool per item"
        )
