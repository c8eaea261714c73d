"""Exact: the scores of all items, and the best of them.

    score(b, i) = q_b . v_i

Shape legend: B queries, D width, I items, J items that are allowed, N new items, K list length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from palate.data.dataset import History
from palate.retrieval.base import About, Found, Hidden, check_allowed, hidden, vectors_of
from palate.top_k import top_k

__all__ = ["Exact"]

CELLS = 32_000_000  # scores held at once: bounds the memory to about 130 MB
# A mask that allows a smaller share of the items than this is answered from a copy of their vectors.
GATHERED_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Exact:
    """Every item is looked at.

    Args:
        vectors: (I, D) float32, on any device; see ``Exact.of``.
        about: the same for all of its kind.
    """

    vectors: Tensor
    about: About = field(repr=False)

    @classmethod
    def of(cls, vectors_ID: Tensor) -> Exact:
        """The index of items' vectors, which are not copied if they are contiguous float32.

        Raises:
            ModelError: they are no table, or not numbers.
        """
        rows = vectors_of(vectors_ID, None, "item vectors")
        return cls(rows, About("exact", *rows.shape))

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, query_BD: Tensor, k: int, *, exclude: History | None = None, allowed_I: Tensor | None = None
    ) -> Found:
        """The k best items of each query: see ``Index``."""
        query_BD = vectors_of(query_BD, self.vectors.shape[1], "queries").to(self.vectors.device)
        check_allowed(allowed_I, len(self))
        hide = hidden(exclude, len(query_BD), len(self))
        return self.among(query_BD, min(k, len(self)), hide, allowed_I)

    def among(self, query_BD: Tensor, k: int, hide: Hidden, allowed_I: Tensor | None) -> Found:
        """``search`` of checked queries, k at most I, with the hidden pairs already at hand."""
        device = self.vectors.device
        rows, column_J, barred_I = self.vectors, None, None
        allowed_I = None if allowed_I is None else allowed_I.to(device)
        if allowed_I is not None and int(allowed_I.sum()) < GATHERED_SHARE * len(self):
            column_J = allowed_I.nonzero().squeeze(1)
            rows = rows[column_J]
        elif allowed_I is not None:
            barred_I = torch.zeros(len(self), device=device).masked_fill_(~allowed_I, -torch.inf)
        query_H, item_H = (torch.from_numpy(part).to(device) for part in hide)
        if column_J is not None:
            place = torch.searchsorted(column_J, item_H).clamp(max=max(0, len(column_J) - 1))
            kept = column_J[place] == item_H if len(column_J) else torch.zeros_like(item_H, dtype=torch.bool)
            query_H, item_H = query_H[kept], place[kept]
        values = torch.full((len(query_BD), k), -torch.inf, device=device)
        items = torch.full((len(query_BD), k), -1, dtype=torch.int64, device=device)
        step, width = max(1, CELLS // max(1, len(rows))), min(k, len(rows))
        for start in range(0, len(query_BD) if width else 0, step):
            part = query_BD[start : start + step]
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
        return Found(values, items)

    def add(self, vectors_ND: Tensor) -> Exact:
        """An index that also holds N new items: see ``Index``."""
        new = vectors_of(vectors_ND, self.vectors.shape[1], "new vectors").to(self.vectors.device)
        return Exact(torch.cat([self.vectors, new]), self.about)
