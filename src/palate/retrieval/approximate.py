"""Approximate: codes nominate candidates, the vectors score them, and whoever stays short is answered exactly.

    nominated rows (spare (k + hidden) of them) -> q . v of each -> hidden ones out -> the k best

``Exact`` answers where nominating would not pay: a mask that allows few items, or lists that are a good part of the
catalog. A mask that allows a share s is searched with 1 / s of the effort, so about as many allowed items
are looked at as when the effort was tuned.

Shape legend: B queries, D width, I items, N new items, F nominated, K list length.
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
from palate.retrieval.base import About, Found, Hidden, check_allowed, hidden, vectors_of
from palate.retrieval.exact import Exact
from palate.retrieval.faiss_index import EFFORT, Codes

__all__ = ["Approximate"]

SPARE = 1.5  # nominated per wanted where codes have 8 bits: they order neighbors a little differently than the vectors
SPARES = (1.5, 2.0, 3.0, 4.0, 6.0)  # tried where they have 4
LEAST = 20  # nominated: the best one or two may be third in the order of their codes
FEW = 0.02  # a mask that allows a smaller share is answered exactly, from the allowed items alone
MANY = 16  # lists longer than a 16th of the catalog are answered exactly
CELLS = 32_000_000  # numbers gathered at once: bounds the memory to about 130 MB


@dataclass(frozen=True, eq=False)
class Approximate:
    """FAISS nominates, exact scores order.

    Args:
        exact: the items' vectors, and the answer where nominating does not pay.
        codes: the same items, compressed.
        about: how it was built; ``about.parameters`` holds the effort of a search, and what is nominated per wanted.
    """

    exact: Exact
    codes: Codes
    about: About

    @property
    def vectors(self) -> Tensor:
        """The items' vectors (I, D) float32."""
        return self.exact.vectors

    def __len__(self) -> int:
        return len(self.exact)

    def search(
        self, query_BD: Tensor, k: int, *, exclude: History | None = None, allowed_I: Tensor | None = None
    ) -> Found:
        """The k best items of each query: see ``Index``."""
        query_BD = vectors_of(query_BD, self.vectors.shape[1], "queries").to(self.vectors.device)
        check_allowed(allowed_I, len(self))
        k, hide = min(k, len(self)), hidden(exclude, len(query_BD), len(self))
        if allowed_I is None and len(query_BD) == 1:
            return self._one(query_BD, k, hide)
        wanted_B = _wanted(k, len(query_BD), hide, allowed_I, len(self))
        allowed = len(self) if allowed_I is None else int(allowed_I.sum())
        if allowed < FEW * len(self):
            return self.exact.among(query_BD, k, hide, allowed_I)
        size_B = np.maximum(LEAST, self._spare * (k + np.bincount(hide.query, minlength=len(query_BD))))
        found = _empty(len(query_BD), k, query_BD.device)
        for rows, size in _batches(size_B, len(self) // MANY, self.vectors.shape[1]):
            part = torch.from_numpy(rows).to(query_BD.device)
            effort = self._effort(size, len(self) / max(1, allowed))
            nominated = self.codes.nominate(query_BD[part], size, effort, allowed_I)
            found.values[part], found.items[part] = self._scored(query_BD[part], nominated, k, _only(hide, rows))
        values, items = found
        short = np.flatnonzero((values > -torch.inf).sum(1).cpu().numpy() < wanted_B)
        if len(short):
            part = torch.from_numpy(short).to(query_BD.device)
            values[part], items[part] = self.exact.among(query_BD[part], k, _only(hide, short), allowed_I)
        return Found(values, items)

    def add(self, vectors_ND: Tensor) -> Approximate:
        """An index that also holds N new items: see ``Index``."""
        exact = self.exact.add(vectors_ND)
        return Approximate(exact, self.codes.add(exact.vectors[len(self) :]), self.about)

    @property
    def _spare(self) -> float:
        """How many are nominated for each that is wanted or hidden; older indexes do not say."""
        return self.about.parameters.get("spare", SPARE)

    def _effort(self, size: int, wider: float = 1.0) -> int:
        """Of a search for ``size`` nominated rows: more than was tuned for where more are wanted or some are barred."""
        longer: float = max(1.0, math.sqrt(size / max(LEAST, self._spare * self.about.k)))
        return round(self.about.parameters[EFFORT[self.codes.kind]] * longer * wider)

    def _one(self, query_1D: Tensor, k: int, hide: Hidden) -> Found:
        """``search`` of one query without a mask, which must be quick: as little as possible besides the codes."""
        size = math.ceil(max(LEAST, self._spare * (k + len(hide.item))))
        if size <= len(self) // MANY:
            nominated_F = self.codes.nominate(query_1D, size, self._effort(size))[0]
            nominated_F.sort()  # equal scores then go by lower row, empty places come first
            nominated_F = nominated_F[nominated_F.searchsorted(0) :]
            if len(hide.item):
                nominated_F = np.setdiff1d(nominated_F, hide.item, assume_unique=True)
            if len(nominated_F) >= k:
                items_F = torch.from_numpy(nominated_F).to(query_1D.device)
                score_F = torch.mv(self.vectors.index_select(0, items_F), query_1D[0]).cpu().numpy()
                # A full stable sort of so few is quicker than the best k with their ties put in order.
                place_K = (-score_F).argsort(kind="stable")[:k]
                best = (torch.from_numpy(part[place_K][None]) for part in (score_F, nominated_F))
                return Found(*(part.to(query_1D.device) for part in best))
        return self.exact.among(query_1D, k, hide, None)

    def _scored(self, query_RD: Tensor, nominated_RF: NDArray[np.int64], k: int, hide: Hidden) -> Found:
        """The k best of the nominated rows that are not hidden."""
        nominated_RF.sort(axis=1)
        items_RF = torch.from_numpy(nominated_RF).to(query_RD.device)
        rows = self.vectors.index_select(0, items_RF.clamp(min=0).view(-1))
        score_RF = torch.bmm(rows.view(*items_RF.shape, -1), query_RD[:, :, None]).squeeze(2)
        gone_RF = items_RF < 0
        if len(hide.item):
            row_R = torch.arange(len(query_RD), device=items_RF.device)[:, None]
            pair_H = torch.from_numpy(hide.query * len(self) + hide.item).to(items_RF.device)
            gone_RF |= torch.isin(row_R * len(self) + items_RF, pair_H)
        score_RF[gone_RF] = -torch.inf
        values, place = score_RF.sort(dim=1, descending=True, stable=True)
        values, items = values[:, :k], items_RF.gather(1, place[:, :k])
        return Found(values, torch.where(values > -torch.inf, items, -1))


def _empty(queries: int, k: int, device: torch.device) -> Found:
    values = torch.full((queries, k), -torch.inf, device=device)
    return Found(values, torch.full((queries, k), -1, dtype=torch.int64, device=device))


def _batches(size_B: NDArray[np.float64], most: int, dim: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """(rows (R,), nominated) of queries that are nominated together, without those that want more than ``most``."""
    least = size_B.min(initial=np.inf)
    bucket_B = np.ceil(np.log2(size_B / least)).astype(int)
    for bucket in np.unique(bucket_B):
        size = math.ceil(least * 2.0**bucket)
        if size > most:
            return
        rows, step = np.flatnonzero(bucket_B == bucket), max(1, CELLS // (size * dim))
        for start in range(0, len(rows), step):
            yield rows[start : start + step], size


def _wanted(k: int, queries: int, hide: Hidden, allowed_I: Tensor | None, items: int) -> NDArray[np.int64]:
    """How many items each list must hold, (B,): k, or all that are left."""
    if allowed_I is None:
        left_B = items - np.bincount(hide.query, minlength=queries)
    else:
        within = allowed_I.cpu().numpy()[hide.item]
        left_B = int(allowed_I.sum()) - np.bincount(hide.query[within], minlength=queries)
    return np.minimum(k, left_B)


def _only(hide: Hidden, rows: NDArray[np.int64]) -> Hidden:
    """The pairs of some (ascending) queries, numbered by their place among these."""
    if not len(hide.query):
        return hide
    place = np.searchsorted(rows, hide.query).clip(max=len(rows) - 1)
    kept = rows[place] == hide.query
    return Hidden(place[kept], hide.item[kept])
