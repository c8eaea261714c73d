"""The fitted form of every dot-product model: a vector per user, a vector per item, and a rule for strangers.

    score(u, i) = p_u . q_i               (with a bias: p_u = [.. ; 1] and q_i = [.. ; b_i])

An item's bias is the last column of its vector and every user's last coordinate is 1, so an index that searches by dot
product needs to know nothing about biases.

A stranger with a history gets a vector from the model's fold-in, a function of that history alone. One without a single
event that is not a dislike gets the mean of the trained users, and ``can_personalize`` is False.

Shape legend: B users of a query, C candidates, I items, S strangers, H their events together (CSR), D width of a user
vector, E width of an item vector (D, or D + 1 with a bias).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.base import DataSpec, Query
from palate.data.dataset import Dataset, Fingerprint
from palate.errors import ModelError
from palate.models.recency import Recency
from palate.training.layers import dot_products

__all__ = [
    "EVENLY",
    "DotProductModel",
    "Events",
    "FoldIn",
    "GradientFoldIn",
    "Objective",
    "UserBatch",
    "decaying_adam",
    "events_of",
    "likes",
    "penalty",
    "predict",
    "user_batches",
]

EVENLY = Recency()
# Numbers of gathered vectors, or of scores, held at once: bounds memory to about 130 MB at any size.
CELLS = 32_000_000
FOLD_CELLS = 2_000_000  # the same for the gradient fold-in, which holds several arrays of this size and is run often


class Events(NamedTuple):
    """Histories of S strangers in compressed rows, oldest first.

    offsets (S + 1,); items (H,); weights (H,), below 0 for dislikes; recency (H,), what an event counts by its age.
    """

    offsets: Tensor
    items: Tensor
    weights: Tensor
    recency: Tensor


class FoldIn(nn.Module):
    """How a model gives a stranger a vector; a module, so that what it needs to know is saved with the weights.

    Args:
        recency: how much events count by their age. Where they do not count alike, trained users get their vector by
            the same rule once training is over: item vectors learn from all events, user vectors lean on the latest.
    """

    def __init__(self, recency: Recency = EVENLY) -> None:
        super().__init__()
        self.recency = recency

    def settle(self, user_UD: Tensor) -> None:
        """Take what is needed from the trained users' vectors, once training is over; nothing unless overridden."""

    def forward(self, item_IE: Tensor, typical_D: Tensor, events: Events) -> Tensor:
        """User vectors (S, D), each a function of its own history."""
        raise NotImplementedError


class DotProductModel(nn.Module):
    """User vectors, item vectors and their dot product.

    Args:
        spec: rows of the tables.
        dim: width D of a user vector.
        fold_in: how strangers get a vector.
        bias: give every item a bias, the last column of its vector.
        std: of the normal distribution that the vectors (not the biases) start from.
    """

    trained_on: Fingerprint | None = None
    trained: Tensor
    typical: Tensor

    def __init__(self, spec: DataSpec, dim: int, fold_in: FoldIn, *, bias: bool = False, std: float = 0.01) -> None:
        super().__init__()
        self.dim, self.bias, self.fold_in = dim, bias, fold_in
        self.user_table = nn.Embedding(spec.users, dim)
        self.item_table = nn.Embedding(spec.items, dim + bias)
        self.register_buffer("trained", torch.ones(spec.users, dtype=torch.bool))
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
            vector_UD = self.user_table.weight[self.trained]
            self.typical.copy_(vector_UD.mean(0))
            self.fold_in.settle(vector_UD)
        self.trained_on = train.fingerprint
        self.eval()
        if self.fold_in.recency != EVENLY:
            self.refold(train)

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        """Dot products: (B, C) or (B, I)."""
        return dot_products(self.query_vectors(query), self.item_vectors(), items)

    def can_personalize(self, query: Query) -> Tensor:
        """Users with training rows, and strangers with at least one event that is not a dislike."""
        return self._trained(query) | (likes(query) > 0)

    def query_vectors(self, query: Query) -> Tensor:
        """User vectors (B, E): trained, folded in, or the mean user."""
        trained_B = self._trained(query)
        vector_BD = self.user_table.weight[query.user.where(trained_B, 0)].detach()
        if not bool(trained_B.all()):
            vector_BD = vector_BD.where(trained_B[:, None], self.typical)
            fold_B = ~trained_B & (likes(query) > 0)
            if bool(fold_B.any()):
                events = events_of(query, fold_B.nonzero().squeeze(1), self.fold_in.recency)
                vector_BD[fold_B] = self.fold_in(self.item_vectors(), self.typical, events).to(vector_BD.dtype)
        return torch.cat([vector_BD, torch.ones_like(vector_BD[:, :1])], 1) if self.bias else vector_BD

    def item_vectors(self) -> Tensor:
        """Item vectors (I, E), the bias in the last column where there is one."""
        return self.item_table.weight.detach()

    def refold(self, train: Dataset) -> None:
        """Give the trained users the vectors that strangers with their histories get."""
        user_U = self.trained.nonzero().squeeze(1)
        history = train.history.select(user_U.cpu().numpy())
        strangers = Query.of(np.full(len(user_U), -1), history).to(user_U.device)
        with torch.no_grad():
            self.user_table.weight[user_U] = self.query_vectors(strangers)[:, : self.dim]

    def _trained(self, query: Query) -> Tensor:
        inside_B = (query.user >= 0) & (query.user < len(self.trained))
        if not len(self.trained):
            raise ModelError("the model has no users: fit it, or build it for at least one")
        return inside_B & self.trained[query.user.where(inside_B, 0)]


class UserBatch(NamedTuple):
    """B users with all their H events, and N items drawn for all of them together.

    user (B,) row numbers; sizes (B,) events of each; owner (H,) whose event it is, by place in the batch; item (H,);
    sign (H,) 1 or, for a dislike, -1; strength (H,) how much it counts, adding up to ``sizes``; pool (N,) item rows;
    share (B, N) chance of each to be the user's next negative: uniform over the items of the pool that the user has not
    touched, 0 elsewhere.
    """

    user: Tensor
    sizes: Tensor
    owner: Tensor
    item: Tensor
    sign: Tensor
    strength: Tensor
    pool: Tensor
    share: Tensor


Objective = Callable[[Tensor, Tensor, UserBatch], Tensor]
"""(user vectors (B, D) of a batch, item vectors (I, E), the batch) -> the training loss summed over it."""


def user_batches(train: Dataset, size: int, pool: int, rng: np.random.Generator) -> Iterator[UserBatch]:
    """All users with rows in random order, ``size`` at a time, each time with a new uniform pool of distinct items.

    One pool for a whole batch makes scoring the negatives one matrix product, so hundreds cost less than a handful
    drawn for each event. What is left of the pool for a user is uniform over the items that the user has not touched.
    """
    history = train.history
    users = rng.permutation(np.flatnonzero(history.counts))
    for first in range(0, len(users), size):
        some = users[first : first + size]
        chosen = history.select(some)
        drawn = np.sort(rng.choice(train.n_items, min(pool, train.n_items), replace=False))
        evenly = np.ones(len(chosen.items), np.float32)
        arrays = (some, chosen.offsets, chosen.items.astype(np.int64), chosen.weights, evenly, drawn)
        yield _user_batch(*(torch.from_numpy(array) for array in arrays))


def predict(user_BD: Tensor, item_IE: Tensor, batch: UserBatch) -> tuple[Tensor, Tensor]:
    """Scores of the events (H,) and of the pool (B, N)."""
    dim = user_BD.shape[1]
    event_HE, pool_NE = F.embedding(batch.item, item_IE), F.embedding(batch.pool, item_IE)
    event_H = (F.embedding(batch.owner, user_BD) * event_HE[:, :dim]).sum(1) + event_HE[:, dim:].sum(1)
    return event_H, user_BD @ pool_NE[:, :dim].T + pool_NE[:, dim:].sum(1)


def penalty(user_BD: Tensor, item_IE: Tensor, batch: UserBatch, negatives: int) -> Tensor:
    """Half the squared length of all vectors, each as often as it occurs in the events and their negatives."""
    dim = user_BD.shape[1]
    square_N = F.embedding(batch.pool, item_IE)[:, :dim].square().sum(1)
    items = F.embedding(batch.item, item_IE)[:, :dim].square().sum() + negatives * (
        batch.sizes.float() @ batch.share @ square_N
    )
    return 0.5 * ((1 + negatives) * (batch.sizes * user_BD.square().sum(1)).sum() + items)


def decaying_adam(
    module: DotProductModel, user_learning_rate: float, item_learning_rate: float, steps: int
) -> torch.optim.Optimizer:
    """Fused Adam whose learning rates fall linearly to nearly zero over so many steps; resumes from its own state."""
    groups = ((module.user_table, user_learning_rate), (module.item_table, item_learning_rate))
    adam = torch.optim.Adam([{"params": t.parameters(), "lr": r, "initial_lr": r} for t, r in groups], fused=True)

    def decay(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = max(group["lr"] - group["initial_lr"] / (steps + 1), 0.0)

    adam.register_step_post_hook(decay)
    return adam


class GradientFoldIn(FoldIn):
    """The likeliest vector p = m + L z of a stranger: Adam with a falling rate from z = 0 on, the items fixed, on

        training loss of the history, without its penalty, + |z|^2 / 2

    where m and L L^T are mean and covariance of the trained users' vectors: their distribution is the prior of a new
    one. Negatives are all items of a small catalog, or evenly spaced ones of a large one. Weights by recency are
    scaled to add up to the number of events, so that loss and prior keep their balance. Memory is bounded: strangers
    are taken in chunks.

    Args:
        dim: width D of a user vector.
        objective: the training loss, summed, without its penalty.
        steps: of Adam.
        rate: its first learning rate.
        probes: at most so many items stand for the catalog.
        recency: see ``FoldIn``.
    """

    spread: Tensor

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        steps: int = 30,
        rate: float = 0.2,
        probes: int = 1024,
        recency: Recency = EVENLY,
    ) -> None:
        super().__init__(recency)
        self.objective, self.steps, self.rate, self.probes = objective, steps, rate, probes
        self.register_buffer("spread", torch.eye(dim))  # L, lower triangular

    def settle(self, user_UD: Tensor) -> None:
        """Measure the spread; a small ridge makes it full rank."""
        centred_UD = user_UD - user_UD.mean(0)
        covariance_DD = centred_UD.T @ centred_UD / len(user_UD)
        ridge = 1e-6 + 1e-4 * covariance_DD.diagonal().mean()
        self.spread.copy_(torch.linalg.cholesky(covariance_DD + ridge * torch.eye(len(covariance_DD))))

    def forward(self, item_IE: Tensor, typical_D: Tensor, events: Events) -> Tensor:
        """Vectors (S, D)."""
        count = min(self.probes, len(item_IE))
        pool_N = torch.arange(count, device=item_IE.device) * len(item_IE) // count
        # Objectives may hold a number for each event and probe.
        chunk_S = events.offsets[:-1] * (count + item_IE.shape[1]) // FOLD_CELLS
        sizes = chunk_S.unique_consecutive(return_counts=True)[1].tolist()
        with torch.inference_mode(False), torch.enable_grad():
            used_M = torch.cat([pool_N, events.items]).unique()
            pool_N, items_H = (torch.searchsorted(used_M, rows) for rows in (pool_N, events.items))
            rest = (pool_N, events.offsets, items_H, events.weights, events.recency)
            copied = (t.clone() for t in (typical_D, self.spread, *rest))
            fixed = (item_IE[used_M], *copied)
            firsts = itertools.accumulate(sizes, initial=0)
            return torch.cat([self._some(first, size, *fixed) for first, size in zip(firsts, sizes, strict=False)])

    def _some(
        self, first: int, count: int, item_IE: Tensor, mean_D: Tensor, spread_DD: Tensor, *rest: Tensor
    ) -> Tensor:
        pool_N, offsets, items, weights, recency = rest
        some = offsets[first : first + count + 1]
        part = slice(int(some[0]), int(some[-1]))
        user = torch.full((count,), -1, device=some.device)
        batch = _user_batch(user, some - some[0], items[part], weights[part], recency[part], pool_N)
        z_SD = mean_D.new_zeros(count, len(mean_D)).requires_grad_()
        adam = torch.optim.Adam([z_SD], lr=self.rate)
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = self.rate * (1 - step / self.steps)
            loss = self.objective(mean_D + z_SD @ spread_DD.T, item_IE, batch) + z_SD.square().sum() / 2
            (z_SD.grad,) = torch.autograd.grad(loss, [z_SD])
            adam.step()
        return (mean_D + z_SD @ spread_DD.T).detach()


def _user_batch(
    user: Tensor, offsets: Tensor, item: Tensor, weight: Tensor, recency: Tensor, pool: Tensor
) -> UserBatch:
    count = offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(user), device=user.device), count)
    place = torch.searchsorted(pool, item).clamp(max=len(pool) - 1)
    inside = pool[place] == item
    free = torch.ones(len(user), len(pool), device=user.device)
    free[owner[inside], place[inside]] = 0
    share = free / free.sum(1, keepdim=True).clamp(min=1)
    sign = torch.where(weight < 0, -1.0, 1.0)
    total = torch.zeros(len(user), device=user.device).index_add_(0, owner, recency)
    strength = recency * (count / total)[owner]
    return UserBatch(user, count, owner, item, sign, strength, pool, share)


def likes(query: Query) -> Tensor:
    """Events per user that are not dislikes, (B,)."""
    if query.offsets is None or query.weights is None:
        return query.counts()
    before = F.pad((query.weights >= 0).long().cumsum(0), (1, 0))
    return before[query.offsets].diff()


def events_of(query: Query, index_S: Tensor, recency: Recency) -> Events:
    """The histories of some rows of a query."""
    assert query.offsets is not None
    assert query.items is not None
    count_S = query.counts()[index_S]
    offsets = F.pad(count_S.cumsum(0), (1, 0))
    shift_H = torch.repeat_interleave(query.offsets[index_S] - offsets[:-1], count_S)
    place_H = shift_H + torch.arange(len(shift_H), device=shift_H.device)
    items = query.items[place_H]
    weights = torch.ones_like(items, dtype=torch.float32) if query.weights is None else query.weights[place_H]
    return Events(offsets, items, weights, recency.weights(offsets))
