"""Item kNN: an item is scored by the items of the history that are most like it.

    sim(i, j) = x_i . x_j / (|x_i| |x_j| + shrinkage)        cosine, lowered where few users support it
    score(u, i) = sum over the ``neighbors`` items j nearest to i of  sim(i, j) w_uj

x_i is the column of item i in the matrix of users by items (Sarwar et al. 2001, "Item-based collaborative filtering
recommendation algorithms", WWW). w_uj adds up u's events with j: the confidence of each (1 where rows count alike, see
``confidence``), negative where the weight is below zero (a dislike). x_i holds the square roots of the confidences.

Fold-in: none is needed. All users are scored by the history in the query, trained users too; a query without history,
or with items only that are near to no other, gets popularity.

Memory: 8 K I bytes for the model and as much again, once it has scored, for its lists turned around; training and
scoring hold a bounded block of rows besides the data.

Shape legend: B users, C candidates, I items, N items of a block, K neighbors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from palate.base import Contributions, DataSpec, Query, Recipe, TrainOptions, out_of_range
from palate.bounds import Count, NonNegative
from palate.data.dataset import Dataset, Fingerprint
from palate.models.confidence import Confidence, Weighting
from palate.models.dot_product import EVENLY, Recency
from palate.progress import ProgressEvent

SCORE_CELLS = 16_000_000  # cells of users by items held at once: 64 MB
BLOCK_CELLS = 4_000_000  # similarities computed at once


class ItemKNNModel(nn.Module):
    """The nearest items of each item (I, K) and how near they are; empty places have similarity 0.

    ``lists`` counts the lists that hold an item: items in none of them contribute to no score.
    """

    trained_on: Fingerprint | None = None
    neighbors: Tensor
    similarities: Tensor
    popularity: Tensor
    lists: Tensor

    def __init__(self, items: int, neighbors: int, weighting: Weighting = "none", recency: Recency = EVENLY) -> None:
        super().__init__()
        self.recency = recency
        self.confidence = Confidence(weighting)
        self._turned: tuple[tuple[int, int], sparse.csr_array] | None = None
        self.register_buffer("neighbors", torch.zeros(items, neighbors, dtype=torch.int32))
        self.register_buffer("similarities", torch.zeros(items, neighbors))
        self.register_buffer("popularity", torch.zeros(items))
        self.register_buffer("lists", torch.zeros(items, dtype=torch.int32))

    def state_problem(self) -> str | None:
        """The first tensor that holds a number out of range, in words, or None."""
        return out_of_range("neighbors", self.neighbors, len(self.neighbors)) or out_of_range(
            "lists", self.lists, len(self.neighbors) + 1
        )

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I); popularity for users without an item near to another."""
        known_B = self.can_personalize(query)
        if not bool(known_B.any()):
            return self.popularity.expand(len(query), -1) if items is None else self.popularity[items]
        assert query.offsets is not None
        assert query.items is not None
        n_items = len(self.popularity)
        # Each user's sum takes the events in their order, so a batch scores as its users do one by one. Candidates are
        # read from the scores of the catalog: a sparse row costs no more than its votes.
        events = (self.values(query).cpu().numpy(), query.items.cpu().numpy(), query.offsets.cpu().numpy())
        history_BI = sparse.csr_array(events, shape=(len(query), n_items))
        step, parts = max(1, SCORE_CELLS // n_items), []
        for first in range(0, len(query), step):
            part = slice(first, first + step)
            votes = torch.from_numpy((history_BI[part] @ self._voters()).toarray()).to(self.popularity.device)
            popular = self.popularity
            if items is not None:
                votes, popular = votes.gather(1, items[part].to(torch.int64)), popular[items[part]]
            parts.append(votes.where(known_B[part, None], popular))
        return torch.cat(parts)

    def can_personalize(self, query: Query) -> Tensor:
        """Users, trained or new, whose history holds an item near to another, (B,)."""
        if query.items is None:
            return torch.zeros(len(query), dtype=torch.bool, device=self.popularity.device)
        voter_H = (self.lists[query.items] > 0).to(torch.int64)
        return torch.zeros_like(query.user).index_add_(0, query.owners(), voter_H) > 0

    def contributions(self, query: Query, items: Tensor) -> Contributions:
        """sim(i, j) of each event with j among the nearest of i; popularity is the rest where nothing is known."""
        known_B = self.can_personalize(query)
        rest_BC = self.popularity[items].where(~known_B[:, None], 0)
        if query.items is None:
            return Contributions(rest_BC[:0], rest_BC)
        owner_H = query.owners()
        event_HC = rest_BC.new_zeros(len(owner_H), items.shape[1])
        for near_I, similarity_I in zip(self.neighbors.T, self.similarities.T, strict=True):
            voter_HC = near_I[items][owner_H] == query.items[:, None]
            event_HC += similarity_I[items][owner_H].where(voter_HC, 0)
        value_H = self.values(query) * known_B[owner_H]
        return Contributions(event_HC * value_H[:, None], rest_BC)

    def values(self, query: Query) -> Tensor:
        """The confidence of each event, (H,), lowered by its age, negative for a dislike."""
        sign_H = torch.where(query.positive(), 1.0, -1.0)
        if self.recency != EVENLY and query.offsets is not None:
            sign_H = sign_H * self.recency.weights(query.offsets)
        sure = None if query.weights is None else self.confidence.of(query.weights.cpu().numpy())
        return sign_H if sure is None else sign_H * torch.from_numpy(sure).to(sign_H.device)

    def know(self, train: Dataset, x_UI: sparse.csr_array) -> None:
        """Take from the training rows, once the lists are made, all that the scores need beside them."""
        popular_I = np.bincount(x_UI.indices[x_UI.data > 0], minlength=train.n_items) / max(1, train.n_users)
        self.popularity.copy_(torch.from_numpy(popular_I))
        listed = self.neighbors[self.similarities != 0]
        self.lists.copy_(torch.bincount(listed, minlength=train.n_items))
        self.trained_on = train.fingerprint

    def _voters(self) -> sparse.csr_array:
        """Similarities (I, I) with a row for each item of a history: the lists turned around, made once."""
        version = (self.neighbors._version, self.similarities._version)
        if self._turned is None or self._turned[0] != version:
            items, width = self.neighbors.shape
            lists = (
                self.similarities.cpu().numpy().ravel(),
                self.neighbors.cpu().numpy().ravel(),
                np.arange(0, items * width + 1, width),
            )
            turned = sparse.csr_array(lists, shape=(items, items)).T.tocsr()
            turned.eliminate_zeros()
            self._turned = version, turned
        return self._turned[1]


@dataclass(frozen=True)
class ItemKNN(Recipe[ItemKNNModel]):
    """Item-to-item cosine with shrinkage, cut to the nearest items: the classic that scales.

    Args:
        neighbors: nearest items kept of each item.
        shrinkage: added to the denominator of the cosine; how much support a similarity needs.
        weighting: confidence of a row by its weight: "log" or "linear", "none" for 1; "auto" is "log" for quantities,
            "linear" for event types and "none" for others.
    """

    name: ClassVar[str] = "item-knn"

    neighbors: Count = 50
    shrinkage: NonNegative = 50.0
    weighting: Weighting = "auto"

    def build(self, spec: DataSpec) -> ItemKNNModel:
        """No neighbors yet, ready for ``load_state_dict``; never more neighbors than other items."""
        return ItemKNNModel(spec.items, max(1, min(self.neighbors, spec.items - 1)), self.weighting)

    def training_rows(self, train: Dataset) -> Dataset:
        """The positive rows, and the dislikes."""
        return train.positives(dislikes=True)

    def _fit(self, train: Dataset, options: TrainOptions) -> ItemKNNModel:
        """Find the nearest items of each item, in blocks of items; nothing is random."""
        model = self.build(DataSpec(train.n_users, train.n_items))
        if rule := model.confidence.measure(train).rule:
            options.progress(ProgressEvent(f"train {self.name}", message=f"{rule} ({train.feedback.column})"))
        x_UI = signed_rows(train, model.confidence)
        x_IU = x_UI.T.tocsr()
        norm_I = np.sqrt(x_UI.power(2).sum(axis=0))
        width = model.neighbors.shape[1]
        step = max(1, BLOCK_CELLS // max(1, train.n_items))
        for first in range(0, train.n_items, step):
            part = slice(first, min(first + step, train.n_items))
            near = nearest((x_IU[part] @ x_UI).tocsr(), norm_I, first, self.shrinkage, width)
            model.neighbors[part], model.similarities[part] = map(torch.from_numpy, near)
        model.know(train, x_UI)
        return model.eval()


def nearest(
    dot_NI: sparse.csr_array, norm_I: NDArray[np.float64], first: int, shrinkage: float, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k nearest items of N items from ``first`` on, nearest first, and their similarities, zero in empty places."""
    n_rows = dot_NI.shape[0]
    dot_NI.sort_indices()
    row = np.repeat(np.arange(n_rows), np.diff(dot_NI.indptr))
    # In double: a float32 similarity would make ties that the order of items then decides.
    similarity = dot_NI.data / (norm_I[first + row] * norm_I[dot_NI.indices] + shrinkage)
    other = (similarity > 0) & (dot_NI.indices != first + row)
    row, column, similarity = row[other], dot_NI.indices[other], similarity[other]
    # Two stable sorts of one key each, the second by counting, are faster than one of both. Equal similarities stay in
    # the order of items.
    order = np.argsort(-similarity, kind="stable")
    order = order[np.argsort(row[order].astype(np.uint16 if n_rows <= 1 << 16 else np.int64), kind="stable")]
    row, column, similarity = row[order], column[order], similarity[order]
    starts = np.searchsorted(row, np.arange(n_rows))
    place = np.arange(len(row)) - starts[row]
    kept = place < k
    near_NK, similarity_NK = np.zeros((n_rows, k), np.int32), np.zeros((n_rows, k), np.float32)
    near_NK[row[kept], place[kept]] = column[kept]
    similarity_NK[row[kept], place[kept]] = similarity[kept]
    return near_NK, similarity_NK


def signed_rows(train: Dataset, confidence: Confidence | None = None) -> sparse.csr_array:
    """Users by items: the roots of the confidences, 1 without, negative for dislikes (weights below zero)."""
    rows = train.interactions
    value, sure = np.where(rows.weight < 0, -1.0, 1.0), None if confidence is None else confidence.of(rows.weight)
    value = value if sure is None else value * np.sqrt(sure)
    return sparse.csr_array((value, (rows.user, rows.item)), shape=(train.n_users, train.n_items))
