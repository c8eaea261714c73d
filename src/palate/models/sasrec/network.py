"""The network of SASRec: states of histories, and their scores.

Shape legend: B users of a query, C candidates, I items, R rows of a batch, L events of a row, H events of a query, D
width.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.base import DataSpec, Query
from palate.data.dataset import Dataset, Fingerprint
from palate.training.layers import Block, ByteDropout, ItemFeatures, dot_products

ENCODE_CELLS = 4_000_000  # attention logits of one layer held at once outside training: 16 MB
TIME_BUCKETS = 32  # powers of two of seconds; one more for the time of request where it is not known
TYPICAL_USERS = 2_000  # users whose mean state is that of users without a history


class SASRecModel(nn.Module):
    """The network; its state dict is the whole model.

    Args:
        spec: rows of the tables; users need none.
        dim, n_layers, heads, hidden, max_seq_len, dropout, time_gaps, request_time, init_std: see ``SASRec``.
    """

    trained_on: Fingerprint | None = None
    typical: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: int,
        n_layers: int,
        heads: int,
        hidden: int,
        max_seq_len: int,
        dropout: float,
        time_gaps: bool,
        request_time: bool,
        init_std: float,
    ) -> None:
        super().__init__()
        self.spec, self.max_seq_len, self.scale = spec, max_seq_len, dim**0.5
        self.item_table = nn.Embedding(spec.items, dim)
        self.features = ItemFeatures(spec.items, spec.features.items, dim) if spec.features else None
        self.item_bias = nn.Parameter(torch.zeros(spec.items))
        self.distance = nn.Parameter(torch.zeros(heads, max_seq_len))
        self.gap_table = nn.Embedding(TIME_BUCKETS, dim) if time_gaps else None
        self.wait_table = nn.Embedding(TIME_BUCKETS + 1, dim) if request_time else None
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, dropout) for _ in range(n_layers))
        self.dropout, self.norm = ByteDropout(dropout), nn.LayerNorm(dim)
        self.register_buffer("typical", torch.zeros(dim))
        nn.init.normal_(self.item_table.weight, std=init_std)
        # Zeros: the network starts as if it read no times.
        for table in (self.gap_table, self.wait_table):
            if table is not None:
                nn.init.zeros_(table.weight)

    @property
    def reads_request_time(self) -> bool:
        """Whether it has a table of waits."""
        return self.wait_table is not None

    def encode(
        self, item_RL: Tensor, gap_RL: Tensor, segment_RL: Tensor | None = None, wait_RL: Tensor | None = None
    ) -> Tensor:
        """States (R, L, D) after each event, given the events before it in its segment.

        Args:
            item_RL: item rows.
            gap_RL: seconds since the event before, 0 where there is none.
            segment_RL: the history of each event; None: one history in each row.
            wait_RL: seconds until the next event or the request, below 0 where unknown; None: unknown everywhere.
        """
        x_RLD = F.embedding(item_RL, self.table()) * self.scale
        if self.gap_table is not None:
            x_RLD = x_RLD + self.gap_table(_bucket(gap_RL))
        if self.wait_table is not None:
            unknown = torch.full_like(item_RL, TIME_BUCKETS)
            x_RLD = x_RLD + self.wait_table(
                unknown if wait_RL is None else _bucket(wait_RL).where(wait_RL >= 0, unknown)
            )
        x_RLD, places = self.dropout(x_RLD), torch.arange(item_RL.shape[1], device=item_RL.device)
        # Attention bias by distance; -inf hides later events, and events of other users in a packed row.
        back_LL = places[:, None] - places
        bias_RHLL = self.distance[:, back_LL.clamp(min=0)].masked_fill(back_LL < 0, -torch.inf)[None]
        if segment_RL is not None:
            other_RLL = segment_RL[:, :, None] != segment_RL[:, None, :]
            bias_RHLL = bias_RHLL.masked_fill(other_RLL[:, None], -torch.inf)
        for block in self.blocks:
            x_RLD = block(x_RLD, bias_RHLL)
        return cast(Tensor, self.norm(x_RLD))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Dot products: (B, C) or (B, I)."""
        return dot_products(self.query_vectors(query), self.item_vectors(), items)

    def can_personalize(self, query: Query) -> Tensor:
        """Users with at least one event in the query that is not a dislike."""
        return _events(query).offsets.diff() > 0

    def query_vectors(self, query: Query) -> Tensor:
        """The state behind the last event of each history, and a 1: (B, D + 1)."""
        # A copy for each row, not a view: the states are written into it.
        state_BD = self.typical.repeat(len(query), 1)
        offsets, item_H, gap_H, wait_H = _events(query)
        counts = offsets.diff().clamp(max=self.max_seq_len)
        order = counts.argsort(descending=True, stable=True)
        order = order[: int((counts > 0).sum())]
        while len(order):  # the longest first, so that a chunk is as wide as its first history
            width = int(counts[order[0]])
            step = max(1, ENCODE_CELLS // (width * width * len(self.distance)))
            part, order = order[:step], order[step:]
            place_BL = torch.arange(width, device=part.device)
            last_B = counts[part] - 1
            index_BL = (offsets[part + 1] - counts[part])[:, None] + place_BL.minimum(last_B[:, None])
            # Places behind the last event repeat it: causal attention never reads them for the last state.
            x_BLD = self.encode(item_H[index_BL], gap_H[index_BL], None, wait_H[index_BL])
            state_BD[part] = x_BLD[torch.arange(len(part), device=part.device), last_B].to(state_BD.dtype)
        return torch.cat([state_BD, torch.ones_like(state_BD[:, :1])], 1)

    def table(self) -> Tensor:
        """Item vectors (I, D) of ids and features, without the bias."""
        return self.item_table.weight if self.features is None else self.features(self.item_table.weight)

    def item_vectors(self) -> Tensor:
        """Item vectors (I, D + 1), the bias in the last column."""
        return torch.cat([self.table(), self.item_bias[:, None]], 1)

    @torch.no_grad()
    def settle(self, train: Dataset) -> None:
        """Measure the mean state of some users, for users without a history."""
        users = np.unique(train.interactions.user)
        # Evenly spaced instead of drawn: after training nothing is random.
        users = users[:: -(-len(users) // TYPICAL_USERS)]
        query = Query.of(users, train.history.select(users))
        known_B = self.can_personalize(query)
        if bool(known_B.any()):
            self.typical.copy_(self.query_vectors(query)[known_B, :-1].mean(0))


class _Events(NamedTuple):
    """Inputs of the network from a query: offsets (B + 1,); items, seconds since the event before and until the next.

    A wait is below 0 where it is unknown, which that of the last event is without a time of request.
    """

    offsets: Tensor
    item_H: Tensor
    gap_H: Tensor
    wait_H: Tensor


def _events(query: Query) -> _Events:
    """The events that are not dislikes, as in training."""
    if query.offsets is None or query.items is None:
        none = query.user.new_zeros(0)
        return _Events(query.user.new_zeros(len(query) + 1), none, none.float(), none.float())
    keep_H = query.positive()
    offsets = torch.cat([keep_H.new_zeros(1, dtype=torch.int64), keep_H.cumsum(0)])[query.offsets]
    item_H = query.items[keep_H]
    gap_H, wait_H = torch.zeros(len(item_H), device=item_H.device), torch.full((len(item_H),), -1.0).to(item_H.device)
    if query.times is not None:
        time_H, counts = query.times[keep_H], offsets.diff()
        wait_H[:-1] = gap_H[1:] = time_H.diff().float()
        known_B = counts > 0
        last = offsets[1:][known_B] - 1
        gap_H[offsets[:-1][known_B]] = 0
        wait_H[last] = -1 if query.at is None else (query.at[known_B] - time_H[last]).float().clamp(min=0)
    return _Events(offsets, item_H, gap_H, wait_H)


def _bucket(seconds: Tensor) -> Tensor:
    """0 for less than a second, 1 up to 3, 2 up to 7, and so on."""
    return seconds.clamp(min=0).add(1).log2().long().clamp(max=TIME_BUCKETS - 1)
