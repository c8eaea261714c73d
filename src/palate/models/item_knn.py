"""Item kNN: an item is scored by the items of the history that are most like it.

    sim(i, j) = x_i . x_j / (|x_i| |x_j| + shrinkage)        cosine, lowered where few users support it
    score(u, i) = sum over the ``neighbors`` items j nearest to i of  sim(i, j) w_uj

x_i is the column of item i in the matrix of users by items (Sarwar et al. 2001, "Item-based collaborative filtering
recommendation algorithms", WWW). w_uj adds up u's events with j: the confidence of each (1 where rows count alike, see
``confidence``), negative where the weight is below zero (a dislike). x_i holds the square roots of the confidences.

Fold-in: none is needed. All users are scored by the history in the query, trained users too; a query without history,
or with items only that are near to no other, gets popularity.

Memory: 8 K I bytes for the model; training and scoring hold a bounded block of rows besides the data.

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

from palate.base import Contributions, DataSpec, Query, Recipe, TrainOptions
from palate.bounds import Count, NonNegative
from palate.data.dataset import Dataset, Fingerprint
from palate.models.confidence import Confidence, Weighting
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

    def __init__(self, items: int, neighbors: int, weighting: Weighting = "none") -> None:
        super().__init__()
        self.confidence = Confidence(weighting)
        self.register_buffer("neighbors", torch.zeros(items, neighbors, dtype=torch.int32))
        self.register_buffer("similarities", torch.zeros(items, neighbors))
        self.register_buffer("popularity", torch.zeros(items))
        self.register_buffer("lists", torch.zeros(items, dtype=torch.int32))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """(B, C) or (B, I); popularity for users without an item near to another."""
        known_B = self.can_personalize(query)
        if not bool(known_B.any()):
            return self.popularity.expand(len(query), -1) if items is None else self.popularity[items]
        step = max(1, SCORE_CELLS // len(self.popularity))
        parts = []
        for first in range(0, len(query), step):
            part = slice(first, first + step)
            candidates = None if items is None else items[part]
            popular = self.popularity if candidates is None else self.popularity[candidates]
            history_BI = self._history(query, part)
            sparse = candidates is None and self._is_sparse(history_BI)
            votes = self._catalog_votes(history_BI) if sparse else self._votes(history_BI, candidates)
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
        value_H = self._values(query) * known_B[owner_H]
        return Contributions(event_HC * value_H[:, None], rest_BC)

    def _history(self, query: Query, part: slice) -> Tensor:
        """The confidence of each user of a part of the query in each item, (B, I)."""
        assert query.offsets is not None
        assert query.items is not None
        users = len(query.user[part])
        events = slice(int(query.offsets[part.start]), int(query.offsets[part.start + users]))
        owner = query.owners()[events] - part.start
        history_BI = torch.zeros(users, len(self.popularity), device=owner.device)
        return history_BI.index_put_((owner, query.items[events]), self._values(query)[events], accumulate=True)

    def _values(self, query: Query) -> Tensor:
        """The confidence of each event, (H,), negative for a dislike."""
        sign_H = torch.where(query.positive(), 1.0, -1.0)
        sure = None if query.weights is None else self.confidence.of(query.weights.cpu().numpy())
        return sign_H if sure is None else sign_H * torch.from_numpy(sure).to(sign_H.device)

    def _votes(self, history_BI: Tensor, items_BC: Tensor | None) -> Tensor:
        """Sums over the neighbors, one neighbor after the other so that no (B, C, K) is ever held."""
        columns = len(self.popularity) if items_BC is None else items_BC.shape[1]
        scores = history_BI.new_zeros(len(history_BI), columns)
        for near_I, similarity_I in zip(self.neighbors.T, self.similarities.T, strict=True):
            if items_BC is None:
                scores.addcmul_(history_BI[:, near_I], similarity_I)
            else:
                near_BC = near_I[items_BC].to(torch.int64)
                scores.addcmul_(history_BI.gather(1, near_BC), similarity_I[items_BC])
        return scores

    def _is_sparse(self, history_BI: Tensor) -> bool:
        """Whether ``_catalog_votes`` takes less time than ``_votes``, which visits every user, item and neighbor."""
        visited = history_BI.numel() * self.neighbors.shape[1]
        votes = int(((history_BI != 0) * self.lists).sum())
        # Measured: a vote costs as much as ten visits, the sorting of a neighbor as eight, and a call a million.
        return not history_BI.is_cuda and 10 * votes + 8 * self.neighbors.numel() + 1_000_000 < visited

    def _catalog_votes(self, history_BI: Tensor) -> Tensor:
        """The sums of ``_votes`` over the whole catalog, without its products with items that a user never had.

        Most histories hold few of the items, so that nearly all those products are 0. The terms of a sum are added in
        the same order, neighbor after neighbor, so that a batch scores as its users do one by one.
        """
        user_H, item_H = history_BI.nonzero(as_tuple=True)
        value_H, items = history_BI[user_H, item_H], history_BI.shape[1]
        scores = torch.zeros_like(history_BI).flatten()
        for near_I, similarity_I in zip(self.neighbors.T, self.similarities.T, strict=True):
            # The items whose neighbor at this place is item j are a run of ``voted_I``.
            voted_I = near_I.argsort(stable=True)
            counts_I = near_I.bincount(minlength=items)
            starts_I = counts_I.cumsum(0) - counts_I
            counts_H = counts_I[item_H]
            event_V = torch.repeat_interleave(torch.arange(len(item_H)), counts_H)
            first_H = starts_I[item_H] - (counts_H.cumsum(0) - counts_H)
            item_V = voted_I[first_H[event_V] + torch.arange(len(event_V))]
            at_V = user_H[event_V] * items + item_V
            # Each place occurs once per neighbor. The same operation as in ``_votes``, which rounds a product and a sum
            # at once: index_add_ of the product would round twice.
            scores[at_V] = torch.addcmul(scores[at_V], value_H[event_V], similarity_I[item_V])
        return scores.view_as(history_BI)


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
        x_UI = _matrix(train, model.confidence)
        model.popularity.copy_(torch.from_numpy(np.bincount(x_UI.indices[x_UI.data > 0], minlength=train.n_items)))
        model.popularity /= max(1, train.n_users)
        x_IU = x_UI.T.tocsr()
        norm_I = np.sqrt(x_UI.power(2).sum(axis=0))
        width = model.neighbors.shape[1]
        step = max(1, BLOCK_CELLS // max(1, train.n_items))
        for first in range(0, train.n_items, step):
            part = slice(first, min(first + step, train.n_items))
            near = _nearest((x_IU[part] @ x_UI).toarray(), norm_I, first, self.shrinkage, width)
            model.neighbors[part], model.similarities[part] = map(torch.from_numpy, near)
        in_lists = model.neighbors[model.similarities > 0]
        model.lists.copy_(torch.bincount(in_lists, minlength=train.n_items))
        model.trained_on = train.fingerprint
        return model.eval()


def _nearest(
    dot_NI: NDArray[np.float64], norm_I: NDArray[np.float64], first: int, shrinkage: float, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k nearest items of N items from ``first`` on, nearest first, and their similarities (at least 0)."""
    row_N = np.arange(len(dot_NI))
    support_NI = norm_I[first : first + len(dot_NI), None] * norm_I + shrinkage
    similarity_NI = np.divide(dot_NI, support_NI, out=np.zeros_like(dot_NI), where=support_NI > 0)
    # -inf rather than 0: among items that share no users the item itself could still be chosen.
    similarity_NI[row_N, first + row_N] = -np.inf
    best_NK = np.argpartition(-similarity_NI, k - 1, axis=1)[:, :k]
    near_NK = np.take_along_axis(similarity_NI, best_NK, axis=1)
    # Equal similarities are ordered by item, so that a fit does not depend on the partition's order.
    order_NK = np.lexsort((best_NK, -near_NK))
    near_NK = np.take_along_axis(near_NK, order_NK, axis=1).clip(min=0)
    return np.take_along_axis(best_NK, order_NK, axis=1).astype(np.int32), near_NK.astype(np.float32)


def _matrix(train: Dataset, confidence: Confidence) -> sparse.csr_array:
    """Users by items: the roots of the confidences, negative for dislikes (weights below zero)."""
    rows = train.interactions
    value, sure = np.where(rows.weight < 0, -1.0, 1.0), confidence.of(rows.weight)
    value = value if sure is None else value * np.sqrt(sure)
    return sparse.csr_array((value, (rows.user, rows.item)), shape=(train.n_users, train.n_items))
