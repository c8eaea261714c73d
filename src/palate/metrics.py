"""Ranking metrics as pure functions of where the relevant items stand: (B, K) -> (B,).

Shape legend: B users, K places of a list. ``hits_BK`` is True where the item at that place is relevant (place 0 is the
top); ``relevant_B`` counts all relevant items of the user, found or not (at least 1).

Sources: Järvelin & Kekäläinen 2002 (NDCG); Voorhees 1999 (MRR); Manning et al. 2008, ch. 8 (precision, recall, MAP);
Vargas & Castells 2011 (novelty as self-information).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["METRICS", "average_precision", "hit_rate", "ndcg", "novelty", "precision", "recall", "reciprocal_rank"]


def hit_rate(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """1 if any of the K places holds a relevant item."""
    return hits_BK.any(1).to(torch.float64)


def ndcg(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Sum of 1 / log2(place + 1) over hits, divided by its best possible value, min(K, relevant) hits at the top."""
    discount_K = 1 / torch.log2(torch.arange(2, hits_BK.shape[1] + 2, dtype=torch.float64, device=hits_BK.device))
    gain_B = (hits_BK * discount_K).sum(1)
    ideal_K = discount_K.cumsum(0)
    return gain_B / ideal_K[relevant_B.clamp(max=hits_BK.shape[1]) - 1]


def recall(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Share of the user's relevant items that are in the list."""
    return hits_BK.sum(1).to(torch.float64) / relevant_B


def precision(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Share of the K places that hold a relevant item."""
    return hits_BK.sum(1).to(torch.float64) / hits_BK.shape[1]


def reciprocal_rank(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """1 / place of the first relevant item, 0 if none is in the list."""
    place_B = hits_BK.to(torch.int8).argmax(1) + 1
    return torch.where(hits_BK.any(1), 1 / place_B.to(torch.float64), 0.0)


def average_precision(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """Sum of the precision at each hit, divided by min(K, relevant)."""
    place_K = torch.arange(1, hits_BK.shape[1] + 1, dtype=torch.float64, device=hits_BK.device)
    precision_BK = hits_BK.to(torch.float64).cumsum(1) / place_K
    return (precision_BK * hits_BK).sum(1) / relevant_B.clamp(max=hits_BK.shape[1])


def novelty(list_BK: Tensor, information_I: Tensor) -> Tensor:
    """Mean self-information, in bits, of the items in each list; places holding -1 are empty.

    Args:
        list_BK: item rows.
        information_I: -log2 of the share of training users who touched each item.
    """
    filled = list_BK >= 0
    bits_BK = torch.where(filled, information_I[list_BK.clamp(min=0)], 0.0)
    return bits_BK.sum(1) / filled.sum(1).clamp(min=1)


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "HitRate": hit_rate,
    "NDCG": ndcg,
    "Recall": recall,
    "Precision": precision,
    "MRR": reciprocal_rank,
    "MAP": average_precision,
}
