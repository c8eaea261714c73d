"""Exact search: the scores of all items, and the best of them.

    score(b, i) = q_b . v_i

Shape legend: B queries, D width, I items, J items that are allowed, N new items, K list length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from palate.data.dataset import History
from palate.retrieval.index import ExcludedPairs, IndexInfo, SearchResult, as_vectors, check_allowed
from palate.top_k import top_k

# A mask that allows a smaller share of the items than this is answered from a copy of their vectors.
GATHERED_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Exact:
    """An index that scores every item.

    Args:
        vectors: (I, D) float32, on any device; see ``Exact.of``.
        info: the same for every exact index.
        max_scores: scores held at once. Default: 32 million, about 130 MB.
    """

    vectors: Tensor
    info: IndexInfo = field(repr=False)
    max_scores: int = 32_000_000

    @classmethod
    def of(cls, vectors_ID: Tensor) -> Exact:
        """The index of items' vectors, which are not copied if they are contiguous float32.

        Raises:
            ModelError: they are not a table, or not numbers.
        """
        rows = as_vectors(vectors_ID, None, "item vectors")
        return cls(rows, IndexInfo("exact", *rows.shape))

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, query_BD: Tensor, k: int, *, exclude: History | None = None, allowed_I: Tensor | None = None
    ) -> SearchResult:
        """The k best items of each query: see ``Index``."""
        query_BD = as_vectors(query_BD, self.vectors.shape[1], "queries").to(self.vectors.device)
        check_allowed(allowed_I, len(self))
        excluded = ExcludedPairs.of(exclude, len(query_BD), len(self))
        return self.search_checked(query_BD, min(k, len(self)), excluded, allowed_I)

    def search_checked(
        self, query_BD: Tensor, k: int, excluded: ExcludedPairs, allowed_I: Tensor | None
    ) -> SearchResult:
        """``search`` of checked queries, with k at most I."""
        device = self.vectors.device
        rows, column_J, barred_I = self.vectors, None, None
        query_H, item_H = (torch.from_numpy(part).to(device) for part in excluded)
        allowed_I = None if allowed_I is None else allowed_I.to(device)
        if allowed_I is not None and int(allowed_I.sum()) < GATHERED_SHARE * len(self):
            column_J = allowed_I.nonzero().squeeze(1)
            rows = rows[column_J]
            # Excluded items by their place among the allowed ones; items that are not allowed are out anyway.
            place = torch.searchsorted(column_J, item_H).clamp(max=max(0, len(column_J) - 1))
            kept = column_J[place] == item_H if len(column_J) else torch.zeros_like(item_H, dtype=torch.bool)
            query_H, item_H = query_H[kept], place[kept]
        elif allowed_I is not None:
            barred_I = torch.zeros(len(self), device=device).masked_fill_(~allowed_I, -torch.inf)
        values = torch.full((len(query_BD), k), -torch.inf, device=device)
        items = torch.full((len(query_BD), k), -1, dtype=torch.int64, device=device)
        step, width = max(1, self.max_scores // max(1, len(rows))), min(k, len(rows))
        for start in range(0, len(query_BD) if width else 0, step):
            part = query_BD[start : start + step]
            # A matrix product of one row is up to twice as slow as the matrix-vector product.
            score_BJ = torch.mv(rows, part[0])[None] if len(part) == 1 else part @ rows.T
            if barred_I is not None:
                score_BJ += barred_I
            if len(query_H):
                first, last = torch.searchsorted(query_H, torch.tensor([start, start + step], device=device)).tolist()
                score_BJ[query_H[first:last] - start, item_H[first:last]] = -torch.inf
            value, column = top_k(score_BJ, width)
            column = column if column_J is None else column_J[column]
            values[start : start + step, :width] = value
            items[start : start + step, :width] = torch.where(value > -torch.inf, column, -1)
        return SearchResult(values, items)

    def add(self, vectors_ND: Tensor) -> Exact:
        """An index that also holds N new items: see ``Index``."""
        new = as_vectors(vectors_ND, self.vectors.shape[1], "new vectors").to(self.vectors.device)
        return Exact(torch.cat([self.vectors, new]), self.info, self.max_scores)
