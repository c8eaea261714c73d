"""Approximate search: codes find candidates, the vectors score them, and lists that stay short are answered exactly.

    candidates (oversampling (k + excluded) of them) -> q . v of each -> excluded ones out -> the k best

``Exact`` answers where candidates would not pay: a mask that allows few items, or lists that are a good part of the
catalog. A mask that allows a share s is searched with 1 / s of the effort, so about as many allowed items
are looked at as when the effort was tuned.

Shape legend: B queries, R queries of a part, D width, I items, N new items, F candidates, K list length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import History
from palate.retrieval.exact import Exact
from palate.retrieval.faiss_index import EFFORT, Codes
from palate.retrieval.index import ExcludedPairs, IndexInfo, SearchResult, as_vectors, check_allowed

OVERSAMPLING = 1.5  # candidates per wanted item with 8-bit codes: their order is a little off that of the vectors
OVERSAMPLINGS = (1.5, 2.0, 3.0, 4.0, 6.0)  # tried with 4-bit codes
MIN_CANDIDATES = 20  # the best one or two may be third in the order of their codes
EXACT_BELOW_SHARE = 0.02  # a mask that allows a smaller share is answered exactly, from the allowed items alone
EXACT_ABOVE_LENGTH = 16  # more candidates than a 16th of the catalog: answered exactly
GATHERED_NUMBERS = 32_000_000  # vector coordinates gathered at once: bounds the memory to about 130 MB


@dataclass(frozen=True, eq=False)
class Approximate:
    """An index in which FAISS finds candidates and exact scores order them.

    Args:
        exact: the items' vectors, and the search where candidates do not pay.
        codes: the same items, compressed.
        info: ``info.parameters`` holds the effort of a search and the oversampling.
    """

    exact: Exact
    codes: Codes
    info: IndexInfo

    @property
    def vectors(self) -> Tensor:
        """The items' vectors (I, D) float32."""
        return self.exact.vectors

    def __len__(self) -> int:
        return len(self.exact)

    def search(
        self, query_BD: Tensor, k: int, *, exclude: History | None = None, allowed_I: Tensor | None = None
    ) -> SearchResult:
        """The k best items of each query: see ``Index``."""
        query_BD = as_vectors(query_BD, self.vectors.shape[1], "queries").to(self.vectors.device)
        check_allowed(allowed_I, len(self))
        queries, items, k = len(query_BD), len(self), min(k, len(self))
        excluded = ExcludedPairs.of(exclude, queries, items)
        if allowed_I is None and queries == 1:
            return self._search_one(query_BD, k, excluded)
        allowed, counted = items, excluded.query
        if allowed_I is not None:
            allowed, counted = int(allowed_I.sum()), counted[allowed_I.cpu().numpy()[excluded.item]]
        if allowed < EXACT_BELOW_SHARE * items:
            return self.exact.search_checked(query_BD, k, excluded, allowed_I)
        values = torch.full((queries, k), -torch.inf, device=query_BD.device)
        found = SearchResult(values, torch.full((queries, k), -1, dtype=torch.int64, device=query_BD.device))
        excluded_B = np.bincount(excluded.query, minlength=queries)
        size_B = np.maximum(MIN_CANDIDATES, self._oversampling * (k + excluded_B))
        for rows, size in _parts(size_B, items // EXACT_ABOVE_LENGTH, self.vectors.shape[1]):
            part = torch.from_numpy(rows).to(query_BD.device)
            effort = self._effort(size, items / max(1, allowed))
            candidates = self.codes.candidates(query_BD[part], size, effort, allowed_I)
            found.values[part], found.items[part] = self._scored(
                query_BD[part], candidates, k, excluded.of_queries(rows)
            )
        # Lists must hold k items, or all that are left: those that codes left shorter are searched exactly.
        left_B = allowed - np.bincount(counted, minlength=queries)
        filled_B = (found.values > -torch.inf).sum(1).cpu().numpy()
        short = np.flatnonzero(filled_B < np.minimum(k, left_B))
        if len(short):
            part = torch.from_numpy(short).to(query_BD.device)
            exact = self.exact.search_checked(query_BD[part], k, excluded.of_queries(short), allowed_I)
            found.values[part], found.items[part] = exact
        return found

    def add(self, vectors_ND: Tensor) -> Approximate:
        """An index that also holds N new items: see ``Index``."""
        exact = self.exact.add(vectors_ND)
        return Approximate(exact, self.codes.add(exact.vectors[len(self) :]), self.info)

    @property
    def _oversampling(self) -> float:
        """Candidates for each item that is wanted or excluded; older indexes do not record it."""
        return self.info.parameters.get("oversampling", OVERSAMPLING)

    def _effort(self, size: int, wider: float = 1.0) -> int:
        """nprobe or efSearch for ``size`` candidates: above the tuned one where more are needed or a mask is set."""
        longer: float = max(1.0, math.sqrt(size / max(MIN_CANDIDATES, self._oversampling * self.info.k)))
        return round(self.info.parameters[EFFORT[self.codes.kind]] * longer * wider)

    def _search_one(self, query_1D: Tensor, k: int, excluded: ExcludedPairs) -> SearchResult:
        """``search`` of one query without a mask, as a server asks: as little work as possible besides the codes."""
        size = math.ceil(max(MIN_CANDIDATES, self._oversampling * (k + len(excluded.item))))
        if size <= len(self) // EXACT_ABOVE_LENGTH:
            row_F = self.codes.candidates(query_1D, size, self._effort(size))[0]
            row_F.sort()  # equal scores then go by lower row, empty places (-1) come first
            row_F = row_F[row_F.searchsorted(0) :]
            if len(excluded.item):
                row_F = np.setdiff1d(row_F, excluded.item, assume_unique=True)
            if len(row_F) >= k:
                items_F = torch.from_numpy(row_F).to(query_1D.device)
                score_F = torch.mv(self.vectors.index_select(0, items_F), query_1D[0]).cpu().numpy()
                # A full stable sort of so few is quicker than the best k with their ties put in order.
                place_K = (-score_F).argsort(kind="stable")[:k]
                best = (torch.from_numpy(part[place_K][None]) for part in (score_F, row_F))
                return SearchResult(*(part.to(query_1D.device) for part in best))
        return self.exact.search_checked(query_1D, k, excluded, None)

    def _scored(self, query_RD: Tensor, row_RF: NDArray[np.int64], k: int, excluded: ExcludedPairs) -> SearchResult:
        """The k best of the candidates that are not excluded."""
        row_RF.sort(axis=1)
        items_RF = torch.from_numpy(row_RF).to(query_RD.device)
        rows = self.vectors.index_select(0, items_RF.clamp(min=0).view(-1))
        score_RF = torch.bmm(rows.view(*items_RF.shape, -1), query_RD[:, :, None]).squeeze(2)
        gone_RF = items_RF < 0
        if len(excluded.item):
            row_R = torch.arange(len(query_RD), device=items_RF.device)[:, None]
            pair_H = torch.from_numpy(excluded.query * len(self) + excluded.item).to(items_RF.device)
            gone_RF |= torch.isin(row_R * len(self) + items_RF, pair_H)
        score_RF[gone_RF] = -torch.inf
        values, place = score_RF.sort(dim=1, descending=True, stable=True)
        values, items = values[:, :k], items_RF.gather(1, place[:, :k])
        return SearchResult(values, torch.where(values > -torch.inf, items, -1))


def _parts(size_B: NDArray[np.float64], most: int, dim: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """(rows (R,), candidates) of queries that are searched together, without those that need more than ``most``."""
    least = size_B.min(initial=np.inf)
    # By powers of two: one long history must not make every other query of the batch look as far.
    bucket_B = np.ceil(np.log2(size_B / least)).astype(int)
    for bucket in np.unique(bucket_B):
        size = math.ceil(least * 2.0**bucket)
        if size > most:
            return
        rows, step = np.flatnonzero(bucket_B == bucket), max(1, GATHERED_NUMBERS // (size * dim))
        for start in range(0, len(rows), step):
            yield rows[start : start + step], size
