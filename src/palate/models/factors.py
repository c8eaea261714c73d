"""The fitted form of every dot-product model: a vector per user, a vector per item, and a rule for strangers.

    score(u, i) = p_u . q_i               (with a bias: p_u = [.. ; 1] and q_i = [.. ; b_i])

An item's bias is the last column of its vector and every user's last coordinate is 1, so an index that searches by dot
product needs to know nothing about biases.

A stranger with a history gets a vector from the model's fold-in, a function of that history alone. One without a single
event that is not a dislike gets the mean of the trained users: a list like everybody's, and ``knows`` says False.

Shape legend: B users of a query, C candidates, I items, S strangers, H their events together (CSR), D width of a user
vector, E width of an item vector (D, or D + 1 with a bias).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.data.dataset import Dataset, Fingerprint
from palate.errors import ModelError
from palate.protocols import Query, Sizes

__all__ = ["Events", "FactorModel", "FoldIn"]

# Numbers of gathered vectors, or of scores, held at once: bounds memory to about 130 MB at any size.
CELLS = 32_000_000


class Events(NamedTuple):
    """Histories of S strangers in compressed rows: offsets (S + 1,), items (H,), weights (H,) below 0 for dislikes."""

    offsets: Tensor
    items: Tensor
    weights: Tensor


class FoldIn(nn.Module):
    """How a model gives a stranger a vector; a module, so that what it needs to know is saved with the weights."""

    def forward(self, item_IE: Tensor, typical_D: Tensor, events: Events) -> Tensor:
        """User vectors (S, D), each a function of its own history."""
        raise NotImplementedError


class FactorModel(nn.Module):
    """User vectors, item vectors and their dot product.

    Args:
        sizes: rows of the tables.
        dim: width D of a user vector.
        fold_in: how strangers get a vector.
        bias: give every item a bias, the last column of its vector.
        std: of the normal distribution that the vectors (not the biases) start from.
        sparse: let gradients be sparse, for optimisers that want them so.
    """

    trained_on: Fingerprint | None = None
    trained: Tensor
    typical: Tensor

    def __init__(
        self, sizes: Sizes, dim: int, fold_in: FoldIn, *, bias: bool = False, std: float = 0.01, sparse: bool = False
    ) -> None:
        super().__init__()
        self.dim, self.bias, self.fold_in = dim, bias, fold_in
        self.user_table = nn.Embedding(sizes.users, dim, sparse=sparse)
        self.item_table = nn.Embedding(sizes.items, dim + bias, sparse=sparse)
        self.register_buffer("trained", torch.ones(sizes.users, dtype=torch.bool))
        self.register_buffer("typical", torch.zeros(dim))
        nn.init.normal_(self.user_table.weight, std=std)
        nn.init.normal_(self.item_table.weight, std=std)
        if bias:
            nn.init.zeros_(self.item_table.weight[:, dim:])

    def finish(self, train: Dataset) -> None:
        """Note who was trained, on what, and the mean user; the model is ready to score then."""
        counts = np.bincount(train.interactions.user, minlength=train.n_users)
        self.trained.copy_(torch.from_numpy(counts > 0))
        with torch.no_grad():
            self.typical.copy_(self.user_table.weight[self.trained].mean(0))
        self.trained_on = train.fingerprint
        self.eval()

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Dot products: (B, C) or (B, I); candidate vectors are gathered in chunks of bounded memory."""
        user_BE, item_IE = self.query_vectors(query), self.item_vectors()
        if items is None:
            return user_BE @ item_IE.T
        rows = max(1, CELLS // max(1, items.shape[1] * item_IE.shape[1]))
        parts = zip(user_BE.split(rows), items.split(rows), strict=True)
        return torch.cat([torch.bmm(item_IE[i], u[:, :, None]).squeeze(2) for u, i in parts])

    def knows(self, query: Query) -> Tensor:
        """Users with training rows, and strangers with at least one event that is not a dislike."""
        return self._trained(query) | (_likes(query) > 0)

    def query_vectors(self, query: Query) -> Tensor:
        """User vectors (B, E): trained, folded in, or the mean user."""
        trained_B = self._trained(query)
        vector_BD = self.user_table.weight[query.user.where(trained_B, 0)].detach()
        if not bool(trained_B.all()):
            vector_BD = vector_BD.where(trained_B[:, None], self.typical)
            fold_B = ~trained_B & (_likes(query) > 0)
            if bool(fold_B.any()):
                events = _events(query, fold_B.nonzero().squeeze(1))
                vector_BD[fold_B] = self.fold_in(self.item_vectors(), self.typical, events).to(vector_BD.dtype)
        return torch.cat([vector_BD, torch.ones_like(vector_BD[:, :1])], 1) if self.bias else vector_BD

    def item_vectors(self) -> Tensor:
        """Item vectors (I, E), the bias in the last column where there is one."""
        return self.item_table.weight.detach()

    def _trained(self, query: Query) -> Tensor:
        inside_B = (query.user >= 0) & (query.user < len(self.trained))
        if not len(self.trained):
            raise ModelError("the model has no users: fit it, or build it for at least one")
        return inside_B & self.trained[query.user.where(inside_B, 0)]


def _likes(query: Query) -> Tensor:
    """Events per user that are not dislikes, (B,)."""
    if query.offsets is None or query.weights is None:
        return query.counts()
    before = F.pad((query.weights >= 0).long().cumsum(0), (1, 0))
    return before[query.offsets].diff()


def _events(query: Query, index_S: Tensor) -> Events:
    """The histories of some rows of a query."""
    assert query.offsets is not None
    assert query.items is not None
    count_S = query.counts()[index_S]
    offsets = F.pad(count_S.cumsum(0), (1, 0))
    shift_H = torch.repeat_interleave(query.offsets[index_S] - offsets[:-1], count_S)
    place_H = shift_H + torch.arange(len(shift_H), device=shift_H.device)
    items = query.items[place_H]
    weights = torch.ones_like(items, dtype=torch.float32) if query.weights is None else query.weights[place_H]
    return Events(offsets, items, weights)
