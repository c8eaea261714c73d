"""One side of a two-tower model (``two_tower``): a network from an id and its features to a vector.

    x = e_id + sum_k w_k e_k + W z        id, weighted feature values, standardised numbers
    tower(x) = W_L ReLU(... ReLU(W_1 x + b_1) ...) + b_L,   or x itself where there are no layers

An id without training rows reads the out-of-vocabulary row of its table, which is learned where ``id_dropout`` hides
some ids, and zero otherwise.

Shape legend: N rows of a feature table, D width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from palate.data.features import Encoded, FeatureTable
from palate.nn import mlp

__all__ = ["Tower"]


class Tower(nn.Module):
    """Ids and features to vectors; the last row of each table is the out-of-vocabulary row.

    Args:
        rows: users or items.
        table: the features to read.
        dim: width of the embeddings.
        layers: widths of the layers behind them; none for plain embeddings.
        id_dropout: chance that an id reads the out-of-vocabulary row in training.
        init_std: of the embeddings at the start.
        sparse: give the tables sparse gradients.
    """

    known: Tensor
    codes: Tensor
    weights: Tensor
    numbers: Tensor

    def __init__(
        self,
        rows: int,
        table: FeatureTable,
        *,
        dim: int,
        layers: tuple[int, ...] = (),
        id_dropout: float = 0.0,
        init_std: float = 0.05,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.rows, self.table, self.id_dropout = rows, table, id_dropout
        self.ids = nn.Embedding(rows + 1, dim, sparse=sparse)
        nn.init.normal_(self.ids.weight, std=init_std)
        nn.init.zeros_(self.ids.weight[-1:])
        self.register_buffer("known", torch.ones(rows + 1, dtype=torch.bool))
        self.known[-1] = False
        if table.codes:
            self.values = nn.EmbeddingBag(table.codes + 1, dim, mode="sum", padding_idx=0, sparse=sparse)
            nn.init.normal_(self.values.weight, std=init_std)
            nn.init.zeros_(self.values.weight[:1])
        if table.numbers:
            self.linear = nn.Linear(table.numbers, dim, bias=False)
            nn.init.normal_(self.linear.weight, std=init_std)
        self.register_buffer("codes", torch.zeros(rows + 1, table.slots, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(rows + 1, table.slots))
        self.register_buffer("numbers", torch.zeros(rows + 1, table.numbers))
        widths = (dim, *layers)
        last = nn.Linear(widths[-2], widths[-1]) if layers else nn.Identity()
        self.deep = nn.Sequential(*mlp(widths[:-1]), last)

    def forward(self, row: Tensor) -> Tensor:
        """Vectors (..., D) of row numbers (...)."""
        known = self.known[row]
        if self.training and self.id_dropout:
            known = known & (torch.rand(row.shape, device=row.device) >= self.id_dropout)
        vector = self.ids(row.where(known, self.rows))
        if not self.table.columns:
            return cast(Tensor, self.deep(vector))
        return self._finish(vector, self.codes[row], self.weights[row], self.numbers[row])

    def of_features(self, given: Encoded) -> Tensor:
        """Vectors (N, D) of rows that are known by their features alone."""
        device = self.ids.weight.device
        codes, weights, numbers = (torch.from_numpy(part).to(device) for part in given)
        return self._finish(self.ids.weight[-1].expand(len(codes), -1), codes, weights, numbers)

    def learn(self, given: Encoded, known: Tensor) -> None:
        """Take over the features of all rows, and which rows have training rows."""
        self.known[:-1] = known
        for mine, theirs in zip((self.codes, self.weights, self.numbers), given, strict=True):
            if len(theirs):
                mine[:-1] = torch.from_numpy(theirs)

    def _finish(self, vector: Tensor, codes: Tensor, weights: Tensor, numbers: Tensor) -> Tensor:
        if self.table.codes:
            flat, shares = codes.reshape(-1, self.table.slots), weights.reshape(-1, self.table.slots)
            vector = vector + self.values(flat, per_sample_weights=shares).reshape(vector.shape)
        if self.table.numbers:
            vector = vector + self.linear(numbers)
        return cast(Tensor, self.deep(vector))
