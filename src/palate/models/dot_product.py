"""The fitted form of every dot-product model: a vector per user, a vector per item, and a fold-in for new users.

    score(u, i) = p_u . q_i               (with a bias: p_u = [.. ; 1] and q_i = [.. ; b_i])

An item's bias is the last column of its vector and the last coordinate of every user is 1, so an index that searches by
dot product needs no support for biases.

A new user with a history gets a vector from the model's fold-in, a function of that history alone. A new user without
a single positive event gets the mean of the trained users, and ``can_personalize`` is False.

Shape legend: B users of a query, C candidates, I items, U users of the training data, S new users, H their events
together (CSR), D width of a user vector, E width of an item vector (D, or D + 1 with a bias).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.base import DataSpec, Query
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import ModelError
from palate.training.layers import dot_products

# Numbers of gathered vectors, or of scores, held at once: bounds memory to about 130 MB at any size.
CELLS = 32_000_000


@dataclass(frozen=True)
class Recency:
    """Weights of history events by the number of events since: floor + (1 - floor) 0.5 ** (since / half_life_events).

    The latest events of a history predict the next one best. Age is a count of events rather than a time, so it needs
    no clock, and a pause of a year changes nothing.

    Args:
        half_life_events: history events after which an event counts half; None counts all alike, as 1.
        floor: the least weight of an event, however old, as a fraction of the latest.
    """

    half_life_events: float | None = None
    floor: float = 0.0

    def weights(self, offsets: Tensor) -> Tensor:
        """The weight of each event (H,), float32, for histories in compressed rows with ``offsets`` (B + 1,)."""
        count_B = offsets.diff()
        if self.half_life_events is None:
            return torch.ones(int(count_B.sum()), device=offsets.device)
        end_H = torch.repeat_interleave(offsets[1:] - offsets[0], count_B)
        since_H = end_H - 1 - torch.arange(len(end_H), device=offsets.device)
        return self.floor + (1 - self.floor) * torch.exp2(-since_H / self.half_life_events)


EVENLY = Recency()


class Events(NamedTuple):
    """Histories of S new users in compressed rows, oldest first.

    offsets (S + 1,); items (H,); weights (H,), below 0 for dislikes; recency (H,), the weight of an event by its age.
    """

    offsets: Tensor
    items: Tensor
    weights: Tensor
    recency: Tensor


class FoldIn(nn.Module):
    """The rule that gives a new user a vector; a module, so that its state is saved with the weights.

    Args:
        recency: how much events count by their age. Where they do not count alike, trained users get their vector by
            the same rule after training: item vectors learn from all events, user vectors lean on the latest.
    """

    def __init__(self, recency: Recency = EVENLY) -> None:
        super().__init__()
        self.recency = recency

    def settle(self, user_UD: Tensor) -> None:
        """Measure the trained users' vectors after training; nothing unless overridden."""

    def forward(self, item_IE: Tensor, typical_D: Tensor, events: Events) -> Tensor:
        """User vectors (S, D), each a function of its own history."""
        raise NotImplementedError


class DotProductModel(nn.Module):
    """User vectors, item vectors and their dot product.

    Args:
        spec: rows of the tables.
        dim: width D of a user vector.
        fold_in: the rule for new users.
        bias: give every item a bias, the last column of its vector.
        init_std: of the normal distribution that the vectors (not the biases) start from.
    """

    trained_on: Fingerprint | None = None
    trained: Tensor
    typical: Tensor

    def __init__(
        self, spec: DataSpec, dim: int, fold_in: FoldIn, *, bias: bool = False, init_std: float = 0.01
    ) -> None:
        super().__init__()
        self.dim, self.bias, self.fold_in = dim, bias, fold_in
        self.user_table = nn.Embedding(spec.users, dim)
        self.item_table = nn.Embedding(spec.items, dim + bias)
        self.register_buffer("trained", torch.ones(spec.users, dtype=torch.bool))
        self.register_buffer("typical", torch.zeros(dim))
        nn.init.normal_(self.user_table.weight, std=init_std)
        nn.init.normal_(self.item_table.weight, std=init_std)
        if bias:
            nn.init.zeros_(self.item_table.weight[:, dim:])

    def finish(self, train: Dataset) -> None:
        """Record the trained users, their mean and the rows; the model can score afterwards."""
        counts = np.bincount(train.interactions.user, minlength=train.n_users)
        self.trained.copy_(torch.from_numpy(counts > 0))
        with torch.no_grad():
            vector_UD = self.user_table.weight[self.trained]
            self.typical.copy_(vector_UD.mean(0))
            self.fold_in.settle(vector_UD)
        self.trained_on = train.fingerprint
        self.eval()
        if self.fold_in.recency != EVENLY:  # training has weighted all events alike
            self.refold(train)

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Dot products: (B, C) or (B, I)."""
        return dot_products(self.query_vectors(query), self.item_vectors(), items)

    def can_personalize(self, query: Query) -> Tensor:
        """Users with training rows, and new users with at least one positive event, (B,)."""
        trained_B = self._trained(query)
        # A request for one trained user, the most common one, need not count its history.
        return trained_B if _all(trained_B) else trained_B | (positive_events(query) > 0)

    def query_vectors(self, query: Query) -> Tensor:
        """User vectors (B, E): trained, folded in, or the mean user."""
        trained_B = self._trained(query)
        everyone = _all(trained_B)
        # Row 0 stands in for users without a row of their own, and is replaced below.
        row_B = query.user if everyone else query.user.where(trained_B, 0)
        vector_BD = self.user_table.weight.detach().index_select(0, row_B)
        if not everyone:
            vector_BD = vector_BD.where(trained_B[:, None], self.typical)
            fold_B = ~trained_B & (positive_events(query) > 0)
            if bool(fold_B.any()):
                events = events_of(query, fold_B.nonzero().squeeze(1), self.fold_in.recency)
                vector_BD[fold_B] = self.fold_in(self.item_vectors(), self.typical, events).to(vector_BD.dtype)
        return torch.cat([vector_BD, torch.ones_like(vector_BD[:, :1])], 1) if self.bias else vector_BD

    def item_vectors(self) -> Tensor:
        """Item vectors (I, E), the bias in the last column where there is one."""
        return self.item_table.weight.detach()

    def refold(self, train: Dataset) -> None:
        """Give the trained users the vectors that new users with the same histories get."""
        user_U = self.trained.nonzero().squeeze(1)
        history = train.history.select(user_U.cpu().numpy())
        unknown = Query.of(np.full(len(user_U), -1), history, every_event=True).to(user_U.device)
        with torch.no_grad():
            self.user_table.weight[user_U] = self.query_vectors(unknown)[:, : self.dim]

    def _trained(self, query: Query) -> Tensor:
        trained_U = self.trained
        if not trained_U.shape[0]:
            raise ModelError("the model has no users: fit it, or build it for at least one")
        if trained_U.device.type == "cpu":
            # NumPy: both doors of one answer ask for this, and a call of torch costs several times one of NumPy.
            user_B = query.user.numpy()
            if len(user_B) == 1:  # one answer: seven calls on arrays take twice as long
                user = int(user_B[0])
                known = 0 <= user < trained_U.shape[0] and bool(trained_U.numpy()[user])
                return torch.from_numpy(np.array([known]))
            known_B = (user_B >= 0) & (user_B < trained_U.shape[0])
            return torch.from_numpy(trained_U.numpy()[user_B * known_B] & known_B)
        inside_B = query.user.clamp(0, len(trained_U) - 1)
        return trained_U[inside_B] & (inside_B == query.user)


def _all(mask_B: Tensor) -> bool:
    """Whether all are true; in NumPy where it can be, which takes a quarter of the time for one user."""
    return bool((mask_B.numpy() if mask_B.device.type == "cpu" else mask_B).all())


def positive_events(query: Query) -> Tensor:
    """Events per user that are not dislikes, (B,)."""
    if query.offsets is None or query.weights is None:
        return query.counts()
    # Differences of a running sum at the offsets: a sum per history without a loop. In NumPy for the short histories
    # of a request, where five calls of torch would take a tenth of a millisecond.
    if query.weights.device.type == "cpu":
        sums = np.concatenate([[0], (query.weights.detach().numpy() >= 0).cumsum()])[query.offsets.numpy()]
        return torch.from_numpy(sums[1:] - sums[:-1])
    before = F.pad((query.weights >= 0).long().cumsum(0), (1, 0))
    return before[query.offsets].diff()


def events_of(query: Query, index_S: Tensor, recency: Recency) -> Events:
    """The histories of some rows of a query."""
    assert query.offsets is not None
    assert query.items is not None
    weights = torch.ones_like(query.items, dtype=torch.float32) if query.weights is None else query.weights
    if len(index_S) == len(query):  # all rows, such as one new user: nothing to gather
        return Events(query.offsets, query.items, weights, recency.weights(query.offsets))
    count_S = query.counts()[index_S]
    offsets = F.pad(count_S.cumsum(0), (1, 0))
    shift_H = torch.repeat_interleave(query.offsets[index_S] - offsets[:-1], count_S)
    place_H = shift_H + torch.arange(len(shift_H), device=shift_H.device)
    return Events(offsets, query.items[place_H], weights[place_H], recency.weights(offsets))


def covariance_root(vector_UD: Tensor) -> Tensor:
    """Lower Cholesky factor (D, D) of the covariance of the vectors: the prior of a new user's vector."""
    centered_UD = vector_UD - vector_UD.mean(0)
    covariance_DD = centered_UD.T @ centered_UD / len(vector_UD)
    # Fewer users than dimensions, or a dead dimension, leave the covariance singular.
    ridge = 1e-6 + 1e-4 * covariance_DD.diagonal().mean()
    root_DD: Tensor = torch.linalg.cholesky(covariance_DD + ridge * torch.eye(len(covariance_DD)))
    return root_DD
