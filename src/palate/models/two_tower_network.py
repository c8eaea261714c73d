"""The network of two towers (its recipe is in ``two_tower``): ids and features to vectors, vectors to scores.

A user's vector is the first available of

    trained       the user's own: tower_user(u)
    folded in     from a history, see ``palate.models.dot_product``
    features      tower_user of the features in the query, or in the table, behind the out-of-vocabulary id
    nothing       the mean vector of the trained users

Shape legend: B users, C candidates, I items, N rows of a feature table, S code slots, F numbers, D width.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.base import DataSpec, Query, out_of_range
from palate.data.dataset import Dataset, Fingerprint
from palate.data.features import Encoded, FeatureSchema, FeatureTable
from palate.errors import ModelError
from palate.models.dot_product import events_of, positive_events
from palate.models.sampled_mf import GradientFoldIn, UserBatch, pairwise_loss, pointwise_loss, predict
from palate.training.layers import dot_products, mlp

Loss = Literal["softmax", "bce", "bpr"]
ROWS_AT_ONCE = 1 << 16  # rows of a tower computed at once outside training
SOFTMAX_PROBES = 1 << 14  # a sum of exponentials needs nearly all items: a third of them costs a sixth of the NDCG


class Facts(NamedTuple):
    """Encoded features: codes (N, S) and their weights, numbers (N, F)."""

    codes: Tensor
    weights: Tensor
    numbers: Tensor

    @property
    def known(self) -> Tensor:
        """(N,) bool: whether anything is known about a row."""
        return (self.codes > 0).any(1) | (self.numbers != 0).any(1)


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

    def state_problem(self) -> str | None:
        """The first tensor that holds a number out of range, in words, or None."""
        return out_of_range("codes", self.codes, self.table.codes + 1)

    def forward(self, row: Tensor) -> Tensor:
        """Vectors (..., D) of row numbers (...)."""
        known = self.known[row]
        if self.training and self.id_dropout:
            known = known & (torch.rand(row.shape, device=row.device) >= self.id_dropout)
        vector = self.ids(row.where(known, self.rows))
        if not self.table.columns:
            return cast(Tensor, self.deep(vector))
        return self._finish(vector, self.facts(row))

    def facts(self, row: Tensor) -> Facts:
        """The features of row numbers (N,); the last row has none."""
        return Facts(self.codes[row], self.weights[row], self.numbers[row])

    def encode(self, features: pl.DataFrame) -> Facts:
        """The features of the rows of a table.

        Raises:
            DataError: the table lacks a column of the schema, or one is of another type.
        """
        return Facts(*(torch.from_numpy(part).to(self.codes.device) for part in self.table.encode(features)))

    def of_features(self, facts: Facts) -> Tensor:
        """Vectors (N, D) of rows that are known by their features alone."""
        return self._finish(self.ids.weight[-1].expand(len(facts.codes), -1), facts)

    def learn(self, given: Encoded, known: Tensor) -> None:
        """Take over the features of all rows, and which rows have training rows."""
        self.known[:-1] = known
        for mine, theirs in zip((self.codes, self.weights, self.numbers), given, strict=True):
            if len(theirs):
                mine[:-1] = torch.from_numpy(theirs)

    def grown(self, facts: Facts) -> dict[str, Tensor]:
        """The state of this tower with rows appended that are known by their features alone."""
        unknown = torch.zeros(len(facts.codes), dtype=torch.bool, device=self.known.device)
        unread = self.ids.weight[-1:].detach().expand(len(unknown), -1)
        more = {"ids.weight": unread, "known": unknown, **facts._asdict()}
        state: dict[str, Tensor] = self.state_dict()
        return state | {name: torch.cat([state[name][:-1], new, state[name][-1:]]) for name, new in more.items()}

    def _finish(self, vector: Tensor, facts: Facts) -> Tensor:
        if self.table.codes:
            flat, shares = (part.reshape(-1, self.table.slots) for part in facts[:2])
            vector = vector + self.values(flat, per_sample_weights=shares).reshape(vector.shape)
        if self.table.numbers:
            vector = vector + self.linear(facts.numbers)
        return cast(Tensor, self.deep(vector))


class TwoTowerModel(nn.Module):
    """Two towers and the fold-in of new users."""

    trained_on: Fingerprint | None = None
    user_mean: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: int,
        layers: tuple[int, ...],
        id_dropout: float,
        init_std: float,
        sparse: bool,
        objective: Loss,
        negatives: int,
        popularity: bool = False,
    ) -> None:
        super().__init__()
        self.spec = spec
        tower: dict[str, Any] = {
            "dim": dim,
            "layers": layers,
            "id_dropout": id_dropout,
            "init_std": init_std,
            "sparse": sparse,
        }
        self.options = {**tower, "objective": objective, "negatives": negatives, "popularity": popularity}
        schema = spec.features or FeatureSchema()
        self.user_tower = Tower(spec.users, schema.users, **tower)
        self.item_tower = Tower(spec.items, schema.items, **tower)
        width = layers[-1] if layers else dim
        probes = SOFTMAX_PROBES if objective == "softmax" else 1024
        self.fold_in = GradientFoldIn(width, partial(history_loss, objective, negatives, spec.items), probes=probes)
        self.register_buffer("user_mean", torch.zeros(width))
        self.item_bias: Tensor | None
        self.register_buffer("item_bias", torch.zeros(spec.items) if popularity else None)

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Dot products: (B, C) or (B, I)."""
        return dot_products(self.query_vectors(query), self.item_vectors(), items)

    def can_personalize(self, query: Query) -> Tensor:
        """Trained users, new users with a history, and those with features in the query or in the table."""
        return self._trained(query) | (positive_events(query) > 0) | self._facts(query).known

    def query_vectors(self, query: Query) -> Tensor:
        """User vectors (B, D): trained, folded in, from features alone, or the mean user."""
        trained_B, folded_B, facts = self._trained(query), positive_events(query) > 0, self._facts(query)
        vector_BD = self.user_mean.expand(len(query), -1)
        if bool(trained_B.any()):
            vector_BD = self.user_tower(self._row(query)).where(trained_B[:, None], vector_BD)
        featured_B = facts.known & ~trained_B & ~folded_B
        if bool(featured_B.any()):
            vector_BD = self.user_tower.of_features(facts).where(featured_B[:, None], vector_BD)
        folded_B = folded_B & ~trained_B
        if bool(folded_B.any()):
            events = events_of(query, folded_B.nonzero().squeeze(1), self.fold_in.recency)
            folded_SD = self.fold_in(self.item_vectors().detach(), self.user_mean, events)
            vector_BD = vector_BD.index_put((folded_B,), folded_SD.to(vector_BD.dtype))
        return vector_BD if self.item_bias is None else torch.cat([vector_BD, torch.ones_like(vector_BD[:, :1])], 1)

    def item_vectors(self, features: pl.DataFrame | None = None) -> Tensor:
        """Item vectors (I, D); or (N, D) of the rows of a feature table, for items that training did not have.

        Raises:
            DataError: the table lacks a column of the schema.
            ModelError: the model was trained without item features.
        """
        if features is None:
            rows = torch.arange(self.item_tower.rows, device=self.user_mean.device)
            vector_ID, bias_I = torch.cat([self.item_tower(part) for part in rows.split(ROWS_AT_ONCE)]), self.item_bias
        else:
            vector_ID = self.item_tower.of_features(self._item_facts(features))
            bias_I = None if self.item_bias is None else vector_ID.new_zeros(len(vector_ID))
        return vector_ID if bias_I is None else torch.cat([vector_ID, bias_I[:, None]], 1)

    def with_items(self, features: pl.DataFrame) -> TwoTowerModel:
        """This model with the items of a feature table behind its own; all else is shared, and this one stays as it is.

        Raises:
            DataError: the table lacks a column of the schema.
            ModelError: the model was trained without item features.
        """
        tower = self.item_tower.grown(self._item_facts(features))
        state = self.state_dict() | {f"item_tower.{name}": tensor for name, tensor in tower.items()}
        if self.item_bias is not None:
            state["item_bias"] = torch.cat([self.item_bias, self.item_bias.new_zeros(len(features))])
        # Built without memory, then given the tensors of this model: only the grown tables are copied.
        with torch.device("meta"):
            model = TwoTowerModel(self.spec._replace(items=self.spec.items + len(features)), **self.options)
        model.load_state_dict(state, strict=True, assign=True)
        model.trained_on = self.trained_on
        return model.eval()

    def settle(self, train: Dataset) -> None:
        """Measure mean and spread of the vectors of the users of the training rows, for new users."""
        user_U = torch.from_numpy(np.unique(train.interactions.user).astype(np.int64))
        with torch.no_grad():
            vector_UD = torch.cat([self.user_tower(part) for part in user_U.split(ROWS_AT_ONCE)])
            self.user_mean.copy_(vector_UD.mean(0))
            self.fold_in.settle(vector_UD)

    def _item_facts(self, features: pl.DataFrame) -> Facts:
        if not self.item_tower.table.columns:
            raise ModelError("the model reads no item features: fit it with item_features=('*',)")
        return self.item_tower.encode(features)

    def _row(self, query: Query) -> Tensor:
        """Row numbers (B,) in the tower's tables, that of the out-of-vocabulary row for new users."""
        inside_B = (query.user >= 0) & (query.user < self.user_tower.rows)
        return query.user.where(inside_B, self.user_tower.rows)

    def _trained(self, query: Query) -> Tensor:
        return self.user_tower.known[self._row(query)]

    def _facts(self, query: Query) -> Facts:
        """Features of each user: those of the query where given, else those of the table."""
        tower = self.user_tower
        table = tower.facts(self._row(query))
        if query.features is None or not tower.table.columns:
            return table
        if len(query.features) != len(query):
            raise ModelError(f"{len(query)} users but {len(query.features)} rows of features: give one row per user")
        given = tower.encode(query.features)
        given_B1 = given.known[:, None]
        return Facts(*(mine.where(given_B1, theirs) for mine, theirs in zip(given, table, strict=True)))


def history_loss(
    objective: Loss, negatives: int, items: int, user_SD: Tensor, item_ID: Tensor, batch: UserBatch
) -> Tensor:
    """The training loss of whole histories, summed; the probes of the batch stand for all ``items``."""
    if objective == "bpr":
        return pairwise_loss(user_SD, item_ID, batch)
    if objective == "bce":
        return pointwise_loss(user_SD, item_ID, batch, negatives)
    event_H, probe_SN = predict(user_SD, item_ID, batch)
    # Evenly spaced probes are a sample of the catalog: their sum is scaled up to the sum over all items.
    total_S = probe_SN.logsumexp(1) + math.log(items / len(batch.pool))
    return (batch.strength * F.softplus(batch.sign * (total_S[batch.owner] - event_H))).sum()
