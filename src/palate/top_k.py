"""Ranks and lists from scores, with one stated tie rule.

Shape legend: B users, C candidates, I items, N (user, relevant item) pairs, K list length.

Tie rule: a relevant item is placed behind every other candidate with the same score, so ties count against the
model and a model that scores everything alike scores 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TIE_RULE = "ties count against the model"

# (user, item) cells compared at once beside the scores: bounds the memory to about 20 MB, and stays near the cache.
PAIR_CELLS = 2_000_000
GROUPED_COLUMNS = 64
WIDE_ROW = 16_384  # columns from which a loop over rows is faster than torch.topk over the matrix, by 1.5 to 10 times


class Head(NamedTuple):
    """The first K places of each row: scores and columns (B, K), best first, equal scores by lower column.

    ``cut`` (B,) bool: the score of the last place stands beyond it too, so the list cuts through a tie.
    """

    values: Tensor
    columns: Tensor
    cut: Tensor


def top_k(scores_BI: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row: (values (B, k), columns (B, k)), best first, equal scores by lower column.

    ``torch.topk`` leaves the order of equal scores open; here the result is a function of the row alone. Scores are
    compared as float32. Cut to the number of columns where k is larger.
    """
    rows, columns = scores_BI.shape
    k = min(k, columns)
    # A server asks for one row: the fixed cost of a dozen torch calls would be twice that of the search.
    if k and rows and scores_BI.device.type == "cpu" and (rows == 1 or columns >= WIDE_ROW):
        single = scores_BI.dtype == torch.float32 and not scores_BI.requires_grad
        single_BI = (scores_BI if single else scores_BI.detach().to(torch.float32)).numpy()
        column_BK = np.empty((rows, k), np.int64)
        if all(_best_of_row(single_BI[row], k, column_BK[row]) for row in range(rows)):
            column = torch.from_numpy(column_BK)
            # Even the gather is done in NumPy where it can be: one call of torch is a fifth of the search of one row.
            if single:
                return torch.from_numpy(single_BI[np.arange(rows)[:, None], column_BK]), column
            return scores_BI.gather(1, column), column
    top = head(scores_BI, k)
    return top.values, top.columns


def _best_of_row(score_I: NDArray[np.float32], k: int, column_K: NDArray[np.int64]) -> bool:
    """Write the columns of the k best scores of one row to ``column_K``; False, without a result, if a score is NaN.

    One pass takes the maximum of every group of 64 columns. The k-th largest maximum is a lower bound of the k-th best
    score, because k different columns reach it, so only the few columns at or above it are sorted.
    """
    groups = len(score_I) // GROUPED_COLUMNS
    if groups < 2 * k:
        bound_G = score_I  # too few groups for a tight bound
    else:
        # Group g holds the columns g, g + groups, ...: maxima of whole rows of memory are vectorized, those of 64
        # neighbors are not (three times as slow).
        whole = groups * GROUPED_COLUMNS
        bound_G = score_I[:whole].reshape(GROUPED_COLUMNS, groups).max(0)
        if whole < len(score_I):
            bound_G = np.concatenate([bound_G, score_I[whole:]])
    if np.isnan(bound_G.max()):
        return False  # torch.topk counts NaN as the highest score; the comparisons below would drop it
    column_C = (score_I >= np.partition(bound_G, len(bound_G) - k)[len(bound_G) - k]).nonzero()[0]
    score_C = score_I[column_C]
    if len(column_C) > 4 * k:
        # Many equal scores at the bound, such as the zeros of rare items: the first of them are enough.
        last = np.partition(score_C, len(score_C) - k)[len(score_C) - k]
        above, at = column_C[score_C > last], column_C[score_C == last]
        column_C = np.concatenate([above, at[: k - len(above)]])
        score_C = score_I[column_C]
    # Columns ascend where scores are equal, so a stable sort keeps the tie rule.
    column_K[:] = column_C[(-score_C).argsort(kind="stable")[:k]]
    return True


def head(scores_BI: Tensor, k: int) -> Head:
    """``top_k`` that also reports where a list cuts through a tie.

    ``torch.topk`` finds the places; only rows that hold equal scores among the first k + 1 are then put in order.
    """
    single_BI = scores_BI.to(torch.float32)
    k = min(k, single_BI.shape[1])
    value, column = single_BI.topk(min(k + 1, single_BI.shape[1]), dim=1)
    cut_B = value[:, k - 1 : k].eq(value[:, k:]).any(1)
    # Ties are rare among real-valued scores, so putting all rows in order would waste most of the time.
    tied = value[:, 1:].eq(value[:, :-1]).any(1).nonzero().squeeze(1)
    value, column = value[:, :k], column[:, :k].contiguous()
    if len(tied):
        by_column, order = column[tied].sort(dim=1)
        order = value[tied].gather(1, order).argsort(dim=1, descending=True, stable=True)
        column[tied] = by_column.gather(1, order)
        _lowest_columns_of_cut_ties(single_BI, value, column, cut_B.nonzero().squeeze(1))
    return Head(scores_BI.gather(1, column), column, cut_B)


def head_ranks(scores_BI: Tensor, top: Head, row_N: Tensor, item_N: Tensor) -> Tensor:
    """``pair_ranks`` where it is at most K, infinity beyond: (N,) float32.

    All that scores above the last place stands in the head, so the catalog is looked at again only for a relevant
    item that ties with the last place of a list that cuts through this tie.

    Args:
        scores_BI: float32 scores, -inf where an item is not a candidate.
        top: their head.
        row_N, item_N: as for ``pair_ranks``.
    """
    rank_N = torch.full((len(row_N),), torch.inf, device=scores_BI.device)
    own_N, last_B = scores_BI[row_N, item_N], top.values[:, -1]
    near = ((own_N >= last_B[row_N]) & (own_N > -torch.inf)).nonzero().squeeze(1)
    row, own = row_N[near], own_N[near]
    ahead = torch.empty(len(near), dtype=torch.float32, device=own.device)
    for part in torch.arange(len(near), device=own.device).split(max(1, PAIR_CELLS // top.values.shape[1])):
        ahead[part] = (top.values[row[part]] >= own[part, None]).sum(1).to(torch.float32)
    at_cut = top.cut[row] & (own == last_B[row])
    if bool(at_cut.any()):
        count_B = torch.zeros_like(last_B)
        for part in row[at_cut].unique().split(max(1, PAIR_CELLS // scores_BI.shape[1])):
            count_B[part] = (scores_BI[part] >= last_B[part, None]).sum(1).to(torch.float32)
        ahead = torch.where(at_cut, count_B[row], ahead)
    rank = ahead - _later_relevant_ties(row, item_N[near], own)
    rank_N[near] = torch.where(rank <= top.values.shape[1], rank, torch.inf)
    return rank_N


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
    # Among the relevant items of a user, those with a higher score come first, and the earlier of equal ones.
    higher = positive_BP.unsqueeze(1) > positive_BP.unsqueeze(2)
    column = torch.arange(positive_BP.shape[1], device=positive_BP.device)
    earlier_tie = (positive_BP.unsqueeze(1) == positive_BP.unsqueeze(2)) & (column[None, :] < column[:, None])
    rank = 1 + beaten.sum(2) + (higher | earlier_tie).sum(2)
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


def _lowest_columns_of_cut_ties(single_BI: Tensor, value_BK: Tensor, column_BK: Tensor, cut: Tensor) -> None:
    """Where a list cuts through a tie, fill its tied places with the lowest tied columns, in place."""
    columns, k = single_BI.shape[1], value_BK.shape[1]
    place_K = torch.arange(k, device=cut.device)
    countdown_I = torch.arange(columns, 0, -1, dtype=torch.int32, device=cut.device)
    for part in cut.split(max(1, PAIR_CELLS // columns)):
        last = value_BK[part, -1:]
        lowest = columns - torch.where(single_BI[part] == last, countdown_I, 0).topk(k, dim=1).values
        place = place_K - (value_BK[part] > last).sum(1, keepdim=True)
        found = lowest.gather(1, place.clamp(min=0)).to(torch.int64)
        column_BK[part] = torch.where(place < 0, column_BK[part], found)


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
