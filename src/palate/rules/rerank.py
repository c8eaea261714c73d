"""Reranking: lists out of a pool of candidates under pins, caps and diversity; all users at once, place by place.

Diversity is maximal marginal relevance (Carbonell & Goldstein 1998): the next item is the one with the largest

    (1 - strength) r(i) - strength max over listed j of sim(i, j)

with r the score scaled to 0..1 between the worst and the best candidate of the user's pool, and sim the cosine of the
items, at least 0.

Shape legend: B users, P candidates of the pool, K places, N pins, I items, S values of one item at most, G distinct
values of capped columns (code 0 is none), D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import History
from palate.rules.compiled import CompiledRules

MIN_POOL = 200  # candidates at least, where caps or diversity look beyond the first k
POOL_PER_PLACE = 20
WIDEN = 8  # a pool that ran out is replaced by one this many times as wide
CHUNK_BYTES = 16 << 20  # memory of the candidates' values and vectors of one chunk of users
PINNED, BY_DIVERSITY, BY_CAPS, BEHIND_PIN, BEHIND_DIVERSE = 1, 2, 4, 8, 16

Candidates = Callable[[NDArray[np.int64], int], tuple[Tensor, Tensor]]
"""(rows (R,) of the batch, P) -> the P best candidates of these users: values and item rows (R, P), best first, -inf
in empty places."""


class Reranked(NamedTuple):
    """Lists, with the reason for the place of each row.

    Args:
        values_BK: scores; -inf in empty places, which are at the end; NaN for a pin whose score is not known.
        items_BK: int64 item rows; -1 in empty places.
        rank_BK: int64 rank by score, from 1, among the candidates that may be listed; 0 for an item outside the pool.
        moved_BK: uint8 bits of the rules that moved the row; ``trace`` puts them into words.
        short_B: bool, the pool ran out before the list was full.
    """

    values_BK: Tensor
    items_BK: Tensor
    rank_BK: Tensor
    moved_BK: Tensor
    short_B: Tensor

    def trace(self, user: NDArray[np.integer], place: NDArray[np.integer]) -> pl.Series:
        """The words of ``traces`` for some rows: user, place (n,) as positions in the tensors."""
        rank, moved = (table[user, place].cpu().numpy() for table in (self.rank_BK, self.moved_BK))
        return traces(rank, moved, place + 1)


def traces(rank: NDArray[np.integer], moved: NDArray[np.integer], place: NDArray[np.integer]) -> pl.Series:
    """The reason, in words, for the place of some rows; empty where the place is the rank by score.

    Args:
        rank: (n,) rank by score, 0 if unknown.
        moved: (n,) bits of ``Reranked.moved_BK``.
        place: (n,) place in the list, from 1.
    """
    text = np.full(len(rank), "", dtype=object)
    there = np.flatnonzero((moved > 0) | (rank != place))
    words = _movements()[moved[there], np.sign(rank - place)[there] + 1].tolist()
    numbers = (rank[there].tolist(), place[there].tolist(), ((moved[there] & PINNED) > 0).tolist())
    for row, word, by_score, at, pinned in zip(there.tolist(), words, *numbers, strict=True):
        if pinned:
            text[row] = f"pinned at {at}" + (f" (rank {by_score} by score)" if by_score > 0 else "")
        elif word:
            text[row] = f"rank {by_score} by score, {word}"
    return pl.Series(text.tolist(), dtype=pl.String)


@cache
def _movements() -> NDArray[np.object_]:
    """The words for all combinations of bits and direction, (32, 3)."""
    text = np.full((32, 3), "", dtype=object)
    for bits in range(32):
        up = [word for bit, word in ((BY_CAPS, "caps"), (BY_DIVERSITY, "diversity")) if bits & bit]
        down = [word for bit, word in ((BEHIND_PIN, "pins"), (BEHIND_DIVERSE, "diversity")) if bits & bit]
        text[bits, 2] = f"raised by {' and '.join(up or ['pins'])}"
        text[bits, 0] = f"lowered by {' and '.join(down)}"
    return text


def rerank(
    rules: CompiledRules,
    best: Candidates,
    users: int,
    k: int,
    *,
    excluded: History | None = None,
    pin_values_BN: Tensor | None = None,
    pool: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Reranked:
    """Lists that end early only where no item is left: a pool that runs out is made wider, up to the whole catalog.

    Args:
        rules: compiled for the catalog.
        best: the best candidates of some of the users, without their excluded items.
        users: B.
        k: list length.
        excluded: one history per user, whose items are not pinned for this user.
        pin_values_BN: scores of ``rules.pin_items``; without them a pin outside the pool has the score NaN.
        pool: first number of candidates per user. Default: 200 or 20 per place where rules reorder, otherwise k.
        chunk_bytes: memory of one chunk of users.
    """
    items = len(rules.items)
    # Nearly all lists fit into a small pool; only the users whose pool ran out pay for a wider one.
    if pool is None:
        pool = max(MIN_POOL, POOL_PER_PLACE * k) if rules.reorders else k
    width, row_B = min(pool, items), np.arange(users)
    whole = rerank_pool(rules, *best(row_B, width), k, excluded, pin_values_BN, chunk_bytes)
    short = whole.short_B.nonzero().squeeze(1)
    while len(short) and width < items:
        width = min(width * WIDEN, items)
        row = short.cpu().numpy()
        hidden = None if excluded is None else excluded.select(row)
        pin_values = None if pin_values_BN is None else pin_values_BN[short]
        part = rerank_pool(rules, *best(row, width), k, hidden, pin_values, chunk_bytes)
        for all_BK, new in zip(whole, part, strict=True):
            all_BK[short] = new
        short = short[part.short_B]
    return whole


def rerank_pool(
    rules: CompiledRules,
    values_BP: Tensor,
    items_BP: Tensor,
    k: int,
    excluded: History | None = None,
    pin_values_BN: Tensor | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Reranked:
    """Lists out of one pool of distinct candidates per user, best first; -inf or -1 mark empty places.

    Excluded items in the pool are passed over. Users are processed in chunks of bounded memory. Arguments as for
    ``rerank``.
    """
    users, width = items_BP.shape
    device = items_BP.device
    may_pin_BN = torch.ones((users, len(rules.pins)), dtype=torch.bool)
    for number, (_, row) in enumerate(rules.pins):
        may_pin_BN[:, number] = rules.allowed_I[row]
        if excluded is not None:
            event = np.flatnonzero(excluded.items == row)
            may_pin_BN[np.searchsorted(excluded.offsets, event, side="right") - 1, number] = False
    if pin_values_BN is None:
        pin_values_BN = torch.full((users, len(rules.pins)), torch.nan, device=values_BP.device)
    vector = 0 if rules.similarity_ID is None else 4 * rules.similarity_ID.shape[1]
    # Codes and vectors of the pool, its masks and ranks, and one count per capped value.
    per_user = width * (8 * rules.caps.codes_IS.shape[1] + vector + 64) + 8 * len(rules.caps.limit_G)
    local, may_pin_BN = rules.to(device), may_pin_BN.to(device)
    parts = [
        _Lists(local, values_BP[part], items_BP[part], k).filled(may_pin_BN[part], pin_values_BN[part])
        for part in torch.arange(users, device=device).split(max(1, chunk_bytes // max(1, per_user)))
    ]
    return Reranked(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


class _Lists:
    """Lists of a chunk of users while they are being filled."""

    def __init__(self, rules: CompiledRules, values_BP: Tensor, items_BP: Tensor, k: int) -> None:
        self.rules, self.values_BP, self.items_BP, self.k = rules, values_BP, items_BP, k
        users, row_BP = len(items_BP), items_BP.clamp(min=0)
        self.user_B = torch.arange(users, device=items_BP.device)
        # Candidates that may be listed and are not yet; their ranks by score; and whether they would break a cap.
        self.open_BP = (items_BP >= 0) & (values_BP > -torch.inf) & rules.allowed_I[row_BP]
        self.rank_BP = torch.where(self.open_BP, self.open_BP.cumsum(1), 0)
        self.codes_BPS = _rows(rules.caps.codes_IS, row_BP)
        self.count_BG = torch.zeros((users, len(rules.caps.limit_G)), dtype=torch.int32, device=items_BP.device)
        self.capped_BP = torch.zeros_like(self.open_BP)
        if rules.similarity_ID is not None:
            self.vectors_BPD = _rows(rules.similarity_ID, row_BP)
            self.closest_BP = torch.zeros(items_BP.shape, device=items_BP.device)
            # Models score on scales of their own: only scores scaled to 0..1 can be weighed against a cosine.
            worst_B = values_BP.masked_fill(~self.open_BP, torch.inf).amin(1, keepdim=True)
            best_B = values_BP.masked_fill(~self.open_BP, -torch.inf).amax(1, keepdim=True)
            spread_B = (best_B - worst_B).clamp(min=torch.finfo(torch.float32).tiny)
            self.relevance_BP = ((values_BP - worst_B) / spread_B).nan_to_num_(0.0, 0.0, 0.0)
        # The lists: item rows, scores, ranks by score, and the rules that moved them.
        self.item_BK = torch.full((users, k), -1, dtype=torch.int64, device=items_BP.device)
        self.value_BK = torch.full((users, k), -torch.inf, device=items_BP.device)
        self.list_rank_BK = torch.zeros_like(self.item_BK)
        self.moved_BK = torch.zeros_like(self.item_BK, dtype=torch.uint8)

    def filled(self, may_pin_BN: Tensor, pin_values_BN: Tensor) -> Reranked:
        """Pins first, then the other places from the top."""
        for number, (place, row) in enumerate(self.rules.pins):
            if place < self.k:
                self._pin(place, row, may_pin_BN[:, number], pin_values_BN[:, number])
        if self.rules.reorders:
            self._fill()
        else:
            # Nothing moves: the first k open candidates are the list, without a loop over places.
            column_BK = (~self.open_BP).to(torch.uint8).argsort(dim=1, stable=True)[:, : self.k]
            filled_BK = self.open_BP.gather(1, column_BK)
            part = slice(0, column_BK.shape[1])
            self.item_BK[:, part] = torch.where(filled_BK, self.items_BP.gather(1, column_BK), -1)
            self.value_BK[:, part] = torch.where(filled_BK, self.values_BP.gather(1, column_BK), -torch.inf)
            self.list_rank_BK[:, part] = self.rank_BP.gather(1, column_BK)
        short_B = (self.item_BK < 0).any(1)
        tables = (self.value_BK, self.item_BK, self.list_rank_BK, self.moved_BK)
        if self.rules.pins and bool(short_B.any()):
            # A pin beyond the end of a short list moves up to it, so that empty places are at the end.
            order_BK = (self.item_BK < 0).to(torch.uint8).argsort(dim=1, stable=True)
            value_BK, item_BK, rank_BK, moved_BK = (table_BK.gather(1, order_BK) for table_BK in tables)
            return Reranked(value_BK, item_BK, rank_BK, moved_BK, short_B)
        return Reranked(*tables, short_B)

    def _pin(self, place: int, row: int, may_B: Tensor, value_B: Tensor) -> None:
        """Put an item at a place of every user who may see it and whose earlier pins leave its caps room."""
        code_S = self.rules.caps.codes_IS[row]
        may_B = may_B & ~(self.count_BG >= self.rules.caps.limit_G)[:, code_S].any(1)
        here_BP = (self.items_BP == row) & (self.rank_BP > 0)
        column_B, known_B = here_BP.to(torch.uint8).argmax(1), here_BP.any(1)
        own_B = torch.where(known_B, self.values_BP[self.user_B, column_B], torch.nan)
        # The caller's score is that of the model; an item of the pool has its score there.
        value_B = torch.where(value_B.isnan(), own_B, value_B)
        rank_B = torch.where(known_B, self.rank_BP[self.user_B, column_B], 0)
        for table_BK, new_B in ((self.item_BK, row), (self.value_BK, value_B), (self.list_rank_BK, rank_B)):
            table_BK[:, place] = torch.where(may_B, new_B, table_BK[:, place])
        self.moved_BK[may_B, place] = PINNED
        self._count(may_B, torch.full_like(self.user_B, row))
        self.open_BP &= ~(here_BP & may_B[:, None])

    def _fill(self) -> None:
        """The places without a pin, from the top: the best candidate that breaks no cap."""
        strength = self.rules.diversity
        open_BK, able_BK, column_BK = (torch.zeros_like(self.item_BK) for _ in range(3))
        free_BK = self.item_BK < 0
        for place in range(self.k):
            able_BP = self.open_BP & ~self.capped_BP
            free_BK[:, place] &= able_BP.any(1)
            # The columns of the first open candidate, of the first within the caps, and of the one that MMR prefers.
            open_BK[:, place] = self.open_BP.to(torch.uint8).argmax(1)
            column_B = able_BK[:, place] = able_BP.to(torch.uint8).argmax(1)
            if strength:
                gain_BP = (1 - strength) * self.relevance_BP - strength * self.closest_BP
                column_B = gain_BP.masked_fill_(~able_BP, -torch.inf).argmax(1)
            column_BK[:, place] = column_B
            free_B = free_BK[:, place]
            item_B = self.items_BP[self.user_B, column_B]
            self._count(free_B, item_B)
            self.open_BP[self.user_B, column_B] &= ~free_B
        rank_BK, open_rank_BK, able_rank_BK = (self.rank_BP.gather(1, at) for at in (column_BK, open_BK, able_BK))
        # The lowest ranks listed at the places before, of pins and of the others. A pin from outside the pool has no
        # rank: it counts as behind every candidate.
        pin_rank_BK = torch.where(self.list_rank_BK > 0, self.list_rank_BK, torch.iinfo(torch.int64).max)
        lowest_pin_BK = _before(torch.where(self.item_BK >= 0, pin_rank_BK, 0))
        lowest_BK = _before(torch.where(free_BK, rank_BK, 0))
        moved_BK = BY_CAPS * (able_rank_BK > open_rank_BK) + BY_DIVERSITY * (rank_BK > able_rank_BK)
        moved_BK = moved_BK + BEHIND_PIN * (lowest_pin_BK > rank_BK) + BEHIND_DIVERSE * (lowest_BK > rank_BK)
        self.item_BK = torch.where(free_BK, self.items_BP.gather(1, column_BK), self.item_BK)
        self.value_BK = torch.where(free_BK, self.values_BP.gather(1, column_BK), self.value_BK)
        self.list_rank_BK = torch.where(free_BK, rank_BK, self.list_rank_BK)
        self.moved_BK = torch.where(free_BK, moved_BK, self.moved_BK).to(torch.uint8)

    def _count(self, chosen_B: Tensor, item_B: Tensor) -> None:
        """Count a listed item of the chosen users for caps and similarity."""
        row_B = item_B.clamp(min=0)
        if self.codes_BPS.shape[2]:
            # Code 0 stands for "no value": users who get no item count there, where no limit applies.
            code_BS = torch.where(chosen_B[:, None], self.rules.caps.codes_IS[row_B], 0)
            self.count_BG.scatter_add_(1, code_BS, (code_BS > 0).to(torch.int32))
            full_BG = self.count_BG >= self.rules.caps.limit_G
            self.capped_BP = full_BG.gather(1, self.codes_BPS.flatten(1)).view(self.codes_BPS.shape).any(2)
        if self.rules.similarity_ID is not None:
            # In this order of factors bmm is several times as fast.
            vector_B1D = self.rules.similarity_ID[row_B].unsqueeze(1)
            sim_BP = torch.bmm(vector_B1D, self.vectors_BPD.transpose(1, 2)).squeeze(1)
            self.closest_BP = torch.where(chosen_B[:, None], torch.maximum(self.closest_BP, sim_BP), self.closest_BP)


def _rows(table_ID: Tensor, row_BP: Tensor) -> Tensor:
    """Rows of a table, (B, P, D); ``index_select`` is several times as fast as indexing."""
    return table_ID.index_select(0, row_BP.flatten()).view(*row_BP.shape, table_ID.shape[1])


def _before(rank_BK: Tensor) -> Tensor:
    """The largest number at the places before each, (B, K); 0 at the first."""
    return torch.nn.functional.pad(rank_BK.cummax(1).values[:, :-1], (1, 0))
