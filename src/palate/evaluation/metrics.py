"""Ranking metrics as pure functions of where the relevant items stand: (B, K) -> (B, K), the value at each cut-off.

    ndcg(hits_BK, relevant_B)[:, 9]      # NDCG@10 of each user

Shape legend: B users, K places of a list. ``hits_BK`` is True where the item at that place is relevant (place 0 is the
top); ``relevant_B`` counts all relevant items of the user, found or not (at least 1). Column k - 1 of a result is the
value of the list's first k places, so that several k cost no more than the longest.

Sources: Järvelin & Kekäläinen 2002 (NDCG); Voorhees 1999 (MRR); Manning et al. 2008, ch. 8 (precision, recall, MAP).
Metrics of the listed items themselves, relevant or not, are in ``palate.evaluation.beyond_accuracy``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def hit_rate(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """1 if any of the first k places holds a relevant item."""
    return (hits_BK.cumsum(1) > 0).to(torch.float64)


def ndcg(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Sum of 1 / log2(place + 1) over hits, divided by its best possible value, min(k, relevant) hits at the top."""
    discount_K = 1 / torch.log2(_places(hits_BK) + 1)
    # The best list has its hits at the top: its value is a partial sum of the discounts.
    return (hits_BK * discount_K).cumsum(1) / discount_K.cumsum(0)[_best_hits(hits_BK, relevant_B) - 1]


def recall(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Share of the user's relevant items that are in the list."""
    return hits_BK.cumsum(1, dtype=torch.float64) / relevant_B[:, None]


def precision(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Share of the first k places that hold a relevant item."""
    return hits_BK.cumsum(1, dtype=torch.float64) / _places(hits_BK)


def reciprocal_rank(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """1 / place of the first relevant item, 0 if none is in the list."""
    # 1 / place falls, so that the running maximum keeps the first hit.
    return (hits_BK / _places(hits_BK)).cummax(1).values


def average_precision(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Sum of the precision at each hit, divided by min(k, relevant)."""
    return (precision(hits_BK, relevant_B) * hits_BK).cumsum(1) / _best_hits(hits_BK, relevant_B)


def at_length(metric: str, value_BK: Tensor, k: int) -> Tensor:
    """The column of a metric for lists of length k, (B,).

    No list is longer than the catalog, so K columns are enough for any k: behind the last item no metric changes, but
    for the precision, which divides by k.
    """
    width = value_BK.shape[1]
    if k <= width:
        return value_BK[:, k - 1]
    return value_BK[:, -1] * (width / k) if metric == "Precision" else value_BK[:, -1]


def _places(hits_BK: Tensor) -> Tensor:
    """1 to K, (K,) float64."""
    return torch.arange(1, hits_BK.shape[1] + 1, dtype=torch.float64, device=hits_BK.device)


def _best_hits(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Hits that a perfect list of each length has, (B, K): min(k, relevant)."""
    length_K = torch.arange(1, hits_BK.shape[1] + 1, device=hits_BK.device)
    return torch.minimum(relevant_B[:, None], length_K)


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "HitRate": hit_rate,
    "NDCG": ndcg,
    "Recall": recall,
    "Precision": precision,
    "MRR": reciprocal_rank,
    "MAP": average_precision,
}
