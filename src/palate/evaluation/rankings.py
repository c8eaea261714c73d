"""Test users in chunks of bounded memory, each with the ranks of its relevant items and its lists.

Shape legend: B users of a chunk, C candidates, I items, N (user, relevant item) pairs of a chunk, P relevant items of
one user at most, K list length, U test users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate.base import Model, Query, device_of, reads_ratings, reads_request_time
from palate.data.dataset import History
from palate.data.feedback import MinRating
from palate.data.splits.split import Candidates, Split
from palate.errors import ModelError
from palate.top_k import candidate_ranks, head, head_ranks

# Bytes of one score of a chunk: the model's answer, and one more copy for the model to work with.
SCORE_BYTES = 8
BLOCK_CELLS = 1_000_000  # scores ranked at once: 4 MB, which stay in the cache
PAIR_BYTES = 64  # of a relevant pair or a training row of a chunk: indices of 8 bytes, scores, weights, times
DEFAULT_CHUNK = 16_000_000 * SCORE_BYTES


class Lists(NamedTuple):
    """Finished lists of another system: ``users`` (L,) row numbers, ``items`` (L, K) row numbers, -1 where empty."""

    users: NDArray[np.integer[Any]]
    items: NDArray[np.integer[Any]]


class Rankings(NamedTuple):
    """One chunk of test users: users ``first`` to ``last`` of the ground.

    ``history`` holds their training rows; ``row`` (within the chunk) and ``item`` (N,) are the relevant pairs and
    ``rank`` (N,) float32 their ranks, infinity where the list does not hold them; ``lists`` (B, K) are item rows, -1
    where a list ends, or None for sampled candidates. ``lost`` relevant items were removed as seen, None where seen
    items are not removed.
    """

    first: int
    last: int
    history: History
    row: Tensor
    item: Tensor
    rank: Tensor
    lists: NDArray[np.int64] | None
    lost: int | None = None


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Ground-truth items per test user: the distinct items of their relevant test rows.

    Args:
        split: the rows; its test rows are the relevant ones.
        user_rows: (U,) test users, ascending.
        offsets: (U + 1,) user u has the relevant items offsets[u] to offsets[u + 1].
        items: relevant items, ascending within a user.
    """

    split: Split
    user_rows: NDArray[np.int32]
    offsets: NDArray[np.int64]
    items: NDArray[np.int32]

    @classmethod
    def of(cls, split: Split, relevant: MinRating = "auto") -> GroundTruth:
        """Distinct (user, item) pairs of the relevant test rows, see ``Split.relevant``."""
        split = split.relevant(relevant)
        rows = split.test.interactions
        # Distinct pairs from sorted keys: np.unique on two rows is far slower.
        key = np.sort(rows.user.astype(np.int64) << 32 | rows.item)
        user, item = np.divmod(key[np.flatnonzero(np.diff(key, prepend=-1))], 1 << 32)
        user_rows, starts = np.unique(user, return_index=True)
        return cls(split, user_rows.astype(np.int32), np.append(starts, len(user)), item.astype(np.int32))

    @property
    def relevant(self) -> NDArray[np.int64]:
        """(U,) relevant items per user."""
        return np.diff(self.offsets)

    @cached_property
    def request_times(self) -> NDArray[np.float64] | None:
        """(U,) when each user's first held-out row happened; None where the rows have no times."""
        rows = self.split.test.interactions
        if rows.time is None:
            return None
        first_U = np.full(self.split.test.n_users, np.inf)
        # The first row: at the time of a later one, part of the answer would have happened already.
        np.minimum.at(first_U, rows.user, rows.time)
        return first_U[self.user_rows]

    def query(self, model: Model, first: int, last: int, history: History) -> Query:
        """Some test users with their history, on the device of the model.

        A model that reads the time of request gets that of the first test row: a server would know it too.
        """
        at = self.request_times if reads_request_time(model) else None
        at_B = None if at is None else torch.from_numpy(at[first:last])
        every_event = reads_ratings(model)
        return Query.of(self.user_rows[first:last], history, at_B, every_event=every_event).to(device_of(model))

    def parts(self, bytes_U: NDArray[np.int64], budget: int) -> Iterator[tuple[int, int, History, Tensor, Tensor]]:
        """Consecutive test users whose cost fits the budget, each (first, last) with its ``part``.

        A user that alone does not fit is a chunk of one.
        """
        # Costs differ by user, long histories above all: chunks are cut by cost and not by number.
        total = np.append(0, np.cumsum(bytes_U))
        first = 0
        while first < len(bytes_U):
            last = max(first + 1, int(np.searchsorted(total, total[first] + budget, side="right")) - 1)
            yield first, last, *self.part(first, last)
            first = last

    def part(self, first: int, last: int) -> tuple[History, Tensor, Tensor]:
        """Training rows of some test users, and their relevant pairs as (row within the chunk, item)."""
        item_N = torch.from_numpy(self.items[self.offsets[first] : self.offsets[last]].astype(np.int64))
        row_N = torch.repeat_interleave(torch.arange(last - first), torch.from_numpy(self.relevant[first:last]))
        return self.split.train.history.select(self.user_rows[first:last]), row_N, item_N

    def catalog_bytes(self) -> NDArray[np.int64]:
        """(U,) bytes to rank the whole catalog for each user."""
        return SCORE_BYTES * self.split.train.n_items + self._pair_bytes()

    def candidate_bytes(self, negatives: int) -> NDArray[np.int64]:
        """(U,) bytes to rank sampled candidates for each user."""
        most = int(self.relevant.max())
        return 4 * SCORE_BYTES * (negatives + most) + 4 * negatives * most + self._pair_bytes()

    def _pair_bytes(self) -> NDArray[np.int64]:
        return PAIR_BYTES * (self.relevant + self.split.train.history.counts[self.user_rows])


def by_catalog(
    model: Model, ground: GroundTruth, length: int, budget: int, *, exclude_seen: bool = True
) -> Iterator[Rankings]:
    """Full ranking by a model.

    Raises:
        ModelError: the model gave NaN.
    """
    for first, last, history, row_N, item_N in ground.parts(ground.catalog_bytes(), budget):
        query = ground.query(model, first, last, history)
        yield Rankings(
            first, last, history, row_N, item_N, *_full(model, query, history, row_N, item_N, length, exclude_seen)
        )


def by_candidates(
    model: Model, ground: GroundTruth, length: int, budget: int, candidates: Candidates
) -> Iterator[Rankings]:
    """Ranks of the relevant items among the listed negatives of their user.

    Raises:
        ModelError: the model gave NaN.
    """
    bytes_U = ground.candidate_bytes(candidates.negatives.shape[1])
    for first, last, history, row_N, item_N in ground.parts(bytes_U, budget):
        query = ground.query(model, first, last, history)
        rank_N = _sampled(model, query, row_N, item_N, candidates.negatives[first:last])
        # As in a list that ends at ``length``, so that both rankings mean the same by a metric at k.
        rank_N = torch.where(rank_N <= length, rank_N, torch.inf)
        yield Rankings(first, last, history, row_N, item_N, rank_N, None)


def by_lists(lists: Lists, ground: GroundTruth, length: int, budget: int) -> Iterator[Rankings]:
    """Ranks within finished lists; a test user without a list has an empty one, an item listed again counts once."""
    place_of = np.full(ground.split.train.n_users, -1)  # a table, so that no chunk searches; -1 without a list
    place_of[lists.users] = np.arange(len(lists.users))
    for first, last, history, row_N, item_N in ground.parts(32 * length + ground._pair_bytes(), budget):
        place_B = place_of[ground.user_rows[first:last]]
        list_BK = np.full((last - first, length), -1, np.int64)
        given_BK = lists.items[place_B[place_B >= 0], :length]
        list_BK[place_B >= 0, : given_BK.shape[1]] = without_repeats(given_BK)
        place_N = torch.from_numpy(list_BK)[row_N] == item_N[:, None]
        # torch has no argmax of bool.
        rank_N = torch.where(place_N.any(1), place_N.to(torch.int8).argmax(1) + 1.0, torch.inf)
        yield Rankings(first, last, history, row_N, item_N, rank_N, list_BK)


def without_repeats(list_LK: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The lists with -1 in the place of an item that stands further up already."""
    # Stable, so that of equal items the one further up comes first and stays.
    order = np.argsort(list_LK, axis=1, kind="stable")
    ascending = np.take_along_axis(list_LK, order, axis=1)
    again = np.zeros(list_LK.shape, dtype=bool)
    again[:, 1:] = ascending[:, 1:] == ascending[:, :-1]
    result = np.empty(list_LK.shape, np.int64)
    np.put_along_axis(result, order, np.where(again, -1, ascending), axis=1)
    return result


def places(rank_N: Tensor, row_N: Tensor, users: int, length: int) -> Tensor:
    """Where the relevant items stand: (users, length) bool."""
    hits_BK = torch.zeros(users, length, dtype=torch.bool)
    found = rank_N <= length
    hits_BK[row_N[found], rank_N[found].long() - 1] = True
    return hits_BK


def _full(
    model: Model, query: Query, history: History, row_N: Tensor, item_N: Tensor, length: int, exclude_seen: bool
) -> tuple[Tensor, NDArray[np.int64], int | None]:
    """Ranks, lists and the number of lost relevant items of one chunk."""
    # A function of its own, so that the scores of a chunk are freed before those of the next are made.
    ranks, lists, lost = [], [], 0
    with torch.inference_mode():
        scores_BI = _checked(model.score(query)).float().cpu()
        step = max(1, BLOCK_CELLS // scores_BI.shape[1])
        for first in range(0, len(query), step):
            # A block stays in the cache. It is a copy, because the scores may be a view of the model's own weights.
            block_BI = scores_BI[first : first + step].clone(memory_format=torch.contiguous_format)
            if exclude_seen:
                # -inf rather than a smaller candidate set: columns stay item rows, and ranks need no mapping.
                offsets = history.offsets[first : first + len(block_BI) + 1]
                row_B = np.repeat(np.arange(len(block_BI)), np.diff(offsets))
                cell = row_B * block_BI.shape[1] + history.items[offsets[0] : offsets[-1]]
                block_BI.numpy().reshape(-1)[cell] = -np.inf  # one flat index is faster than a pair of them
            pair = slice(*torch.searchsorted(row_N, torch.tensor([first, first + step])).tolist())
            row, item = row_N[pair] - first, item_N[pair]
            top = head(block_BI, length)
            ranks.append(head_ranks(block_BI, top, row, item))
            lists.append(torch.where(top.values == -torch.inf, -1, top.columns))
            lost += int((block_BI[row, item] == -torch.inf).sum())
        list_BK = torch.cat(lists)
        list_BK = torch.nn.functional.pad(list_BK, (0, length - list_BK.shape[1]), value=-1)
        return torch.cat(ranks), list_BK.numpy(), lost if exclude_seen else None


def _sampled(model: Model, query: Query, row_N: Tensor, item_N: Tensor, negatives: NDArray[np.int32]) -> Tensor:
    with torch.inference_mode():
        negative_BC = torch.from_numpy(negatives.astype(np.int64))
        count_B = torch.bincount(row_N, minlength=len(query))
        # Users have different numbers of relevant items: padded to a table, all are scored in one call.
        column_N = torch.arange(len(row_N)) - torch.repeat_interleave(count_B.cumsum(0) - count_B, count_B)
        positive_BP = torch.full((len(query), int(count_B.max())), -1, dtype=torch.int64)
        positive_BP[row_N, column_N] = item_N
        # Padding must be a row; masked below.
        both = torch.cat([positive_BP.clamp(min=0), negative_BC], dim=1).to(query.user.device)
        scores = _checked(model.score(query, both)).float().cpu()
        width = positive_BP.shape[1]
        positive = scores[:, :width].masked_fill(positive_BP < 0, torch.nan)
        # A listed negative that is a relevant item of the same user does not compete with itself.
        duplicate_BC = (negative_BC[:, :, None] == positive_BP[:, None, :]).any(2)
        return candidate_ranks(positive, scores[:, width:], duplicate_BC)[row_N, column_N]


def _checked(scores: Tensor) -> Tensor:
    if bool(scores.max().isnan()):  # the maximum is NaN if any score is, and takes no memory to find
        raise ModelError(f"the model gave NaN for {int(scores.isnan().sum())} scores: it did not train well")
    return scores
