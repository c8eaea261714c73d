"""Lists out of a pool of candidates under pins, caps and diversity: greedy, all users at once, place by place.

Diversity is maximal marginal relevance (Carbonell & Goldstein 1998): the next item is the one with the largest

    (1 - strength) r(i) - strength max over listed j of sim(i, j)

with r the score scaled to 0..1 between the worst and the best candidate of the user's pool, and sim the cosine of the
items, at least 0.

Shape legend: B users, P candidates of the pool, K places, N pins, I items, S values of one item at most, G distinct
values of capped columns (code 0 is none), D width of a vector.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.data.dataset import History

__all__ = ["Caps", "Picked", "Shape", "pick"]

CHUNK_BYTES = 16 << 20  # what the candidates' values and vectors of one chunk of users may take
PINNED, BY_DIVERSITY, BY_CAPS, BEHIND_PIN, BEHIND_DIVERSE = 1, 2, 4, 8, 16


class Caps(NamedTuple):
    """Values as codes of one table, and the most items of each.

    Args:
        codes_IS: int64, 0 in empty places.
        limit_G: int32 by code; nothing is limited for code 0.
        names: by code.
    """

    codes_IS: Tensor
    limit_G: Tensor
    names: tuple[str, ...]


class Shape(NamedTuple):
    """What ``pick`` must know of the rules.

    Args:
        allowed_I: bool.
        pins: (place from 0, item row), by place.
        caps: of all capped columns; without any, S is 0.
        diversity: strength of MMR.
        likeness_ID: unit rows to compare items by; None without diversity.
    """

    allowed_I: Tensor
    pins: tuple[tuple[int, int], ...]
    caps: Caps
    diversity: float
    likeness_ID: Tensor | None

    @property
    def reorders(self) -> bool:
        """Whether a list may differ from the first k allowed candidates."""
        return bool(self.pins or self.caps.codes_IS.shape[1] or self.diversity)


class Picked(NamedTuple):
    """Lists, with how each row came to its place.

    Args:
        values_BK: scores; -inf in empty places, which are at the end; NaN for a pin whose score is not known.
        items_BK: int64 item rows; -1 in empty places.
        rank_BK: int64 rank by score, from 1, among the candidates that may be listed; 0 for one not in the pool.
        moved_BK: uint8, what moved the row; ``trace`` puts it into words.
        short_B: bool, the pool ran out before the list was full.
    """

    values_BK: Tensor
    items_BK: Tensor
    rank_BK: Tensor
    moved_BK: Tensor
    short_B: Tensor

    def trace(self, who: NDArray[np.integer], place: NDArray[np.integer]) -> pl.Series:
        """Why each of some rows stands where it stands, in words; empty where its place is its rank by score.

        Args:
            who, place: (n,) the rows, as places in the tensors.
        """
        rank, moved = (table[who, place].cpu().numpy() for table in (self.rank_BK, self.moved_BK))
        ahead = np.sign(rank - (place + 1))
        text = np.array([[_words(moved, way) for way in (-1, 0, 1)] for moved in range(32)], dtype=object)
        frame = pl.DataFrame(
            {"rank": rank, "place": place + 1, "words": pl.Series(text[moved, ahead + 1], dtype=pl.String)}
        )
        pinned = pl.Series((moved & PINNED) > 0)
        by_score = pl.when(pl.col("rank") > 0).then(pl.format(" (rank {} by score)", "rank")).otherwise(pl.lit(""))
        told = (
            pl.when(pl.col("words") != "")
            .then(pl.format("rank {} by score, {}", "rank", "words"))
            .otherwise(pl.lit(""))
        )
        return frame.select(
            trace=pl.when(pinned).then(pl.concat_str(pl.format("pinned at {}", "place"), by_score)).otherwise(told)
        )["trace"]


def _words(moved: int, way: int) -> str:
    """What moved a row up (way 1: its rank is behind its place), down (-1) or not at all."""
    if way == 0:
        return ""
    up = [word for bit, word in ((BY_CAPS, "caps"), (BY_DIVERSITY, "diversity")) if moved & bit]
    down = [word for bit, word in ((BEHIND_PIN, "pins"), (BEHIND_DIVERSE, "diversity")) if moved & bit]
    return f"raised by {' and '.join(up or ['pins'])}" if way > 0 else f"lowered by {' and '.join(down)}"


def pick(
    shape: Shape,
    values_BP: Tensor,
    items_BP: Tensor,
    k: int,
    excluded: History | None = None,
    pin_values_BN: Tensor | None = None,
) -> Picked:
    """See ``BoundRules.pick``; users are looked at in chunks, so memory stays bounded."""
    users, width = items_BP.shape
    vector = 0 if shape.likeness_ID is None else 4 * shape.likeness_ID.shape[1]
    per_user = width * (8 * shape.caps.codes_IS.shape[1] + vector + 64) + 8 * len(shape.caps.limit_G)
    may_pin_BN = _may_pin(shape, users, excluded).to(items_BP.device)
    if pin_values_BN is None:
        pin_values_BN = torch.full((users, len(shape.pins)), torch.nan, device=values_BP.device)
    on = _on(shape, items_BP.device)
    parts = [
        _Lists(on, values_BP[part], items_BP[part], k).picked(may_pin_BN[part], pin_values_BN[part])
        for part in torch.arange(users, device=items_BP.device).split(max(1, CHUNK_BYTES // max(1, per_user)))
    ]
    return Picked(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _on(shape: Shape, device: torch.device) -> Shape:
    caps = shape.caps._replace(codes_IS=shape.caps.codes_IS.to(device), limit_G=shape.caps.limit_G.to(device))
    likeness_ID = None if shape.likeness_ID is None else shape.likeness_ID.to(device)
    return shape._replace(allowed_I=shape.allowed_I.to(device), caps=caps, likeness_ID=likeness_ID)


def _may_pin(shape: Shape, users: int, excluded: History | None) -> Tensor:
    """(B, N) bool: pins whose items are allowed and not among the user's excluded items."""
    may_BN = torch.ones((users, len(shape.pins)), dtype=torch.bool)
    for number, (_, row) in enumerate(shape.pins):
        may_BN[:, number] = shape.allowed_I[row]
        if excluded is not None:
            event = np.flatnonzero(excluded.items == row)
            may_BN[np.searchsorted(excluded.offsets, event, side="right") - 1, number] = False
    return may_BN


class _Lists:
    """Lists of a chunk of users while they are being filled."""

    def __init__(self, shape: Shape, values_BP: Tensor, items_BP: Tensor, k: int) -> None:
        self.shape, self.values_BP, self.items_BP, self.k = shape, values_BP, items_BP, k
        users, row_BP = len(items_BP), items_BP.clamp(min=0)
        self.user_B = torch.arange(users, device=items_BP.device)
        # What may be listed and is not yet; its rank by score; and whether it would break a cap.
        self.open_BP = (items_BP >= 0) & (values_BP > -torch.inf) & shape.allowed_I[row_BP]
        self.rank_BP = torch.where(self.open_BP, self.open_BP.cumsum(1), 0)
        self.codes_BPS = _rows(shape.caps.codes_IS, row_BP)
        self.count_BG = torch.zeros((users, len(shape.caps.limit_G)), dtype=torch.int32, device=items_BP.device)
        self.capped_BP = torch.zeros_like(self.open_BP)
        if shape.likeness_ID is not None:
            self.vectors_BPD = _rows(shape.likeness_ID, row_BP)
            self.closest_BP = torch.zeros(items_BP.shape, device=items_BP.device)
            self.relevance_BP = _scaled(values_BP, self.open_BP)
        # The lists: item rows, scores, ranks by score, and what moved them.
        self.item_BK = torch.full((users, k), -1, dtype=torch.int64, device=items_BP.device)
        self.value_BK = torch.full((users, k), -torch.inf, device=items_BP.device)
        self.list_rank_BK = torch.zeros_like(self.item_BK)
        self.moved_BK = torch.zeros_like(self.item_BK, dtype=torch.uint8)

    def picked(self, may_pin_BN: Tensor, pin_values_BN: Tensor) -> Picked:
        """Pins first, then the other places from the top."""
        for number, (place, row) in enumerate(self.shape.pins):
            if place < self.k:
                self._pin(place, row, may_pin_BN[:, number], pin_values_BN[:, number])
        if self.shape.reorders:
            self._fill()
        else:
            self._first()
        short_B = (self.item_BK < 0).any(1)
        picked = Picked(self.value_BK, self.item_BK, self.list_rank_BK, self.moved_BK, short_B)
        return _closed_up(picked) if self.shape.pins and bool(short_B.any()) else picked

    def _first(self) -> None:
        """The first k candidates that may be listed, in their order."""
        column_BK = (~self.open_BP).to(torch.uint8).argsort(dim=1, stable=True)[:, : self.k]
        filled_BK = self.open_BP.gather(1, column_BK)
        part = slice(0, column_BK.shape[1])
        self.item_BK[:, part] = torch.where(filled_BK, self.items_BP.gather(1, column_BK), -1)
        self.value_BK[:, part] = torch.where(filled_BK, self.values_BP.gather(1, column_BK), -torch.inf)
        self.list_rank_BK[:, part] = self.rank_BP.gather(1, column_BK)

    def _pin(self, place: int, row: int, may_B: Tensor, value_B: Tensor) -> None:
        """Put an item at a place of every user who may see it and whose earlier pins leave its caps room."""
        code_S = self.shape.caps.codes_IS[row]
        may_B = may_B & ~(self.count_BG >= self.shape.caps.limit_G)[:, code_S].any(1)
        here_BP = (self.items_BP == row) & (self.rank_BP > 0)
        column_B, known_B = here_BP.to(torch.uint8).argmax(1), here_BP.any(1)
        own_B = torch.where(known_B, self.values_BP[self.user_B, column_B], torch.nan)
        value_B = torch.where(value_B.isnan(), own_B, value_B)
        rank_B = torch.where(known_B, self.rank_BP[self.user_B, column_B], 0)
        self._list(place, may_B, torch.full_like(self.user_B, row), value_B, rank_B, PINNED)
        self.open_BP &= ~(here_BP & may_B[:, None])

    def _fill(self) -> None:
        """The places that no pin has, from the top: the best candidate that breaks no cap."""
        lowest_B = torch.zeros_like(self.user_B)  # rank of the lowest that was listed before, pins apart
        lowest_pin_B = torch.zeros_like(self.user_B)
        nowhere = torch.iinfo(torch.int64).max
        for place in range(self.k):
            able_BP = self.open_BP & ~self.capped_BP
            pinned_B = self.item_BK[:, place] >= 0
            free_B = ~pinned_B & able_BP.any(1)
            column_B = self._best(able_BP)
            rank_B = self.rank_BP[self.user_B, column_B]
            best_B, able_B = (self.rank_BP[self.user_B, _first_of(x_BP)] for x_BP in (self.open_BP, able_BP))
            moved_B = BY_CAPS * (able_B > best_B) + BY_DIVERSITY * (rank_B > able_B)
            moved_B = moved_B + BEHIND_PIN * (lowest_pin_B > rank_B) + BEHIND_DIVERSE * (lowest_B > rank_B)
            item_B, value_B = self.items_BP[self.user_B, column_B], self.values_BP[self.user_B, column_B]
            self._list(place, free_B, item_B, value_B, rank_B, moved_B)
            self.open_BP[self.user_B, column_B] &= ~free_B
            pin_rank_B = torch.where(self.list_rank_BK[:, place] > 0, self.list_rank_BK[:, place], nowhere)
            lowest_pin_B = torch.where(pinned_B, torch.maximum(lowest_pin_B, pin_rank_B), lowest_pin_B)
            lowest_B = torch.where(free_B, torch.maximum(lowest_B, rank_B), lowest_B)

    def _best(self, able_BP: Tensor) -> Tensor:
        """Column (B,) of the candidate to list next; the first among equals."""
        if not self.shape.diversity:
            return _first_of(able_BP)
        gain_BP = (1 - self.shape.diversity) * self.relevance_BP - self.shape.diversity * self.closest_BP
        return gain_BP.masked_fill_(~able_BP, -torch.inf).argmax(1)

    def _list(
        self, place: int, who_B: Tensor, item_B: Tensor, value_B: Tensor, rank_B: Tensor, moved_B: Tensor | int
    ) -> None:
        """Give some users an item at a place, and count it for caps and likeness."""
        self.item_BK[:, place] = torch.where(who_B, item_B, self.item_BK[:, place])
        self.value_BK[:, place] = torch.where(who_B, value_B, self.value_BK[:, place])
        self.list_rank_BK[:, place] = torch.where(who_B, rank_B, self.list_rank_BK[:, place])
        self.moved_BK[:, place] = torch.where(who_B, moved_B, self.moved_BK[:, place]).to(torch.uint8)
        row_B = item_B.clamp(min=0)
        if self.codes_BPS.shape[2]:
            code_BS = torch.where(who_B[:, None], self.shape.caps.codes_IS[row_B], 0)
            self.count_BG.scatter_add_(1, code_BS, (code_BS > 0).to(torch.int32))
            full_BG = self.count_BG >= self.shape.caps.limit_G
            flat_BP = self.codes_BPS.flatten(1)
            self.capped_BP = full_BG.gather(1, flat_BP).view(self.codes_BPS.shape).any(2)
        if self.shape.likeness_ID is not None:
            # In this order of factors it is several times as fast.
            sim_BP = torch.bmm(self.shape.likeness_ID[row_B].unsqueeze(1), self.vectors_BPD.transpose(1, 2)).squeeze(1)
            self.closest_BP = torch.where(who_B[:, None], torch.maximum(self.closest_BP, sim_BP), self.closest_BP)


def _closed_up(picked: Picked) -> Picked:
    """Empty places at the end: a pin beyond the end of a list moves up to it."""
    order_BK = (picked.items_BK < 0).to(torch.uint8).argsort(dim=1, stable=True)
    values_BK, items_BK, rank_BK, moved_BK = (table_BK.gather(1, order_BK) for table_BK in picked[:4])
    return Picked(values_BK, items_BK, rank_BK, moved_BK, picked.short_B)


def _rows(table_ID: Tensor, row_BP: Tensor) -> Tensor:
    """Rows of a table, (B, P, D); ``index_select`` is several times as fast as indexing."""
    return table_ID.index_select(0, row_BP.flatten()).view(*row_BP.shape, table_ID.shape[1])


def _first_of(mask_BP: Tensor) -> Tensor:
    """Column (B,) of the first True; 0 where there is none."""
    return mask_BP.to(torch.uint8).argmax(1)


def _scaled(values_BP: Tensor, open_BP: Tensor) -> Tensor:
    """Scores scaled to 0..1 between the worst and the best open candidate of each user."""
    worst_B = values_BP.masked_fill(~open_BP, torch.inf).amin(1, keepdim=True)
    best_B = values_BP.masked_fill(~open_BP, -torch.inf).amax(1, keepdim=True)
    return ((values_BP - worst_B) / (best_B - worst_B).clamp(min=torch.finfo(torch.float32).tiny)).nan_to_num_(
        0.0, 0.0, 0.0
    )
