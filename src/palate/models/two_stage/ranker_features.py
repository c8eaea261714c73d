"""Features of the candidates for the ranker: one row of numbers per (user, item).

    retrieval   z and log2 rank by every retriever and scorer; the retrievers' means and their best rank
    item        log share of the rows, ever and of late (half-lives of 3, 14 and 60 days); days since its first and its
                last row; mean weight
    user        log events; days since the last event, and between first and last; mean weight; mean log share of the
                history's items
    both        log share of the item's rows that came after the user's last event; how far the item's popularity is
                from the history's; cosine to the latest items, by each retriever that has item vectors
    features    of user and item as they are, where a column has few values; for each item column the weight of the
                item's values in the history, and that against the catalog; distance to the history's mean numbers

Counts and times are those of the rows that the retrievers were fitted on, ages are as of the request (``Query.at``, or
the time of the latest of those rows). An event without a time counts as just happened.

Shape legend: B users, I items, U users of the table, N candidates, F inputs, H history events, M retrievers and
scorers, L latest events, W half-lives, T time bins, K codes of a feature table, S slots of a row of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.base import DataSpec, ItemVectors, Query, out_of_range
from palate.data.dataset import Dataset
from palate.data.features import Feature, FeatureSchema, FeatureTable
from palate.models.edlae import later_shares
from palate.models.two_stage.candidate_generation import MemberScores

DAY = 86_400.0
HALF_LIVES = (3.0, 14.0, 60.0)
BINS = 48  # of time, each holding as many rows, that last visits are rounded to
LATEST = 5  # events of the history that cosines look at
FEW = 40  # a column with more values is read through the history only


class RankerFeatures(nn.Module):
    """Statistics of the training rows and the features of both sides, and the rows of numbers made of them.

    Args:
        spec: of the catalog, with the features to read.
    """

    now: Tensor
    share: Tensor
    late: Tensor
    first: Tensor
    last: Tensor
    weight: Tensor
    edges: Tensor
    later: Tensor
    usual: Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        schema = spec.features or FeatureSchema()
        # One more row on the side of users, without features: new users read it.
        self.user_side, self.item_side = _Side(spec.users + 1, schema.users), _Side(spec.items, schema.items)
        for name in ("share", "weight"):
            self.register_buffer(name, torch.zeros(spec.items))
        self.register_buffer("late", torch.zeros(len(HALF_LIVES), spec.items))
        self.register_buffer("later", torch.zeros(BINS + 1, spec.items))
        self.register_buffer("usual", torch.zeros(schema.items.codes + 1))
        for name in ("first", "last"):
            self.register_buffer(name, torch.zeros(spec.items, dtype=torch.float64))
        self.register_buffer("now", torch.zeros((), dtype=torch.float64))
        self.register_buffer("edges", torch.zeros(BINS, dtype=torch.float64))

    def learn(self, train: Dataset) -> None:
        """Count the training rows and take over the features."""
        rows, items = train.interactions, train.n_items
        time = np.zeros(len(rows)) if rows.time is None else rows.time
        count_I = np.bincount(rows.item, minlength=items)
        now, (edges, later_TI) = time.max(initial=-np.inf), later_shares(time, rows.item, items, BINS)
        late_WI = [np.bincount(rows.item, np.exp2((time - now) / (DAY * half)), items) for half in HALF_LIVES]
        first_I, last_I = np.full(items, now), np.full(items, time.min(initial=np.inf))
        np.minimum.at(first_I, rows.item, time)
        np.maximum.at(last_I, rows.item, time)
        mean = rows.weight.mean(dtype=np.float64)
        # Five rows at the mean for every item: the mean of one or two rows is mostly noise.
        weight_I = (np.bincount(rows.item, rows.weight, items) + 5 * mean) / (count_I + 5)
        self._take(now=now, edges=edges, first=first_I, last=last_I, weight=weight_I, share=_log_share(count_I))
        self._take(late=np.stack([_log_share(late_I) for late_I in late_WI]))
        self._take(later=later_TI)
        self.user_side.learn(train.user_features)
        self.item_side.learn(train.item_features)
        touched = self.item_side.profile(
            torch.arange(items), torch.zeros(items, dtype=torch.int64), 1, _tensor(count_I)
        )
        self.usual.copy_(touched[0] / max(1, len(rows)))

    def width(self, models: list[object]) -> int:
        """F, the number of features with these retrievers and scorers."""
        sides = [side.numbers.shape[1] + side.flags for side in (self.user_side, self.item_side)]
        history = 2 * len(self.item_side.slots) + self.item_side.numbers.shape[1]
        cosines = 3 * sum(isinstance(model, ItemVectors) for model in models)
        # Beside z and rank of each model: three columns of retrieval, and 12 and the half-lives of ``_behavior``.
        return 2 * len(models) + 3 + 12 + len(HALF_LIVES) + cosines + sum(sides) + history

    def forward(self, query: Query, found: MemberScores, row_N: Tensor, item_N: Tensor, models: list[object]) -> Tensor:
        """Features (N, F) of the candidates ``item_N`` of the users ``row_N``."""
        columns = [
            *_retrieval(found, row_N, item_N),
            *self._behavior(query, row_N, item_N),
            *_cosines(query, row_N, item_N, models),
            *self._features(query, row_N, item_N),
        ]
        return torch.cat([column if column.ndim == 2 else column[:, None] for column in columns], 1).float()

    def _behavior(self, query: Query, row_N: Tensor, item_N: Tensor) -> Iterator[Tensor]:
        at_B = self.now.expand(len(query)) if query.at is None else query.at
        owner_H = query.owners()
        item_H = owner_H if query.items is None else query.items
        time_H = at_B[owner_H] if query.times is None else query.times.double()
        weight_H = self.weight[item_H] if query.weights is None else query.weights
        last_B = at_B.scatter_reduce(0, owner_H, time_H, "amax", include_self=False)
        first_B = at_B.scatter_reduce(0, owner_H, time_H, "amin", include_self=False)
        typical_B = _mean(self.share[item_H], owner_H, len(query))
        user_BF = torch.stack(
            [
                query.counts().float().log1p(),
                _days(at_B - last_B),
                _days(last_B - first_B),
                _mean(weight_H, owner_H, len(query)),
                typical_B,
            ],
            1,
        )
        yield user_BF[row_N]
        yield self.share[item_N]
        yield self.late[:, item_N].T
        yield self.late[1, item_N] - self.share[item_N]
        yield self.weight[item_N]
        yield _days(at_B[row_N] - self.first[item_N])
        yield _days(at_B[row_N] - self.last[item_N])
        yield self.later[torch.searchsorted(self.edges, last_B, right=True)[row_N], item_N]
        yield self.share[item_N] - typical_B[row_N]

    def _features(self, query: Query, row_N: Tensor, item_N: Tensor) -> Iterator[Tensor]:
        users = len(self.user_side.codes) - 1
        new_B = (query.user < 0) | (query.user >= users)
        user_B = query.user.where(~new_B, users)
        yield self.user_side.values(user_B, new_B, query.features)[row_N]
        yield self.item_side.values(item_N)
        owner_H = query.owners()
        item_H, liked_H = owner_H if query.items is None else query.items, query.positive().float()
        count_B1 = torch.zeros(len(query), 1, device=owner_H.device).index_add_(0, owner_H, liked_H[:, None])
        profile_BK = self.item_side.profile(item_H, owner_H, len(query), liked_H) / count_B1.clamp(min=1)
        for slots in self.item_side.slots:
            code_NS, weight_NS = self.item_side.codes[item_N, slots].long(), self.item_side.weights[item_N, slots]
            mine_N = (profile_BK[row_N[:, None], code_NS] * weight_NS).sum(1)
            usual_N = (self.usual[code_NS] * weight_NS).sum(1)
            yield mine_N
            yield ((mine_N + 0.01) / (usual_N + 0.01)).log()
        number_IF = self.item_side.numbers
        mean_BF = torch.zeros(len(query), number_IF.shape[1], device=owner_H.device)
        mean_BF.index_add_(0, owner_H, number_IF[item_H] * liked_H[:, None])
        yield (number_IF[item_N] - (mean_BF / count_B1.clamp(min=1))[row_N]).abs()

    def _take(self, **values: NDArray[np.float64]) -> None:
        for name, value in values.items():
            getattr(self, name).copy_(_tensor(np.asarray(value)))


class _Side(nn.Module):
    """The features of users or of items, as codes with weights (rows, S) and numbers (rows, F)."""

    codes: Tensor
    weights: Tensor
    numbers: Tensor

    def __init__(self, rows: int, table: FeatureTable) -> None:
        super().__init__()
        self.table = table
        self.register_buffer("codes", torch.zeros(rows, table.slots, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(rows, table.slots))
        self.register_buffer("numbers", torch.zeros(rows, table.numbers))

    def state_problem(self) -> str | None:
        """The first tensor that holds a number out of range, in words, or None."""
        return out_of_range("codes", self.codes, self.table.codes + 1)

    def learn(self, frame: pl.DataFrame | None) -> None:
        """Take over the features of all rows of the table; rows beyond it have none."""
        given = self.table.encode(frame if self.table.columns else None)
        for mine, theirs in zip((self.codes, self.weights, self.numbers), given, strict=True):
            mine[: len(theirs)] = torch.from_numpy(theirs)

    def values(self, row_N: Tensor, other_N: Tensor | None = None, given: pl.DataFrame | None = None) -> Tensor:
        """The numbers, and 1 for each value of the columns that have few, (N, ...); of ``other_N`` as ``given``."""
        code_NS, number_NF = self.codes[row_N].long(), self.numbers[row_N]
        if other_N is not None and given is not None and self.table.columns:
            encoded = self.table.encode(given)
            code_NS = torch.from_numpy(encoded.codes).to(code_NS).where(other_N[:, None], code_NS)
            number_NF = torch.from_numpy(encoded.numbers).to(number_NF).where(other_N[:, None], number_NF)
        blocks = [number_NF]
        for column, first, slots in self._columns():
            if column.codes <= FEW:
                place_NS = (code_NS[:, slots] - first).clamp(min=0)
                there_NK = torch.zeros(len(row_N), column.codes + 1, device=row_N.device).scatter_(1, place_NS, 1.0)
                blocks.append(there_NK[:, 1:])
        return torch.cat(blocks, 1)

    def profile(self, item_H: Tensor, owner_H: Tensor, users: int, strength_H: Tensor) -> Tensor:
        """Weight of each code in the items of each user, (users, K + 1); code 0 is nothing."""
        total = torch.zeros(users * (self.table.codes + 1), device=item_H.device)
        place_HS = owner_H[:, None] * (self.table.codes + 1) + self.codes[item_H]
        total.index_add_(0, place_HS.flatten(), (self.weights[item_H] * strength_H[:, None]).float().flatten())
        return total.view(users, -1).index_fill_(1, torch.zeros(1, dtype=torch.int64, device=item_H.device), 0.0)

    @property
    def flags(self) -> int:
        """Columns of ``values`` beside the numbers."""
        return sum(column.codes for column, _, _ in self._columns() if column.codes <= FEW)

    @property
    def slots(self) -> list[slice]:
        """The slots of each column that has codes."""
        return [slots for _, _, slots in self._columns()]

    def _columns(self) -> Iterator[tuple[Feature, int, slice]]:
        """Columns with codes: the code before its first one, and its slots."""
        bases = accumulate((column.codes for column in self.table.columns), initial=0)
        starts = accumulate((column.slots for column in self.table.columns), initial=0)
        for column, base, start in zip(self.table.columns, bases, starts, strict=False):
            if column.codes:
                yield column, base, slice(start, start + column.slots)


def _retrieval(found: MemberScores, row_N: Tensor, item_N: Tensor) -> Iterator[Tensor]:
    z_MN, rank_MN = found.z[:, row_N, item_N], found.rank[:, row_N, item_N].float().log2()
    yield z_MN.T
    yield rank_MN.T
    yield z_MN[: found.retrievers].mean(0)
    yield rank_MN[: found.retrievers].mean(0)
    yield rank_MN[: found.retrievers].amin(0)


def _cosines(query: Query, row_N: Tensor, item_N: Tensor, models: list[object]) -> Iterator[Tensor]:
    """Per retriever with item vectors: cosine to the last event, mean and largest over the latest, rounded."""
    item_BL, there_BL = _latest(query)
    for model in models:
        if not isinstance(model, ItemVectors):
            continue
        unit_ID = F.normalize(model.item_vectors(), dim=1)
        near_BLI = (unit_ID[item_BL] @ unit_ID.T) * there_BL[:, :, None]
        near_NL = (near_BLI[row_N, :, item_N] * 1024).round() / 1024
        yield near_NL[:, 0]
        yield near_NL.sum(1) / there_BL.sum(1).clamp(min=1)[row_N]
        yield near_NL.amax(1)


def _latest(query: Query) -> tuple[Tensor, Tensor]:
    """The latest items of each user, the last event first, (B, L), and where there is one, (B, L) float."""
    back_L = torch.arange(1, LATEST + 1, device=query.user.device)
    there_BL = back_L <= query.counts()[:, None]
    if query.items is None or query.offsets is None or not len(query.items):
        return torch.zeros_like(there_BL, dtype=torch.int64), there_BL.float()
    place_BL = (query.offsets[1:, None] - back_L).clamp(min=0)
    return query.items[place_BL].where(there_BL, 0), there_BL.float()


def _log_share(count_I: NDArray[np.generic]) -> NDArray[np.float64]:
    """Log of the share of each item, against an even one, so that it means the same whatever the number of rows."""
    smooth_I = np.asarray(count_I, dtype=np.float64) + 0.1
    against_I: NDArray[np.float64] = np.log(smooth_I / smooth_I.mean())
    return against_I


def _days(seconds: Tensor) -> Tensor:
    return (seconds / DAY).clamp(min=0).log1p().float()


def _mean(value_H: Tensor, owner_H: Tensor, users: int) -> Tensor:
    """Mean per user, (users,), 0 for those without events."""
    sums = torch.zeros(2, users, device=value_H.device)
    sums[0].index_add_(0, owner_H, value_H.float())
    sums[1].index_add_(0, owner_H, torch.ones_like(value_H, dtype=torch.float32))
    return sums[0] / sums[1].clamp(min=1)


def _tensor(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.asarray(values))
