"""Ranks and lists from scores, with one stated tie rule.

Shape legend: B users, C candidates, I items, N (user, relevant item) pairs, K list length.

Tie rule: a relevant item is placed behind every other candidate with the same score, so ties count against the
model and a model that scores everything alike scores 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TIE_RULE", "candidate_ranks", "pair_ranks", "top_k"]

TIE_RULE = "ties count against the model"

# (user, item) comparisons held at once by pair_ranks: bounds its memory to about 100 MB.
PAIR_CELLS = 20_000_000


def top_k(scores_BI: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row: (values (B, k), columns (B, k)), best first, equal scores by lower column.

    ``torch.topk`` leaves the order of equal scores open. Here the score's bits, made monotone, and the column share one
    64-bit key, so the answer is a function of the row alone. Cut to the number of columns where k is larger.
    """
    columns = scores_BI.shape[1]
    bits = scores_BI.to(torch.float32).add(0.0).contiguous().view(torch.int32)  # add: -0.0 becomes 0.0
    monotone = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    position = torch.arange(columns - 1, -1, -1, device=scores_BI.device)
    key = (monotone << 32) | position
    best = key.topk(min(k, columns), dim=1).values
    index = (columns - 1) - (best & 0xFFFFFFFF)
    return scores_BI.gather(1, index), index


def candidate_ranks(positive_BP: Tensor, negative_BC: Tensor, duplicate_BC: Tensor | None = None) -> Tensor:
    """Rank (from 1) of each positive among the negatives of its user, ties against it: (B, P).

    Args:
        positive_BP: scores of the relevant items; NaN marks padding and ranks infinitely far down.
        negative_BC: scores of the other candidates.
        duplicate_BC: bool, candidates to leave out (the user's own relevant item listed among the negatives).

    Other relevant items of the same user count as competitors only where they score strictly higher.
    """
    beaten = negative_BC.unsqueeze(1) >= positive_BP.unsqueeze(2)
    if duplicate_BC is not None:
        beaten &= ~duplicate_BC.unsqueeze(1)
    rank = 1 + beaten.sum(2) + _ahead_among_relevant(positive_BP)
    return torch.where(positive_BP.isnan(), torch.inf, rank.to(torch.float32))


def pair_ranks(scores_BI: Tensor, row_N: Tensor, item_N: Tensor) -> Tensor:
    """Rank (from 1) of each relevant item among all columns of its row, ties against it: (N,) float32.

    Args:
        scores_BI: scores, -inf where an item is not a candidate.
        row_N: rows of ``scores_BI``, ascending.
        item_N: the relevant items. One that is itself not a candidate (-inf) gets rank infinity.

    Two relevant items of the same user with equal scores are ordered by column.
    """
    own_N = scores_BI[row_N, item_N]
    rank_N = torch.empty(len(row_N), dtype=torch.float32, device=scores_BI.device)
    step = max(1, PAIR_CELLS // scores_BI.shape[1])
    for start in range(0, len(row_N), step):
        part = slice(start, start + step)
        rank_N[part] = (scores_BI[row_N[part]] >= own_N[part, None]).sum(1).to(torch.float32)
    # The comparison above counted the item itself and the user's other relevant items that tie with it. Take back those
    # ties that come later by column: equal relevant items share the same group of worst places.
    rank_N -= _later_relevant_ties(row_N, item_N, own_N)
    return torch.where(own_N == -torch.inf, torch.inf, rank_N)


def _later_relevant_ties(row_N: Tensor, item_N: Tensor, own_N: Tensor) -> Tensor:
    """For each pair, how many relevant items of the same row have the same score and a higher column."""
    order = torch.argsort(item_N, stable=True)
    order = order[torch.argsort(own_N[order], stable=True)]
    order = order[torch.argsort(row_N[order], stable=True)]
    row, own = row_N[order], own_N[order]
    new = torch.ones_like(row, dtype=torch.bool)
    new[1:] = (row[1:] != row[:-1]) | (own[1:] != own[:-1])
    group = new.cumsum(0) - 1
    size = torch.bincount(group)[group] if len(group) else group
    first = torch.nonzero(new).squeeze(1)[group] if len(group) else group
    later = size - 1 - (torch.arange(len(row), device=row.device) - first)
    result = torch.empty_like(own_N)
    result[order] = later.to(own_N.dtype)
    return result


def _ahead_among_relevant(positive_BP: Tensor) -> Tensor:
    higher = positive_BP.unsqueeze(1) > positive_BP.unsqueeze(2)
    column = torch.arange(positive_BP.shape[1], device=positive_BP.device)
    earlier_tie = (positive_BP.unsqueeze(1) == positive_BP.unsqueeze(2)) & (column[None, :] < column[:, None])
    return (higher | earlier_tie).sum(2)
